import { html, useState } from "../preact.js";
import { ago, facts, share, span } from "../format.js";
import { store, useLoaded } from "../store.js";
import { Progress, Status } from "../components/controls.js";
import { Notice } from "../components/notices.js";

const SECONDS = 3;
const PAGE = 50;
const STATUSES = ["", "queued", "pending", "processing", "completed", "failed"];

/** The user's renders, newest first; those under way move by themselves. */
export function Renders() {
  const [status, setStatus] = useState("");
  const [most, setMost] = useState(PAGE);
  const load = () => store.api.list("/v1/renders", "renders", most, { status: status || undefined });
  const [renders, , failed] = useLoaded(load, [status, most], SECONDS);
  return html`
    <div class="row"><h1 class="grow">Renders</h1>
      <label>Show <select value=${status} onChange=${(/** @type {any} */ event) => setStatus(event.target.value)}>
        ${STATUSES.map((one) => html`<option value=${one}>${one || "all"}</option>`)}
      </select></label>
    </div>
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    ${renders?.length === 0 && html`<p class="empty">Nothing here yet. <a href="#/">Render a video</a>.</p>`}
    <ul class="list" aria-label="Renders">${renders?.map((one) => html`<li key=${one.id}><${RenderRow} render=${one} /></li>`)}</ul>
    ${renders?.length === most && html`<button onClick=${() => setMost(most + PAGE)}>Show more</button>`}`;
}

/** @param {{render: import("../api.js").Row}} properties */
export function RenderRow({ render }) {
  const place = render.queuePosition ? `, number ${render.queuePosition} in the queue` : "";
  const left = render.etaSeconds === undefined ? "" : `, about ${span(render.etaSeconds)} left`;
  return html`<a class="render-row" href=${`#/renders/${render.id}`}>
    ${render.thumbnailURL ? html`<img src=${render.thumbnailURL} alt="" loading="lazy" />` : html`<span class="no-picture"></span>`}
    <span class="grow">
      <strong>${facts(render.output)}</strong>
      <small>${render.engine}, ${ago(render.createdAt)}${place}${left}</small>
      ${render.error && html`<small class="failed">${render.error}</small>`}
      ${render.status === "processing" && html`<${Progress} value=${render.progress} label=${`Rendered: ${share(render.progress)}`} />`}
    </span>
    <${Status} status=${render.status} />
  </a>`;
}
