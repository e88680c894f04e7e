/** JSON as the server sends it: relaxed Extended JSON v2, where `{$date: ..}` and its kin are plain objects. */

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;

export interface JsonObject {
  readonly [field: string]: Json;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value of Extended JSON, such as `{$oid: ..}`: an object whose every field starts with `$`. It has no parts. */
export function isTyped(value: Json): boolean {
  if (!isObject(value)) return false;
  const names = Object.keys(value);
  return names.length > 0 && names.every((name) => name.startsWith('$'));
}

/** Whether two values are the same JSON; the order of fields does not count. */
export function sameJson(one: Json, other: Json): boolean {
  if (one === other) return true;
  if (Array.isArray(one) || Array.isArray(other)) {
    if (!Array.isArray(one) || !Array.isArray(other) || one.length !== other.length) return false;
    return one.every((item, index) => sameJson(item, other[index] as Json));
  }
  if (!isObject(one) || !isObject(other)) return false;
  const names = Object.keys(one);
  if (names.length !== Object.keys(other).length) return false;
  return names.every((name) => Object.hasOwn(other, name) && sameJson(one[name] as Json, other[name] as Json));
}

/**
 * The object with one field set. A computed key in a literal makes an own property whatever its name is, so that
 * a field called `__proto__` stays a field and does not become the object's prototype.
 */
export function withField(object: JsonObject, name: string, value: Json): JsonObject {
  return { ...object, [name]: value };
}

/** The object without one field. */
export function withoutField(object: JsonObject, name: string): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([field]) => field !== name));
}
