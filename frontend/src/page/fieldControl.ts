/** One field of a document as a labelled control, by the kind of its value. */

import { type Json } from '../client/json';
import { h } from './dom';

export type FieldKind = 'text' | 'number' | 'boolean' | 'json';

export const KINDS: Readonly<Record<FieldKind, string>> = {
  text: 'Text',
  number: 'Number',
  boolean: 'Yes or no',
  json: 'JSON',
};

export const EMPTY: Readonly<Record<FieldKind, Json>> = { text: '', number: 0, boolean: false, json: {} };

/** Fields that people write more than a line into. */
const LONG: readonly string[] = ['text', 'body', 'content', 'description', 'message'];
const LINE = 70;

/** A value that the control cannot turn into JSON. */
export class NotAValue extends Error {}

export interface FieldControl {
  readonly name: string;
  readonly element: HTMLElement;
  readonly input: HTMLElement;
  /** The value as it is now; throws `NotAValue`. */
  read(): Json;
}

let count = 0;

function kindOf(value: Json): FieldKind {
  if (typeof value === 'string') return 'text';
  if (typeof value === 'number') return 'number';
  return typeof value === 'boolean' ? 'boolean' : 'json';
}

export function fieldControl(name: string, value: Json, onRemove: () => void): FieldControl {
  const id = `field-${(count += 1)}`;
  const kind = kindOf(value);
  const [input, read] = controlOf(id, name, kind, value);
  const label = h('label', { class: 'mono', text: name, attributes: { for: id } });
  const remove = h('button', {
    class: 'quiet icon',
    text: '×',
    attributes: { type: 'button', 'aria-label': `Remove ${name}`, title: `Remove ${name}` },
    on: { click: onRemove },
  });
  const element =
    kind === 'boolean'
      ? h('div', { class: 'field check' }, input, label, remove)
      : h('div', { class: 'field' }, h('div', { class: 'field-head' }, label, remove), input);
  return { name, element, input, read };
}

function controlOf(id: string, name: string, kind: FieldKind, value: Json): [HTMLElement, () => Json] {
  switch (kind) {
    case 'boolean': {
      const box = h('input', { attributes: { id, type: 'checkbox', checked: value === true } });
      return [box, () => box.checked];
    }
    case 'number': {
      const input = h('input', { attributes: { id, type: 'text', inputmode: 'decimal', value: String(value) } });
      return [
        input,
        () => {
          const number = Number(input.value);
          if (input.value.trim() === '' || !Number.isFinite(number))
            throw new NotAValue(`${name} is not a number.`);
          return number;
        },
      ];
    }
    case 'json': {
      const area = textarea(id, JSON.stringify(value, null, 2), 'mono');
      return [area, () => parseJson(area.value, name)];
    }
    case 'text': {
      const text = String(value);
      const long = LONG.includes(name) || text.length > LINE || text.includes('\n');
      const input = long ? textarea(id, text, '') : h('input', { attributes: { id, type: 'text', value: text } });
      return [input, () => input.value];
    }
  }
}

export function textarea(id: string, value: string, kind: string): HTMLTextAreaElement {
  const rows = Math.min(16, Math.max(3, value.split('\n').length));
  const area = h('textarea', {
    class: kind,
    attributes: { id, rows: String(rows), spellcheck: kind === '' ? 'true' : 'false' },
  });
  area.value = value;
  return area;
}

export function parseJson(text: string, what: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    throw new NotAValue(`${what} is not valid JSON: ${error instanceof Error ? error.message : ''}`);
  }
}
