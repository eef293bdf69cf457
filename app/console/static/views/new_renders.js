// Videos to render: dropped, sent, estimated, tried at a moment, begun.

import { html, useEffect, useRef, useState } from "../preact.js";
import { count, counted, share, size, span } from "../format.js";
import { renderOptions } from "../options.js";
import { store, useStore } from "../store.js";
import { Fetch, Transfer } from "../transfers.js";
import { Progress } from "../components/controls.js";
import { Notice } from "../components/notices.js";
import { later } from "../components/later.js";

const loadForm = () => import("./render_form.js");
const RenderForm = later("RenderForm", loadForm);

const SENT_AT_ONCE = 2;
/** From so many videos on each one takes less room. */
const MANY = 4;

/** Outlives the view, so that looking elsewhere stops no upload. @type {Transfer[]} */
const transfers = [];
const changes = new EventTarget();
const tell = () => changes.dispatchEvent(new Event("change"));

/** Starts what may be sent now. */
function go() {
  const busy = transfers.filter((one) => ["sending", "fetching", "offline"].includes(one.state)).length;
  for (const one of transfers.filter((one) => one.state === "waiting").slice(0, Math.max(0, SENT_AT_ONCE - busy))) one.run();
  tell();
}

/** @param {Transfer[]} added */
function add(added) {
  for (const transfer of added) {
    transfer.addEventListener("change", () => (["ready", "failed", "paused"].includes(transfer.state) ? go() : tell()));
    transfers.push(transfer);
  }
  go();
}

/** @param {FileList | File[]} files */
const addFiles = (files) => add([...files].map((file) => new Transfer(file, () => store.api)));

/** @param {Transfer} transfer */
function remove(transfer) {
  transfer.drop();
  transfers.splice(transfers.indexOf(transfer), 1);
  go();
}

/** Begins the render of a video, which then leaves the list. Rejects if the server refuses.
 * @param {Transfer} transfer @param {import("../options.js").Option[]} options */
async function begin(transfer, options) {
  const { beginRender } = await loadForm();
  const render = await beginRender(/** @type {any} */ (transfer.stored), options, transfer.values);
  transfers.splice(transfers.indexOf(transfer), 1);
  tell();
  return render;
}

/** One after the other, in the order of the list, up to the first that is refused. @param {import("../options.js").Option[]} options */
async function beginAll(options) {
  for (const one of transfers.filter((one) => one.stored)) await begin(one, options);
  location.hash = "#/renders";
}

/** @param {Transfer} from  The video whose options the others get too. */
function copyOptions(from) {
  for (const one of transfers) one.values = from.values;
  tell();
  store.say("All videos have these options now.");
}

addEventListener("beforeunload", (event) => {
  if (transfers.some((one) => ["sending", "offline"].includes(one.state))) event.preventDefault();
});

function useTransfers() {
  const [, render] = useState(0);
  useEffect(() => {
    const change = () => render((/** @type {number} */ n) => n + 1);
    changes.addEventListener("change", change);
    return () => changes.removeEventListener("change", change);
  }, []);
  return transfers;
}

export function NewRenders() {
  const { description, engines } = useStore();
  const list = useTransfers();
  const [over, setOver] = useState(false);
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const options = renderOptions(description, engines);
  useEffect(() => {
    // Anywhere on the page: beside the field, the browser would leave the page for the file.
    const on = /** @type {Record<string, (event: any) => void>} */ ({
      dragover: (event) => { event.preventDefault(); setOver(true); },
      dragleave: (event) => { if (!event.relatedTarget) setOver(false); },
      drop: (event) => { event.preventDefault(); setOver(false); addFiles(event.dataTransfer.files); },
    });
    for (const [name, listen] of Object.entries(on)) addEventListener(name, listen);
    return () => { for (const [name, listen] of Object.entries(on)) removeEventListener(name, listen); };
  }, []);
  return html`
    <h1>New renders</h1>
    <div class=${`drop ${over ? "over" : ""} ${list.length ? "" : "roomy"}`}>
      <p>Drop videos here</p>
      <button class="primary" onClick=${() => input.current?.click()}>Choose videos</button>
      <input ref=${input} type="file" accept="video/*,.mkv,.mxf,.ts,.vob" multiple hidden aria-label="Videos"
        onChange=${(/** @type {any} */ event) => { addFiles(event.target.files); event.target.value = ""; }} />
      ${list.length === 0 && html`<span class="facts">One or twenty. You see what each will become, and can try a moment of it first.</span>`}
      <small>Sent in parts. A transfer that was cut off, or left by a reload, goes on when you choose the same file again.</small>
    </div>
    <${FromAddress} />
    ${list.length > 1 && html`<${All} list=${list} options=${options} />`}
    ${list.length > 0 && html`<ul class=${`cards ${list.length < MANY ? "" : "dense"}`} aria-label="Videos">
      ${list.map((one) => html`<li key=${one.id}><${Card} transfer=${one} options=${options} onChoose=${() => input.current?.click()} /></li>`)}
    </ul>`}`;
}

/** @param {{list: Transfer[], options: import("../options.js").Option[]}} properties */
function All({ list, options }) {
  const [busy, setBusy] = useState(false);
  const ready = list.filter((one) => one.stored).length;
  const start = async () => {
    setBusy(true);
    await beginAll(options).catch((error) => store.fail(error));
    setBusy(false);
  };
  return html`<div class="row all"><span class="grow">${counted(list.length, "video")}, ${count(ready)} ready</span>
    <button class="primary" disabled=${busy || ready === 0} onClick=${start}>${busy ? "Asking …" : ready < list.length ? "Render those that are ready" : "Render all"}</button></div>`;
}

/** A video that the server fetches, where its operator allows that. */
function FromAddress() {
  const start = (/** @type {any} */ event) => {
    event.preventDefault();
    add([new Fetch(event.target.elements.address.value.trim(), () => store.api)]);
    event.target.reset();
  };
  return html`<details><summary>A video at an address</summary>
    <form class="row" onSubmit=${start}>
      <input class="grow" name="address" type="url" required placeholder="https://example.com/clip.mp4" aria-label="Address of the video" />
      <button>Fetch</button>
    </form>
  </details>`;
}

/** @param {{transfer: Transfer, options: import("../options.js").Option[], onChoose: () => void}} properties */
function Card({ transfer, options, onChoose }) {
  const { stored, file } = transfer;
  const fetched = transfer instanceof Fetch;
  const start = async () => { location.hash = `#/renders/${(await begin(transfer, options)).id}`; };
  const change = (/** @type {import("../options.js").Values} */ values) => { transfer.values = values; tell(); };
  return html`<article class="card" aria-label=${transfer.name}>
    <div class="row">
      <h2 class="grow">${transfer.name}</h2>
      ${(stored || !fetched) && html`<span>${size(stored?.sizeBytes ?? file.size)}</span>`}
      <button class="quiet" aria-label=${`Remove ${transfer.name}`} onClick=${() => remove(transfer)}>✕</button>
    </div>
    <${TransferState} transfer=${transfer} onChoose=${onChoose} />
    ${stored && html`<${RenderForm} id=${`new-${transfer.id}`} stored=${stored} source=${fetched ? undefined : file} name=${transfer.name}
      options=${options} values=${transfer.values} onValues=${change} onBegin=${start}>
      ${transfers.length > 1 && Object.keys(transfer.values).length > 0 && html`<button class="quiet" onClick=${() => copyOptions(transfer)}>Use these options for all</button>`}<//>`}
  </article>`;
}

/** @param {{transfer: Transfer, onChoose: () => void}} properties */
function TransferState({ transfer, onChoose }) {
  const { state, file, sentBytes, speed } = transfer;
  if (state === "ready") return null;
  if (state === "fetching") return html`<p role="status">The server fetches it …</p>`;
  if (state === "failed") {
    const another = () => { remove(transfer); onChoose(); };
    return html`<${Notice} kind="error">${`${transfer.error} ${transfer.advice}`.trim()}<//>
      ${transfer.advice ? !(transfer instanceof Fetch) && html`<button onClick=${another}>Choose another video</button>`
    : html`<button onClick=${() => transfer.run()}>Try again</button>`}`;
  }
  const done = file.size ? sentBytes / file.size : 1;
  const left = speed > 0 ? `, ${size(speed)}/s, ${span((file.size - sentBytes) / speed)} left` : "";
  const words = {
    waiting: "Waits for the others", sending: `${share(done)} sent${left}`, paused: `Paused at ${share(done)}`,
    offline: `${transfer.error.replace(/\.$/, "") || "The server cannot be reached"}; it goes on by itself`, checking: "The server looks at it …",
  }[state];
  return html`<div class="transfer">
    <${Progress} value=${done} label=${`Sent of ${file.name}`} />
    <div class="row"><span class="grow">${transfer.resumed ? "Resumed. " : ""}${words}</span>
      ${["sending", "offline"].includes(state) && html`<button class="quiet" onClick=${() => transfer.pause()}>Pause</button>`}
      ${state === "paused" && html`<button class="quiet" onClick=${() => transfer.run()}>Resume</button>`}
    </div>
  </div>`;
}
