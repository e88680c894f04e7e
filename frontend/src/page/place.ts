/** The way to the login page and back: the document that was open before, as an address's `#part` does not survive it. */

import { parseUuid } from '../client/uuid';
import { declined } from './words';

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

/** Why the login service did not log anybody in, for the person; empty where it was not asked. Told once. */
export function declinedLogin(): string {
  const url = new URL(location.href);
  const reason = url.searchParams.get('login_error');
  if (reason === null) return '';
  url.searchParams.delete('login_error');
  history.replaceState(null, '', url);
  return declined(reason);
}
