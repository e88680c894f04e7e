/** The two dialogs. `<dialog>` itself keeps the focus inside and gives it back. */

import type { Change } from '../client/changes';
import type { Json, JsonObject } from '../client/json';
import { DocumentForm } from './documentForm';
import { byId } from './dom';
import { failure } from './words';

export class EditDialog {
  private readonly dialog = byId('edit-dialog', HTMLDialogElement);
  private readonly title = byId('edit-title', HTMLHeadingElement);
  private readonly meanwhile = byId('edit-meanwhile', HTMLParagraphElement);
  private readonly form: DocumentForm;
  private collection = '';
  private id: Json | undefined;
  private before: JsonObject = {};

  constructor(
    save: (collection: string, id: Json | undefined, before: JsonObject, after: JsonObject) => Promise<void>,
  ) {
    this.form = new DocumentForm(byId('edit-form', HTMLFormElement), {
      submit: 'Save changes',
      save: async (after) => {
        await save(this.collection, this.id, this.before, after);
        this.close();
      },
      cancel: () => this.close(),
    });
  }

  open(collection: string, document: JsonObject): void {
    this.collection = collection;
    this.id = document['_id'];
    this.before = Object.fromEntries(
      Object.entries(document).filter(([name]) => name !== 'uuid' && name !== '_id'),
    );
    this.title.textContent = `Edit the document in ${collection}`;
    this.meanwhile.hidden = true;
    this.form.show(this.before);
    this.dialog.showModal();
    this.form.focus();
  }

  close(): void {
    if (this.dialog.open) this.dialog.close();
    this.before = {};
    this.form.show({});
  }

  /** Somebody else's change arrived while this was open. */
  changed(collection: string, changes: readonly Change[]): void {
    if (!this.dialog.open || collection !== this.collection || changes.length === 0) return;
    const fields = changes.map(({ path }) => path.join('.')).join(', ');
    this.meanwhile.textContent = `Changed meanwhile: ${fields}. Saving sends only what you changed yourself.`;
    this.meanwhile.hidden = false;
  }
}

export class DeleteDialog {
  private readonly dialog = byId('delete-dialog', HTMLDialogElement);
  private readonly error = byId('delete-error', HTMLParagraphElement);
  private readonly confirm = byId('delete-confirm', HTMLButtonElement);
  private collection = '';
  private id: Json | undefined;

  constructor(private readonly remove: (collection: string, id: Json | undefined) => Promise<void>) {
    byId('delete-cancel', HTMLButtonElement).addEventListener('click', () => this.close());
    this.confirm.addEventListener('click', () => void this.run());
  }

  open(collection: string, id: Json | undefined): void {
    this.collection = collection;
    this.id = id;
    this.error.textContent = '';
    byId('delete-title', HTMLHeadingElement).textContent = `Delete the document in ${collection}?`;
    this.dialog.showModal();
    byId('delete-cancel', HTMLButtonElement).focus();
  }

  close(): void {
    if (this.dialog.open) this.dialog.close();
  }

  private async run(): Promise<void> {
    if (this.confirm.getAttribute('aria-disabled') === 'true') return;
    this.confirm.setAttribute('aria-disabled', 'true');
    try {
      await this.remove(this.collection, this.id);
      this.close();
      byId('document-title', HTMLHeadingElement).focus();
    } catch (error) {
      this.error.textContent = failure(error);
    } finally {
      this.confirm.removeAttribute('aria-disabled');
    }
  }
}
