/** Logged in or not: the page's head, and the welcome in front of everything else. */

import type { Session } from '../client/http';
import { byId } from './dom';

export interface SessionActions {
  /** The browser is about to go to the login page. */
  leaving(): void;
  logout(): void;
}

export class SessionView {
  private readonly who = byId('who', HTMLDivElement);
  private readonly hero = byId('hero', HTMLElement);
  private readonly workspace = byId('workspace', HTMLDivElement);
  private readonly notice = byId('hero-notice', HTMLParagraphElement);
  private readonly login = byId('login', HTMLAnchorElement);

  constructor(actions: SessionActions) {
    byId('logout', HTMLButtonElement).addEventListener('click', () => actions.logout());
    for (const link of [this.login, byId('relogin', HTMLAnchorElement)]) {
      link.addEventListener('click', () => actions.leaving());
    }
  }

  in(session: Session): void {
    byId('who-initial', HTMLSpanElement).textContent = (session.name[0] ?? '?').toUpperCase();
    byId('who-name', HTMLElement).textContent = session.name;
    byId('who-tenant', HTMLSpanElement).textContent = session.tenant;
    this.who.hidden = false;
    this.hero.hidden = true;
    this.workspace.hidden = false;
  }

  out(notice: string): void {
    this.who.hidden = true;
    this.workspace.hidden = true;
    this.hero.hidden = false;
    this.notice.hidden = notice === '';
    this.notice.textContent = notice;
  }

  focusLogin(): void {
    this.login.focus();
  }
}
