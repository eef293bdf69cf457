import { html, useState } from "../preact.js";
import { ApiError, sentence } from "../api.js";
import { useStore } from "../store.js";
import { ICON, Notice } from "../components/notices.js";

/** Asks for an API key. It stays in this tab, or on this device if the user wants that; never in an address. */
export function SignIn() {
  const store = useStore();
  const [failed, setFailed] = useState("");
  const message = failed || store.signedOut;
  const [busy, setBusy] = useState(false);
  const submit = async (/** @type {any} */ event) => {
    event.preventDefault();
    const form = event.target;
    setBusy(true);
    try {
      await store.signIn(form.elements.key.value.trim(), form.elements.remember.checked);
    } catch (error) {
      const refused = error instanceof ApiError && error.status === 401;
      setFailed(refused ? "The server does not know this key. Look for a missing letter, or make a new one." : sentence(error));
    } finally {
      setBusy(false);
    }
  };
  // Password managers keep the key under the name in the hidden field.
  return html`<section class="sign-in">
    <img src=${ICON} alt="" width="56" height="56" />
    <h1>Regen</h1>
    <p class="lead">Video with four times the width and height.</p>
    <form onSubmit=${submit}>
      <input hidden autocomplete="username" value="Regen" readonly />
      <label for="key">API key</label>
      <input id="key" name="key" type="password" autocomplete="current-password" spellcheck=${false} required
        aria-describedby="key-about" aria-invalid=${Boolean(message)} autofocus />
      <small id="key-about"><code>regen serve</code> shows the first key when it starts for the first time;
        <code> regen keys create</code> makes another.</small>
      <label class="check"><input type="checkbox" name="remember" /> Remember it on this device</label>
      ${message && html`<${Notice} kind="error">${message}<//>`}
      <button class="primary" disabled=${busy}>${busy ? "Signing in …" : "Sign in"}</button>
    </form>
    <p class="links"><a href="docs">API reference</a></p>
  </section>`;
}
