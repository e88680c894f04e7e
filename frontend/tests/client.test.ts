import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { LiveClient, type Cause } from '../src/client/client';
import type { Connection } from '../src/client/connection';
import type { Session } from '../src/client/http';
import type { Room } from '../src/client/room';
import type { SessionKeeper } from '../src/client/session';
import type { LiveSocket, SocketEvents } from '../src/client/socket';

const UUID = '6f1c2f34-5a3e-4a51-9d2b-0d6f3a1e9c77';
const SESSION: Session = {
  subject: 'user:alice',
  name: 'Alice',
  tenant: 'acme',
  expiresAt: null,
  refreshAt: null,
  canRefresh: true,
};

/** A socket whose other end is the test. */
class FakeSocket implements LiveSocket {
  readonly asked: { name: string; args: readonly unknown[]; answer: (reply: unknown) => void }[] = [];
  closed = false;
  constructor(readonly events: SocketEvents) {}
  ask(name: string, args: readonly unknown[], answer: (reply: unknown) => void): void {
    this.asked.push({ name, args, answer });
  }
  close(): void {
    this.closed = true;
  }
  accept(more: Record<string, unknown>): void {
    this.asked.at(-1)?.answer({ joined: { [UUID]: { role: 'owner', cursor: '82B', ...more } }, refused: {} });
  }
  /** The same with a ticket. */
  admit(ticket: string, more: Record<string, unknown>): void {
    const joined = { [UUID]: { role: 'owner', cursor: '82B', ...more } };
    this.asked.at(-1)?.answer({ joined, refused: {}, ticket });
  }
  change(id: string, n: number): void {
    this.events.message('notes', [
      { uuid: UUID, n },
      { op: 'update', id, at: '', removed: [], truncated: [] },
    ]);
  }
}

class World {
  readonly sockets: FakeSocket[] = [];
  readonly states: string[] = [];
  readonly causes: string[] = [];
  room: Room | null = null;
  session: 'valid' | 'ended' | 'unreachable' = 'valid';
  canRefresh = true;
  refreshed: 'renewed' | 'ended' = 'renewed';
  readonly client: LiveClient;

  constructor() {
    const keeper = {
      check: async () =>
        this.session === 'valid'
          ? { state: 'valid', session: SESSION, canRefresh: true }
          : { state: this.session, canRefresh: this.canRefresh },
      refresh: async () => this.refreshed,
    };
    const listener = {
      connection: (state: Connection) => void this.states.push(state.kind),
      session: () => undefined,
      room: (_: string, room: Room | null, cause: Cause) => {
        this.room = room;
        this.causes.push(cause.kind);
      },
    };
    this.client = new LiveClient(keeper as unknown as SessionKeeper, listener, {
      open: (events) => {
        const socket = new FakeSocket(events);
        this.sockets.push(socket);
        return socket;
      },
      random: () => 1,
    });
    this.client.start(SESSION);
  }

  socket(index: number): FakeSocket {
    const socket = this.sockets[index];
    if (socket === undefined) throw new Error(`no socket ${index}`);
    return socket;
  }

  /** Live for some time and in the room, with a note of n = 1 at cursor 82B. */
  static live(): World {
    const world = new World();
    world.client.join(UUID);
    world.socket(0).events.opened();
    world.socket(0).accept({ snapshot: { notes: [{ uuid: UUID, n: 1 }] } });
    vi.advanceTimersByTime(6000);
    return world;
  }

  get n(): unknown {
    return this.room?.documents.get('notes')?.[0]?.['n'];
  }
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());
const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

test('a room that was asked for before the socket was up is joined when it is, with a snapshot', () => {
  const world = World.live();
  expect(world.socket(0).asked.map(({ name, args }) => [name, ...args])).toEqual([
    ['JoinRoom', [UUID], { snapshot: true }],
  ]);
  expect(world.states).toEqual(['connecting', 'live', 'live']);
  expect(world.n).toBe(1);
});

test('a room is the same one however its UUID is written', () => {
  const world = new World();
  world.client.join(UUID.toUpperCase());
  world.socket(0).events.opened();
  expect(world.socket(0).asked[0]?.args[0]).toEqual([UUID]);
  world.socket(0).accept({ snapshot: { notes: [{ uuid: UUID, n: 1 }] } });
  expect(world.n).toBe(1);
  world.client.leave(UUID.toUpperCase());
  expect(world.room).toBeNull();
});

test('the newest ticket goes with every join, whether it came with an answer or by itself', async () => {
  const world = new World();
  world.client.join(UUID);
  world.socket(0).events.opened();
  expect(world.socket(0).asked[0]?.args[1]).toEqual({ snapshot: true });
  world.socket(0).admit('first', { snapshot: { notes: [{ uuid: UUID, n: 1 }] } });
  world.client.join(UUID);
  expect(world.socket(0).asked[1]?.args[1]).toEqual({ snapshot: true, ticket: 'first' });
  world.socket(0).accept({ snapshot: { notes: [{ uuid: UUID, n: 1 }] } });
  world.socket(0).events.message('$ticket', [{ ticket: 'second' }]);
  world.socket(0).events.message('$ticket', [{}]);
  vi.advanceTimersByTime(6000);
  world.socket(0).events.closed();
  await settle();
  vi.advanceTimersByTime(6000);
  await settle();
  world.socket(1).events.opened();
  expect(world.socket(1).asked[0]?.args[1]).toEqual({ since: '82B', ticket: 'second' });
});

test('a ticket does not outlive its session', async () => {
  const world = new World();
  world.client.join(UUID);
  world.socket(0).events.opened();
  world.socket(0).admit('first', { snapshot: { notes: [] } });
  world.client.stop();
  world.client.start(SESSION);
  world.client.join(UUID);
  world.socket(1).events.opened();
  expect(world.socket(1).asked[0]?.args[1]).toEqual({ snapshot: true });
});

test('after a lost socket the room is joined again from its cursor, and replayed events count', async () => {
  const world = World.live();
  world.socket(0).change('82C', 2);
  world.socket(0).events.closed();
  await settle();
  world.socket(1).events.opened();
  expect(world.socket(1).asked[0]?.args).toEqual([[UUID], { since: '82C' }]);
  world.socket(1).accept({ cursor: '82F', resumed: 1 });
  world.socket(1).change('82D', 3);
  expect(world.n).toBe(3);
});

test('while the server is out of reach the client waits and tries again', async () => {
  const world = World.live();
  world.session = 'unreachable';
  world.socket(0).events.closed();
  await settle();
  expect(world.states.at(-1)).toBe('waiting');
  world.session = 'valid';
  await vi.advanceTimersByTimeAsync(600);
  expect(world.sockets).toHaveLength(2);
});

test('a server that closes every socket it opens is asked less and less often', async () => {
  const world = new World();
  world.client.join(UUID);
  for (let index = 0; index < 5; index += 1) {
    world.socket(index).events.opened();
    world.socket(index).events.closed();
    await vi.advanceTimersByTimeAsync(500);
    expect(world.sockets).toHaveLength(index + 1);
    await vi.advanceTimersByTimeAsync(60_000);
  }
});

test('an ended session that cannot be refreshed is expired', async () => {
  const world = World.live();
  Object.assign(world, { session: 'ended', refreshed: 'ended' });
  world.socket(0).events.closed();
  await settle();
  expect(world.states.at(-1)).toBe('expired');
});

describe('a logout in another tab', () => {
  test('is told by the server, and nothing of the rooms is kept', () => {
    const world = World.live();
    world.socket(0).events.message('$goaway', [{ reason: 'logout', within_ms: 0 }]);
    expect(world.states.at(-1)).toBe('loggedOut');
    expect(world.socket(0).closed).toBe(true);
    world.client.start(SESSION);
    world.socket(1).events.opened();
    expect(world.socket(1).asked).toEqual([]);
  });

  test('is found out by a tab that slept meanwhile: the session could be continued, and now cannot', async () => {
    const world = World.live();
    Object.assign(world, { session: 'ended', canRefresh: false });
    world.socket(0).events.closed();
    await settle();
    expect(world.states.at(-1)).toBe('loggedOut');
  });
});

describe('a session about to end', () => {
  test('moves to a second socket that joins first, and then closes the first: nothing is missed or doubled', async () => {
    const world = World.live();
    world.socket(0).events.message('$expiring', [{ at: '2026-01-01T00:00:00Z' }]);
    await settle();
    const [old, next] = [world.socket(0), world.socket(1)];
    next.events.opened();
    old.change('82C', 2);
    expect(old.closed).toBe(false);
    next.accept({ cursor: '82F', resumed: 2 });
    expect(old.closed).toBe(true);
    next.change('82C', 2);
    next.change('82D', 3);
    expect(world.n).toBe(3);
    expect(world.causes.filter((cause) => cause === 'event')).toHaveLength(2);
    expect(world.states.every((state) => state === 'connecting' || state === 'live')).toBe(true);
  });

  test('survives the first socket closing before the second is live', async () => {
    const world = World.live();
    world.socket(0).events.message('$goaway', [{ reason: 'restart', within_ms: 1000 }]);
    await vi.advanceTimersByTimeAsync(600);
    world.socket(0).events.closed();
    world.socket(1).events.opened();
    world.socket(1).accept({ resumed: 0 });
    expect(world.states.at(-1)).toBe('live');
    expect(world.sockets).toHaveLength(2);
  });
});

test('a change that does not fit is answered with one request for a snapshot', () => {
  const world = World.live();
  world.socket(0).events.message('notes', [
    { uuid: UUID, 'a.b': 1 },
    { op: 'update', id: '82C', at: '' },
  ]);
  world.socket(0).change('82D', 4);
  expect(world.socket(0).asked.at(-1)?.args).toEqual([[UUID], { snapshot: true }]);
  expect(world.socket(0).asked).toHaveLength(2);
  world.socket(0).accept({ cursor: '82E', snapshot: { notes: [{ n: 5 }] } });
  expect(world.n).toBe(5);
});

test('a cursor the server no longer knows is answered with the snapshot it sends', async () => {
  const world = World.live();
  world.socket(0).events.closed();
  await settle();
  world.socket(1).events.opened();
  world.socket(1).accept({ cursor: '82F', resync: 'window', snapshot: { notes: [{ n: 9 }] } });
  expect(world.n).toBe(9);
});

test('a cursor the server cannot read is given up for a snapshot', async () => {
  const world = World.live();
  world.socket(0).events.closed();
  await settle();
  world.socket(1).events.opened();
  world.socket(1).asked[0]?.answer({ joined: {}, refused: { [UUID]: { code: 'invalid_cursor' } } });
  expect(world.socket(1).asked[1]?.args).toEqual([[UUID], { snapshot: true }]);
});

test('a revoked room keeps nothing and is not joined again', async () => {
  const world = World.live();
  world.socket(0).events.message('$revoked', [{ uuid: UUID, reason: 'revoked' }]);
  expect(world.room?.membership).toEqual({ kind: 'revoked', reason: 'revoked' });
  expect(world.n).toBeUndefined();
  world.socket(0).events.closed();
  await settle();
  world.socket(1).events.opened();
  expect(world.socket(1).asked).toHaveLength(0);
});

test('a refusal is told, and one that passes is asked again later', async () => {
  const world = new World();
  world.client.join(UUID);
  world.socket(0).events.opened();
  world.socket(0).asked[0]?.answer({ joined: {}, refused: { [UUID]: { code: 'unavailable' } } });
  expect(world.room?.membership.kind).toBe('joining');
  await vi.advanceTimersByTimeAsync(2500);
  world.socket(0).asked[1]?.answer({ joined: {}, refused: { [UUID]: { code: 'forbidden' } } });
  expect(world.room?.membership).toEqual({ kind: 'refused', code: 'forbidden' });
});

test('a left room gets nothing any more', () => {
  const world = World.live();
  world.client.leave(UUID);
  expect(world.socket(0).asked.at(-1)?.name).toBe('LeaveRoom');
  const told = world.causes.length;
  world.socket(0).change('82C', 2);
  expect(world.causes).toHaveLength(told);
});

test('after a stop nothing comes back, whatever was under way', async () => {
  const world = World.live();
  world.socket(0).events.closed();
  world.client.stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(world.sockets).toHaveLength(1);
  expect(world.states.at(-1)).toBe('idle');
});
