/** Documents of one room, and how a change event alters them. Pure: every function returns new values. */

import { isObject, isTyped, withField, withoutField, type Json, type JsonObject } from './json';
import type { ChangeEvent, Meta, Snapshot } from './protocol';

/** By collection. Several documents of one collection may share the UUID when its key is `uuid`. */
export type Documents = ReadonlyMap<string, readonly JsonObject[]>;

export function fromSnapshot(snapshot: Snapshot): Documents {
  return new Map(Object.entries(snapshot).filter(([, documents]) => documents.length > 0));
}

/** A change does not fit the local state; only a fresh snapshot helps. */
class DoesNotFit extends Error {}

function edit(value: Json, path: readonly string[], change: (old: Json | undefined) => Json | undefined): Json {
  const [name, ...rest] = path;
  if (name === undefined) throw new DoesNotFit();
  if (Array.isArray(value)) {
    if (!/^\d+$/.test(name)) throw new DoesNotFit();
    const index = Number(name);
    if (index > value.length) throw new DoesNotFit();
    const items = [...(value as readonly Json[])];
    const next = rest.length > 0 ? edit(known(items[index]), rest, change) : change(items[index]);
    items[index] = next === undefined ? null : next;
    return items;
  }
  if (!isObject(value) || isTyped(value)) throw new DoesNotFit();
  const old = Object.hasOwn(value, name) ? (value[name] as Json) : undefined;
  const next = rest.length > 0 ? edit(known(old), rest, change) : change(old);
  return next === undefined ? withoutField(value, name) : withField(value, name, next);
}

function known(value: Json | undefined): Json {
  if (value === undefined) throw new DoesNotFit();
  return value;
}

/** An update applied to a document: arrays cut first, then fields set, then fields taken out. */
export function update(document: JsonObject, data: JsonObject, meta: Meta): JsonObject | null {
  try {
    let next: Json = document;
    for (const { field, newSize } of meta.truncated) {
      next = edit(next, field.split('.'), (old) => {
        if (!Array.isArray(old)) throw new DoesNotFit();
        return (old as readonly Json[]).slice(0, newSize);
      });
    }
    for (const [field, value] of Object.entries(data)) {
      if (field !== 'uuid') next = edit(next, field.split('.'), () => value);
    }
    for (const field of meta.removed) next = edit(next, field.split('.'), () => undefined);
    return next as JsonObject;
  } catch (error) {
    if (error instanceof DoesNotFit) return null;
    throw error;
  }
}

function identity(document: JsonObject): string {
  return JSON.stringify(document['_id'] ?? null);
}

/** The documents after the event, or null when they cannot be known without a fresh snapshot. */
export function apply(documents: Documents, { collection, data, meta }: ChangeEvent): Documents | null {
  const held = documents.get(collection) ?? [];
  const [only] = held;
  switch (meta.op) {
    case 'insert':
    case 'replace': {
      const at = held.findIndex((document) => identity(document) === identity(data));
      return put(
        documents,
        collection,
        at < 0 ? [...held, data] : held.map((old, index) => (index === at ? data : old)),
      );
    }
    case 'update': {
      // An update names no document: with several of one UUID it could be any of them.
      const next = held.length === 1 && only !== undefined ? update(only, data, meta) : null;
      return next === null ? null : put(documents, collection, [next]);
    }
    case 'delete':
      return held.length > 1 ? null : put(documents, collection, []);
  }
}

function put(documents: Documents, collection: string, held: readonly JsonObject[]): Documents {
  const next = new Map(documents);
  if (held.length > 0) next.set(collection, held);
  else next.delete(collection);
  return next;
}
