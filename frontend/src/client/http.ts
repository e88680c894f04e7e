/** The HTTP API, as far as a page needs it. Every refusal is thrown as a `Problem`. */

import { isObject, type Json, type JsonObject } from './json';
import { problemOf, Unreachable } from './problem';
import { moment, type Role } from './protocol';

export interface Session {
  readonly subject: string;
  readonly name: string;
  readonly tenant: string;
  /** Milliseconds since the epoch, or null when the server does not say. */
  readonly expiresAt: number | null;
  /** When to ask for a new token, likewise. */
  readonly refreshAt: number | null;
  /** Whether there is something to ask for a new token with. */
  readonly canRefresh: boolean;
}

export interface Standing {
  /** Who is logged in, or null. */
  readonly session: Session | null;
  /** Whether there is something to ask for a new token with. */
  readonly canRefresh: boolean;
}

export interface Grant {
  readonly subject: string;
  readonly role: Role;
  readonly expiresAt: string | null;
}

/** An answer that takes longer counts as none. */
const PATIENCE_MS = 20_000;

type Fetch = (input: string, init: RequestInit) => Promise<Response>;

function instant(value: unknown): number | null {
  if (typeof value === 'number') return value * 1000;
  const at = Date.parse(moment(value));
  return Number.isNaN(at) ? null : at;
}

function string(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function parseSession(body: unknown): Session | null {
  if (!isObject(body) || body['authenticated'] === false) return null;
  const subject = string(body['subject']);
  if (subject === '') return null;
  return {
    subject,
    name: string(body['name']) || subject.replace(/^[a-z]+:/, ''),
    tenant: string(body['tenant']),
    expiresAt: instant(body['expires_at']),
    refreshAt: instant(body['refresh_at']),
    canRefresh: body['can_refresh'] === true,
  };
}

function parseGrants(body: unknown): Grant[] {
  const entries = isObject(body) ? body['grants'] : body;
  return (Array.isArray(entries) ? entries : []).filter(isObject).map((entry: JsonObject) => ({
    subject: string(entry['subject']),
    role: string(entry['role']) as Role,
    expiresAt: moment(entry['expires_at']) || null,
  }));
}

export class Api {
  constructor(
    private readonly base = '',
    private readonly fetch: Fetch = (input, init) => globalThis.fetch(input, init),
  ) {}

  async session(): Promise<Standing> {
    const body = await this.call('GET', '/auth/session');
    return { session: parseSession(body), canRefresh: isObject(body) && body['can_refresh'] === true };
  }

  /** A new access token in the cookie; a `Problem` when the session cannot be continued. */
  async refresh(): Promise<void> {
    await this.call('POST', '/auth/refresh');
  }

  /** Ends the session. Returns where the login service wants to be visited for its own part of it, if anywhere. */
  async logout(): Promise<string | null> {
    const body = await this.call('POST', '/auth/logout');
    return (isObject(body) && string(body['post_logout_redirect'])) || null;
  }

  async create(collection: string, document: JsonObject, uuid?: string): Promise<JsonObject> {
    const body = uuid === undefined ? document : { uuid, ...document };
    return this.object('POST', `/v1/docs/${encodeURIComponent(collection)}`, body);
  }

  /** `id` is the document's `_id`, where several of the collection have the UUID; so below. */
  async read(collection: string, uuid: string, id?: Json): Promise<JsonObject> {
    return this.object('GET', this.document(collection, uuid, id));
  }

  async replace(collection: string, uuid: string, document: JsonObject, id?: Json): Promise<JsonObject> {
    return this.object('PUT', this.document(collection, uuid, id), document);
  }

  /** Changes some fields (RFC 7396: null takes one out). */
  async merge(collection: string, uuid: string, patch: JsonObject, id?: Json): Promise<JsonObject> {
    return this.object('PATCH', this.document(collection, uuid, id), patch, 'application/merge-patch+json');
  }

  async remove(collection: string, uuid: string, id?: Json): Promise<void> {
    await this.call('DELETE', this.document(collection, uuid, id));
  }

  async grants(uuid: string): Promise<Grant[]> {
    const found: Grant[] = [];
    for (let cursor = ''; ; ) {
      const more = cursor && `&cursor=${encodeURIComponent(cursor)}`;
      const page = await this.call('GET', `/v1/grants/${uuid}?limit=500${more}`);
      found.push(...parseGrants(page));
      cursor = isObject(page) ? string(page['next']) : '';
      if (!cursor) return found;
    }
  }

  async grant(uuid: string, subject: string, role: Role, expiresAt: string | null): Promise<void> {
    const body: JsonObject = expiresAt === null ? { role } : { role, expires_at: expiresAt };
    await this.call('PUT', `/v1/grants/${uuid}/${encodeURIComponent(subject)}`, body);
  }

  async revoke(uuid: string, subject: string): Promise<void> {
    await this.call('DELETE', `/v1/grants/${uuid}/${encodeURIComponent(subject)}`);
  }

  private document(collection: string, uuid: string, id?: Json): string {
    const query = id === undefined ? '' : `?_id=${encodeURIComponent(JSON.stringify(id))}`;
    return `/v1/docs/${encodeURIComponent(collection)}/${uuid}${query}`;
  }

  private async object(method: string, path: string, body?: JsonObject, type?: string): Promise<JsonObject> {
    const answer = await this.call(method, path, body, type);
    return isObject(answer) ? answer : {};
  }

  private async call(
    method: string,
    path: string,
    body?: JsonObject,
    type = 'application/json',
  ): Promise<unknown> {
    const headers: Record<string, string> = { Accept: 'application/json, application/problem+json' };
    // A page of another origin cannot send this header without asking first: it shows the request is ours.
    if (method !== 'GET') headers['X-Requested-With'] = 'livedocs';
    if (body !== undefined) headers['Content-Type'] = type;
    let answer: Response;
    try {
      answer = await this.fetch(this.base + path, {
        method,
        headers,
        credentials: 'same-origin',
        cache: 'no-store',
        signal: AbortSignal.timeout(PATIENCE_MS),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch {
      throw new Unreachable();
    }
    const content: unknown = await answer.json().catch(() => null);
    if (!answer.ok) throw problemOf(answer.status, content, answer.headers.get('Retry-After'));
    return content;
  }
}
