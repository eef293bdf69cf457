// One frame before and after, by each engine, before anything is rendered.

import { html, useEffect, useMemo, useRef, useState } from "../preact.js";
import { sentence } from "../api.js";
import { span } from "../format.js";
import { bodyOptions, chosen } from "../options.js";
import { store } from "../store.js";
import { AreaFields, AreaOver } from "../components/area.js";
import { ComparePictures, useDivided } from "../components/compare.js";
import { Notice, Warnings } from "../components/notices.js";
import { Still } from "../components/still.js";

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
  const frames = Math.max(1, Math.round(stored.durationSeconds * stored.frameRate));
  /** The middle of a frame, where no rounding shows its neighbour. @param {number} frame */
  const middle = (frame) => Math.min((Math.min(frames - 1, Math.max(0, frame)) + 0.5) / stored.frameRate, stored.durationSeconds);
  const [at, setAt] = useState(() => middle(0));
  const [shown, setShown] = useState(/** @type {Record<string, import("../api.js").Row>} */ ({}));
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const [playable, setPlayable] = useState(true);
  const [area, setArea] = useState(/** @type {import("../components/area.js").Area | null} */ (null));
  const divided = useDivided();
  const section = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => section.current?.scrollIntoView({ block: "nearest" }), []);
  const video = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const control = useRef(new AbortController());
  const address = useMemo(() => (source instanceof File ? URL.createObjectURL(source) : source), [source]);
  useEffect(() => () => { if (source instanceof File) URL.revokeObjectURL(String(address)); control.current.abort(); }, [address]);
  const described = bodyOptions(store.description, "/v1/previews");

  const scrub = (/** @type {number} */ time) => {
    const moment = middle(Math.floor(time * stored.frameRate + 1e-6));
    setAt(moment);
    if (video.current) video.current.currentTime = moment;
  };
  const step = (/** @type {number} */ count) => scrub(at + count / stored.frameRate);
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const steps = /** @type {Record<string, number>} */ ({
      ",": -1, ArrowLeft: -1, ArrowDown: -1, ".": 1, ArrowRight: 1, ArrowUp: 1, PageDown: -stored.frameRate, PageUp: stored.frameRate,
    });
    if (!steps[event.key]) return;
    event.preventDefault();
    step(steps[event.key]);
  };
  const show = async () => {
    if (busy) return;
    control.current.abort();
    control.current = new AbortController();
    const { signal } = control.current;
    setBusy(true);
    setShown({});
    setFailed("");
    try {
      const ask = async (/** @type {string} */ name, /** @type {import("../components/area.js").Area | null} */ crop) => {
        const wanted = { ...chosen(described, { ...values, engine: name }), file_id: stored.id, at_seconds: at };
        const one = await preview(crop ? { ...wanted, crop } : wanted, signal);
        if (one.status === "failed") throw new Error(one.error);
        setShown((now) => ({ ...now, [name]: one }));
        return one;
      };
      const shownPixels = (/** @type {import("../api.js").Row} */ one) => (one.wholeFrame ? stored : one.crop).width * (one.wholeFrame ? stored : one.crop).height;
      const first = [];
      for (const name of engines) first.push(await ask(name, area));
      // Of slow engines the server may show a smaller part: side by side all show the same one.
      const least = first.reduce((one, other) => (shownPixels(other) < shownPixels(one) ? other : one));
      for (const one of first.filter((one) => shownPixels(one) > shownPixels(least))) await ask(one.engine, least.crop);
    } catch (error) {
      if (!signal.aborted) setFailed(sentence(error));
    } finally {
      setBusy(false);
    }
  };
  const mayCrop = described.some(({ name }) => name === "crop");
  return html`<section class="try" ref=${section} aria-label="Try a moment">
    <${AreaOver} area=${area} setArea=${mayCrop && setArea} of=${stored}>
      ${playable && address ? html`<video ref=${video} src=${address} muted playsinline preload="auto" aria-label="The video"
        onLoadedMetadata=${(/** @type {any} */ event) => { setPlayable(event.target.videoWidth > 0); event.target.currentTime = at; }}
        onError=${() => setPlayable(false)}></video>`
    : html`<${Still} fileId=${stored.id} at=${at} label="The video" />`}<//>
    ${!playable && html`<${Notice}>This browser cannot play the video. You see its frames one by one, as the server reads them.<//>`}
    <div class="row">
      <button class="quiet" aria-label="One frame back" onClick=${() => step(-1)}>‹</button>
      <button class="quiet" aria-label="One frame on" onClick=${() => step(1)}>›</button>
      <input type="range" class="grow" min="0" max=${middle(frames - 1)} step="any" value=${at} aria-label="Moment" aria-valuetext=${span(at)}
        onKeyDown=${keys} onInput=${(/** @type {any} */ event) => scrub(Number(event.target.value))} />
      <output>${span(at)}</output>
      <button onClick=${show} aria-disabled=${busy}>${busy ? "Upscaling …" : "Show this moment"}</button>
    </div>
    ${mayCrop && html`<${AreaFields} area=${area} setArea=${setArea} of=${stored} />`}
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    <${Warnings} of=${[...new Set(Object.values(shown).flatMap((one) => one.warnings ?? []))]} />
    <div class="engines">
      ${engines.filter((name) => busy || shown[name]).map((name) => html`<div key=${name}>
        <div class="row"><h3 class="grow">${name}</h3>
          ${name === (engine || schema.default) ? html`<span class="status completed">Chosen</span>`
    : html`<button class="quiet" onClick=${() => onEngine(name)}>Choose ${name}</button>`}
        </div>
        ${!shown[name] && html`<div class="stage awaited" style=${{ aspectRatio: `${stored.width} / ${stored.height}` }}><span role="status">The server upscales it …</span></div>`}
        ${shown[name] && html`<${ComparePictures} before=${shown[name].beforeURL} after=${shown[name].afterURL}
          label=${`${name} at ${span(shown[name].atSeconds)}`} divided=${divided} />`}
      </div>`)}
    </div>
  </section>`;
}
