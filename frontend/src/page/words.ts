/** Everything the page says about states, refusals and changes. Pure. */

import type { Change } from '../client/changes';
import type { Connection } from '../client/connection';
import { Problem, Unreachable } from '../client/problem';
import type { ChangeEvent } from '../client/protocol';
import type { Room } from '../client/room';

export type StateName = 'idle' | 'connecting' | 'live' | 'refused' | 'revoked' | 'expired' | 'offline';

export interface State {
  readonly name: StateName;
  readonly title: string;
  readonly detail: string;
}

const ROLES = {
  reader: 'You may read.',
  writer: 'You may read and change it.',
  owner: 'It is yours: read, change, share.',
} as const;

const REFUSALS: Readonly<Record<string, string>> = {
  forbidden: 'There is no such document yet, or nobody has shared it with you.',
  forbidden_origin: 'This page’s address may not connect to the server.',
  tenant_suspended: 'Your organisation is suspended.',
  unknown_tenant: 'Your organisation is not registered here.',
  too_many_connections: 'You have too many connections open.',
  invalid_uuid: 'That is not a UUID.',
  disconnected: 'An administrator has ended this connection.',
};

const REVOCATIONS: Readonly<Record<string, string>> = {
  expired: 'Your access to this document has ended: its time was up.',
  grant_expired: 'Your access to this document has ended: its time was up.',
  tenant_suspended: 'Your organisation is suspended.',
};

/** Why the login service did not log anybody in. */
export function declined(reason: string): string {
  return reason === 'access_denied' ? 'The login was cancelled.' : 'The login service did not log you in.';
}

export function refusal(code: string): string {
  return REFUSALS[code] ?? `The server says: ${code}.`;
}

/** What the connection and the room amount to for the person who looks at the page. */
export function stateOf(connection: Connection, room: Room | null, fresh = false): State {
  switch (connection.kind) {
    case 'expired':
      return {
        name: 'expired',
        title: 'Session expired',
        detail:
          room === null ? 'Log in again to go on.' : 'What you see is no longer updated. Log in again to go on.',
      };
    case 'refused':
      return { name: 'refused', title: 'Refused', detail: refusal(connection.code) };
    case 'waiting':
      return {
        name: 'offline',
        title: 'Offline',
        detail: 'The server cannot be reached. Trying again shortly; nothing will be missed.',
      };
    case 'idle':
    case 'loggedOut':
      return { name: 'idle', title: 'Not connected', detail: '' };
    case 'connecting':
    case 'checking':
    case 'refreshing':
      return { name: 'connecting', title: 'Connecting…', detail: '' };
    case 'live':
      return fresh && room === null
        ? { name: 'idle', title: 'New UUID', detail: 'Nothing has it yet.' }
        : roomState(room);
  }
}

function roomState(room: Room | null): State {
  if (room === null) return { name: 'idle', title: 'Ready', detail: 'Choose a document.' };
  switch (room.membership.kind) {
    case 'joining':
      return { name: 'connecting', title: 'Connecting…', detail: 'Asking for the document.' };
    case 'live':
      return { name: 'live', title: 'Live', detail: ROLES[room.membership.role] };
    case 'refused':
      return { name: 'refused', title: 'No access', detail: refusal(room.membership.code) };
    case 'revoked':
      return {
        name: 'revoked',
        title: 'Access revoked',
        detail: REVOCATIONS[room.membership.reason] ?? 'You can no longer see this document.',
      };
  }
}

export interface Empty {
  readonly title: string;
  readonly text: string;
}

/** What stands where a document would be; null when there is one, or a form to make one with. */
export function emptyWords(room: Room | null, chosen: boolean): Empty | null {
  if (!chosen) {
    return {
      title: 'No document open',
      text: 'Paste the UUID of a document that was shared with you, or generate one and create a document of your own.',
    };
  }
  switch (room?.membership.kind) {
    case 'revoked':
      return {
        title: 'This document is closed to you now',
        text: 'What it said has been taken off this page. When one of its owners shares it with you again, choose Connect.',
      };
    case 'refused':
      return room.membership.code === 'forbidden'
        ? null
        : { title: 'Nothing to show', text: 'When the reason is gone, choose Connect to try again.' };
    default:
      return null;
  }
}

/** What a failed request means, for the person who made it. */
export function failure(error: unknown): string {
  if (error instanceof Unreachable) return 'The server cannot be reached. Nothing was changed.';
  if (!(error instanceof Problem)) return error instanceof Error ? error.message : 'Something went wrong.';
  const where = error.path === null || error.detail.includes(error.path) ? '' : ` (${error.path})`;
  const again = error.retryAfter === null ? '' : ` Try again in ${Math.ceil(error.retryAfter)} s.`;
  const sentence = error.detail || error.title;
  return `${sentence}${where}${/[.!?]$/.test(sentence) || again === '' ? '' : '.'}${again}`;
}

const PAST: Readonly<Record<ChangeEvent['meta']['op'], string>> = {
  insert: 'created',
  update: 'updated',
  replace: 'replaced',
  delete: 'deleted',
};

export function opInPast(op: ChangeEvent['meta']['op']): string {
  return PAST[op];
}

/** Names of the fields an event touches, as dotted paths. */
export function fieldsOf({ data, meta }: ChangeEvent): string[] {
  if (meta.op === 'delete') return [];
  const set = Object.keys(data).filter((name) => name !== 'uuid' && name !== '_id');
  return [...set, ...meta.truncated.map(({ field }) => field), ...meta.removed];
}

const MOST_NAMED = 5;

/** A change as a screen reader says it. */
export function announcement(
  collection: string,
  op: ChangeEvent['meta']['op'],
  changes: readonly Change[],
): string {
  const start = `Document in ${collection} ${opInPast(op)}`;
  if (op === 'insert' || op === 'delete' || changes.length === 0) return `${start}.`;
  const named = changes.slice(0, MOST_NAMED).map(({ path, kind }) => `${path.join('.')} ${kind}`);
  const more = changes.length > MOST_NAMED ? `, and ${changes.length - MOST_NAMED} more` : '';
  return `${start}: ${named.join(', ')}${more}.`;
}

export interface SubjectWords {
  readonly name: string;
  readonly kind: string;
}

/** A grant's subject, for people. */
export function subjectWords(subject: string): SubjectWords {
  if (subject === 'tenant:*') return { name: 'Everyone', kind: 'in your organisation' };
  const colon = subject.indexOf(':');
  const kinds: Readonly<Record<string, string>> = { user: 'person', group: 'group', client: 'service' };
  return { name: subject.slice(colon + 1), kind: kinds[subject.slice(0, colon)] ?? '' };
}
