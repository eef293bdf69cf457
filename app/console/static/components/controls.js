import { html, useEffect, useRef, useState } from "../preact.js";

/** A sentence of the API, its names in `backticks` set as code. @param {{text: string}} properties */
export function Words({ text }) {
  return text.split("`").map((part, at) => (at % 2 ? html`<code>${part}</code>` : part));
}

/** A form control for one option of a render.
 * @param {{option: import("../options.js").Option, value: string | boolean | undefined,
 *          onChange: (value: string | boolean) => void, id: string}} properties */
export function OptionControl({ option, value, onChange, id }) {
  const { schema, label } = option;
  const description = option.about?.[String(value ?? schema.default)] ?? option.description;
  const described = description ? `${id}-about` : undefined;
  const control = () => {
    if (schema.enum) {
      return html`<select id=${id} aria-describedby=${described} value=${value ?? schema.default ?? ""}
        onChange=${(/** @type {any} */ event) => onChange(event.target.value)}>
        ${schema.default === undefined && html`<option value="">default</option>`}
        ${schema.enum.map((/** @type {string} */ one) => html`<option value=${one}>${one}</option>`)}
      </select>`;
    }
    if (schema.type === "boolean") {
      return html`<input id=${id} type="checkbox" aria-describedby=${described} checked=${value ?? schema.default ?? false}
        onChange=${(/** @type {any} */ event) => onChange(event.target.checked)} />`;
    }
    if (schema.type === "object") {
      return html`<textarea id=${id} rows="2" aria-describedby=${described} placeholder="name: text" value=${value ?? ""}
        onInput=${(/** @type {any} */ event) => onChange(event.target.value)}></textarea>`;
    }
    // Kept with each key: what is typed would be lost when the estimate arrives, which renders the form anew.
    const isNumber = ["integer", "number"].includes(schema.type);
    const hints = schema.examples && html`<datalist id=${`${id}-hints`}>
      ${schema.examples.map((/** @type {string} */ one) => html`<option value=${one} />`)}</datalist>`;
    return html`${hints}<input id=${id} type=${schema.format === "uri" ? "url" : "text"} aria-describedby=${described}
      list=${hints && `${id}-hints`} pattern=${schema.pattern}
      inputmode=${isNumber ? "decimal" : undefined} placeholder=${schema.default ?? ""} value=${value ?? ""}
      onInput=${(/** @type {any} */ event) => onChange(event.target.value)} />`;
  };
  return html`<div class=${`option ${schema.type}`}>
    <label for=${id}>${label}</label>${control()}
    ${description && html`<small id=${described}><${Words} text=${description} /></small>`}
  </div>`;
}

/** Text that is copied by one press. @param {{text: string, label: string}} properties */
export function CopyButton({ text, label }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  return html`<button class="quiet" onClick=${copy} aria-label=${`Copy ${label}`}>${copied ? "Copied" : "Copy"}</button>`;
}

/** Samples of code, one of which is shown. @param {{samples: {name: string, text: string}[]}} properties */
export function CodeSamples({ samples }) {
  const [shown, setShown] = useState(0);
  const tabs = useRef(/** @type {HTMLElement | null} */ (null));
  const arrows = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = (shown + step + samples.length) % samples.length;
    setShown(next);
    /** @type {HTMLElement | undefined} */ (tabs.current?.querySelectorAll("[role=tab]")[next])?.focus();
  };
  return html`<div class="samples">
    <div class="row">
      <div class="grow" role="tablist" aria-label="Language" ref=${tabs} onKeyDown=${arrows}>
        ${samples.map((one, at) => html`<button role="tab" class="tab" aria-selected=${at === shown} tabindex=${at === shown ? 0 : -1}
          onClick=${() => setShown(at)}>${one.name}</button>`)}
      </div>
      <${CopyButton} text=${samples[shown].text} label=${samples[shown].name} />
    </div>
    <pre tabindex="0" role="tabpanel" aria-label=${samples[shown].name}><code>${samples[shown].text}</code></pre>
  </div>`;
}

/** Asks before something that cannot be undone.
 * @param {{label: string, question: string, onYes: () => void, kind?: string, yes?: string}} properties
 *   `yes`: the answer that does it, where the label could mean the opposite */
export function ConfirmButton({ label, question, onYes, kind = "", yes = label }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  return html`<button class=${kind} onClick=${() => dialog.current?.showModal()}>${label}</button>
    <dialog ref=${dialog} aria-label=${label}>
      <p>${question}</p>
      <div class="row end">
        <button onClick=${() => dialog.current?.close()}>Keep it</button>
        <button class="danger" onClick=${() => { dialog.current?.close(); onYes(); }}>${yes}</button>
      </div>
    </dialog>`;
}

/** A dialog that is open as long as it is shown. @param {{label: string, onClose: () => void, children: any}} properties */
export function Dialog({ label, onClose, children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => { dialog.current?.showModal(); }, []);
  return html`<dialog ref=${dialog} aria-label=${label} onClose=${onClose}>${children}</dialog>`;
}

/** @param {{value: number, label: string}} properties `value` from 0 to 1 */
export function Progress({ value, label }) {
  return html`<progress max="1" value=${value} aria-label=${label}></progress>`;
}

const STATUS_WORDS = /** @type {Record<string, string>} */ ({
  queued: "Queued", pending: "Reading", processing: "Rendering", completed: "Done", failed: "Failed",
});

/** Whether somebody stopped the render, or it was to be done earlier: the API tells that as a failure with this word.
 * @param {import("../api.js").Row} render */
export const isCanceled = ({ status, error }) => status === "failed" && /^Canceled\b/.test(error ?? "");

/** @param {{of: import("../api.js").Row}} properties `of`: a render */
export function Status({ of }) {
  const { status } = of;
  if (isCanceled(of)) return html`<span class="status canceled">Canceled</span>`;
  return html`<span class=${`status ${status}`}>${STATUS_WORDS[status] ?? status}</span>`;
}

/** Why a render has no result, for a row of a list, where it is more than that it was canceled.
 * @param {{of: import("../api.js").Row}} properties */
export function Reason({ of }) {
  return of.error && of.error !== "Canceled" && html`<small class=${isCanceled(of) ? "" : "failed"}>${of.error}</small>`;
}

/** What a list of renders may be narrowed to. @param {{value: string, onChange: (status: string) => void}} properties */
export function StatusChoice({ value, onChange }) {
  return html`<select value=${value} onChange=${(/** @type {any} */ event) => onChange(event.target.value)}>
    <option value="">all</option>
    ${Object.entries(STATUS_WORDS).map(([status, word]) => html`<option value=${status}>${status === "failed" ? "Failed or canceled" : word}</option>`)}
  </select>`;
}
