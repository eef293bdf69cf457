// What a video is, what is to be made of it, and what that costs: the form that begins a render.

import { html, useEffect, useState } from "../preact.js";
import { BASE, sentence } from "../api.js";
import { contents, cost, count, facts, span } from "../format.js";
import { chosen, samples } from "../options.js";
import { store, useLoaded } from "../store.js";
import { CodeSamples, OptionControl, Words } from "../components/controls.js";
import { Notice, Warnings } from "../components/notices.js";
import { TryMoment } from "./try_moment.js";

/** Options that most look for. */
const FIRST = new Set(["engine", "target_fps", "scale", "codec"]);
const ESTIMATE_PAUSE = 250;

/** Asks for a render of a file with what the form holds.
 * @param {import("../api.js").Row} stored @param {import("../options.js").Option[]} options
 * @param {import("../options.js").Values} values @returns {Promise<import("../api.js").Row>} */
export const beginRender = async (stored, options, values) =>
  (await store.api.post("/v1/upscale", { file_id: stored.id, ...chosen(options, values) })).render;

/**
 * @param {{id: string, stored: import("../api.js").Row, source?: File, name: string, options: import("../options.js").Option[],
 *          values: import("../options.js").Values, onValues: (values: import("../options.js").Values) => void,
 *          onBegin: () => Promise<void>, children?: any}} properties
 *   `stored`: the file at the server; `source`: the same on this device; `onBegin` rejects if the server refuses; `children`:
 *   further buttons
 */
export function RenderForm({ id, stored, source, name, options, values, onValues, onBegin, children }) {
  const [estimate, setEstimate] = useState(/** @type {import("../api.js").Row | null} */ (null));
  const [failed, setFailed] = useState("");
  const [trying, setTrying] = useState(false);
  const [busy, setBusy] = useState(false);
  const sent = chosen(options, values);
  const [inside] = useLoaded(async () => (await store.api.get(`/v1/files/${stored.id}/contents`)).contents, [stored.id]);

  useEffect(() => {
    const control = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const answer = await store.api.post("/v1/estimates", { file_id: stored.id, ...sent }, { signal: control.signal });
        setEstimate(answer.estimate);
        setFailed("");
      } catch (error) {
        if (!control.signal.aborted) setFailed(sentence(error));
      }
    }, ESTIMATE_PAUSE);
    return () => { clearTimeout(timer); control.abort(); };
  }, [stored, JSON.stringify(sent)]);

  const start = async () => {
    setBusy(true);
    try {
      await onBegin();
    } catch (error) {
      setFailed(sentence(error));
      setBusy(false);
    }
  };
  const change = (/** @type {string} */ option, /** @type {string | boolean} */ value) => onValues({ ...values, [option]: value });
  const control = (/** @type {import("../options.js").Option} */ option) => html`<${OptionControl} option=${option}
    value=${values[option.name]} id=${`${id}-${option.name}`} onChange=${(/** @type {string | boolean} */ value) => change(option.name, value)} />`;
  const others = options.filter((option) => !FIRST.has(option.name));
  const [isOpen] = useState(others.some((option) => option.name in values));
  return html`<p class="facts">${facts(/** @type {any} */ (stored))}${inside?.codec && html`<br /><span>${contents(inside)}</span>`}</p>
    <${Warnings} of=${stored.warnings} />
    <div class="options first">${options.filter((option) => FIRST.has(option.name)).map(control)}</div>
    <details class="more" open=${isOpen}><summary>More options</summary>
      <div class="options">${others.map(control)}</div></details>
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    ${!failed && estimate && html`<${Estimate} of=${estimate} engine=${sent.engine} />`}
    <div class="row">
      <button class="primary" disabled=${busy || Boolean(failed)} onClick=${start}>${busy ? "Asking …" : "Render"}</button>
      <button onClick=${() => setTrying(!trying)} aria-expanded=${trying}>Try a moment first</button>
      ${children}
    </div>
    ${trying && html`<${TryMoment} source=${source ?? inside?.fileURL} stored=${stored} options=${options} engine=${String(values.engine ?? "")} values=${values}
      onEngine=${(/** @type {string} */ engine) => change("engine", engine)} />`}
    <details><summary>The same as a request</summary>
      <${CodeSamples} samples=${samples(BASE, name, sent)} />
    </details>`;
}

/** @param {{of: import("../api.js").Row, engine: unknown}} properties `engine`: what is chosen */
function Estimate({ of, engine }) {
  const wait = of.waitSeconds ? ` after ${span(of.waitSeconds)} in the queue` : "";
  return html`<div class="estimate" aria-live="polite">
    <dl>
      <div><dt>Result</dt><dd>${of.output ? facts(of.output) : "–"}</dd></div>
      <div><dt>Frames</dt><dd>${of.output ? count(of.output.frames) : "–"}</dd></div>
      <div><dt>Cost</dt><dd>${of.cost === undefined ? "–" : cost(of.cost)}</dd></div>
      <div><dt>Time</dt><dd>${of.expectedSeconds === undefined ? "not known yet" : `about ${span(of.expectedSeconds)}${wait}`}</dd></div>
    </dl>
    ${of.suggestedEngine && of.suggestedEngine.engine !== engine && html`<details class="suggestion">
      <summary><strong>${of.suggestedEngine.engine}</strong> may suit it better</summary><p><${Words} text=${of.suggestedEngine.reason} /></p></details>`}
    <${Warnings} of=${[...(of.refusals ?? []), ...(of.warnings ?? [])]} />
  </div>`;
}
