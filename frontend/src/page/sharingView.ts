/** Who may see the document, for its owners: list, give, take back. */

import type { Api, Grant } from '../client/http';
import type { Role } from '../client/protocol';
import { byId, h } from './dom';
import { failure, subjectWords } from './words';

const ROLE_WORDS: Readonly<Record<Role, string>> = { reader: 'Reader', writer: 'Writer', owner: 'Owner' };

export class SharingView {
  private readonly card = byId('sharing-card', HTMLElement);
  private readonly intro = byId('sharing-intro', HTMLParagraphElement);
  private readonly title = byId('sharing-title', HTMLHeadingElement);
  private readonly list = byId('grants', HTMLUListElement);
  private readonly form = byId('grant-form', HTMLFormElement);
  private readonly kind = byId('grant-kind', HTMLSelectElement);
  private readonly name = byId('grant-name', HTMLInputElement);
  private readonly role = byId('grant-role', HTMLSelectElement);
  private readonly until = byId('grant-until', HTMLSelectElement);
  private readonly custom = byId('grant-custom', HTMLInputElement);
  private readonly error = byId('grant-error', HTMLParagraphElement);
  private readonly status = byId('sharing-status', HTMLParagraphElement);
  private readonly submit = byId('grant-submit', HTMLButtonElement);
  /** What is shown now; answers to requests for anything else come too late and are dropped. */
  private uuid: string | null = null;
  private owner = false;
  private subject = '';

  constructor(private readonly api: Api) {
    this.kind.addEventListener('change', () => {
      byId('grant-name-field', HTMLDivElement).hidden = this.kind.value === 'tenant';
    });
    this.until.addEventListener('change', () => {
      byId('grant-custom-field', HTMLDivElement).hidden = this.until.value !== 'custom';
    });
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.give();
    });
  }

  /** Shows the panel for that document and role, or hides it when there is none. */
  show(uuid: string | null, role: Role | null, subject: string): void {
    const owner = role === 'owner';
    this.card.hidden = uuid === null || role === null;
    this.form.hidden = !owner;
    this.list.hidden = !owner;
    this.intro.hidden = owner;
    this.subject = subject;
    if (role !== null && !owner) {
      this.intro.textContent = `You are a ${role}. Its owners decide who else may see it.`;
    }
    if (uuid === this.uuid && owner === this.owner) return;
    this.uuid = uuid;
    this.owner = owner;
    this.list.replaceChildren();
    this.error.textContent = '';
    this.status.textContent = '';
    if (owner) void this.reload();
  }

  async reload(): Promise<void> {
    const { uuid } = this;
    if (uuid === null) return;
    try {
      const grants = await this.api.grants(uuid);
      if (uuid === this.uuid) this.list.replaceChildren(...grants.map((grant) => this.item(uuid, grant)));
    } catch (error) {
      if (uuid === this.uuid) this.error.textContent = failure(error);
    }
  }

  private item(uuid: string, grant: Grant): HTMLElement {
    const { name, kind } = subjectWords(grant.subject);
    const own = grant.subject === this.subject;
    const end = grant.expiresAt === null ? 'no end' : `until ${new Date(grant.expiresAt).toLocaleString()}`;
    return h(
      'li',
      { class: 'grant', attributes: { 'data-subject': grant.subject } },
      h(
        'span',
        { class: 'grant-who' },
        h('strong', { text: name }),
        h('span', { class: 'muted small', text: own ? 'you' : kind }),
      ),
      h('span', { class: `tag role-${grant.role}`, text: ROLE_WORDS[grant.role] ?? grant.role }),
      h('span', { class: 'muted small grant-end', text: end }),
      // Nobody takes away their own access by a slip.
      own
        ? null
        : h('button', {
            class: 'quiet danger-text',
            text: 'Revoke',
            attributes: { type: 'button', 'aria-label': `Revoke ${name}` },
            on: { click: () => void this.take(uuid, grant.subject, name) },
          }),
    );
  }

  private async give(): Promise<void> {
    const { uuid } = this;
    if (uuid === null || this.submit.getAttribute('aria-disabled') === 'true') return;
    const name = this.name.value.trim();
    const everyone = this.kind.value === 'tenant';
    this.name.toggleAttribute('aria-invalid', false);
    if (!everyone && name === '') {
      this.error.textContent = 'Say who gets access.';
      this.name.setAttribute('aria-invalid', 'true');
      this.name.focus();
      return;
    }
    const end = this.end();
    if (end === undefined) {
      this.error.textContent = 'Choose a date and time that is still to come.';
      this.custom.focus();
      return;
    }
    this.error.textContent = '';
    this.submit.setAttribute('aria-disabled', 'true');
    try {
      const role = this.role.value as Role;
      await this.api.grant(uuid, everyone ? 'tenant:*' : `${this.kind.value}:${name}`, role, end);
      this.status.textContent = `${everyone ? 'Everyone' : name} has access as ${role}.`;
      this.name.value = '';
      await this.reload();
    } catch (error) {
      this.error.textContent = failure(error);
    } finally {
      this.submit.removeAttribute('aria-disabled');
    }
  }

  /** The chosen end as RFC 3339 text, null for none, undefined when what was chosen is no end. */
  private end(): string | null | undefined {
    if (this.until.value === '') return null;
    const at =
      this.until.value === 'custom' ? Date.parse(this.custom.value) : Date.now() + Number(this.until.value) * 1000;
    return Number.isNaN(at) || at <= Date.now() ? undefined : new Date(at).toISOString();
  }

  private async take(uuid: string, subject: string, name: string): Promise<void> {
    this.error.textContent = '';
    try {
      await this.api.revoke(uuid, subject);
      this.status.textContent = `${name} no longer has access.`;
      await this.reload();
      // The button that had the focus is gone with its row.
      this.title.focus();
    } catch (error) {
      this.error.textContent = failure(error);
    }
  }
}
