import { html, useEffect, useState } from "../preact.js";
import { ago, facts, share, size, span } from "../format.js";
import { store, useLoaded } from "../store.js";
import { Progress, Reason, Status, StatusChoice } from "../components/controls.js";
import { Notice } from "../components/notices.js";

const SECONDS = 3;
/** While every render under way tells of itself: for those that were made elsewhere. */
const SECONDS_WITH_EVENTS = 15;
/** Browsers open six connections to a server, for all tabs together. */
const MOST_STREAMS = 2;
const PAGE = 50;

/** Follows the first of these renders by their events while the page is visible.
 * @param {import("../api.js").Row[]} renders  Those under way. @param {() => void} onEnd
 * @returns {Record<string, import("../api.js").Row>} what was last told of each, by its id */
function useEvents(renders, onEnd) {
  const [told, setTold] = useState(/** @type {Record<string, import("../api.js").Row>} */ ({}));
  const [visible, setVisible] = useState(!document.hidden);
  useEffect(() => {
    const change = () => setVisible(!document.hidden);
    document.addEventListener("visibilitychange", change);
    return () => document.removeEventListener("visibilitychange", change);
  }, []);
  // Those at work change most; of the others, the first in the queue.
  const order = [...renders].sort((a, b) => (a.queuePosition ?? 0) - (b.queuePosition ?? 0));
  const followed = visible ? order.slice(0, MOST_STREAMS).map((one) => one.id) : [];
  useEffect(() => {
    const control = new AbortController();
    for (const id of followed) {
      const follow = async () => {
        const events = store.api.events(id, { signal: control.signal });
        for await (const event of events) setTold((now) => ({ ...now, [id]: event }));
        onEnd();
      };
      // A stream that is refused leaves its render to polling.
      follow().catch(() => {});
    }
    return () => { control.abort(); setTold({}); };
  }, [followed.join()]);
  return told;
}

/** Addresses of pictures, which each answer signs anew: the first one is kept, so that none is fetched again at each look.
 * @type {Map<string, string>} */
const pictures = new Map();

/** @param {string} url */
function steady(url) {
  const [object] = url.split("?");
  if (!pictures.has(object)) pictures.set(object, url);
  return { src: pictures.get(object), onError: () => pictures.delete(object) };
}

/** The user's renders, newest first; those under way move by themselves. */
export function Renders() {
  const [status, setStatus] = useState("");
  const [most, setMost] = useState(PAGE);
  const [seconds, setSeconds] = useState(SECONDS);
  const load = () => store.api.list("/v1/renders", "renders", most, { status: status || undefined });
  const [renders, reload, failed] = useLoaded(load, [status, most], seconds);
  const underWay = (renders ?? []).filter((one) => !["completed", "failed"].includes(one.status));
  const told = useEvents(underWay, reload);
  useEffect(() => setSeconds(underWay.every((one) => told[one.id]) ? SECONDS_WITH_EVENTS : SECONDS));
  return html`
    <div class="row"><h1 class="grow">Renders</h1>
      <label>Show <${StatusChoice} value=${status} onChange=${setStatus} /></label>
    </div>
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    ${renders?.length === 0 && html`<p class="empty">Nothing here yet. <a href="#/">Render a video</a>.</p>`}
    <ul class="list" aria-label="Renders">${renders?.map((one) => html`<li key=${one.id}><${RenderRow} render=${latest(one, told[one.id])} /></li>`)}</ul>
    ${renders?.length === most && html`<button onClick=${() => setMost(most + PAGE)}>Show more</button>`}`;
}

/** What a place in the queue or a time left was need not be any more: events leave out what does not apply.
 * @param {import("../api.js").Row} render @param {import("../api.js").Row | undefined} told */
export function latest(render, told) {
  return told ? { ...render, queuePosition: undefined, etaSeconds: undefined, ...told } : render;
}

/** @param {{render: import("../api.js").Row}} properties */
export function RenderRow({ render }) {
  const place = render.queuePosition ? `, number ${render.queuePosition} in the queue` : "";
  const left = render.etaSeconds === undefined ? "" : `, about ${span(render.etaSeconds)} left`;
  return html`<a class="render-row" href=${`#/renders/${render.id}`}>
    ${render.thumbnailURL ? html`<img ...${steady(render.thumbnailURL)} alt="" loading="lazy" />` : html`<span class="no-picture" aria-hidden="true">${render.status !== "failed" && "▶"}</span>`}
    <span class="grow">
      <strong>${render.fileName ?? render.id}</strong>
      <small>${facts(render.output)}${render.outputSizeBytes === undefined ? "" : `, ${size(render.outputSizeBytes)}`}</small>
      <small>${render.engine}, ${ago(render.createdAt)}${place}${left}</small>
      <${Reason} of=${render} />
      ${render.status === "processing" && html`<${Progress} value=${render.progress} label=${`Rendered: ${share(render.progress)}`} />`}
    </span>
    <${Status} of=${render} />
  </a>`;
}
