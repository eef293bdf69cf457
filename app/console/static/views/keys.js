import { html } from "../preact.js";
import { store } from "../store.js";
import { Keys } from "../components/keys.js";

/** The user's own keys: what a key of the scope `write` may make has no scope that it lacks. */
export function OwnKeys() {
  const canMake = store.scopes.includes("write");
  return html`<h1>Keys</h1>
    <p>Every program gets a key of its own, so that each can be revoked alone. A new key may do no more than the one in use
      here, and stays valid when that one is revoked.</p>
    ${!canMake && html`<p>To make or revoke keys, sign in with one that has the scope <code>write</code>.</p>`}
    <${Keys} path="/v1/keys" below="/v1/keys" scopes=${canMake ? store.scopes : []} expires=${store.keyExpires} />`;
}
