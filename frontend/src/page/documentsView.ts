/** The live documents of the room: one table each, with what the last event changed marked. */

import type { JsonObject } from '../client/json';
import type { Room } from '../client/room';
import { byId, h, hiddenText } from './dom';
import { rowsOf, type Row } from './rows';
import { announcement, opInPast } from './words';

export interface DocumentActions {
  edit(collection: string, document: JsonObject): void;
  remove(collection: string, document: JsonObject): void;
}

const MARKS = {
  added: { sign: '+', word: 'new' },
  changed: { sign: '•', word: 'changed' },
  removed: { sign: '−', word: 'removed' },
};
const MOST_ROWS = 500;
const DEEPEST_INDENT = 6;
/** Changes that come within this time are announced together; a screen reader could not keep up otherwise. */
const ANNOUNCE_MS = 700;

export class DocumentsView {
  private readonly list = byId('documents', HTMLDivElement);
  private readonly announcer = byId('announcer', HTMLDivElement);
  private announceTimer: ReturnType<typeof setTimeout> | undefined;
  private frame = 0;
  private readonly showAll = new Set<string>();

  constructor(private readonly actions: DocumentActions) {}

  /** Draws the room, once per frame however many events came. */
  show(room: Room, editable: boolean): void {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw(room, editable));
  }

  announce(room: Room): void {
    const change = room.lastChange;
    if (change === null) return;
    clearTimeout(this.announceTimer);
    this.announceTimer = setTimeout(() => {
      const line = h('p', { text: announcement(change.collection, change.op, change.changes) });
      this.announcer.replaceChildren(line);
    }, ANNOUNCE_MS);
  }

  /** What may no longer be seen does not stay in the page either, not even hidden. */
  clear(): void {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.announceTimer);
    this.list.replaceChildren();
    this.announcer.replaceChildren();
    this.showAll.clear();
  }

  private draw(room: Room, editable: boolean): void {
    const focused =
      document.activeElement instanceof HTMLElement ? document.activeElement.dataset['key'] : undefined;
    const cards = [...room.documents].flatMap(([collection, documents]) =>
      documents.map((document, index) => this.card(room, collection, document, index, editable)),
    );
    if (room.lastChange?.op === 'delete') {
      const { collection } = room.lastChange;
      cards.push(h('p', { class: 'notice', text: `The document in ${collection} was deleted.` }));
    }
    this.list.replaceChildren(...cards);
    // The buttons are new ones: whoever was on one of them with the keyboard stays there.
    if (focused !== undefined) {
      for (const button of this.list.querySelectorAll('button')) {
        if (button.dataset['key'] === focused) button.focus({ preventScroll: true });
      }
    }
  }

  private card(
    room: Room,
    collection: string,
    document: JsonObject,
    index: number,
    editable: boolean,
  ): HTMLElement {
    const last =
      room.lastChange?.collection === collection && room.lastChange.index === index ? room.lastChange : null;
    const rows = rowsOf(document, last?.op === 'insert' ? [] : (last?.changes ?? []));
    const key = `${collection}/${index}`;
    const shown = this.showAll.has(key) ? rows : rows.slice(0, MOST_ROWS);
    const more = rows.length - shown.length;
    const button = (text: string, act: () => void, kind = ''): HTMLElement =>
      h(
        'button',
        { class: kind, attributes: { type: 'button', 'data-key': `${text} ${key}` }, on: { click: act } },
        text,
        hiddenText(` the document in ${collection}`),
      );
    return h(
      'article',
      { class: 'doc', attributes: { 'data-collection': collection, 'data-testid': `document-${collection}` } },
      h(
        'div',
        { class: 'doc-head' },
        h('h3', {}, h('span', { class: 'tag mono', text: collection })),
        last === null ? null : h('span', { class: 'muted small', text: `${opInPast(last.op)} ${clock(last.at)}` }),
        h(
          'span',
          { class: 'doc-actions' },
          editable ? button('Edit', () => this.actions.edit(collection, document)) : null,
          editable ? button('Delete', () => this.actions.remove(collection, document), 'quiet danger-text') : null,
        ),
      ),
      table(collection, shown),
      more > 0
        ? button(`Show ${more} more fields`, () => {
            this.showAll.add(key);
            this.draw(room, editable);
          })
        : null,
    );
  }
}

export function clock(at: string): string {
  const moment = new Date(at);
  return Number.isNaN(moment.valueOf()) ? '' : moment.toLocaleTimeString();
}

function table(collection: string, rows: readonly Row[]): HTMLElement {
  const heads = ['Field', 'Value', 'Last change'].map((text) =>
    h('th', { text, attributes: { scope: 'col', role: 'columnheader' } }),
  );
  return h(
    'table',
    // The roles are said again because a narrow screen lays the rows out as blocks, which ends a table's own roles.
    { class: 'fields', attributes: { role: 'table' } },
    h('caption', { class: 'visually-hidden', text: `Fields of the document in ${collection}` }),
    h(
      'thead',
      { class: 'visually-hidden', attributes: { role: 'rowgroup' } },
      h('tr', { attributes: { role: 'row' } }, ...heads),
    ),
    h('tbody', { attributes: { role: 'rowgroup' } }, ...rows.map(tableRow)),
  );
}

function tableRow(row: Row): HTMLElement {
  const mark = row.mark === null ? null : MARKS[row.mark];
  const parent = row.path.slice(0, -1).map((name) => `${name}.`);
  return h(
    'tr',
    {
      class: row.mark === null ? '' : `mark mark-${row.mark}`,
      attributes: { role: 'row', 'data-path': row.path.join('.'), 'data-mark': row.mark ?? '' },
    },
    h(
      'th',
      {
        class: `name indent-${Math.min(row.depth, DEEPEST_INDENT)}`,
        attributes: { scope: 'row', role: 'rowheader' },
      },
      parent.length > 0 ? hiddenText(parent.join('')) : null,
      row.name,
    ),
    h(
      'td',
      { class: `value type-${row.type}`, attributes: { role: 'cell' } },
      row.mark === 'removed' ? h('del', { text: row.value }) : shownValue(row),
    ),
    h(
      'td',
      { class: 'change', attributes: { role: 'cell' } },
      mark === null
        ? null
        : h(
            'span',
            { class: 'badge' },
            h('span', { text: mark.sign, attributes: { 'aria-hidden': 'true' } }),
            mark.word,
          ),
    ),
  );
}

function shownValue(row: Row): Node | string {
  return row.value === '' ? h('span', { class: 'muted', text: 'empty' }) : row.value;
}
