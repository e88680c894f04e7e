/** What goes over the socket, and the reading of it. What does not look as agreed is refused here, once. */

import { isObject, type Json, type JsonObject } from './json';

export type Role = 'reader' | 'writer' | 'owner';
export type Op = 'insert' | 'update' | 'replace' | 'delete';

/** A position in the stream of changes. Opaque, but cursors sort as strings in the stream's order. */
export type Cursor = string;

/** Since when the caller has been in its groups. Opaque; whoever resumes gives the newest one back. */
export type Ticket = string;

export interface Meta {
  readonly op: Op;
  readonly id: Cursor;
  readonly at: string;
  readonly removed: readonly string[];
  readonly truncated: readonly { readonly field: string; readonly newSize: number }[];
  readonly txn?: string;
  /** Which document it was, where several may share the UUID: the collection's key is another field. */
  readonly _id?: Json;
}

export interface ChangeEvent {
  readonly uuid: string;
  readonly collection: string;
  readonly data: JsonObject;
  readonly meta: Meta;
}

export type Snapshot = Readonly<Record<string, readonly JsonObject[]>>;

export interface Joined {
  readonly role: Role;
  readonly cursor: Cursor;
  readonly snapshot?: Snapshot;
  readonly resumed?: number;
  readonly resync?: string;
}

export interface JoinAck {
  readonly joined: Readonly<Record<string, Joined>>;
  readonly refused: Readonly<Record<string, { readonly code: string }>>;
  readonly ticket?: Ticket;
}

export type Control =
  | { readonly kind: 'revoked'; readonly uuid: string; readonly reason: string }
  | { readonly kind: 'refused'; readonly uuid: string; readonly code: string }
  | {
      readonly kind: 'resync';
      readonly uuid: string;
      readonly reason: string;
      readonly cursor?: Cursor;
      readonly snapshot?: Snapshot;
    }
  | { readonly kind: 'ticket'; readonly ticket: Ticket }
  | { readonly kind: 'expiring'; readonly at: string }
  | { readonly kind: 'goaway'; readonly reason: string; readonly withinMs: number };

const OPS: readonly string[] = ['insert', 'update', 'replace', 'delete'];
const ROLES: readonly string[] = ['reader', 'writer', 'owner'];

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** A moment as RFC 3339 text, whether it came as text or as `{$date: ..}`. */
export function moment(value: unknown): string {
  return isObject(value) && '$date' in value ? text(value['$date']) : text(value);
}

function parseMeta(value: unknown): Meta | null {
  if (!isObject(value) || !OPS.includes(text(value['op'])) || text(value['id']) === '') return null;
  const removed = Array.isArray(value['removed']) ? value['removed'].map(text) : [];
  const truncated = (Array.isArray(value['truncated']) ? value['truncated'] : [])
    .filter(isObject)
    .map((entry) => ({ field: text(entry['field']), newSize: Number(entry['newSize']) }));
  const meta = { op: text(value['op']) as Op, id: text(value['id']), at: moment(value['at']), removed, truncated };
  return {
    ...meta,
    ...(value['txn'] === undefined ? {} : { txn: JSON.stringify(value['txn']) }),
    ...(value['_id'] === undefined ? {} : { _id: value['_id'] as Json }),
  };
}

/** The change event in an event's name and arguments, or null when it is none. */
export function parseChange(collection: string, args: readonly unknown[]): ChangeEvent | null {
  const [data, rawMeta] = args;
  const meta = parseMeta(rawMeta);
  if (!isObject(data) || meta === null || typeof data['uuid'] !== 'string') return null;
  return { uuid: data['uuid'].toLowerCase(), collection, data, meta };
}

function parseSnapshot(value: unknown): Snapshot | undefined {
  if (!isObject(value)) return undefined;
  const entries = Object.entries(value).map(([name, documents]): [string, readonly JsonObject[]] => [
    name,
    (Array.isArray(documents) ? (documents as readonly Json[]) : []).filter(isObject),
  ]);
  return Object.fromEntries(entries);
}

function parseJoined(value: unknown): Joined | null {
  if (!isObject(value) || !ROLES.includes(text(value['role'])) || typeof value['cursor'] !== 'string') return null;
  const snapshot = parseSnapshot(value['snapshot']);
  return {
    role: value['role'] as Role,
    cursor: value['cursor'],
    ...(snapshot === undefined ? {} : { snapshot }),
    ...(typeof value['resumed'] === 'number' ? { resumed: value['resumed'] } : {}),
    ...(typeof value['resync'] === 'string' ? { resync: value['resync'] } : {}),
  };
}

/**
 * The answer to `JoinRoom` for those UUIDs. What cannot be read, or is missing because the whole call was refused,
 * counts as refused, so that nobody waits for it.
 */
export function parseJoinAck(value: unknown, asked: readonly string[]): JoinAck {
  const joined: Record<string, Joined> = {};
  const refused: Record<string, { code: string }> = {};
  const answer = isObject(value) ? value : {};
  for (const [uuid, entry] of Object.entries(isObject(answer['joined']) ? answer['joined'] : {})) {
    const room = parseJoined(entry);
    if (room === null) refused[uuid] = { code: 'bad_answer' };
    else joined[uuid] = room;
  }
  for (const [uuid, entry] of Object.entries(isObject(answer['refused']) ? answer['refused'] : {})) {
    refused[uuid] = { code: (isObject(entry) && text(entry['code'])) || 'forbidden' };
  }
  for (const uuid of asked) {
    if (!(uuid in joined) && !(uuid in refused)) refused[uuid] = { code: text(answer['code']) || 'bad_answer' };
  }
  const ticket = text(answer['ticket']);
  return ticket === '' ? { joined, refused } : { joined, refused, ticket };
}

/** The control event in an event's name and arguments, or null for one this client does not know. */
export function parseControl(name: string, args: readonly unknown[]): Control | null {
  const body = isObject(args[0]) ? args[0] : {};
  const uuid = text(body['uuid']).toLowerCase();
  switch (name) {
    case '$revoked':
      return { kind: 'revoked', uuid, reason: text(body['reason']) || 'revoked' };
    case '$refused':
      return { kind: 'refused', uuid, code: text(body['code']) || 'forbidden' };
    case '$resync': {
      const snapshot = parseSnapshot(body['snapshot']);
      const cursor = text(body['cursor']);
      return {
        kind: 'resync',
        uuid,
        reason: text(body['reason']),
        ...(cursor === '' ? {} : { cursor }),
        ...(snapshot === undefined ? {} : { snapshot }),
      };
    }
    case '$ticket': {
      const ticket = text(body['ticket']);
      return ticket === '' ? null : { kind: 'ticket', ticket };
    }
    case '$expiring':
      return { kind: 'expiring', at: moment(body['at']) };
    case '$goaway':
      return { kind: 'goaway', reason: text(body['reason']), withinMs: Number(body['within_ms']) || 0 };
    default:
      return null;
  }
}
