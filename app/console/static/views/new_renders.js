// Videos to render: dropped, sent, estimated, tried at a moment, begun.

import { html, useEffect, useRef, useState } from "../preact.js";
import { share, size, span } from "../format.js";
import { renderOptions } from "../options.js";
import { store, useStore } from "../store.js";
import { Fetch, Transfer } from "../transfers.js";
import { Progress } from "../components/controls.js";
import { Notice } from "../components/notices.js";
import { later } from "../components/later.js";

const RenderForm = later("RenderForm", () => import("./render_form.js"));

const SENT_AT_ONCE = 2;

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
  const drop = (/** @type {any} */ event) => {
    event.preventDefault();
    setOver(false);
    addFiles(event.dataTransfer.files);
  };
  return html`
    <h1>New renders</h1>
    <div class=${`drop ${over ? "over" : ""}`} onDragOver=${(/** @type {Event} */ event) => { event.preventDefault(); setOver(true); }}
      onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <p>Drop videos here</p>
      <button class="primary" onClick=${() => input.current?.click()}>Choose videos</button>
      <input ref=${input} type="file" accept="video/*,.mkv,.mxf,.ts,.vob" multiple hidden aria-label="Videos"
        onChange=${(/** @type {any} */ event) => { addFiles(event.target.files); event.target.value = ""; }} />
      <small>Sent in parts. A transfer that was cut off, or left by a reload, goes on when you choose the same file again.</small>
    </div>
    <${FromAddress} />
    ${list.length > 0 && html`<ul class="cards" aria-label="Videos">
      ${list.map((one) => html`<li key=${one.id}><${Card} transfer=${one} options=${options} /></li>`)}
    </ul>`}`;
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

/** @param {{transfer: Transfer, options: import("../options.js").Option[]}} properties */
function Card({ transfer, options }) {
  const { stored, file } = transfer;
  const fetched = transfer instanceof Fetch;
  const begun = () => {
    transfers.splice(transfers.indexOf(transfer), 1);
    tell();
  };
  return html`<article class="card" aria-label=${transfer.name}>
    <div class="row">
      <h2 class="grow">${transfer.name}</h2>
      ${(stored || !fetched) && html`<span>${size(stored?.sizeBytes ?? file.size)}</span>`}
      <button class="quiet" aria-label=${`Remove ${transfer.name}`} onClick=${() => remove(transfer)}>✕</button>
    </div>
    <${TransferState} transfer=${transfer} />
    ${stored && html`<${RenderForm} id=${`new-${transfer.id}`} stored=${stored} source=${fetched ? undefined : file} name=${transfer.name}
      options=${options} onBegun=${begun} />`}
  </article>`;
}

/** @param {{transfer: Transfer}} properties */
function TransferState({ transfer }) {
  const { state, file, sentBytes, speed } = transfer;
  if (state === "ready") return null;
  if (state === "fetching") return html`<p role="status">The server fetches it …</p>`;
  if (state === "failed") {
    return html`<${Notice} kind="error">${transfer.error}<//>
      <button onClick=${() => transfer.run()}>Try again</button>`;
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
