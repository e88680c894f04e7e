/**
 * The live connection: keeps its rooms across lost sockets, ended tokens and servers that go away.
 *
 * A thin shell around two pure parts: `connection.ts` decides what to do, `room.ts` what a message means.
 */

import { step, type Connection, type ConnectionEvent, type Effect } from './connection';
import type { Session } from './http';
import {
  parseChange,
  parseControl,
  parseJoinAck,
  type ChangeEvent,
  type Control,
  type JoinAck,
  type Ticket,
} from './protocol';
import { joined, newRoom, received, refused, resynced, revoked, type Room } from './room';
import { refreshDelay, type SessionKeeper } from './session';
import { openSocket, type LiveSocket, type OpenSocket } from './socket';

/** Why a room changed. */
export type Cause =
  | { readonly kind: 'event'; readonly event: ChangeEvent }
  | { readonly kind: 'joined'; readonly resumed: number | null; readonly resync: string | null }
  | { readonly kind: 'resync'; readonly reason: string }
  | { readonly kind: 'joining' | 'left' | 'refused' | 'revoked' };

export interface LiveListener {
  connection(state: Connection): void;
  /** The room is null after it was left. */
  room(uuid: string, room: Room | null, cause: Cause): void;
  session(session: Session): void;
}

export interface LiveOptions {
  readonly open?: OpenSocket;
  /** A number from 0 to 1, for spreading reconnects. */
  readonly random?: () => number;
  readonly now?: () => number;
}

/** Codes with which the server says 'not now' instead of 'no'. */
const PASSING: readonly string[] = ['unavailable', 'auth_unavailable', 'rate_limited', 'timeout'];
const ASK_AGAIN_MS = 2000;
/** A socket that lasts this long is one; a server that closes it sooner is not asked again at once. */
const SETTLED_MS = 5000;

export class LiveClient {
  private state: Connection = { kind: 'idle' };
  private readonly rooms = new Map<string, Room>();
  /** The socket in use; null exactly when there is none to send on. */
  private socket: LiveSocket | null = null;
  /** The socket that is to take over, while there is one. */
  private next: LiveSocket | null = null;
  private session: Session | null = null;
  /** The newest one, of whichever socket. */
  private ticket: Ticket | null = null;
  private retryTimer: Timer = undefined;
  private settleTimer: Timer = undefined;
  private expiryTimer: Timer = undefined;
  private readonly askTimers = new Set<Timer>();
  private readonly openSocket: OpenSocket;
  private readonly random: () => number;
  private readonly now: () => number;

  constructor(
    private readonly keeper: SessionKeeper,
    private readonly listener: LiveListener,
    options: LiveOptions = {},
  ) {
    this.openSocket = options.open ?? openSocket;
    this.random = options.random ?? Math.random;
    this.now = options.now ?? Date.now;
  }

  /** Connects, or tries again at once when waiting. Needs a session that is good now. */
  start(session: Session): void {
    this.learn(session);
    this.feed({ kind: 'start' });
  }

  /** Closes everything; nothing is called back afterwards but `connection` with `idle`. */
  stop(): void {
    this.feed({ kind: 'stop' });
    this.forget();
  }

  /** The network may be back: do not wait any longer. */
  wake(): void {
    this.feed({ kind: 'retry' });
  }

  join(uuid: string): void {
    // As events name it, however the caller writes it.
    const room = newRoom(uuid.toLowerCase());
    this.set(room, { kind: 'joining' });
    if (this.socket !== null && this.state.kind === 'live') this.ask(this.socket, [room]);
  }

  leave(written: string): void {
    const uuid = written.toLowerCase();
    if (!this.rooms.delete(uuid)) return;
    this.socket?.ask('LeaveRoom', [[uuid]], () => undefined);
    this.next?.ask('LeaveRoom', [[uuid]], () => undefined);
    this.listener.room(uuid, null, { kind: 'left' });
  }

  /** What this session has seen is not for the next. */
  private forget(): void {
    this.rooms.clear();
    this.ticket = null;
    for (const timer of this.askTimers) clearTimeout(timer);
    this.askTimers.clear();
    clearTimeout(this.expiryTimer);
  }

  private feed(event: ConnectionEvent): void {
    const before = this.state;
    const [state, effects] = step(before, event);
    this.state = state;
    if (state.kind !== before.kind) this.settle(state);
    for (const effect of effects) this.perform(effect);
    if (state.kind === 'loggedOut' && before.kind !== 'loggedOut') this.forget();
    if (state !== before) this.listener.connection(state);
  }

  private settle(state: Connection): void {
    clearTimeout(this.settleTimer);
    if (state.kind === 'live') this.settleTimer = setTimeout(() => this.feed({ kind: 'settled' }), SETTLED_MS);
  }

  private perform(effect: Effect): void {
    switch (effect.kind) {
      case 'open':
        this.open();
        break;
      case 'close':
        this.drop();
        break;
      case 'check':
        void this.check();
        break;
      case 'refresh':
        void this.keeper.refresh(this.session?.expiresAt ?? null).then(async (outcome) => {
          if (outcome === 'renewed') await this.relearn();
          this.feed({ kind: 'refreshed', outcome });
        });
        break;
      case 'replace':
        // Every client of a server that goes away gets the same notice: spread over the first half of the time.
        this.later((this.random() * effect.withinMs) / 2, () => this.replace());
        break;
      case 'retryAfter':
        this.later(effect.ms * (0.5 + this.random() / 2), () => this.feed({ kind: 'retry' }));
        break;
    }
  }

  private later(ms: number, work: () => void): void {
    clearTimeout(this.retryTimer);
    this.retryTimer = setTimeout(work, ms);
  }

  private async check(): Promise<void> {
    const check = await this.keeper.check();
    if (this.state.kind === 'idle') return;
    if (check.state === 'valid') this.learn(check.session);
    if (check.state === 'refused') this.feed({ kind: 'session', ...check });
    // What it could be continued with does not run out before it: somebody has taken it away, maybe in another tab.
    else if (check.state === 'ended' && !check.canRefresh && this.session?.canRefresh === true)
      this.feed({ kind: 'session', state: 'loggedOut' });
    else this.feed({ kind: 'session', state: check.state });
  }

  private async relearn(): Promise<void> {
    const check = await this.keeper.check();
    if (check.state === 'valid' && this.state.kind !== 'idle') this.learn(check.session);
  }

  private learn(session: Session): void {
    this.session = session;
    clearTimeout(this.expiryTimer);
    const delay = refreshDelay(session, this.now());
    // Past 2^31 a timer fires at once; a session that long will be looked at again before.
    if (delay !== null && delay < 2 ** 31)
      this.expiryTimer = setTimeout(() => this.feed({ kind: 'expiring' }), delay);
    this.listener.session(session);
  }

  private drop(): void {
    clearTimeout(this.retryTimer);
    this.socket?.close();
    this.next?.close();
    this.socket = null;
    this.next = null;
  }

  private open(): void {
    this.drop();
    const socket: LiveSocket = this.openSocket({
      opened: () => {
        this.feed({ kind: 'opened' });
        this.ask(socket, [...this.rooms.values()]);
      },
      failed: (code) => this.lost(socket, code === undefined ? { kind: 'failed' } : { kind: 'failed', code }),
      closed: () => this.lost(socket, { kind: 'closed' }),
      message: (name, args) => this.message(name, args),
    });
    this.socket = socket;
  }

  private lost(socket: LiveSocket, event: ConnectionEvent): void {
    if (socket !== this.socket) return;
    this.socket = null;
    this.feed(event);
  }

  /** A second socket takes over: joined everywhere first, so that nothing is missed between the two. */
  private replace(): void {
    this.next?.close();
    const failed = (): void => {
      if (this.next !== socket) {
        this.lost(socket, { kind: 'closed' });
        return;
      }
      this.next = null;
      this.feed({ kind: 'replaceFailed' });
    };
    const socket: LiveSocket = this.openSocket({
      opened: () => {
        this.ask(socket, [...this.rooms.values()], () => {
          if (this.next !== socket) return;
          this.socket?.close();
          this.socket = socket;
          this.next = null;
          this.feed({ kind: 'replaced' });
        });
      },
      failed,
      closed: failed,
      message: (name, args) => this.message(name, args),
    });
    this.next = socket;
  }

  /** Joins the rooms on that socket, each from its own cursor; `done` when all have been answered. */
  private ask(socket: LiveSocket, rooms: readonly Room[], done: () => void = () => undefined): void {
    const groups = new Map<string | null, string[]>();
    for (const room of rooms) {
      if (room.membership.kind !== 'joining' && room.membership.kind !== 'live') continue;
      const since = room.stale ? null : room.cursor;
      groups.set(since, [...(groups.get(since) ?? []), room.uuid]);
    }
    let open = groups.size;
    if (open === 0) done();
    for (const [since, uuids] of groups) {
      // With every join: in the answer to one without it, the ticket would begin anew.
      const options = {
        ...(since === null ? { snapshot: true } : { since }),
        ...(this.ticket === null ? {} : { ticket: this.ticket }),
      };
      socket.ask('JoinRoom', [uuids, options], (reply) => {
        if (socket !== this.socket && socket !== this.next) return;
        this.answered(parseJoinAck(reply ?? { code: 'timeout' }, uuids), since);
        open -= 1;
        if (open === 0) done();
      });
    }
  }

  private answered({ joined: taken, refused: turnedDown, ticket }: JoinAck, since: string | null): void {
    if (ticket !== undefined) this.ticket = ticket;
    for (const [uuid, answer] of Object.entries(taken)) {
      const room = this.rooms.get(uuid);
      if (room === undefined) continue;
      const next = joined(room, answer);
      // A second request for a snapshot in a row would only be answered in the same way.
      if (next.stale && since === null) this.set(refused(room, 'bad_answer'), { kind: 'refused' });
      else this.set(next, { kind: 'joined', resumed: answer.resumed ?? null, resync: answer.resync ?? null });
      if (next.stale && since !== null) this.askSnapshot(uuid);
    }
    for (const [uuid, { code }] of Object.entries(turnedDown)) {
      const room = this.rooms.get(uuid);
      if (room === undefined) continue;
      if (PASSING.includes(code)) this.askLater(uuid);
      else if (code === 'invalid_cursor' && since !== null) this.askSnapshot(uuid);
      else this.set(refused(room, code), { kind: 'refused' });
    }
  }

  private askLater(uuid: string): void {
    const timer = setTimeout(() => {
      this.askTimers.delete(timer);
      const room = this.rooms.get(uuid);
      if (room !== undefined && this.socket !== null && this.state.kind === 'live') this.ask(this.socket, [room]);
    }, ASK_AGAIN_MS);
    this.askTimers.add(timer);
  }

  private askSnapshot(uuid: string): void {
    const room = this.rooms.get(uuid);
    if (room !== undefined && this.socket !== null) this.ask(this.socket, [{ ...room, stale: true }]);
  }

  private message(name: string, args: readonly unknown[]): void {
    if (name.startsWith('$')) {
      const control = parseControl(name, args);
      if (control !== null) this.control(control);
      return;
    }
    const event = parseChange(name, args);
    const room = event === null ? undefined : this.rooms.get(event.uuid);
    if (event === null || room === undefined) return;
    const next = received(room, event);
    if (next === room) return;
    this.set(next, next.stale ? { kind: 'resync', reason: 'out_of_step' } : { kind: 'event', event });
    if (next.stale) this.askSnapshot(event.uuid);
  }

  private control(control: Control): void {
    if (control.kind === 'expiring') return this.feed({ kind: 'expiring' });
    if (control.kind === 'goaway') return this.feed(control);
    if (control.kind === 'ticket') {
      this.ticket = control.ticket;
      return undefined;
    }
    const room = this.rooms.get(control.uuid);
    if (room === undefined) return undefined;
    switch (control.kind) {
      case 'revoked':
        return this.set(revoked(room, control.reason), { kind: 'revoked' });
      case 'refused':
        return this.set(refused(room, control.code), { kind: 'refused' });
      case 'resync': {
        const next = resynced(room, control.snapshot, control.cursor);
        this.set(next, { kind: 'resync', reason: control.reason });
        if (next.stale) this.askSnapshot(control.uuid);
      }
    }
  }

  private set(room: Room, cause: Cause): void {
    this.rooms.set(room.uuid, room);
    this.listener.room(room.uuid, room, cause);
  }
}

type Timer = ReturnType<typeof setTimeout> | undefined;
