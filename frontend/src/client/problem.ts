import { isObject } from './json';

/** A refusal of the server, read from its problem body (RFC 9457). `code` is stable; the rest is for people. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly title: string,
    readonly detail: string,
    /** Seconds after which the same request may work. */
    readonly retryAfter: number | null = null,
    /** The field that is meant, for an invalid document. */
    readonly path: string | null = null,
  ) {
    super(detail || title);
    this.name = 'Problem';
  }
}

/** The server could not be reached at all. */
export class Unreachable extends Error {
  constructor() {
    super('The server cannot be reached');
    this.name = 'Unreachable';
  }
}

function shownPath(value: unknown): string | null {
  if (typeof value === 'string') return value;
  return Array.isArray(value) ? value.join('.') : null;
}

/** The problem in an answer that is not a success, whoever wrote it: a proxy's page has no code of its own. */
export function problemOf(status: number, body: unknown, retryAfter: string | null): Problem {
  const members = isObject(body) ? body : {};
  const text = (name: string, otherwise: string): string => {
    const value = members[name];
    return typeof value === 'string' && value !== '' ? value : otherwise;
  };
  const seconds = retryAfter === null ? Number.NaN : Number(retryAfter);
  return new Problem(
    status,
    text('code', `http_${status}`),
    text('title', `The server answered ${status}`),
    text('detail', ''),
    Number.isFinite(seconds) ? seconds : null,
    shownPath(members['path']),
  );
}
