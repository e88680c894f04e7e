import { describe, expect, test } from 'vitest';
import type { JsonObject } from '../src/client/json';
import type { ChangeEvent, Meta } from '../src/client/protocol';
import { joined, newRoom, received, refused, resynced, revoked, type Room } from '../src/client/room';

const UUID = '6f1c2f34-5a3e-4a51-9d2b-0d6f3a1e9c77';

function update(id: string, data: JsonObject, op: Meta['op'] = 'update'): ChangeEvent {
  return {
    uuid: UUID,
    collection: 'notes',
    data: { uuid: UUID, ...data },
    meta: { op, id, at: '2026-01-01T00:00:00Z', removed: [], truncated: [] },
  };
}

const live: Room = joined(newRoom(UUID), {
  role: 'writer',
  cursor: '82B',
  snapshot: { notes: [{ uuid: UUID, n: 1 }], test: [] },
});

function note(room: Room): JsonObject | undefined {
  return room.documents.get('notes')?.[0];
}

test('a join with a snapshot starts from it and its cursor', () => {
  expect(live.membership).toEqual({ kind: 'live', role: 'writer' });
  expect([...live.documents.keys()]).toEqual(['notes']);
  expect(live.cursor).toBe('82B');
});

describe('an event', () => {
  test('changes the document, moves the cursor and says what changed', () => {
    const room = received(live, update('82C', { n: 2 }));
    expect(note(room)).toEqual({ uuid: UUID, n: 2 });
    expect(room.cursor).toBe('82C');
    expect(room.lastChange).toMatchObject({
      collection: 'notes',
      index: 0,
      changes: [{ path: ['n'], kind: 'changed' }],
    });
  });

  test('that was seen before changes nothing', () => {
    expect(received(live, update('82B', { n: 9 }))).toBe(live);
    expect(received(live, update('82A', { n: 9 }))).toBe(live);
  });

  test('that does not fit marks the room as stale, and then nothing counts until a snapshot has come', () => {
    const stale = received(live, update('82C', { 'x.y': 1 }));
    expect(stale.stale).toBe(true);
    expect(received(stale, update('82D', { n: 5 }))).toBe(stale);
    const fresh = joined(stale, { role: 'writer', cursor: '82E', snapshot: { notes: [{ n: 7 }] } });
    expect(fresh).toMatchObject({ stale: false, cursor: '82E' });
  });

  test('after the revoke changes nothing', () => {
    const out = revoked(live, 'revoked');
    expect(received(out, update('82C', { n: 2 }))).toBe(out);
  });

  test('of a deleted document leaves none', () => {
    const room = received(live, update('82C', {}, 'delete'));
    expect(room.documents.size).toBe(0);
    expect(room.lastChange).toMatchObject({ op: 'delete', index: -1 });
  });
});

describe('a join that resumes', () => {
  test('keeps its cursor until the replayed events have come, though the answer names a later one', () => {
    const room = joined(live, { role: 'writer', cursor: '82F', resumed: 2 });
    expect(room.cursor).toBe('82B');
    expect(note(received(room, update('82C', { n: 3 })))).toEqual({ uuid: UUID, n: 3 });
  });

  test('moves its cursor when nothing was missed, so that it stays in the window', () => {
    expect(joined(live, { role: 'writer', cursor: '82F', resumed: 0 }).cursor).toBe('82F');
    expect(joined(live, { role: 'writer', cursor: '82A', resumed: 0 }).cursor).toBe('82B');
  });

  test('is replaced by the snapshot when the cursor was too old', () => {
    const room = joined(live, {
      role: 'reader',
      cursor: '82F',
      resync: 'window',
      snapshot: { notes: [{ n: 8 }] },
    });
    expect(note(room)).toEqual({ n: 8 });
    expect(room.cursor).toBe('82F');
  });

  test('is stale when the cursor was too old and no snapshot came', () => {
    expect(joined(live, { role: 'reader', cursor: '82F', resync: 'window' }).stale).toBe(true);
  });
});

test('a resync replaces the documents, or asks for a snapshot when it brings none', () => {
  expect(note(resynced(live, { notes: [{ n: 4 }] }, '82F'))).toEqual({ n: 4 });
  expect(resynced(live, undefined, undefined).stale).toBe(true);
  const gone = revoked(live, 'revoked');
  expect(resynced(gone, { notes: [] }, '82F')).toBe(gone);
});

test('a revoked or refused room keeps no documents and no cursor', () => {
  for (const room of [revoked(live, 'expired'), refused(live, 'forbidden')]) {
    expect(room.documents.size).toBe(0);
    expect(room.cursor).toBeNull();
    expect(room.lastChange).toBeNull();
  }
});
