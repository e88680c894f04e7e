import { describe, expect, test } from 'vitest';
import { parseChange, parseControl, parseJoinAck } from '../src/client/protocol';
import { newUuid, parseUuid } from '../src/client/uuid';

const UUID = '6f1c2f34-5a3e-4a51-9d2b-0d6f3a1e9c77';

describe('a change event', () => {
  test('is read with its collection for a name', () => {
    const meta = {
      op: 'update',
      id: '82A',
      at: { $date: '2026-01-01T00:00:00Z' },
      removed: ['a'],
      truncated: [{ field: 'b', newSize: 2 }],
    };
    expect(parseChange('notes', [{ uuid: UUID.toUpperCase(), n: 1 }, meta])).toEqual({
      uuid: UUID,
      collection: 'notes',
      data: { uuid: UUID.toUpperCase(), n: 1 },
      meta: {
        op: 'update',
        id: '82A',
        at: '2026-01-01T00:00:00Z',
        removed: ['a'],
        truncated: [{ field: 'b', newSize: 2 }],
      },
    });
  });

  test.each([
    ['no arguments', []],
    ['no meta', [{ uuid: UUID }]],
    ['an unknown operation', [{ uuid: UUID }, { op: 'drop', id: '82A' }]],
    ['no cursor', [{ uuid: UUID }, { op: 'insert' }]],
    ['no UUID', [{ n: 1 }, { op: 'insert', id: '82A' }]],
    ['something else', ['text', 5]],
  ])('with %s is none', (_, args) => {
    expect(parseChange('notes', args)).toBeNull();
  });
});

test('an answer to JoinRoom is read, and an entry that cannot be read counts as refused', () => {
  const ack = parseJoinAck(
    {
      joined: {
        a: { role: 'owner', cursor: '82A', snapshot: { notes: [{ n: 1 }, 5] }, resumed: 0 },
        b: { role: 'king', cursor: '82A' },
      },
      refused: { c: { code: 'forbidden' }, d: null },
    },
    ['a', 'b', 'c', 'd'],
  );
  expect(ack.joined).toEqual({ a: { role: 'owner', cursor: '82A', snapshot: { notes: [{ n: 1 }] }, resumed: 0 } });
  expect(ack.refused).toEqual({ b: { code: 'bad_answer' }, c: { code: 'forbidden' }, d: { code: 'forbidden' } });
});

test('a JoinRoom that was refused as a whole leaves nobody waiting', () => {
  const refused = { a: { code: 'bad_request' } };
  expect(parseJoinAck({ joined: {}, refused: {}, code: 'bad_request' }, ['a'])).toEqual({ joined: {}, refused });
  expect(parseJoinAck('nonsense', ['a'])).toEqual({ joined: {}, refused: { a: { code: 'bad_answer' } } });
});

test('control events are read, unknown ones are none', () => {
  expect(parseControl('$revoked', [{ uuid: UUID, reason: 'expired' }])).toEqual({
    kind: 'revoked',
    uuid: UUID,
    reason: 'expired',
  });
  expect(parseControl('$goaway', [{ reason: 'restart', within_ms: 5000 }])).toEqual({
    kind: 'goaway',
    reason: 'restart',
    withinMs: 5000,
  });
  expect(
    parseControl('$resync', [{ uuid: UUID, reason: 'slow', cursor: '82A', snapshot: { notes: [] } }]),
  ).toEqual({
    kind: 'resync',
    uuid: UUID,
    reason: 'slow',
    cursor: '82A',
    snapshot: { notes: [] },
  });
  expect(parseControl('$news', [{}])).toBeNull();
});

describe('a UUID', () => {
  test('is taken in either case, with space around it, and in no other form', () => {
    expect(parseUuid(` ${UUID.toUpperCase()}\n`)).toBe(UUID);
    for (const text of ['', 'x', `{${UUID}}`, UUID.replaceAll('-', ''), `${UUID}0`, `urn:uuid:${UUID}`])
      expect(parseUuid(text)).toBeNull();
  });

  test('is made with and without randomUUID, of version 4', () => {
    const bare = { getRandomValues: crypto.getRandomValues.bind(crypto) } as Crypto;
    for (const uuid of [newUuid(), newUuid(bare)]) {
      expect(parseUuid(uuid)).toBe(uuid);
      expect(uuid).toMatch(/^.{14}4.{4}[89ab]/);
    }
  });
});
