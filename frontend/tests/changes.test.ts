import { describe, expect, test } from 'vitest';
import { CannotPatch, difference, mergePatch } from '../src/client/changes';

describe('the difference of two versions', () => {
  test('names the innermost field that changed', () => {
    const before = { title: 'a', owner: { name: 'x', team: 'y' }, tags: ['a', 'b'] };
    const after = { title: 'a', owner: { name: 'x', team: 'z' }, tags: ['a', 'c', 'd'] };
    expect(difference(before, after)).toEqual([
      { path: ['owner', 'team'], kind: 'changed' },
      { path: ['tags', '1'], kind: 'changed' },
      { path: ['tags', '2'], kind: 'added' },
    ]);
  });

  test('keeps what was removed', () => {
    expect(difference({ a: 1, b: { c: 2 } }, { b: {} })).toEqual([
      { path: ['b', 'c'], kind: 'removed', before: 2 },
      { path: ['a'], kind: 'removed', before: 1 },
    ]);
  });

  test('takes a typed value as one value, and another kind of value as a change', () => {
    expect(difference({ at: { $date: '1' } }, { at: { $date: '2' } })).toEqual([
      { path: ['at'], kind: 'changed' },
    ]);
    expect(difference({ at: [1] }, { at: { 0: 1 } })).toEqual([{ path: ['at'], kind: 'changed' }]);
  });

  test('is empty for equal documents, whatever the order of their fields', () => {
    expect(difference({ a: 1, b: [{ c: null }] }, { b: [{ c: null }], a: 1 })).toEqual([]);
  });
});

describe('a merge patch', () => {
  test('says only what is new, and null for what is gone', () => {
    expect(mergePatch({ a: 1, b: 2, c: { d: 1, e: 2 } }, { a: 1, c: { d: 5 }, f: 'x' })).toEqual({
      b: null,
      c: { d: 5, e: null },
      f: 'x',
    });
  });

  test('is empty when nothing changed', () => {
    expect(mergePatch({ a: [1, { b: 2 }] }, { a: [1, { b: 2 }] })).toEqual({});
  });

  test('sends lists and typed values whole', () => {
    expect(mergePatch({ a: [1, 2], d: { $date: '1' } }, { a: [1], d: { $date: '2' } })).toEqual({
      a: [1],
      d: { $date: '2' },
    });
  });

  test('refuses to set null, which would remove the field', () => {
    expect(() => mergePatch({ a: 1 }, { a: null })).toThrow(CannotPatch);
    expect(() => mergePatch({ a: 1 }, { a: { b: null } })).toThrow('"a.b"');
    expect(mergePatch({ a: null }, { a: null })).toEqual({});
    expect(mergePatch({}, { a: [null] })).toEqual({ a: [null] });
  });
});
