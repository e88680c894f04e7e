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

function identity(id: Json | undefined): string {
  return JSON.stringify(id ?? null);
}

/** Where the document of an event is among those held; -1 when it is not. Without an `_id` there is but one. */
function place(held: readonly JsonObject[], { data, meta }: ChangeEvent): number {
  const id = identity(meta._id ?? data['_id']);
  return held.findIndex((document) => identity(document['_id']) === id);
}

function exchanged(held: readonly JsonObject[], at: number, next: JsonObject): readonly JsonObject[] {
  return held.map((old, index) => (index === at ? next : old));
}

/** The documents after the event, or null when they cannot be known without a fresh snapshot. */
export function apply(documents: Documents, event: ChangeEvent): Documents | null {
  const { collection, data, meta } = event;
  const held = documents.get(collection) ?? [];
  const at = place(held, event);
  // What stands for a document that is not shown has no `_id`: it could be this one.
  if (at < 0 && meta._id !== undefined && held.some((document) => document['_id'] === undefined)) return null;
  switch (meta.op) {
    case 'insert':
    case 'replace':
      return put(documents, collection, at < 0 ? [...held, data] : exchanged(held, at, data));
    case 'update': {
      const old = held[at];
      const next = old === undefined ? null : update(old, data, meta);
      return next === null ? null : put(documents, collection, exchanged(held, at, next));
    }
    case 'delete':
      return put(
        documents,
        collection,
        held.filter((_, index) => index !== at),
      );
  }
}

function put(documents: Documents, collection: string, held: readonly JsonObject[]): Documents {
  const next = new Map(documents);
  if (held.length > 0) next.set(collection, held);
  else next.delete(collection);
  return next;
}
