/** The document that was open before the way to the login page and back; an address's `#part` does not survive it. */

import { parseUuid } from '../client/uuid';

const KEY = 'livedocs.uuid';

export function remember(uuid: string | null): void {
  try {
    if (uuid === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, uuid);
  } catch {
    // Storage may be switched off; then the UUID has to be typed again.
  }
}

/** The remembered document, once. */
export function remembered(): string | null {
  try {
    const uuid = sessionStorage.getItem(KEY);
    sessionStorage.removeItem(KEY);
    return uuid === null ? null : parseUuid(uuid);
  } catch {
    return null;
  }
}
