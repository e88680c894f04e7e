import { describe, expect, test } from 'vitest';
import { backoff, step, type Connection, type ConnectionEvent } from '../src/client/connection';

const LIVE: Connection = { kind: 'live', renewal: 'none', attempt: 0 };
const JUST_LIVE: Connection = { ...LIVE, attempt: 1 };

/** The states and effects of a run, in words. */
function run(from: Connection, ...events: ConnectionEvent[]): [Connection, string[]] {
  let state = from;
  const effects: string[] = [];
  for (const event of events) {
    const [next, todo] = step(state, event);
    state = next;
    effects.push(...todo.map(({ kind }) => kind));
  }
  return [state, effects];
}

describe('connecting', () => {
  test('opens a socket and is live when it is up', () => {
    expect(run({ kind: 'idle' }, { kind: 'start' }, { kind: 'opened' })).toEqual([JUST_LIVE, ['open']]);
    expect(run(JUST_LIVE, { kind: 'settled' })).toEqual([LIVE, []]);
  });

  test('asks the session endpoint after a failure, as a browser hides the reason', () => {
    const [state, effects] = run({ kind: 'connecting', attempt: 0 }, { kind: 'failed' });
    expect(state).toEqual({ kind: 'checking', attempt: 1 });
    expect(effects).toEqual(['check']);
  });

  test.each(['forbidden_origin', 'tenant_suspended'])('ends for good at %s', (code) => {
    const [state, effects] = run({ kind: 'connecting', attempt: 0 }, { kind: 'failed', code });
    expect(state).toEqual({ kind: 'refused', code });
    expect(effects).toEqual(['close']);
  });

  test('waits longer with every attempt, up to a bound', () => {
    expect(backoff(1)).toBeGreaterThan(backoff(0));
    expect(backoff(50)).toBe(backoff(49));
    const [state, effects] = run(
      { kind: 'connecting', attempt: 2 },
      { kind: 'failed' },
      { kind: 'session', state: 'valid' },
    );
    expect(state).toEqual({ kind: 'waiting', attempt: 3 });
    expect(effects).toEqual(['check', 'retryAfter']);
  });
});

describe('a lost socket', () => {
  test('comes back at once when the session is good', () => {
    expect(run(LIVE, { kind: 'closed' }, { kind: 'session', state: 'valid' })).toEqual([
      { kind: 'connecting', attempt: 0 },
      ['check', 'open'],
    ]);
  });

  test('waits while the server is out of reach, and tries again', () => {
    const [state, effects] = run(LIVE, { kind: 'closed' }, { kind: 'session', state: 'unreachable' });
    expect(state.kind).toBe('waiting');
    expect(effects).toEqual(['check', 'retryAfter']);
    expect(run(state, { kind: 'retry' })[0].kind).toBe('connecting');
  });

  test('refreshes an ended session, and is expired when that fails', () => {
    const [state, effects] = run(LIVE, { kind: 'closed' }, { kind: 'session', state: 'ended' });
    expect(effects).toEqual(['check', 'refresh']);
    expect(run(state, { kind: 'refreshed', outcome: 'ended' })[0]).toEqual({ kind: 'expired' });
    expect(run(state, { kind: 'refreshed', outcome: 'renewed' })).toEqual([
      { kind: 'connecting', attempt: 0 },
      ['open'],
    ]);
  });

  test('that had only just opened is not opened again at once: a server that closes it each time is left alone', () => {
    const [state, effects] = run(JUST_LIVE, { kind: 'closed' }, { kind: 'session', state: 'valid' });
    expect(state).toEqual({ kind: 'waiting', attempt: 1 });
    expect(effects).toEqual(['check', 'retryAfter']);
    expect(run(state, { kind: 'retry' }, { kind: 'opened' })[0]).toMatchObject({ kind: 'live', attempt: 2 });
  });

  test('does not loop when a fresh token is refused again and again', () => {
    const [state] = run({ kind: 'refreshing', attempt: 2 }, { kind: 'refreshed', outcome: 'renewed' });
    expect(state.kind).toBe('waiting');
  });

  test('is refused when the session endpoint says so', () => {
    const [state] = run(LIVE, { kind: 'closed' }, { kind: 'session', state: 'refused', code: 'tenant_suspended' });
    expect(state).toEqual({ kind: 'refused', code: 'tenant_suspended' });
  });
});

describe('a session about to end', () => {
  test('is refreshed while live, and a second socket takes over before the first closes', () => {
    expect(
      run(LIVE, { kind: 'expiring' }, { kind: 'refreshed', outcome: 'renewed' }, { kind: 'replaced' }),
    ).toEqual([LIVE, ['refresh', 'replace']]);
  });

  test('is refreshed once, however often it is announced', () => {
    expect(run(LIVE, { kind: 'expiring' }, { kind: 'expiring' })[1]).toEqual(['refresh']);
  });

  test('stays live to its end when it cannot be refreshed', () => {
    expect(run(LIVE, { kind: 'expiring' }, { kind: 'refreshed', outcome: 'ended' })).toEqual([LIVE, ['refresh']]);
  });

  test('goes on connecting when the first socket closes before the second is live', () => {
    const [state, effects] = run(LIVE, { kind: 'goaway', reason: 'shutdown', withinMs: 5000 }, { kind: 'closed' });
    expect(state.kind).toBe('connecting');
    expect(effects).toEqual(['replace']);
    expect(run(state, { kind: 'replaced' })[0].kind).toBe('live');
  });

  test('keeps the first socket when the second does not come up', () => {
    expect(run(LIVE, { kind: 'goaway', reason: 'shutdown', withinMs: 1 }, { kind: 'replaceFailed' })[0]).toEqual(
      LIVE,
    );
  });
});

describe('a notice to go away', () => {
  test('that leaves no time is left to the close behind it', () => {
    expect(run(LIVE, { kind: 'goaway', reason: 'expired', withinMs: 0 })).toEqual([LIVE, []]);
  });

  test('of an administrator is heeded until a person starts again', () => {
    const [state, effects] = run(
      LIVE,
      { kind: 'goaway', reason: 'disconnected', withinMs: 0 },
      { kind: 'closed' },
    );
    expect(state).toEqual({ kind: 'refused', code: 'disconnected' });
    expect(effects).toEqual(['close']);
    expect(run(state, { kind: 'start' })[0].kind).toBe('connecting');
  });
});

test('a stop closes everything from every state, and late answers change nothing', () => {
  const states: Connection[] = [
    LIVE,
    { kind: 'checking', attempt: 1 },
    { kind: 'waiting', attempt: 1 },
    { kind: 'expired' },
  ];
  for (const state of states) {
    const [idle, effects] = run(state, { kind: 'stop' });
    expect(idle).toEqual({ kind: 'idle' });
    expect(effects).toEqual(['close']);
    expect(run(idle, { kind: 'session', state: 'valid' }, { kind: 'retry' }, { kind: 'opened' })).toEqual([
      idle,
      [],
    ]);
  }
});
