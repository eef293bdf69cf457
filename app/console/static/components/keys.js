import { html, useState } from "../preact.js";
import { ago, when } from "../format.js";
import { store, useLoaded } from "../store.js";
import { ConfirmButton, CopyButton, Dialog } from "./controls.js";
import { Notice } from "./notices.js";

const SCOPES = ["read", "write", "admin"];

/** The keys of a user, and how to make more.
 * @param {{path: string, below: string, scopes?: string[], expires?: string}} properties
 *   `path`: of the list; `below`: where each is revoked; `scopes`: those that a new key may have and a revoked one has had, none to do neither;
 *   `expires`: when a new key does unless it is told otherwise */
export function Keys({ path, below, scopes = SCOPES, expires: latest }) {
  const [keys, reload, failed] = useLoaded(() => store.api.list(path, "keys", 500), [path]);
  const [made, setMade] = useState("");
  const isInUse = (/** @type {import("../api.js").Row} */ key) => key.id === store.keyId;
  const canRevoke = (/** @type {import("../api.js").Row} */ key) =>
    !key.revokedAt && key.scopes.every((/** @type {string} */ scope) => scopes.includes(scope));
  const create = async (/** @type {any} */ event) => {
    event.preventDefault();
    const form = event.target;
    const { elements } = form;
    const chosen = scopes.filter((scope) => elements[scope].checked);
    const expires = elements.expires.value ? new Date(elements.expires.value).toISOString() : undefined;
    try {
      const answer = await store.api.post(path, { name: elements.name.value.trim() || undefined, scopes: chosen, expires_at: expires });
      setMade(answer.secret);
      form.reset();
      await reload();
    } catch (error) { store.fail(error); }
  };
  const revoke = async (/** @type {import("../api.js").Row} */ key) => {
    try {
      await store.api.delete(`${below}/${key.id}`);
      if (isInUse(key)) store.signOut("The key that this page used is revoked. Sign in with another one.");
      else await reload();
    } catch (error) { store.fail(error); }
  };
  return html`
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    <ul class="plain" aria-label="Keys">${keys?.map((key) => html`<li key=${key.id} class="row">
      <span class="grow"><strong>${key.name}</strong> <code>${key.hint}</code> ${key.scopes.join(", ")}${isInUse(key) ? ", in use here" : ""}<br />
        <small>${key.lastUsedAt ? `used ${ago(key.lastUsedAt)}` : "never used"}${key.expiresAt ? `, expires ${when(key.expiresAt)}` : ""}${key.revokedAt ? `, revoked ${ago(key.revokedAt)}` : ""}</small></span>
      ${canRevoke(key) && html`<${ConfirmButton} label="Revoke" kind="quiet"
        question=${`Revoke the key ${key.name}? ${isInUse(key) ? "This page uses it: you are signed out." : "Programs that use it are refused from then on."}`}
        onYes=${() => revoke(key)} />`}</li>`)}</ul>
    ${keys?.some((key) => key.revokedAt) && html`<p><small>A revoked key is listed for 30 days.</small></p>`}
    ${scopes.length > 0 && html`<form class="row" onSubmit=${create}>
      <input name="name" placeholder="Name" aria-label="Name of the new key" />
      ${scopes.map((scope) => html`<label class="check"><input type="checkbox" name=${scope} defaultChecked=${scope !== "admin"} /> ${scope}</label>`)}
      <label>expires <input type="datetime-local" name="expires" /></label>
      <button>Make a key</button>
    </form>
    ${latest && html`<p>It expires ${when(latest)} at the latest, as the key in use does.</p>`}`}
    ${made && html`<${Dialog} label="The new key" onClose=${() => setMade("")}>
      <h2>The new key</h2><p>It is shown only now. Keep it in a safe place.</p>
      <div class="row"><code class="secret grow">${made}</code><${CopyButton} text=${made} label="the key" /></div>
      <form method="dialog" class="row end"><button class="primary">Done</button></form><//>`}`;
}
