import { describe, expect, test } from 'vitest';
import { Problem, Unreachable } from '../src/client/problem';
import { newRoom, refused, revoked } from '../src/client/room';
import { rowsOf } from '../src/page/rows';
import { announcement, emptyWords, failure, fieldsOf, stateOf, subjectWords } from '../src/page/words';

const ROOM = newRoom('6f1c2f34-5a3e-4a51-9d2b-0d6f3a1e9c77');
const LIVE = { kind: 'live', renewal: 'none', attempt: 0 } as const;

describe('the rows of a document', () => {
  test('are its fields, those within indented, without the UUID', () => {
    const rows = rowsOf({ uuid: 'u', title: 'x', owner: { name: 'y' }, tags: ['a'] }, []);
    expect(rows.map(({ path, depth, value }) => [path.join('.'), depth, value])).toEqual([
      ['title', 0, 'x'],
      ['owner', 0, '1 field'],
      ['owner.name', 1, 'y'],
      ['tags', 0, '1 item'],
      ['tags.0', 1, 'a'],
    ]);
  });

  test('are marked where something changed, with everything within', () => {
    const rows = rowsOf({ a: 1, b: { c: 2 } }, [{ path: ['b'], kind: 'added' }]);
    expect(rows.map(({ mark }) => mark)).toEqual([null, 'added', 'added']);
  });

  test('still show what has just been removed, at its place', () => {
    const rows = rowsOf({ a: { b: 1 }, z: 2 }, [{ path: ['a', 'old'], kind: 'removed', before: 'gone' }]);
    expect(rows.map(({ path, mark, value }) => [path.join('.'), mark, value])).toEqual([
      ['a', null, '1 field'],
      ['a.b', null, '1'],
      ['a.old', 'removed', 'gone'],
      ['z', null, '2'],
    ]);
  });

  test.each([
    [{ $oid: '65a1' }, '65a1'],
    [{ $numberLong: '9007199254740993' }, '9007199254740993'],
    [{ $binary: { base64: 'AAECAw==', subType: '00' } }, '4 bytes'],
    [{ $date: 'no date' }, 'no date'],
    [{ $timestamp: { t: 1, i: 2 } }, '{"$timestamp":{"t":1,"i":2}}'],
    [null, 'null'],
    [true, 'true'],
  ])('show %j as %s', (value, shown) => {
    expect(rowsOf({ field: value }, [])[0]?.value).toBe(shown);
  });
});

describe('the state', () => {
  test.each([
    ['connecting', stateOf({ kind: 'connecting', attempt: 0 }, null)],
    ['connecting', stateOf(LIVE, ROOM)],
    ['live', stateOf(LIVE, { ...ROOM, membership: { kind: 'live', role: 'reader' } })],
    ['refused', stateOf(LIVE, refused(ROOM, 'forbidden'))],
    ['refused', stateOf({ kind: 'refused', code: 'tenant_suspended' }, null)],
    ['revoked', stateOf(LIVE, revoked(ROOM, 'revoked'))],
    ['expired', stateOf({ kind: 'expired' }, ROOM)],
    ['offline', stateOf({ kind: 'waiting', attempt: 3 }, ROOM)],
    ['idle', stateOf(LIVE, null)],
  ])('is %s', (name, state) => {
    expect(state.name).toBe(name);
    expect(state.title).not.toBe('');
  });

  test('gives the reason of a refusal, also of one it has no words for', () => {
    expect(stateOf(LIVE, refused(ROOM, 'forbidden')).detail).toContain('shared');
    expect(stateOf(LIVE, refused(ROOM, 'surprise')).detail).toContain('surprise');
  });

  test('leaves no empty place without a word', () => {
    expect(emptyWords(null, false)?.title).toBe('No document open');
    expect(emptyWords(revoked(ROOM, 'revoked'), true)?.title).toContain('closed to you');
    expect(emptyWords(refused(ROOM, 'forbidden'), true)).toBeNull();
    expect(emptyWords(refused(ROOM, 'too_many_connections'), true)).not.toBeNull();
  });
});

test('a failed request is told in a sentence', () => {
  expect(failure(new Problem(429, 'rate_limited', 'Too many', 'Too many requests.', 1.2))).toBe(
    'Too many requests. Try again in 2 s.',
  );
  expect(failure(new Problem(422, 'invalid_field', 'A field', 'Not allowed.', null, 'a.b'))).toBe(
    'Not allowed. (a.b)',
  );
  expect(failure(new Unreachable())).toContain('Nothing was changed');
});

test('an announcement names what changed, but not more than one can listen to', () => {
  const changes = Array.from({ length: 7 }, (_, index) => ({
    path: ['f', String(index)],
    kind: 'changed' as const,
  }));
  expect(announcement('notes', 'update', changes.slice(0, 2))).toBe(
    'Document in notes updated: f.0 changed, f.1 changed.',
  );
  expect(announcement('notes', 'update', changes)).toContain(', and 2 more.');
  expect(announcement('notes', 'delete', [])).toBe('Document in notes deleted.');
});

test('the fields of an event are those set, cut and removed', () => {
  const meta = { op: 'update', id: '1', at: '', removed: ['c'], truncated: [{ field: 'b', newSize: 1 }] } as const;
  expect(fieldsOf({ uuid: 'u', collection: 'notes', data: { uuid: 'u', 'a.x': 1 }, meta })).toEqual([
    'a.x',
    'b',
    'c',
  ]);
});

test('subjects read like people, groups and services', () => {
  expect(subjectWords('user:bob')).toEqual({ name: 'bob', kind: 'person' });
  expect(subjectWords('group:a:b')).toEqual({ name: 'a:b', kind: 'group' });
  expect(subjectWords('tenant:*').name).toBe('Everyone');
});
