/** One room as this client knows it, and how each message from the server changes it. Pure. */

import { difference, type Change } from './changes';
import { apply, fromSnapshot, type Documents } from './documents';
import type { JsonObject } from './json';
import type { ChangeEvent, Cursor, Joined, Role, Snapshot } from './protocol';

export type Membership =
  | { readonly kind: 'joining' }
  | { readonly kind: 'live'; readonly role: Role }
  | { readonly kind: 'refused'; readonly code: string }
  | { readonly kind: 'revoked'; readonly reason: string };

export interface DocumentChange {
  readonly collection: string;
  /** Position among the documents of the collection; -1 when the document is gone. */
  readonly index: number;
  readonly op: ChangeEvent['meta']['op'];
  readonly at: string;
  readonly changes: readonly Change[];
}

export interface Room {
  readonly uuid: string;
  readonly membership: Membership;
  /** The last event seen: what `since` is at the next join. Only with it are the documents worth anything. */
  readonly cursor: Cursor | null;
  readonly documents: Documents;
  /** The documents are known to be behind; events are of no use until a snapshot has come. */
  readonly stale: boolean;
  readonly lastChange: DocumentChange | null;
}

export function newRoom(uuid: string): Room {
  return {
    uuid,
    membership: { kind: 'joining' },
    cursor: null,
    documents: new Map(),
    stale: false,
    lastChange: null,
  };
}

function replaced(room: Room, snapshot: Snapshot, cursor: Cursor): Room {
  return { ...room, documents: fromSnapshot(snapshot), cursor, stale: false, lastChange: null };
}

function later(one: Cursor | null, other: Cursor): Cursor {
  return one !== null && one > other ? one : other;
}

/** After an acknowledged join. */
export function joined(room: Room, answer: Joined): Room {
  const live: Room = { ...room, membership: { kind: 'live', role: answer.role } };
  if (answer.snapshot !== undefined) return replaced(live, answer.snapshot, answer.cursor);
  if (room.cursor === null || answer.resync !== undefined) return { ...live, stale: true };
  // Replayed events follow with cursors before the one in the answer: they must not look like old ones.
  return (answer.resumed ?? 0) > 0 ? live : { ...live, cursor: later(room.cursor, answer.cursor) };
}

export function refused(room: Room, code: string): Room {
  return { ...newRoom(room.uuid), membership: { kind: 'refused', code } };
}

/** After `$revoked`: what may no longer be seen is not kept either. */
export function revoked(room: Room, reason: string): Room {
  return { ...newRoom(room.uuid), membership: { kind: 'revoked', reason } };
}

/** After `$resync`; without a snapshot in it, one has to be asked for. */
export function resynced(room: Room, snapshot: Snapshot | undefined, cursor: Cursor | undefined): Room {
  if (room.membership.kind !== 'live') return room;
  return snapshot === undefined || cursor === undefined
    ? { ...room, stale: true }
    : replaced(room, snapshot, cursor);
}

/**
 * After a change event. The same room comes back for an event that was seen before: two sockets deliver the same
 * events while one takes over from the other.
 */
export function received(room: Room, event: ChangeEvent): Room {
  const seen = room.cursor !== null && event.meta.id <= room.cursor;
  if (room.membership.kind !== 'live' || room.stale || seen) return room;
  const documents = apply(room.documents, event);
  if (documents === null) return { ...room, stale: true };
  return {
    ...room,
    documents,
    cursor: event.meta.id,
    lastChange: describe(room.documents, documents, event),
  };
}

function describe(before: Documents, after: Documents, { collection, meta }: ChangeEvent): DocumentChange {
  const old = before.get(collection) ?? [];
  const now = after.get(collection) ?? [];
  const gone = meta.op === 'delete';
  const index = gone ? -1 : now.findIndex((document, position) => document !== old[position]);
  const change = { collection, index, op: meta.op, at: meta.at };
  const document = now[index];
  if (document === undefined) return { ...change, changes: [] };
  return { ...change, changes: difference(old[index] ?? ({} as JsonObject), document) };
}
