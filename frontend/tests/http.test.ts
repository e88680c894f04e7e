import { describe, expect, test } from 'vitest';
import { Api } from '../src/client/http';
import { Problem, Unreachable } from '../src/client/problem';
import { refreshDelay, SessionKeeper } from '../src/client/session';

interface Call {
  readonly path: string;
  readonly init: RequestInit;
}

function server(answer: (path: string) => Response): [Api, Call[]] {
  const calls: Call[] = [];
  const fetch = async (path: string, init: RequestInit): Promise<Response> => {
    calls.push({ path, init });
    return answer(path);
  };
  return [new Api('', fetch), calls];
}

function json(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers });
}

const ALICE = {
  authenticated: true,
  subject: 'user:alice',
  name: 'Alice',
  tenant: 'acme',
  expires_at: '2026-01-01T00:15:00Z',
  refresh_at: '2026-01-01T00:14:00Z',
  can_refresh: true,
};

test('a write carries the header that shows it is ours, a read does not', async () => {
  const [api, calls] = server(() => json({}));
  await api.merge('notes', 'u', { a: null });
  await api.read('notes', 'u');
  expect(calls[0]?.init).toMatchObject({ method: 'PATCH', body: '{"a":null}', credentials: 'same-origin' });
  expect(calls[0]?.init.headers).toMatchObject({
    'X-Requested-With': 'livedocs',
    'Content-Type': 'application/merge-patch+json',
  });
  expect(calls[1]?.init.headers).not.toHaveProperty('X-Requested-With');
});

test('names in a path are encoded', async () => {
  const [api, calls] = server(() => json({}));
  await api.grant('u', 'group:a/b c', 'reader', null);
  expect(calls[0]?.path).toBe('/v1/grants/u/group%3Aa%2Fb%20c');
  expect(calls[0]?.init.body).toBe('{"role":"reader"}');
});

test('grants are read page by page', async () => {
  const [api, calls] = server((path) => {
    const last = path.includes('cursor=');
    const role = 'reader';
    return json({ uuid: 'u', grants: [{ subject: last ? 'user:b' : 'user:a', role }], next: last ? null : 'x=' });
  });
  const subjects = (await api.grants('u')).map((grant) => grant.subject);
  expect(subjects).toEqual(['user:a', 'user:b']);
  expect(calls.map((call) => call.path)).toEqual([
    '/v1/grants/u?limit=500',
    '/v1/grants/u?limit=500&cursor=x%3D',
  ]);
});

test('a create sends the UUID within the document', async () => {
  const [api, calls] = server(() => json({}, 201));
  await api.create('notes', { title: 'x' }, 'u');
  expect(calls[0]?.init.body).toBe('{"uuid":"u","title":"x"}');
});

test('no request waits for ever', async () => {
  const [api, calls] = server(() => json({}));
  await api.read('notes', 'u');
  expect(calls[0]?.init.signal).toBeInstanceOf(AbortSignal);
});

describe('a refusal', () => {
  test('becomes a Problem with code, path and time to wait', async () => {
    const body = { code: 'invalid_field', title: 'A field', detail: 'A field name.', path: ['a', '$b'] };
    const [api] = server(() => json(body, 422, { 'Retry-After': '3' }));
    const error = await api.read('notes', 'u').catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(Problem);
    expect(error).toMatchObject({
      status: 422,
      code: 'invalid_field',
      detail: 'A field name.',
      path: 'a.$b',
      retryAfter: 3,
    });
  });

  test('of a proxy, which has no problem body, still says something', async () => {
    const [api] = server(() => new Response('<html>', { status: 502 }));
    await expect(api.read('notes', 'u')).rejects.toMatchObject({ status: 502, code: 'http_502' });
  });

  test('is Unreachable when nobody answers', async () => {
    const api = new Api('', () => Promise.reject(new TypeError('failed to fetch')));
    await expect(api.read('notes', 'u')).rejects.toBeInstanceOf(Unreachable);
  });
});

test('the list of grants is read', async () => {
  const grants = [
    { subject: 'user:bob', role: 'writer', expires_at: '2026-01-01T00:00:00Z' },
    { subject: 'tenant:*', role: 'reader' },
  ];
  const [api] = server(() => json({ uuid: 'u', grants }));
  expect(await api.grants('u')).toEqual([
    { subject: 'user:bob', role: 'writer', expiresAt: '2026-01-01T00:00:00Z' },
    { subject: 'tenant:*', role: 'reader', expiresAt: null },
  ]);
});

describe('the session', () => {
  const alone = <T>(work: () => Promise<T>): Promise<T> => work();

  test('is known, ended, refused or out of reach', async () => {
    const check = async (answer: () => Response): Promise<string> =>
      (await new SessionKeeper(server(answer)[0], alone).check()).state;
    expect(await check(() => json(ALICE))).toBe('valid');
    expect(await check(() => json({ authenticated: false, can_refresh: false }))).toBe('ended');
    expect(await check(() => json({ code: 'tenant_suspended' }, 403))).toBe('refused');
    expect(await check(() => json({ code: 'auth_unavailable' }, 503))).toBe('unreachable');
  });

  test('is refreshed when there is something to refresh with, and never asks in vain', async () => {
    const [able, calls] = server((path) =>
      path === '/auth/refresh' ? json(ALICE) : json({ authenticated: false, can_refresh: true }),
    );
    expect(await new SessionKeeper(able, alone).refresh(null)).toBe('renewed');
    expect(calls.map(({ path }) => path)).toEqual(['/auth/session', '/auth/refresh']);
    const [unable, asked] = server(() => json({ authenticated: false, can_refresh: false }));
    expect(await new SessionKeeper(unable, alone).refresh(null)).toBe('ended');
    expect(asked).toHaveLength(1);
  });

  test('that another tab has refreshed is not refreshed again', async () => {
    const [api, calls] = server(() => json(ALICE));
    const known = Date.parse(ALICE.expires_at) - 1000;
    expect(await new SessionKeeper(api, alone).refresh(known)).toBe('renewed');
    expect(calls.map(({ path }) => path)).toEqual(['/auth/session']);
  });

  test('whose refresh is refused has ended; one that met a fault has not', async () => {
    const outcome = (status: number): Promise<string> =>
      new SessionKeeper(
        server((path) => (path === '/auth/refresh' ? json({}, status) : json(ALICE)))[0],
        alone,
      ).refresh(null);
    expect(await outcome(401)).toBe('ended');
    expect(await outcome(503)).toBe('unreachable');
    expect(await outcome(429)).toBe('unreachable');
  });

  test('is to be refreshed when the server says so', async () => {
    const { session } = await server(() => json(ALICE))[0].session();
    if (session === null) throw new Error('no session');
    expect(refreshDelay(session, Date.parse('2026-01-01T00:00:00Z'))).toBe(14 * 60_000);
    expect(refreshDelay({ ...session, refreshAt: null, expiresAt: null }, 0)).toBeNull();
  });
});
