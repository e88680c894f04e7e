/** Where two versions of a document differ. Pure. */

import { isObject, isTyped, sameJson, type Json, type JsonObject } from './json';

export type Path = readonly string[];

export interface Change {
  readonly path: Path;
  readonly kind: 'added' | 'changed' | 'removed';
  /** The value that is gone, for a removal. */
  readonly before?: Json;
}

type Parts = ReadonlyMap<string, Json>;

function parts(value: Json): Parts | null {
  if (Array.isArray(value)) return new Map(value.map((item: Json, index) => [String(index), item]));
  if (isObject(value) && !isTyped(value)) return new Map(Object.entries(value));
  return null;
}

/** The smallest list of changes that leads from one version to the other, in the order of the fields. */
export function difference(before: Json, after: Json, path: Path = []): Change[] {
  if (sameJson(before, after)) return [];
  const old = parts(before);
  const now = parts(after);
  if (old === null || now === null || Array.isArray(before) !== Array.isArray(after)) {
    return [{ path, kind: 'changed' }];
  }
  const changes: Change[] = [];
  for (const [name, value] of now) {
    const previous = old.get(name);
    if (previous === undefined) changes.push({ path: [...path, name], kind: 'added' });
    else changes.push(...difference(previous, value, [...path, name]));
  }
  for (const [name, value] of old) {
    if (!now.has(name)) changes.push({ path: [...path, name], kind: 'removed', before: value });
  }
  return changes;
}

/** What a merge patch cannot say: RFC 7396 uses null for removal. */
export class CannotPatch extends Error {
  constructor(readonly path: Path) {
    super(`A merge patch cannot set "${path.join('.')}" to null`);
    this.name = 'CannotPatch';
  }
}

function refuseNull(value: Json, path: Path): Json {
  if (value === null) throw new CannotPatch(path);
  if (isObject(value)) {
    for (const [name, item] of Object.entries(value)) refuseNull(item, [...path, name]);
  }
  return value;
}

/** The merge patch (RFC 7396) that leads from one document to the other; empty when they are the same. */
export function mergePatch(before: JsonObject, after: JsonObject, path: Path = []): JsonObject {
  const entries: [string, Json][] = [];
  for (const [name, value] of Object.entries(after)) {
    const here = [...path, name];
    const previous = Object.hasOwn(before, name) ? (before[name] as Json) : undefined;
    if (previous !== undefined && sameJson(previous, value)) continue;
    const mergeable = isObject(previous) && isObject(value) && !isTyped(previous) && !isTyped(value);
    if (mergeable) entries.push([name, mergePatch(previous, value, here)]);
    else entries.push([name, refuseNull(value, here)]);
  }
  for (const name of Object.keys(before)) {
    if (!Object.hasOwn(after, name)) entries.push([name, null]);
  }
  return Object.fromEntries(entries);
}
