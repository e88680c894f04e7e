/** The browser's session: is it still good, and how it is continued without two tabs getting in each other's way. */

import type { Api, Session } from './http';
import { Problem } from './problem';

export type Check =
  | { readonly state: 'valid'; readonly session: Session; readonly canRefresh: boolean }
  | { readonly state: 'ended'; readonly canRefresh: boolean }
  | { readonly state: 'unreachable' }
  | { readonly state: 'refused'; readonly code: string };

export type Refreshed = 'renewed' | 'ended' | 'unreachable';

/** Milliseconds until a token should be exchanged, or null when it has no end that is known. */
export function refreshDelay({ refreshAt, expiresAt }: Session, now: number): number | null {
  const at = refreshAt ?? expiresAt;
  return at === null ? null : Math.max(0, at - now);
}

type Exclusive = <T>(work: () => Promise<T>) => Promise<T>;

/** One refresh at a time in this browser: a refresh token that is used twice ends the session (RFC 9700, 4.14). */
const acrossTabs: Exclusive = (work) =>
  'locks' in navigator ? navigator.locks.request('livedocs-refresh', work) : work();

export class SessionKeeper {
  constructor(
    private readonly api: Api,
    private readonly exclusive: Exclusive = acrossTabs,
  ) {}

  async check(): Promise<Check> {
    try {
      const { session, canRefresh } = await this.api.session();
      return session === null ? { state: 'ended', canRefresh } : { state: 'valid', session, canRefresh };
    } catch (error) {
      const final = error instanceof Problem && error.status === 403;
      return final ? { state: 'refused', code: error.code } : { state: 'unreachable' };
    }
  }

  /** Continues the session, unless another tab has done so since `known`, the end this tab knows. */
  async refresh(known: number | null): Promise<Refreshed> {
    return this.exclusive(async () => {
      const now = await this.check();
      if (now.state === 'valid' && known !== null && (now.session.expiresAt ?? 0) > known) return 'renewed';
      if (now.state === 'unreachable') return 'unreachable';
      if (now.state === 'refused' || !now.canRefresh) return 'ended';
      try {
        await this.api.refresh();
        return 'renewed';
      } catch (error) {
        const ended =
          error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429;
        return ended ? 'ended' : 'unreachable';
      }
    });
  }
}
