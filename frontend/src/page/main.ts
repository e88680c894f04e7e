import { Api } from '../client/http';
import { App } from './app';

void new App(new Api()).start();
