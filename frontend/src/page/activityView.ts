/** The log of what came over the connection, the newest first. */

import type { ChangeEvent } from '../client/protocol';
import { byId, h } from './dom';
import { clock } from './documentsView';
import { fieldsOf, opInPast } from './words';

const MOST_ENTRIES = 100;
const MOST_FIELDS = 8;

export class ActivityView {
  private readonly list = byId('activity', HTMLOListElement);

  constructor() {
    byId('activity-clear', HTMLButtonElement).addEventListener('click', () => this.clear());
  }

  clear(): void {
    this.list.replaceChildren();
  }

  event(event: ChangeEvent): void {
    const fields = fieldsOf(event);
    const named = fields.slice(0, MOST_FIELDS).map((field) => h('code', { class: 'tag', text: field }));
    const more = fields.length - named.length;
    this.add(
      event.meta.op,
      opInPast(event.meta.op),
      event.meta.at,
      h('span', { class: 'muted', text: event.collection }),
      h('span', { class: 'tags' }, ...named, more > 0 ? `and ${more} more` : null),
      h(
        'details',
        {},
        h('summary', { text: 'Data' }),
        h('pre', { class: 'mono', text: JSON.stringify(event.data, null, 2), attributes: { tabindex: '0' } }),
      ),
    );
  }

  /** Something about the connection itself. */
  note(kind: string, label: string, text = ''): void {
    this.add(kind, label, new Date().toISOString(), h('span', { class: 'muted', text }));
  }

  private add(kind: string, label: string, at: string, ...content: readonly (Node | string)[]): void {
    const entry = h(
      'li',
      { class: 'entry', attributes: { 'data-op': kind } },
      h('span', { class: `op op-${kind}`, text: label }),
      h('time', { class: 'muted small', text: clock(at), attributes: { datetime: at } }),
      h('div', { class: 'entry-body' }, ...content),
    );
    this.list.prepend(entry);
    while (this.list.children.length > MOST_ENTRIES) this.list.lastElementChild?.remove();
  }
}
