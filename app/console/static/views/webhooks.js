import { html, useEffect, useState } from "../preact.js";
import { ago, count, counted, when } from "../format.js";
import { bodyOptions } from "../options.js";
import { store, useLoaded } from "../store.js";
import { ConfirmButton, CopyButton } from "../components/controls.js";
import { Notice } from "../components/notices.js";
import { ACTIONS, Table } from "../components/table.js";

const SECONDS = 5;

export function Webhooks() {
  const [hooks, reload, failed] = useLoaded(() => store.api.list("/v1/webhooks", "webhooks"), []);
  const [secret, setSecret] = useState("");
  /** Counts what failed and what was added: forms begin anew then. */
  const [turn, setTurn] = useState(0);
  const renew = () => setTurn((/** @type {number} */ now) => now + 1);
  const act = async (/** @type {() => Promise<unknown>} */ work, done = "") => {
    try {
      await work();
      if (done) store.say(done);
      await reload();
    } catch (error) {
      store.fail(error);
      renew();
    }
  };
  const create = (/** @type {any} */ event) => {
    event.preventDefault();
    const form = event.target;
    const asked = { url: form.elements.url.value.trim(), events: checked(form) };
    act(async () => { await store.api.post("/v1/webhooks", asked); form.reset(); renew(); });
  };
  const { schema } = bodyOptions(store.description, "/v1/webhooks").find(({ name }) => name === "events") ?? {};
  /** @type {string[]} */
  const events = schema?.items.enum ?? [];
  const show = () => act(async () => setSecret((await store.api.get("/v1/webhooks/secret")).secret.current));
  return html`<h1>Webhooks</h1>
    <p>The server calls these addresses when these events happen to one of your renders.</p>
    <form onSubmit=${create}>
      <div class="row"><input class="grow" name="url" type="url" required placeholder="https://example.com/regen" aria-label="Address" />
        <button class="primary">Add</button></div>
      <${EventChoice} key=${turn} label="Events to send" events=${events} chosen=${events} />
    </form>
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    <ul class="list" aria-label="Webhooks">${hooks?.map((hook) => html`<li key=${hook.id} class="item">
      <div class="row"><strong class="grow">${hook.url}</strong>
        <span class=${`status ${hook.enabled ? "completed" : "failed"}`}>${hook.enabled ? "On" : "Off"}</span></div>
      <form onChange=${(/** @type {any} */ event) => act(() => store.api.patch(`/v1/webhooks/${hook.id}`, { events: checked(event.currentTarget) }))}>
        <${EventChoice} key=${turn} label=${`Events sent to ${hook.url}`} events=${events} chosen=${hook.events} /></form>
      ${hook.disabledReason && html`<${Notice} kind="error">${hook.disabledReason}<//>`}
      <div class="row">
        <button class="quiet" onClick=${() => act(() => store.api.post(`/v1/webhooks/${hook.id}/test`), "A test event is on its way.")}>Send a test</button>
        <button class="quiet" onClick=${() => act(() => store.api.patch(`/v1/webhooks/${hook.id}`, { enabled: !hook.enabled }))}>
          ${hook.enabled ? "Switch off" : "Switch on"}</button>
        <${ConfirmButton} label="Delete" kind="quiet" question=${`Send nothing to ${hook.url} any more?`}
          onYes=${() => act(() => store.api.delete(`/v1/webhooks/${hook.id}`))} />
      </div></li>`)}
    </ul>
    <h2>Secret</h2>
    <p>Events are signed with it, by the scheme of Standard Webhooks.</p>
    <div class="row">${secret ? html`<code class="secret grow">${secret}</code><${CopyButton} text=${secret} label="the secret" />`
    : html`<button onClick=${show}>Show the secret</button>`}
      <${ConfirmButton} label="Change it" kind="quiet" question="Make a new secret? Events have both signatures for 24 hours."
        onYes=${() => act(async () => setSecret((await store.api.post("/v1/webhooks/secret/rotate")).secret.current))} />
    </div>
    <h2>Deliveries</h2><${Deliveries} />`;
}

/** The events that are ticked in a form. @param {HTMLFormElement} form @returns {string[]} */
const checked = (form) => new FormData(form).getAll("event").map(String);

/** What is ticked stays so while the list is loaded anew, until that tells otherwise.
 * @param {{label: string, events: string[], chosen: string[]}} properties */
function EventChoice({ label, events, chosen }) {
  const [ticked, setTicked] = useState(chosen);
  useEffect(() => setTicked(chosen), [chosen.join()]);
  const tick = (/** @type {any} */ { target }) =>
    setTicked((/** @type {string[]} */ now) => (target.checked ? [...now, target.value] : now.filter((one) => one !== target.value)));
  return html`<fieldset class="row plain-fieldset"><legend class="visually-hidden">${label}</legend>
    ${events.map((name) => html`<label class="check"><input type="checkbox" name="event" value=${name} checked=${ticked.includes(name)} onChange=${tick} /> ${name}</label>`)}
  </fieldset>`;
}

function Deliveries() {
  const load = () => store.api.list("/v1/webhook-deliveries", "deliveries", 50);
  const [rows, reload, failed] = useLoaded(load, [], SECONDS);
  /** The id of the delivery whose attempts are shown. */
  const [open, setOpen] = useState("");
  const again = async (/** @type {string} */ id) => {
    try {
      await store.api.post(`/v1/webhook-deliveries/${id}/replay`);
      await reload();
    } catch (error) { store.fail(error); }
  };
  if (failed) return html`<${Notice} kind="error">${failed}<//>`;
  if (rows?.length === 0) return html`<p class="empty">Nothing was sent yet.</p>`;
  return html`<${Table} label="Deliveries" columns=${["Event", "Address", "State", "Attempts", "Made", ACTIONS]} rows=${rows?.map((row) => ({
    key: row.id,
    cells: [
      row.event, row.url,
      html`<span class=${`status ${{ delivered: "completed", failed: "failed", pending: "queued" }[/** @type {"delivered"} */ (row.status)]}`}>${row.status}</span>`,
      html`<button class="quiet" aria-expanded=${open === row.id} aria-label=${`${counted(row.attemptCount, "attempt")} of ${row.event}`} onClick=${() => setOpen(open === row.id ? "" : row.id)}>${row.attemptCount}</button>`,
      ago(row.createdAt),
      html`<button class="quiet" onClick=${() => again(row.id)}>Send again</button>`,
    ],
    below: open === row.id && html`<${Attempts} of=${row} />`,
  }))} />`;
}

/** @param {{of: import("../api.js").Row}} properties `of`: a delivery, which is asked for again when it has more attempts */
function Attempts({ of }) {
  const load = async () => (await store.api.get(`/v1/webhook-deliveries/${of.id}`)).delivery.attempts ?? [];
  const [attempts, , failed] = useLoaded(load, [of.id, of.attemptCount]);
  if (failed) return html`<${Notice} kind="error">${failed}<//>`;
  if (attempts?.length === 0) return "Not sent yet.";
  return attempts?.map((/** @type {any} */ one) => html`<p>
    ${count(one.number)}. ${when(one.at)}: ${one.statusCode ?? one.error}, ${count(one.durationSeconds)} s</p>`);
}
