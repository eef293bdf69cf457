import { html, useState } from "../preact.js";
import { when } from "../format.js";
import { typedNumber } from "../options.js";
import { store, useLoaded } from "../store.js";
import { ConfirmButton } from "../components/controls.js";
import { Keys } from "../components/keys.js";
import { Notice } from "../components/notices.js";
import { UsageFigures } from "./usage.js";

const LIMITS = [
  ["max_running_renders", "Renders under way"], ["max_running_segments", "Segments under way"],
  ["max_queued_renders", "Renders in the queue"], ["max_storage_bytes", "Stored bytes"], ["max_cost_per_month", "Cost per month"],
  ["max_upload_bytes", "Bytes of a video"], ["max_duration_seconds", "Seconds of a video"],
];
/** Those that belong to the user itself and not to `limits`. */
const OWN = new Set(["max_running_renders", "max_running_segments"]);

export function Users() {
  const [users, reload, failed] = useLoaded(() => store.api.list("/v1/admin/users", "users", 500), []);
  const [open, setOpen] = useState("");
  const create = async (/** @type {any} */ event) => {
    event.preventDefault();
    const form = event.target;
    try {
      const { user } = await store.api.post("/v1/admin/users", { name: form.elements.name.value.trim() });
      form.reset();
      await reload();
      setOpen(user.id);
    } catch (error) { store.fail(error); }
  };
  const remove = async (/** @type {import("../api.js").Row} */ user) => {
    try {
      await store.api.delete(`/v1/admin/users/${user.id}`);
      store.say(`${user.name} is deleted.`);
      await reload();
    } catch (error) { store.fail(error); }
  };
  return html`<h1>Users and keys</h1>
    <form class="row" onSubmit=${create}>
      <input class="grow" name="name" required maxlength="100" placeholder="Name" aria-label="Name of the new user" />
      <button class="primary">Add a user</button>
    </form>
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    <ul class="list" aria-label="Users">${users?.map((user) => html`<li key=${user.id} class="item">
      <div class="row"><strong class="grow">${user.name}</strong><code>${user.id}</code><small>since ${when(user.createdAt)}</small>
        <button class="quiet" aria-expanded=${open === user.id} aria-label=${`${open === user.id ? "Close" : "Open"} ${user.name}`}
          onClick=${() => setOpen(open === user.id ? "" : user.id)}>${open === user.id ? "Close" : "Open"}</button></div>
      ${open === user.id && html`<h2>Keys</h2><${Keys} path=${`/v1/admin/users/${user.id}/keys`} below="/v1/admin/keys" /><${Limits} user=${user} onChange=${reload} /><${UsageOf} user=${user} />
        <h2>Delete</h2><${ConfirmButton} label="Delete this user" question=${`Delete ${user.name} with all keys, files, renders and usage? This cannot be undone.`} onYes=${() => remove(user)} />`}
    </li>`)}</ul>`;
}

/** @param {{user: import("../api.js").Row, onChange: () => void}} properties */
function Limits({ user, onChange }) {
  const camel = (/** @type {string} */ name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  const now = (/** @type {string} */ name) => (OWN.has(name) ? user : user.limits)[camel(name)] ?? "";
  const save = async (/** @type {any} */ event) => {
    event.preventDefault();
    const { elements } = event.target;
    /** @type {Record<string, any>} */
    const sent = {};
    /** @type {Record<string, number | null>} */
    const limits = {};
    for (const [name, label] of LIMITS) {
      const text = elements[name].value.trim();
      if (text === String(now(name))) continue;
      const value = text === "" ? null : typedNumber(text);
      if (value === undefined) return store.say(`${label}: “${text}” is no number. Write digits alone, or leave it empty.`, "error");
      (OWN.has(name) ? sent : limits)[name] = value;
    }
    if (Object.keys(limits).length) sent.limits = limits;
    try {
      if (Object.keys(sent).length) await store.api.patch(`/v1/admin/users/${user.id}`, sent);
      store.say("The limits are saved.");
      onChange();
    } catch (error) { store.fail(error); }
  };
  return html`<h2>Set limits</h2><p>Empty: the server's own.</p>
    <form onSubmit=${save}><div class="options">${LIMITS.map(([name, label]) => html`<div class="option">
      <label for=${`${user.id}-${name}`}>${label}</label>
      <input id=${`${user.id}-${name}`} name=${name} inputmode="decimal" value=${now(name)} /></div>`)}</div>
      <button>Save the limits</button></form>`;
}

/** @param {{user: import("../api.js").Row}} properties */
function UsageOf({ user }) {
  const [usage, , failed] = useLoaded(async () => (await store.api.get(`/v1/admin/users/${user.id}/usage`)).usage, [user.id]);
  return html`<h2>Usage</h2>${failed && html`<${Notice} kind="error">${failed}<//>`}${usage && html`<${UsageFigures} of=${usage} />`}`;
}
