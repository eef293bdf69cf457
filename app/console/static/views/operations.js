// What an operator keeps open: everybody's renders, the workers, and the server's parts.

import { html, useState } from "../preact.js";
import { ago, clock, count, facts, share, span } from "../format.js";
import { store, useLoaded } from "../store.js";
import { BASE } from "../api.js";
import { BarChart } from "../components/chart.js";
import { ConfirmButton, Reason, Status, StatusChoice } from "../components/controls.js";
import { Notice, Warnings } from "../components/notices.js";
import { ACTIONS, Table } from "../components/table.js";

const SECONDS = 5;
const ACTIVITY_SECONDS = 60;
const PAGE = 50;

export function Operations() {
  return html`<h1>Operations</h1>
    <h2>Server</h2><${Server} />
    <h2>The last day</h2><${Activity} />
    <h2>Workers</h2><${Workers} />
    <h2>Renders of all users</h2><${AllRenders} />`;
}

function Server() {
  const load = async () => {
    const told = await (await fetch(`${BASE}/readyz?parts=1`, { cache: "no-store" })).json();
    // 503 is an answer here too: why this process takes no requests.
    return told.errors ? { status: told.errors.map((/** @type {{message: string}} */ one) => one.message).join(" ") } : told;
  };
  const [ready, , failed] = useLoaded(load, [], SECONDS);
  if (failed) return html`<${Notice} kind="error">The server cannot be reached.<//>`;
  if (!ready) return html`<p>Loading …</p>`;
  return html`<ul class="plain parts">
      <li class="row"><span class="grow">This process</span><span class=${`status ${ready.status === "ok" ? "completed" : "failed"}`}>${ready.status}</span></li>
      ${Object.entries(ready.parts ?? {}).map(([name, state]) => html`<li class="row"><span class="grow">${name[0].toUpperCase() + name.slice(1)}</span>
        <span class=${`status ${state === "ok" ? "completed" : "failed"}`}>${typeof state === "string" ? state : JSON.stringify(state)}</span></li>`)}
      ${ready.workers && html`<li class="row"><span class="grow">Workers alive</span><span>${count(ready.workers.alive)}${ready.workers.stalled ? `, ${count(ready.workers.stalled)} stalled` : ""}</span></li>`}
    </ul><${Warnings} of=${ready.warnings} />`;
}

/** How the queue went, and what was done, in the last day. */
function Activity() {
  const load = async () => (await store.api.get("/v1/admin/activity", { query: { hours: 24 } })).activity;
  const [activity, , failed] = useLoaded(load, [], ACTIVITY_SECONDS);
  if (failed) return html`<${Notice} kind="error">${failed}<//>`;
  if (!activity) return html`<p>Loading …</p>`;
  const chart = (/** @type {string} */ label, /** @type {string} */ unit, /** @type {(one: any) => number} */ value, /** @type {((value: number) => string) | undefined} */ text = undefined) =>
    html`<${BarChart} label=${label} unit=${unit} text=${text}
      bars=${activity.intervals.map((/** @type {any} */ one) => ({ name: clock(one.endsAt), value: value(one) }))} />`;
  return html`<div class="charts">
    ${chart("Renders in the queue", "render", (one) => one.queued)}
    ${chart("Age of the oldest in the queue", "", (one) => one.oldestQueuedSeconds, span)}
    ${chart("Renders at work", "render", (one) => one.unfinished - one.queued)}
    ${chart("Age of the oldest that is not done", "", (one) => one.oldestSeconds, span)}
    ${chart("Frames done, of the result", "frame", (one) => one.frames)}
    ${chart("Renders done", "render", (one) => one.completed)}
    ${activity.intervals.some((/** @type {any} */ one) => one.failed) && chart("Renders that failed or were canceled", "render", (one) => one.failed)}
  </div>`;
}

function Workers() {
  const [workers, reload, failed] = useLoaded(async () => (await store.api.get("/v1/admin/workers")).workers, [], SECONDS);
  const act = async (/** @type {string} */ name, /** @type {string} */ verb) => {
    try {
      await store.api.post(`/v1/admin/workers/${encodeURIComponent(name)}/${verb}`);
      await reload();
    } catch (error) { store.fail(error); }
  };
  if (failed) return html`<${Notice} kind="error">${failed}<//>`;
  if (workers?.length === 0) return html`<${Notice} kind="error">No worker is running, so renders wait until one is started.<//>`;
  return html`<${Table} label="Workers" columns=${["Worker", "Device", "Engines", "In hand", "Frames/s", "Done", "Heartbeat", "State", ACTIONS]}
    rows=${workers?.map((/** @type {any} */ one) => ({ key: one.name, cells: [
      html`${one.name}<br /><small>${one.host}, ${one.version}</small>`, one.device, one.engines.join(", "),
      one.work ? html`${one.work.kind} ${one.work.renderId && html`<a href=${`#/renders/${one.work.renderId}`}>${one.work.renderId}</a>`}${one.work.stalled ? " stalled" : ""}` : "–",
      one.work?.framesPerSecond === undefined ? "–" : count(one.work.framesPerSecond), count(one.unitsDone), ago(one.heartbeatAt),
      html`<span class=${`status ${one.alive && one.status === "active" ? "completed" : "failed"}`}>${one.alive ? one.status : "gone"}</span>${one.statusReason && html`<br /><small>${one.statusReason}</small>`}`,
      one.status === "active" ? html`<button class="quiet" onClick=${() => act(one.name, "drain")}>Drain</button>`
        : html`<button class="quiet" onClick=${() => act(one.name, "resume")}>Resume</button>`,
    ] }))} />`;
}

/** Names of users by id, as far as they are known. */
function useNames() {
  const [users] = useLoaded(() => store.api.list("/v1/admin/users", "users", 500), [], ACTIVITY_SECONDS);
  return new Map(users?.map((user) => [String(user.id), String(user.name)]));
}

function AllRenders() {
  const names = useNames();
  const [status, setStatus] = useState("");
  const [user, setUser] = useState("");
  const [most, setMost] = useState(PAGE);
  const [engine, setEngine] = useState("");
  const query = { status: status || undefined, user: user || undefined, engine: engine || undefined };
  const [rows, reload, failed] = useLoaded(() => store.api.list("/v1/admin/renders", "renders", most, query), [status, user, engine, most], SECONDS);
  const act = async (/** @type {Promise<unknown>} */ work, done = "") => {
    try {
      await work;
      if (done) store.say(done);
      await reload();
    } catch (error) { store.fail(error); }
  };
  return html`<div class="row filters">
      <label>Status <${StatusChoice} value=${status} onChange=${setStatus} /></label>
      <label>Engine <select value=${engine} onChange=${(/** @type {any} */ event) => setEngine(event.target.value)}>
        ${["", ...store.engines.map(({ id }) => id)].map((one) => html`<option value=${one}>${one || "all"}</option>`)}
      </select></label>
      <label>User <select value=${user} onChange=${(/** @type {any} */ event) => setUser(event.target.value)}>
        <option value="">all</option>${[...names].map(([id, name]) => html`<option value=${id}>${name}</option>`)}
      </select></label>
    </div>
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    <${Table} label="Renders of all users" columns=${["Render", "User", "Result", "Engine", "Made", "State", ACTIONS]}
      rows=${rows?.map((one) => ({ key: one.id, cells: [
        html`<a href=${`#/renders/${one.id}`}>${one.fileName ?? one.id}</a><br /><code>${one.id}</code>`, names.get(one.userId) ?? html`<code>${one.userId}</code>`, facts(one.output), one.engine, ago(one.createdAt),
        html`<${Status} of=${one} /> ${one.status === "processing" && share(one.progress)}<br /><${Reason} of=${one} />${one.requestId && html`<br /><small>in the logs: <code>${one.requestId}</code></small>`}`,
        html`${one.status === "failed" && html`<button class="quiet" onClick=${() => act(store.api.post(`/v1/admin/renders/${one.id}/retry`))}>Render again</button>`}
          ${["pending", "processing"].includes(one.status) && html`<button class="quiet"
            onClick=${() => act(store.api.post(`/v1/admin/renders/${one.id}/requeue`), "It is free for other workers.")}>Requeue</button>`}
          ${["queued", "pending", "processing"].includes(one.status) && html`<${ConfirmButton} label="Cancel" yes="Stop it" kind="quiet"
            question="Stop this render? Its user is told." onYes=${() => act(store.api.post(`/v1/admin/renders/${one.id}/cancel`))} />`}`,
      ] }))} />
    ${rows?.length === most && html`<button onClick=${() => setMost(most + PAGE)}>Show more</button>`}`;
}
