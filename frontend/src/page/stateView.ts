/** The line that says how things stand: connecting, live, refused, revoked, expired, offline. */

import { byId } from './dom';
import type { State, StateName } from './words';

/** A sign per state, so that it does not depend on seeing its colour. */
const SIGNS: Readonly<Record<StateName, string>> = {
  idle: '○',
  connecting: '◌',
  live: '●',
  refused: '✕',
  revoked: '⊘',
  expired: '⏱',
  offline: '⚡',
};

export class StateView {
  private readonly box = byId('state', HTMLDivElement);
  private readonly mark = byId('state-mark', HTMLSpanElement);
  private readonly title = byId('state-title', HTMLElement);
  private readonly detail = byId('state-detail', HTMLSpanElement);
  private readonly relogin = byId('relogin', HTMLAnchorElement);
  private readonly retry = byId('retry', HTMLButtonElement);
  private readonly copy = byId('copy-link', HTMLButtonElement);
  private readonly leave = byId('leave', HTMLButtonElement);

  show(state: State, hasRoom: boolean): void {
    this.box.dataset['state'] = state.name;
    this.mark.textContent = SIGNS[state.name];
    // Written only when it differs: a live region speaks whenever it is written to.
    if (this.title.textContent !== state.title) this.title.textContent = state.title;
    if (this.detail.textContent !== state.detail) this.detail.textContent = state.detail;
    this.relogin.hidden = state.name !== 'expired';
    this.retry.hidden = state.name !== 'offline';
    this.copy.hidden = !hasRoom;
    this.leave.hidden = !hasRoom;
  }
}
