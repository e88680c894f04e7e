/** The form for a new document. */

import type { JsonObject } from '../client/json';
import { DocumentForm } from './documentForm';
import { byId, h } from './dom';

/** The collections of the demo, and what a first document in each starts with. */
const COLLECTIONS: Readonly<Record<string, JsonObject>> = {
  notes: { title: '', text: '', done: false },
  test: { message: '', count: 1 },
};

export class CreateView {
  readonly collections = Object.keys(COLLECTIONS).length;
  private readonly card = byId('create-card', HTMLElement);
  private readonly intro = byId('create-intro', HTMLParagraphElement);
  private readonly cancel = byId('create-cancel', HTMLButtonElement);
  private readonly form: DocumentForm;
  private readonly select = h('select', { attributes: { id: 'create-collection' } });

  constructor(create: (collection: string, document: JsonObject) => Promise<void>) {
    this.form = new DocumentForm(byId('create-form', HTMLFormElement), {
      submit: 'Create document',
      save: (document) => create(this.select.value, document),
    });
    this.select.addEventListener('change', () => {
      // What was written already is worth more than the other collection's suggestion.
      if (!this.form.touched) this.seed();
    });
    this.cancel.addEventListener('click', () => {
      this.close();
      byId('add-document', HTMLButtonElement).focus();
    });
  }

  /** Shows the form because there is nothing else to show; what is written in it stays when called again. */
  offer(intro: string): void {
    if (this.card.hidden) this.start(Object.keys(COLLECTIONS));
    this.intro.textContent = intro;
    this.cancel.hidden = true;
  }

  /** Shows the form for a further document, in a collection that has none yet. */
  open(taken: readonly string[]): void {
    this.start(Object.keys(COLLECTIONS).filter((name) => !taken.includes(name)));
    this.intro.textContent =
      'Another document with the same UUID, in another collection. Whoever sees one sees both.';
    this.cancel.hidden = false;
    this.form.focus();
  }

  close(): void {
    this.card.hidden = true;
  }

  private start(names: readonly string[]): void {
    this.card.hidden = false;
    this.select.replaceChildren(...names.map((name) => h('option', { text: name, attributes: { value: name } })));
    this.seed();
  }

  private seed(): void {
    const label = h('label', { text: 'Collection', attributes: { for: this.select.id } });
    const focused = document.activeElement === this.select;
    this.form.show(COLLECTIONS[this.select.value] ?? {}, h('div', { class: 'field' }, label, this.select));
    if (focused) this.select.focus();
  }
}
