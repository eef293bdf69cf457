import { html, useEffect, useState } from "../preact.js";
import { ago, contents, cost, count, counted, facts, share, size, span, when } from "../format.js";
import { store, useLoaded } from "../store.js";
import { CompareVideos } from "../components/compare.js";
import { Quality } from "../components/quality.js";
import { BASE } from "../api.js";
import { asked, renderOptions, samples } from "../options.js";
import { CodeSamples, ConfirmButton, isCanceled, Progress, Status } from "../components/controls.js";
import { Notice, Warnings } from "../components/notices.js";
import { Still } from "../components/still.js";
import { latest } from "./renders.js";

const RATE_WINDOW_SECONDS = 10;
/** For a render of another user, of which there are no events; and for one that waits, of which events do not tell why. */
const SECONDS = 3;

/** Follows the render and gives its state; the whole render once it has ended. Administrators see those of all users.
 * @param {string} id */
function useRender(id) {
  const [seconds, setSeconds] = useState(/** @type {number | undefined} */ (undefined));
  const path = `/v1/${store.isAdmin ? "admin/" : ""}renders/${id}`;
  const [render, reload, failed] = useLoaded(async () => (await store.api.get(path)).render, [id], seconds);
  const isOwn = render?.userId === store.userId;
  const [live, setLive] = useState(/** @type {import("../api.js").Row | undefined} */ (undefined));
  const ended = render && ["completed", "failed"].includes(render.status);
  const isWaiting = (live ?? render)?.status === "queued";
  // Events do not tell when there is something to watch.
  const awaitsStart = (live ?? render)?.status === "processing" && !render?.streamURL;
  useEffect(() => setSeconds(render && !ended && (!isOwn || isWaiting || awaitsStart) ? SECONDS : undefined), [Boolean(render), ended, isOwn, isWaiting, awaitsStart]);
  useEffect(() => {
    if (ended || !isOwn) return undefined;
    const control = new AbortController();
    /** @type {[number, number][]} */
    const history = [];
    /** @param {import("../vendor/regen-client/index.js").RenderEvent} data */
    const note = (data) => {
      const now = performance.now() / 1000;
      if (data.framesDone !== undefined) history.push([now, data.framesDone]);
      while (history.length > 2 && now - history[0][0] > RATE_WINDOW_SECONDS) history.shift();
      const [first, last] = [history[0], history.at(-1)];
      const rate = first && last && last[0] - first[0] > 1 ? (last[1] - first[1]) / (last[0] - first[0]) : undefined;
      setLive({ ...data, rate });
    };
    const follow = async () => {
      for await (const event of store.api.events(id, { signal: control.signal })) note(event);
      setLive(undefined);
      reload();
    };
    follow().catch((error) => store.fail(error));
    return () => control.abort();
  }, [id, Boolean(render), isOwn, ended]);
  return { render: ended ? render : render && latest(render, live), isOwn, reload, failed };
}

/** @param {{id: string}} properties */
export function RenderPage({ id }) {
  const { render, isOwn, reload, failed } = useRender(id);
  // The addresses as they were then: whoever watches goes on when the render ends.
  const [watched, setWatched] = useState(/** @type {{before: string, after: string} | undefined} */ (undefined));
  useEffect(() => setWatched(undefined), [id]);
  const [file] = useLoaded(async () => (isOwn && render ? (await store.api.get(`/v1/files/${render.fileId}`)).file : undefined), [render?.fileId, isOwn]);
  const [inside] = useLoaded(async () => (file ? (await store.api.get(`/v1/files/${file.id}/contents`)).contents : undefined), [file?.id]);
  if (failed) return html`<h1>Render</h1><${Notice} kind="error">${failed}<//><p><a href="#/renders">All renders</a></p>`;
  if (!render) return html`<h1>Render</h1><p>Loading …</p>`;
  const act = (/** @type {() => Promise<void>} */ work) => () => work().catch((error) => store.fail(error));
  const path = `/v1/${isOwn ? "" : "admin/"}renders/${id}`;
  const cancel = act(async () => { await store.api.post(`${path}/cancel`); await reload(); });
  const requeue = act(async () => { await store.api.post(`${path}/requeue`); store.say("It is free for other workers."); await reload(); });
  const deliver = act(async () => { await store.api.post(`${path}/deliver`); store.say("It is sent again."); await reload(); });
  const retry = act(async () => {
    const made = (await store.api.post(`${path}/retry`)).render;
    location.hash = `#/renders/${made.id}`;
  });
  const remove = act(async () => {
    await store.api.delete(`/v1/renders/${id}`);
    store.say("The render is deleted.");
    location.hash = "#/renders";
  });
  const ended = ["completed", "failed"].includes(render.status);
  const compared = {
    rate: render.output.frameRate, start: render.start ?? 0, fileId: isOwn ? render.fileId : undefined, beginsAt: inside?.videoBeginsAt ?? 0,
  };
  return html`
    <p class="back">${isOwn ? html`<a href="#/renders">Renders</a>` : html`<a href="#/operations">Operations</a>`}</p>
    <div class="row"><h1 class="grow">${render.fileName ?? "Render"}</h1><${Status} of=${render} /></div>
    ${watched ? html`<${CompareVideos} ...${watched} ...${compared} grows label="What is finished" />`
      : !ended && render.streamURL && html`<p><button onClick=${() => setWatched({ before: render.inputFileURL, after: render.streamURL })}>Watch what is finished</button></p>`}
    ${!watched && render.status === "completed" && render.outputFileURL && html`<${CompareVideos} before=${render.inputFileURL} after=${render.outputFileURL}
      ...${compared} label="Before and after" />`}
    ${!ended && !watched && isOwn && html`<div class="stage original" style=${stage(render.input)}><${Still} fileId=${render.fileId} at=${Math.max(0, compared.start - compared.beginsAt)} label="The original" wait=${!inside} silent /></div>`}
    ${!ended && html`<${Live} render=${render} />`}
    ${isCanceled(render) ? html`<${Notice}>${render.error === "Canceled" ? "This render was canceled: it has no result, and costs nothing." : render.error}<//>`
      : render.error && html`<${Notice} kind="error">${render.error}<//>`}
    ${render.requestId && html`<p><small>The server's operator finds its lines in the logs by <code>${render.requestId}</code>.</small></p>`}
    <${Warnings} of=${render.warnings} />
    <div class="row actions">
      ${render.outputFileURL && html`<a class="button primary" href=${render.outputFileURL} download>Download</a>`}
      ${!ended && html`<${ConfirmButton} label="Cancel" yes="Stop it" question="Stop this render? What is done of it is lost." onYes=${cancel} />`}
      ${render.status === "failed" && html`<button class="primary" onClick=${retry}>Render again</button>`}
      ${ended && isOwn && render.inputFileURL && html`<a class="button" href=${`#/renders/${id}/again`}>Render with other options</a>`}
      ${!isOwn && ["pending", "processing"].includes(render.status) && html`<button class="quiet" onClick=${requeue}>Requeue</button>`}
      ${render.status === "completed" && ["delivered", "failed"].includes(render.destination?.status) && html`<button class="quiet" onClick=${deliver}>Send again</button>`}
      ${ended && isOwn && html`<${ConfirmButton} label="Delete" kind="quiet" question="Delete this render and its video?" onYes=${remove} />`}
    </div>
    <dl class="facts-table">
      <div><dt>Original</dt><dd>${facts(render.input)}<br />${counted(render.input.frames, "frame")}${file && html`, ${size(file.sizeBytes)}`}${inside?.codec && html`<br />${contents(inside)}`}</dd></div>
      <div><dt>Result</dt><dd>${facts(render.output)}<br />${counted(render.output.frames, "frame")}${render.outputSizeBytes !== undefined && html`, ${size(render.outputSizeBytes)}`}</dd></div>
      <div><dt>Engine</dt><dd>${render.engine}</dd></div>
      ${render.targetFps !== undefined && html`<div><dt>Rate</dt><dd>${count(render.targetFps)} (${render.targetFpsExact}), ${render.retime ?? "nearest"}</dd></div>`}
      ${render.encodedQuality && html`<div><dt>Encoded</dt><dd>${encoded(render.encodedQuality)}</dd></div>`}
      ${render.status !== "failed" && html`<div><dt>Cost</dt><dd>${cost(render.cost)}</dd></div>`}
      <div><dt>Made</dt><dd>${when(render.createdAt)}<br /><small>${ago(render.createdAt)}</small></dd></div>
      ${render.completedAt && html`<div><dt>Took</dt><dd>${span((new Date(render.completedAt).getTime() - new Date(render.createdAt).getTime()) / 1000)}</dd></div>`}
      ${render.destination && html`<div><dt>Destination</dt><dd>${destination(render.destination)}</dd></div>`}
      ${render.retryOf && html`<div><dt>Repeats</dt><dd><a href=${`#/renders/${render.retryOf}`}>${render.retryOf}</a></dd></div>`}
      ${!isOwn && html`<div><dt>User</dt><dd><code>${render.userId}</code></dd></div>`}
      <div><dt>Id</dt><dd><code>${render.id}</code></dd></div>
    </dl>
    ${render.quality && html`<${Quality} of=${render.quality} />`}
    <details><summary>The request that made it</summary>
      <${CodeSamples} samples=${samples(BASE, render.fileName ?? "clip.mp4", asked(renderOptions(store.description, store.engines), render))} />
    </details>`;
}

/** As large as less than half of the screen allows, before the picture is there too. @param {import("../api.js").Row} input */
const stage = ({ width, height }) => ({ aspectRatio: `${width} / ${height}`, width: `min(100%, ${(45 * width) / height}vh)` });

/** Where the result is sent, and how far that is. @param {import("../api.js").Row} of */
function destination({ url, status, attempts, message, deliveredAt }) {
  const state = deliveredAt ? `delivered ${when(deliveredAt)}` : status;
  return html`<code>${url}</code><br />${state}${attempts > 1 ? `, attempt ${attempts}` : ""}${message && html`<br /><small>${message}</small>`}`;
}

/** @param {{render: import("../api.js").Row}} properties */
function Live({ render }) {
  const words = {
    queued: render.queuePosition ? `Number ${render.queuePosition} in the queue` : "In the queue",
    pending: "The video is being read",
    processing: render.frames ? `${count(render.framesDone ?? 0)} of ${count(render.frames)} frames` : share(render.progress),
  }[/** @type {string} */ (render.status)];
  const rate = render.rate ? `, ${count(render.rate)} frames per second` : "";
  const left = render.etaSeconds === undefined ? "" : `, about ${span(render.etaSeconds)} left`;
  return html`<div class="live">
    <${Progress} value=${render.progress} label=${`Rendered: ${share(render.progress)}`} />
    <p role="status" aria-live="polite">${words}${rate}${left}</p>
  </div>`;
}

/** What the search for a target of VMAF found, in words. @param {import("../api.js").Row} found */
function encoded({ target, vmaf, crf }) {
  const range = crf.min === crf.max ? count(crf.min) : `${count(crf.min)} to ${count(crf.max)}`;
  return `VMAF ${count(vmaf.mean)}, nowhere less than ${count(vmaf.min)}, for a target of ${count(target)}; CRF ${range}`;
}
