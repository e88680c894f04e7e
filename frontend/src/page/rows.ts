/** A document as the rows of a table, what changed marked. Pure. */

import type { Change, Path } from '../client/changes';
import { isObject, isTyped, type Json, type JsonObject } from '../client/json';

export interface Row {
  readonly path: Path;
  readonly name: string;
  readonly depth: number;
  /** How the value reads; for an object or array what is in it. */
  readonly value: string;
  readonly type: 'text' | 'number' | 'boolean' | 'null' | 'special' | 'object' | 'list';
  readonly mark: Change['kind'] | null;
}

function counted(count: number, one: string): string {
  return count === 1 ? `1 ${one}` : `${count} ${one}s`;
}

function special(value: JsonObject): string {
  const [name] = Object.keys(value);
  const content = name === undefined ? null : (value[name] as Json);
  if (name === '$date' && typeof content === 'string') {
    const at = new Date(content);
    return Number.isNaN(at.valueOf())
      ? content
      : at.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
  }
  if (name === '$binary' && isObject(content) && typeof content['base64'] === 'string') {
    const base64 = content['base64'];
    return counted(Math.floor((base64.replace(/=+$/, '').length * 3) / 4), 'byte');
  }
  return typeof content === 'string' ? content : JSON.stringify(value);
}

function reading(value: Json): Pick<Row, 'value' | 'type'> {
  if (value === null) return { value: 'null', type: 'null' };
  if (Array.isArray(value)) return { value: counted(value.length, 'item'), type: 'list' };
  if (isObject(value)) {
    if (isTyped(value)) return { value: special(value), type: 'special' };
    return { value: counted(Object.keys(value).length, 'field'), type: 'object' };
  }
  switch (typeof value) {
    case 'number':
      return { value: String(value), type: 'number' };
    case 'boolean':
      return { value: String(value), type: 'boolean' };
    default:
      return { value: String(value), type: 'text' };
  }
}

function keyOf(path: Path): string {
  return JSON.stringify(path);
}

/** Every field, the innermost ones indented below what they are part of; fields that have just gone come last. */
export function rowsOf(document: JsonObject, changes: readonly Change[]): Row[] {
  const marks = new Map(changes.map((change) => [keyOf(change.path), change.kind]));
  const gone = new Map<string, Change[]>();
  for (const change of changes) {
    if (change.kind !== 'removed') continue;
    const parent = keyOf(change.path.slice(0, -1));
    gone.set(parent, [...(gone.get(parent) ?? []), change]);
  }
  const rows: Row[] = [];
  const walk = (value: Json, path: Path, inherited: Row['mark']): void => {
    const entries: [string, Json][] = Array.isArray(value)
      ? (value as readonly Json[]).map((item, index) => [String(index), item])
      : isObject(value) && !isTyped(value)
        ? Object.entries(value)
        : [];
    for (const [name, item] of entries) {
      const here = [...path, name];
      if (path.length === 0 && name === 'uuid') continue;
      const mark = marks.get(keyOf(here)) ?? inherited;
      rows.push({ path: here, name, depth: path.length, ...reading(item), mark });
      walk(item, here, mark);
    }
    for (const { path: removed, before } of gone.get(keyOf(path)) ?? []) {
      const name = removed[removed.length - 1] ?? '';
      rows.push({ path: removed, name, depth: path.length, ...reading(before ?? null), mark: 'removed' });
    }
  };
  walk(document, [], null);
  return rows;
}
