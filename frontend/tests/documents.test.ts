import { describe, expect, test } from 'vitest';
import { apply, fromSnapshot, type Documents } from '../src/client/documents';
import type { JsonObject } from '../src/client/json';
import type { ChangeEvent, Meta } from '../src/client/protocol';

const UUID = '6f1c2f34-5a3e-4a51-9d2b-0d6f3a1e9c77';

function event(op: Meta['op'], data: JsonObject, meta: Partial<Meta> = {}, collection = 'notes'): ChangeEvent {
  return {
    uuid: UUID,
    collection,
    data: { uuid: UUID, ...data },
    meta: { op, id: '82A', at: '2026-01-01T00:00:00Z', removed: [], truncated: [], ...meta },
  };
}

function held(document: JsonObject): Documents {
  return fromSnapshot({ notes: [{ uuid: UUID, ...document }] });
}

function after(document: JsonObject, change: ChangeEvent): JsonObject | undefined {
  const documents = apply(held(document), change);
  if (documents === null) throw new Error('the change did not fit');
  return documents.get('notes')?.[0];
}

describe('an update', () => {
  test('sets fields, and by a dotted path a field within', () => {
    const changed = after(
      { title: 'a', owner: { name: 'x', team: 'y' } },
      event('update', { title: 'b', 'owner.team': 'z' }),
    );
    expect(changed).toEqual({ uuid: UUID, title: 'b', owner: { name: 'x', team: 'z' } });
  });

  test('sets an item of a list by its number, and appends behind the last', () => {
    expect(after({ tags: ['a', 'b'] }, event('update', { 'tags.1': 'B', 'tags.2': 'c' }))).toEqual({
      uuid: UUID,
      tags: ['a', 'B', 'c'],
    });
  });

  test('takes out removed fields, nested ones too', () => {
    expect(after({ a: 1, b: { c: 2, d: 3 } }, event('update', {}, { removed: ['a', 'b.c'] }))).toEqual({
      uuid: UUID,
      b: { d: 3 },
    });
  });

  test('cuts a list before it sets items of it', () => {
    const change = event('update', { 'tags.1': 'x' }, { truncated: [{ field: 'tags', newSize: 2 }] });
    expect(after({ tags: [1, 2, 3, 4] }, change)).toEqual({ uuid: UUID, tags: [1, 'x'] });
  });

  test('leaves the document it starts from as it was', () => {
    const before = held({ owner: { team: 'x' } });
    apply(before, event('update', { 'owner.team': 'y' }));
    expect(before.get('notes')?.[0]).toEqual({ uuid: UUID, owner: { team: 'x' } });
  });

  test.each([
    ['into a field that is not there', { 'owner.team': 'x' }],
    ['into a plain value', { 'title.x': 1 }],
    ['into a typed value', { 'due.$date': 'x' }],
    ['of a list by a name', { 'tags.first': 1 }],
    ['far behind the end of a list', { 'tags.7': 1 }],
  ])('%s needs a fresh snapshot', (_, data) => {
    const due = { $date: '2026-01-01T00:00:00Z' };
    expect(apply(held({ title: 'a', tags: [1], due }), event('update', data))).toBeNull();
  });

  test('of a document that is not here, or of nobody knows which of several, needs a fresh snapshot', () => {
    expect(apply(new Map(), event('update', { a: 1 }))).toBeNull();
    const two = fromSnapshot({ notes: [{ _id: 1 }, { _id: 2 }] });
    expect(apply(two, event('update', { a: 1 }))).toBeNull();
    expect(apply(two, event('update', { a: 1 }, { _id: 3 }))).toBeNull();
  });

  test('of one among several changes that one', () => {
    const ids = [{ $oid: '1' }, { $oid: '2' }, 'x'];
    const several = fromSnapshot({ notes: ids.map((_id) => ({ _id })) });
    const changed = apply(several, event('update', { a: 1 }, { _id: { $oid: '2' } }));
    expect(changed?.get('notes')).toEqual([{ _id: ids[0] }, { _id: ids[1], a: 1 }, { _id: 'x' }]);
  });

  test('of a field called __proto__ changes that field and no prototype', () => {
    const changed = after(
      { a: 1 },
      event('update', JSON.parse('{"__proto__": {"polluted": true}}') as JsonObject),
    );
    expect(Object.hasOwn(changed as object, '__proto__')).toBe(true);
    expect(Object.getPrototypeOf(changed)).toBe(Object.prototype);
    expect((changed as { polluted?: boolean }).polluted).toBeUndefined();
  });
});

describe('a whole document', () => {
  test('arrives beside those of other collections', () => {
    const documents = apply(held({ title: 'a' }), event('insert', { message: 'b' }, {}, 'test'));
    expect(documents?.get('test')).toEqual([{ uuid: UUID, message: 'b' }]);
    expect(documents?.get('notes')).toHaveLength(1);
  });

  test('takes the place of the one with its _id, and joins those with another', () => {
    const one = fromSnapshot({ test: [{ _id: { $oid: '1' }, n: 1 }] });
    const replaced = apply(one, event('replace', { _id: { $oid: '1' }, n: 2 }, {}, 'test'));
    expect(replaced?.get('test')).toEqual([{ uuid: UUID, _id: { $oid: '1' }, n: 2 }]);
    expect(apply(one, event('insert', { _id: { $oid: '2' } }, {}, 'test'))?.get('test')).toHaveLength(2);
  });
});

test('a change of a document that may be one that is not shown needs a fresh snapshot', () => {
  const large = fromSnapshot({ notes: [{ uuid: UUID, $too_large: 5_000_000 }, { _id: 1 }] });
  for (const op of ['insert', 'replace', 'update', 'delete'] as const) {
    expect(apply(large, event(op, { _id: 2 }, { _id: 2 }))).toBeNull();
  }
  expect(apply(large, event('delete', {}, { _id: 1 }))?.get('notes')).toHaveLength(1);
});

test('a delete takes the document away that it names, or the only one', () => {
  expect(apply(held({ a: 1 }), event('delete', {}))?.size).toBe(0);
  expect(apply(new Map(), event('delete', {}))?.size).toBe(0);
  const two = fromSnapshot({ notes: [{ _id: 1 }, { _id: 2 }] });
  expect(apply(two, event('delete', {}, { _id: 1 }))?.get('notes')).toEqual([{ _id: 2 }]);
  expect(apply(two, event('delete', {}, { _id: 3 }))?.get('notes')).toHaveLength(2);
});
