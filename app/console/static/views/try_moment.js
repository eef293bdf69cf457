// One frame before and after, by each engine, before anything is rendered.

import { html, useEffect, useMemo, useRef, useState } from "../preact.js";
import { sentence } from "../api.js";
import { span } from "../format.js";
import { bodyOptions, chosen } from "../options.js";
import { store } from "../store.js";
import { AreaFields, AreaOver } from "../components/area.js";
import { ComparePictures } from "../components/compare.js";
import { Notice, Warnings } from "../components/notices.js";

const WAIT_SECONDS = 20;

/** @param {Record<string, unknown>} asked @param {AbortSignal} signal */
async function preview(asked, signal) {
  const headers = { Prefer: `wait=${WAIT_SECONDS}` };
  let one = (await store.api.post("/v1/previews", asked, { headers, signal })).preview;
  while (!["completed", "failed"].includes(one.status)) {
    one = (await store.api.get(`/v1/previews/${one.id}`, { headers, signal })).preview;
  }
  return one;
}

/**
 * `source`: the user's own file to look for a moment in, or its address at the server.
 * @param {{source: File | string | undefined, stored: import("../api.js").Row, options: import("../options.js").Option[], engine: string,
 *          values: Record<string, unknown>, onEngine: (engine: string) => void}} properties
 */
export function TryMoment({ source, stored, options, engine, values, onEngine }) {
  const schema = options.find((option) => option.name === "engine")?.schema ?? {};
  const engines = /** @type {string[]} */ (schema.enum ?? []);
  const [at, setAt] = useState(0);
  const [shown, setShown] = useState(/** @type {Record<string, import("../api.js").Row>} */ ({}));
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const [playable, setPlayable] = useState(true);
  const [area, setArea] = useState(/** @type {import("../components/area.js").Area | null} */ (null));
  const section = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => section.current?.scrollIntoView({ block: "nearest" }), []);
  const video = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const control = useRef(new AbortController());
  const address = useMemo(() => (source instanceof File ? URL.createObjectURL(source) : source), [source]);
  useEffect(() => () => { if (source instanceof File) URL.revokeObjectURL(String(address)); control.current.abort(); }, [address]);
  const described = bodyOptions(store.description, "/v1/previews");

  const scrub = (/** @type {number} */ time) => {
    setAt(time);
    if (video.current) video.current.currentTime = time;
  };
  const show = async () => {
    control.current.abort();
    control.current = new AbortController();
    const { signal } = control.current;
    setBusy(true);
    setShown({});
    setFailed("");
    try {
      for (const name of engines) {
        const wanted = { ...chosen(described, { ...values, engine: name }), file_id: stored.id, at_seconds: at };
        const one = await preview(area ? { ...wanted, crop: area } : wanted, signal);
        if (one.status === "failed") throw new Error(one.error);
        setShown((now) => ({ ...now, [name]: one }));
      }
    } catch (error) {
      if (!signal.aborted) setFailed(sentence(error));
    } finally {
      setBusy(false);
    }
  };
  const mayCrop = described.some(({ name }) => name === "crop");
  const last = Math.max(0, stored.durationSeconds - 1 / stored.frameRate);
  return html`<section class="try" ref=${section} aria-label="Try a moment">
    ${playable && address && html`<${AreaOver} area=${area} setArea=${mayCrop && setArea} of=${stored}>
      <video ref=${video} src=${address} muted playsinline preload="auto" aria-label="The video"
        onError=${() => setPlayable(false)}></video><//>`}
    ${!playable && html`<${Notice}>This browser cannot play the video: choose the moment by its time.<//>`}
    <div class="row">
      <input type="range" class="grow" min="0" max=${last} step="any" value=${at} aria-label="Moment" aria-valuetext=${span(at)}
        onInput=${(/** @type {any} */ event) => scrub(Number(event.target.value))} />
      <output>${span(at)}</output>
      <button onClick=${show} disabled=${busy}>${busy ? "Upscaling …" : "Show this moment"}</button>
    </div>
    ${mayCrop && html`<${AreaFields} area=${area} setArea=${setArea} of=${stored} />`}
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    <div class="engines">
      ${engines.filter((name) => shown[name]).map((name) => html`<div key=${name}>
        <div class="row"><h3 class="grow">${name}</h3>
          ${name === (engine || schema.default) ? html`<span class="status completed">Chosen</span>`
    : html`<button class="quiet" onClick=${() => onEngine(name)}>Choose ${name}</button>`}
        </div>
        <${ComparePictures} before=${shown[name].beforeURL} after=${shown[name].afterURL}
          label=${`${name} at ${span(shown[name].atSeconds)}`} />
        <${Warnings} of=${shown[name].warnings} />
      </div>`)}
    </div>
  </section>`;
}
