/** The page: holds what is known, hands it to the views, and what people do to the client and the API. */

import { mergePatch } from '../client/changes';
import { LiveClient, type Cause, type LiveListener } from '../client/client';
import type { Connection } from '../client/connection';
import type { Api, Session } from '../client/http';
import type { Json, JsonObject } from '../client/json';
import type { Room } from '../client/room';
import { SessionKeeper } from '../client/session';
import { newUuid, parseUuid } from '../client/uuid';
import { ActivityView } from './activityView';
import { CreateView } from './createView';
import { DeleteDialog, EditDialog } from './dialogs';
import { DocumentsView } from './documentsView';
import { byId } from './dom';
import { declinedLogin, remembered, remember } from './place';
import { SessionView } from './sessionView';
import { SharingView } from './sharingView';
import { StateView } from './stateView';
import { emptyWords, refusal, stateOf } from './words';

const RESTART_MS = 5000;

export class App implements LiveListener {
  private who: Session | null = null;
  private state: Connection = { kind: 'idle' };
  private uuid: string | null = null;
  private current: Room | null = null;
  /** The UUID was made here just now: nothing can be joined before something is created. */
  private fresh = false;

  /** A document was created here: the focus goes to it as soon as it is there, its form being gone. */
  private arriving = false;

  private readonly keeper: SessionKeeper;
  private readonly live: LiveClient;
  private readonly input = byId('uuid', HTMLInputElement);
  private readonly inputError = byId('uuid-error', HTMLParagraphElement);
  private readonly documentCard = byId('document-card', HTMLElement);
  private readonly emptyCard = byId('empty-card', HTMLElement);
  private readonly addButton = byId('add-document', HTMLButtonElement);
  private readonly stateView = new StateView();
  private readonly sessionView: SessionView;
  private readonly documents: DocumentsView;
  private readonly activity = new ActivityView();
  private readonly sharing: SharingView;
  private readonly create: CreateView;
  private readonly editing: EditDialog;
  private readonly deleting: DeleteDialog;

  constructor(private readonly api: Api) {
    this.keeper = new SessionKeeper(api);
    this.live = new LiveClient(this.keeper, this);
    this.sessionView = new SessionView({ leaving: () => this.rememberPlace(), logout: () => void this.logout() });
    this.sharing = new SharingView(api);
    this.documents = new DocumentsView({
      edit: (collection, document) => this.editing.open(collection, document),
      remove: (collection, document) => this.deleting.open(collection, document['_id']),
    });
    this.create = new CreateView((collection, document) => this.add(collection, document));
    this.editing = new EditDialog((collection, id, before, after) => this.change(collection, id, before, after));
    this.deleting = new DeleteDialog((collection, id) => this.remove(collection, id));
    this.listen();
  }

  async start(): Promise<void> {
    let check = await this.keeper.check();
    if (check.state === 'ended' && check.canRefresh && (await this.keeper.refresh(null)) === 'renewed') {
      check = await this.keeper.check();
    }
    const declined = declinedLogin();
    if (check.state !== 'valid') {
      const notices = { ended: declined, unreachable: 'The server cannot be reached just now. Trying again…' };
      this.sessionView.out(check.state === 'refused' ? refusal(check.code) : notices[check.state]);
      if (check.state === 'unreachable') setTimeout(() => void this.start(), RESTART_MS);
      return;
    }
    this.sessionView.in(check.session);
    this.live.start(check.session);
    this.follow(parseUuid(location.hash.slice(1)) ?? remembered());
  }

  // What the client reports

  session(session: Session): void {
    this.who = session;
    this.sessionView.in(session);
  }

  connection(state: Connection): void {
    const before = this.state;
    this.state = state;
    if (state.kind === 'loggedOut') {
      this.leaveSession('You have been logged out.');
      return;
    }
    const was = stateOf(before, null).name;
    const now = stateOf(state, null);
    if (now.name !== was && (now.name === 'offline' || now.name === 'expired' || now.name === 'refused')) {
      this.activity.note(now.name, now.title);
    }
    this.render();
  }

  room(uuid: string, room: Room | null, cause: Cause): void {
    if (uuid !== this.uuid) return;
    this.current = room;
    if (cause.kind === 'event') {
      this.activity.event(cause.event);
      this.editing.changed(cause.event.collection, room?.lastChange?.changes ?? []);
      if (room !== null) this.documents.announce(room);
    } else this.noteCause(cause);
    if (room?.membership.kind === 'revoked' || room?.membership.kind === 'refused') this.closeDialogs();
    this.render();
  }

  private noteCause(cause: Exclude<Cause, { kind: 'event' }>): void {
    switch (cause.kind) {
      case 'joined':
        if (cause.resync !== null) this.activity.note('resync', 'resynchronised', cause.resync);
        else if (cause.resumed === null)
          this.activity.note('joined', 'connected', 'Changes appear as they happen.');
        else
          this.activity.note(
            'joined',
            'reconnected',
            cause.resumed === 0
              ? 'Nothing was missed.'
              : `${cause.resumed} missed ${cause.resumed === 1 ? 'change follows' : 'changes follow'}.`,
          );
        break;
      case 'resync':
        this.activity.note('resync', 'resynchronised', cause.reason);
        break;
      case 'revoked':
        // The log holds what the document said.
        this.activity.clear();
        this.activity.note('revoked', 'access revoked');
        break;
      case 'refused':
        this.activity.note('refused', 'no access');
        break;
      default:
        break;
    }
  }

  // What people do

  private listen(): void {
    byId('connect-form', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      this.connectTo(this.input.value);
    });
    byId('generate', HTMLButtonElement).addEventListener('click', () => {
      this.follow(newUuid(), true);
    });
    byId('leave', HTMLButtonElement).addEventListener('click', () => {
      this.follow(null);
      this.input.focus();
    });
    byId('copy-link', HTMLButtonElement).addEventListener('click', () => void this.copyLink());
    byId('retry', HTMLButtonElement).addEventListener('click', () => this.live.wake());
    this.addButton.addEventListener('click', () => this.create.open([...(this.current?.documents.keys() ?? [])]));
    document.querySelector('.skip')?.addEventListener('click', (event) => {
      // The address keeps the document's UUID.
      event.preventDefault();
      byId('main', HTMLElement).focus();
    });
    window.addEventListener('hashchange', () => {
      const uuid = parseUuid(location.hash.slice(1));
      if (uuid !== this.uuid && this.who !== null) this.follow(uuid);
    });
    window.addEventListener('online', () => this.live.wake());
  }

  private connectTo(text: string): void {
    const uuid = parseUuid(text);
    if (uuid === null) {
      this.complain('Enter a UUID: 36 characters, hexadecimal digits and hyphens.');
      this.input.focus();
      return;
    }
    this.complain('');
    this.follow(uuid);
  }

  private complain(text: string): void {
    this.inputError.textContent = text;
    if (text === '') this.input.removeAttribute('aria-invalid');
    else this.input.setAttribute('aria-invalid', 'true');
  }

  /** From now on this document, or none. Following the same one again asks for it again. */
  private follow(uuid: string | null, fresh = false): void {
    if (this.uuid !== null) this.live.leave(this.uuid);
    if (uuid !== this.uuid) this.activity.clear();
    this.uuid = uuid;
    this.fresh = fresh;
    this.arriving = false;
    this.current = null;
    this.create.close();
    this.closeDialogs();
    if (uuid !== null) {
      this.input.value = uuid;
      this.complain('');
      if (!fresh) this.live.join(uuid);
      if (this.state.kind === 'refused' && this.who !== null) this.live.start(this.who);
    }
    const hash = uuid === null ? '' : `#${uuid}`;
    if (location.hash !== hash) history.replaceState(null, '', `${location.pathname}${location.search}${hash}`);
    document.title = uuid === null ? 'livedocs' : `${uuid.slice(0, 8)} – livedocs`;
    this.render();
  }

  private async add(collection: string, document: JsonObject): Promise<void> {
    const uuid = this.uuid;
    if (uuid === null) return;
    if (this.current?.membership.kind === 'live') await this.api.replace(collection, uuid, document);
    else await this.api.create(collection, document, uuid);
    if (uuid !== this.uuid) return;
    this.create.close();
    this.fresh = false;
    // Whoever creates a document becomes its owner: ask again, now there is something to join.
    if (this.current?.membership.kind !== 'live') this.live.join(uuid);
    this.arriving = true;
    this.render();
  }

  private async change(
    collection: string,
    id: Json | undefined,
    before: JsonObject,
    after: JsonObject,
  ): Promise<void> {
    const patch = mergePatch(before, after);
    if (this.uuid !== null && Object.keys(patch).length > 0)
      await this.api.merge(collection, this.uuid, patch, id);
  }

  private async remove(collection: string, id: Json | undefined): Promise<void> {
    if (this.uuid !== null) await this.api.remove(collection, this.uuid, id);
  }

  private async copyLink(): Promise<void> {
    const button = byId('copy-link', HTMLButtonElement);
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = 'Link copied';
    } catch {
      button.textContent = 'Copy it from the address bar';
    }
    setTimeout(() => (button.textContent = 'Copy link'), 2500);
  }

  private async logout(): Promise<void> {
    this.rememberPlace();
    this.live.stop();
    this.leaveSession('');
    try {
      const elsewhere = await this.api.logout();
      if (elsewhere !== null) {
        location.assign(elsewhere);
        return;
      }
      this.sessionView.out('You are logged out.');
    } catch {
      this.sessionView.out('The server did not confirm the logout. Close this browser to be sure.');
    }
    this.sessionView.focusLogin();
  }

  /** Nothing of what it showed stays on the page. */
  private leaveSession(notice: string): void {
    this.who = null;
    this.follow(null);
    this.sessionView.out(notice);
  }

  private rememberPlace(): void {
    remember(this.uuid ?? parseUuid(location.hash.slice(1)));
  }

  private closeDialogs(): void {
    this.editing.close();
    this.deleting.close();
  }

  // How it looks

  private render(): void {
    const room = this.current;
    this.stateView.show(stateOf(this.state, room, this.fresh), this.uuid !== null);
    const role = room?.membership.kind === 'live' ? room.membership.role : null;
    const usable = this.state.kind === 'live' && role !== null && role !== 'reader';
    const count = room?.documents.size ?? 0;
    const gone = room?.lastChange?.op === 'delete';

    const refused = room?.membership.kind === 'refused' && room.membership.code === 'forbidden';
    if (this.fresh) this.create.offer('Create the first document with this UUID; you become its owner.');
    else if (refused)
      this.create.offer('Is this a UUID of your own? Create the first document with it; you become its owner.');
    else if (usable && count === 0 && !gone) this.create.offer('There is no document with this UUID yet.');
    else if (role === null || !usable) this.create.close();

    this.documentCard.hidden = role === null || (count === 0 && !gone);
    if (this.arriving && !this.documentCard.hidden) {
      this.arriving = false;
      byId('document-title', HTMLHeadingElement).focus();
    }
    this.addButton.hidden = !usable || count >= this.create.collections;
    this.showEmpty(room);
    byId('activity-card', HTMLElement).hidden = room === null;
    this.sharing.show(this.uuid, role, this.who?.subject ?? '');
    if (room !== null && role !== null) this.documents.show(room, usable);
    else this.documents.clear();
  }

  private showEmpty(room: Room | null): void {
    const words = emptyWords(room, this.uuid !== null);
    this.emptyCard.hidden = words === null;
    if (words === null) return;
    byId('empty-title', HTMLHeadingElement).textContent = words.title;
    byId('empty-text', HTMLParagraphElement).textContent = words.text;
  }
}
