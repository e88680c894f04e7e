/** A document in a form: its fields as controls, or all of it as JSON. Used to create and to edit. */

import { isObject, sameJson, type Json, type JsonObject } from '../client/json';
import { h } from './dom';
import {
  EMPTY,
  fieldControl,
  KINDS,
  NotAValue,
  parseJson,
  textarea,
  type FieldControl,
  type FieldKind,
} from './fieldControl';
import { failure } from './words';

type Mode = 'fields' | 'json';

export interface FormOptions {
  readonly submit: string;
  /** Resolves when done; what it throws is shown. */
  save(document: JsonObject): Promise<void>;
  readonly cancel?: () => void;
}

/** Fields of the form that belong to the server. */
const RESERVED: readonly string[] = ['uuid', '_id'];

export class DocumentForm {
  private mode: Mode = 'fields';
  private shown: JsonObject = {};
  private controls: FieldControl[] = [];
  private readonly lead = h('div');
  private readonly body = h('div', { class: 'form-body' });
  private readonly error = h('p', { class: 'field-error', attributes: { role: 'alert' } });
  private readonly adder: HTMLElement;
  private readonly json: HTMLTextAreaElement;
  private readonly submit: HTMLButtonElement;
  private readonly modes: readonly HTMLInputElement[];

  constructor(
    form: HTMLFormElement,
    private readonly options: FormOptions,
  ) {
    this.json = textarea(`${form.id}-json`, '', 'mono');
    this.json.rows = 12;
    this.submit = h('button', { class: 'primary', text: options.submit, attributes: { type: 'submit' } });
    const [fields, fieldsElement] = this.modeButton(form.id, 'fields', 'Fields');
    const [json, jsonElement] = this.modeButton(form.id, 'json', 'JSON');
    this.modes = [fields, json];
    this.adder = this.fieldAdder(form.id);
    const cancel =
      options.cancel === undefined
        ? null
        : h('button', { text: 'Cancel', attributes: { type: 'button' }, on: { click: options.cancel } });
    form.append(
      this.lead,
      h('fieldset', { class: 'segments' }, h('legend', { text: 'Write it as' }), fieldsElement, jsonElement),
      this.body,
      this.adder,
      this.error,
      h('div', { class: 'actions' }, cancel, this.submit),
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.save();
    });
  }

  /** Starts over with that document; `lead` comes before the fields. */
  show(document: JsonObject, lead: Node | null = null): void {
    this.shown = Object.fromEntries(Object.entries(document).filter(([name]) => !RESERVED.includes(name)));
    this.lead.replaceChildren(...(lead === null ? [] : [lead]));
    this.error.textContent = '';
    this.mode = 'fields';
    this.markMode();
    this.fill(this.shown);
  }

  /** Whether anything was written into it since `show`. */
  get touched(): boolean {
    try {
      return !sameJson(this.read(), this.shown);
    } catch {
      return true;
    }
  }

  focus(): void {
    (this.mode === 'json' ? this.json : (this.controls[0]?.input ?? this.json)).focus();
  }

  private modeButton(id: string, mode: Mode, label: string): [HTMLInputElement, HTMLElement] {
    const input = h('input', {
      attributes: {
        type: 'radio',
        name: `${id}-mode`,
        value: mode,
        id: `${id}-${mode}-mode`,
        checked: mode === this.mode,
      },
      on: { change: () => this.switchTo(mode) },
    });
    return [input, h('span', {}, input, h('label', { text: label, attributes: { for: input.id } }))];
  }

  private switchTo(mode: Mode): void {
    try {
      const document = this.read();
      this.error.textContent = '';
      this.mode = mode;
      this.fill(document);
    } catch (error) {
      this.error.textContent = failure(error);
      this.markMode();
    }
  }

  private markMode(): void {
    for (const input of this.modes) input.checked = input.value === this.mode;
  }

  private fill(document: JsonObject): void {
    this.adder.hidden = this.mode === 'json';
    if (this.mode === 'json') {
      this.json.value = JSON.stringify(document, null, 2);
      const label = h('label', { text: 'Document as JSON', attributes: { for: this.json.id } });
      this.body.replaceChildren(h('div', { class: 'field' }, label, this.json));
      return;
    }
    this.controls = Object.entries(document).map(([name, value]) => this.control(name, value));
    this.body.replaceChildren(...this.controls.map(({ element }) => element));
  }

  private control(name: string, value: Json): FieldControl {
    const control = fieldControl(name, value, () => {
      this.controls = this.controls.filter((other) => other !== control);
      control.element.remove();
      this.adder.querySelector('input')?.focus();
    });
    return control;
  }

  private fieldAdder(id: string): HTMLElement {
    const name = h('input', {
      attributes: {
        id: `${id}-new-name`,
        type: 'text',
        autocomplete: 'off',
        autocapitalize: 'none',
        spellcheck: 'false',
      },
    });
    const kind = h('select', { attributes: { id: `${id}-new-kind` } });
    for (const [value, text] of Object.entries(KINDS)) kind.append(h('option', { text, attributes: { value } }));
    const add = (): void => {
      const problem = this.nameProblem(name.value.trim());
      this.error.textContent = problem ?? '';
      if (problem !== null) return name.focus();
      const control = this.control(name.value.trim(), EMPTY[kind.value as FieldKind]);
      this.controls.push(control);
      this.body.append(control.element);
      name.value = '';
      control.input.focus();
    };
    name.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter') return;
      event.preventDefault();
      add();
    });
    return h(
      'div',
      { class: 'adder' },
      h('div', {}, h('label', { text: 'New field', attributes: { for: name.id } }), name),
      h('div', {}, h('label', { text: 'Kind', attributes: { for: kind.id } }), kind),
      h('button', { text: 'Add field', attributes: { type: 'button' }, on: { click: add } }),
    );
  }

  private nameProblem(name: string): string | null {
    if (name === '') return 'The new field needs a name.';
    if (name.startsWith('$') || name.includes('.'))
      return 'A field’s name does not start with $ and holds no dot.';
    if (RESERVED.includes(name)) return `${name} is set by the server.`;
    return this.controls.some((control) => control.name === name) ? `There is a field ${name} already.` : null;
  }

  private read(): JsonObject {
    if (this.mode === 'fields')
      return Object.fromEntries(this.controls.map((control) => [control.name, control.read()]));
    const value = parseJson(this.json.value, 'This');
    if (!isObject(value)) throw new NotAValue('A document is a JSON object: { … }.');
    return value;
  }

  private async save(): Promise<void> {
    if (this.submit.getAttribute('aria-disabled') === 'true') return;
    this.error.textContent = '';
    // Not `disabled`: the button keeps the focus while it waits.
    this.submit.setAttribute('aria-disabled', 'true');
    try {
      await this.options.save(this.read());
    } catch (error) {
      this.error.textContent = failure(error);
    } finally {
      this.submit.removeAttribute('aria-disabled');
    }
  }
}
