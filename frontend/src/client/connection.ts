/**
 * The connection as a state machine. Pure: a state and an event in, a state and what is to be done out.
 *
 *     idle -> connecting -> live -> checking -> connecting | waiting | refreshing | refused
 *                     live, checking -> loggedOut
 *                                   waiting -> connecting
 *                                refreshing -> connecting | expired | waiting
 *
 * A browser does not tell a script why a WebSocket was refused, so after each loss the session endpoint is asked.
 */

export type Connection =
  | { readonly kind: 'idle' }
  | { readonly kind: 'connecting'; readonly attempt: number }
  /** `attempt` is 0 once the connection has held for a while: opening alone is not yet a success. */
  | { readonly kind: 'live'; readonly renewal: 'none' | 'refreshing' | 'replacing'; readonly attempt: number }
  | { readonly kind: 'checking'; readonly attempt: number }
  | { readonly kind: 'waiting'; readonly attempt: number }
  | { readonly kind: 'refreshing'; readonly attempt: number }
  /** The session has ended by itself, or cannot be continued. */
  | { readonly kind: 'expired' }
  /** Somebody has logged out of it, in this tab or in another one. */
  | { readonly kind: 'loggedOut' }
  | { readonly kind: 'refused'; readonly code: string };

export type ConnectionEvent =
  | { readonly kind: 'start' }
  | { readonly kind: 'stop' }
  | { readonly kind: 'opened' }
  /** The socket has been open for some time. */
  | { readonly kind: 'settled' }
  | { readonly kind: 'failed'; readonly code?: string }
  | { readonly kind: 'closed' }
  | { readonly kind: 'session'; readonly state: 'valid' | 'ended' | 'loggedOut' | 'unreachable' }
  | { readonly kind: 'session'; readonly state: 'refused'; readonly code: string }
  | { readonly kind: 'refreshed'; readonly outcome: 'renewed' | 'ended' | 'unreachable' }
  | { readonly kind: 'retry' }
  | { readonly kind: 'expiring' }
  | { readonly kind: 'goaway'; readonly reason: string; readonly withinMs: number }
  | { readonly kind: 'replaced' }
  | { readonly kind: 'replaceFailed' };

export type Effect =
  | { readonly kind: 'open' }
  | { readonly kind: 'close' }
  | { readonly kind: 'check' }
  | { readonly kind: 'refresh' }
  /** Open a second socket, join everything there with its cursors, then close the first. */
  | { readonly kind: 'replace'; readonly withinMs: number }
  | { readonly kind: 'retryAfter'; readonly ms: number };

export type Step = readonly [Connection, readonly Effect[]];

/** Refusals that trying again does not change. */
const FINAL: readonly string[] = ['forbidden_origin', 'forbidden', 'unknown_tenant', 'tenant_suspended'];

/** The notice with which an administrator ends a connection: coming back at once would make nothing of it. */
const SENT_AWAY = 'disconnected';
/** The notice with which the sockets of a session end that somebody has logged out of. */
const LOGGED_OUT = 'logout';

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 20_000;

/** The longest wait before that attempt; the caller takes a random part of it, so that clients come back spread. */
export function backoff(attempt: number): number {
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(attempt, 10));
}

function open(attempt: number): Step {
  return [{ kind: 'connecting', attempt }, [{ kind: 'open' }]];
}

function wait(attempt: number): Step {
  return [{ kind: 'waiting', attempt }, [{ kind: 'retryAfter', ms: backoff(attempt) }]];
}

function refresh(attempt: number): Step {
  return [{ kind: 'refreshing', attempt }, [{ kind: 'refresh' }]];
}

/** What follows. An event that makes no sense in a state changes nothing: it came from a socket that is gone. */
export function step(state: Connection, event: ConnectionEvent): Step {
  if (event.kind === 'stop') return [{ kind: 'idle' }, [{ kind: 'close' }]];
  switch (state.kind) {
    case 'idle':
    case 'expired':
    case 'loggedOut':
    case 'refused':
      return event.kind === 'start' ? open(0) : [state, []];
    case 'connecting':
      return whileConnecting(state, event);
    case 'live':
      return whileLive(state, event);
    case 'checking':
      return event.kind === 'session' ? afterCheck(state.attempt, event) : [state, []];
    case 'waiting':
      return event.kind === 'retry' || event.kind === 'start' ? open(state.attempt) : [state, []];
    case 'refreshing':
      if (event.kind !== 'refreshed') return [state, []];
      // A fresh token that is refused again must not become a busy loop.
      if (event.outcome === 'renewed') return state.attempt > 1 ? wait(state.attempt) : open(state.attempt);
      return event.outcome === 'ended' ? [{ kind: 'expired' }, []] : wait(state.attempt);
  }
}

function whileConnecting(state: Connection & { kind: 'connecting' }, event: ConnectionEvent): Step {
  switch (event.kind) {
    case 'opened':
    case 'replaced':
      return [{ kind: 'live', renewal: 'none', attempt: state.attempt + 1 }, []];
    case 'failed':
      if (event.code !== undefined && FINAL.includes(event.code)) {
        return [{ kind: 'refused', code: event.code }, [{ kind: 'close' }]];
      }
      return [{ kind: 'checking', attempt: state.attempt + 1 }, [{ kind: 'check' }]];
    case 'closed':
    case 'replaceFailed':
      return [{ kind: 'checking', attempt: state.attempt + 1 }, [{ kind: 'check' }]];
    default:
      return [state, []];
  }
}

function whileLive(state: Connection & { kind: 'live' }, event: ConnectionEvent): Step {
  switch (event.kind) {
    case 'closed':
      // The socket that was to take over is on its way already.
      if (state.renewal === 'replacing') return [{ kind: 'connecting', attempt: state.attempt }, []];
      return [{ kind: 'checking', attempt: state.attempt }, [{ kind: 'check' }]];
    case 'settled':
      return [{ ...state, attempt: 0 }, []];
    case 'expiring':
      return state.renewal === 'none' ? [{ ...state, renewal: 'refreshing' }, [{ kind: 'refresh' }]] : [state, []];
    case 'refreshed':
      if (state.renewal !== 'refreshing') return [state, []];
      return event.outcome === 'renewed'
        ? [{ ...state, renewal: 'replacing' }, [{ kind: 'replace', withinMs: 0 }]]
        : [{ ...state, renewal: 'none' }, []];
    case 'goaway':
      if (event.reason === LOGGED_OUT) return [{ kind: 'loggedOut' }, [{ kind: 'close' }]];
      if (event.reason === SENT_AWAY) return [{ kind: 'refused', code: SENT_AWAY }, [{ kind: 'close' }]];
      // With no time left the socket closes right behind the notice; what is to be done then is decided then.
      return state.renewal === 'none' && event.withinMs > 0
        ? [{ ...state, renewal: 'replacing' }, [{ kind: 'replace', withinMs: event.withinMs }]]
        : [state, []];
    case 'replaced':
    case 'replaceFailed':
      return [{ ...state, renewal: 'none' }, []];
    default:
      return [state, []];
  }
}

function afterCheck(attempt: number, event: ConnectionEvent & { kind: 'session' }): Step {
  switch (event.state) {
    case 'valid':
      return attempt === 0 ? open(0) : wait(attempt);
    case 'ended':
      return refresh(attempt);
    case 'loggedOut':
      return [{ kind: 'loggedOut' }, []];
    case 'unreachable':
      return wait(attempt);
    case 'refused':
      return [{ kind: 'refused', code: event.code }, [{ kind: 'close' }]];
  }
}
