import { html, useEffect } from "../preact.js";
import { useStore } from "../store.js";
import { Words } from "./controls.js";

const SECONDS = 8;
export const ICON = new URL("../icon.svg", import.meta.url).href;

/** The last message of the page: an error, or what was done. Read out by screen readers. */
export function Message() {
  const store = useStore();
  const { message } = store;
  const close = () => { store.message = null; store.changed(); };
  useEffect(() => {
    if (!message || message.kind === "error") return undefined;
    const timer = setTimeout(close, SECONDS * 1000);
    return () => clearTimeout(timer);
  }, [message]);
  return html`<div class="messages" role="status" aria-live="polite">
    ${message && html`<div class=${`message ${message.kind}`}>
      <p><${Words} text=${message.text} /></p>
      <button class="quiet" aria-label="Close this message" onClick=${close}>✕</button>
    </div>`}
  </div>`;
}

/** @param {{children: any, kind?: string}} properties */
export function Notice({ children, kind = "" }) {
  return html`<p class=${`notice ${kind}`} role=${kind === "error" ? "alert" : undefined}>${typeof children === "string" ? html`<${Words} text=${children} />` : children}</p>`;
}

/** The warnings of a render, file or estimate, in words. @param {{of: string[] | undefined}} properties */
export function Warnings({ of }) {
  if (!of?.length) return null;
  return html`<ul class="warnings" aria-label="Warnings">${of.map((one) => html`<li><${Words} text=${one} /></li>`)}</ul>`;
}
