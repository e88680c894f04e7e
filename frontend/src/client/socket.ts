/** One Socket.IO connection, WebSocket only, without the library's own reconnection: `LiveClient` decides. */

import { io } from 'socket.io-client';

export interface SocketEvents {
  opened(): void;
  /** It never came up; `code` is the server's, when the refusal came as a connect error. */
  failed(code?: string): void;
  closed(): void;
  message(name: string, args: readonly unknown[]): void;
}

export interface LiveSocket {
  /** Sends an event; `answer` gets the acknowledgement, or null when none came in time. */
  ask(name: string, args: readonly unknown[], answer: (reply: unknown) => void): void;
  close(): void;
}

export type OpenSocket = (events: SocketEvents) => LiveSocket;

/** More than the server takes before it gives up on a join itself. */
const ACK_TIMEOUT_MS = 15_000;

/** Opens a socket to the page's own server, with the page's cookie. */
export const openSocket: OpenSocket = (events) => {
  const socket = io({ transports: ['websocket'], reconnection: false, forceNew: true, timeout: ACK_TIMEOUT_MS });
  let ended = false;
  const once = (end: () => void): void => {
    if (ended) return;
    ended = true;
    clearTimeout(deadline);
    end();
    socket.disconnect();
  };
  // The library's own time-out ends with the WebSocket's opening; the answer to CONNECT has none.
  const deadline = setTimeout(() => once(() => events.failed()), ACK_TIMEOUT_MS);
  socket.on('connect', () => {
    clearTimeout(deadline);
    events.opened();
  });
  socket.on('connect_error', (error: Error & { data?: { code?: unknown } }) => {
    const code = error.data?.code;
    once(() => (typeof code === 'string' ? events.failed(code) : events.failed()));
  });
  socket.on('disconnect', () => once(() => events.closed()));
  socket.onAny((name: string, ...args: unknown[]) => {
    if (!ended) events.message(name, args);
  });
  return {
    ask(name, args, answer) {
      // In the acknowledgement's own call, not a promise: the next frame may follow at once.
      socket.timeout(ACK_TIMEOUT_MS).emit(name, ...args, (error: unknown, reply: unknown) => {
        if (!ended) answer(error === null || error === undefined ? reply : null);
      });
    },
    close() {
      ended = true;
      clearTimeout(deadline);
      socket.disconnect();
    },
  };
};
