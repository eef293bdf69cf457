// Frames of a video that this browser cannot play, as the server reads them.

import { html, useEffect, useState } from "../preact.js";
import { sentence } from "../api.js";
import { store } from "../store.js";

/** While a slider moves, the moments that it passes are not asked for. */
const PAUSE = 80;
const MOST_KEPT = 60;

/** Addresses of frames that were shown, the latest last; those of other files too. @type {Map<string, string>} */
const kept = new Map();

/** @param {string} name @param {Blob} picture */
function keep(name, picture) {
  const address = URL.createObjectURL(picture);
  kept.set(name, address);
  for (const [oldest, url] of kept) {
    if (kept.size <= MOST_KEPT) break;
    kept.delete(oldest);
    URL.revokeObjectURL(url);
  }
  return address;
}

/**
 * The frame of a file at a moment: a newer one cancels the request for an older one, and the last picture stays until the
 * next is there.
 * @param {{fileId: string, at: number, label: string, style?: Record<string, string>, wait?: boolean, silent?: boolean}} properties
 *   `at`: seconds after the video's first frame; `wait`: ask for nothing now; `silent`: a picture that can be missed, of which
 *   no failure is told
 */
export function Still({ fileId, at, label, style, wait = false, silent = false }) {
  const [shown, setShown] = useState({ name: "", address: "" });
  const [failed, setFailed] = useState("");
  const name = `${fileId} ${at}`;
  useEffect(() => {
    if (wait) return undefined;
    const show = (/** @type {string} */ address) => { setShown({ name, address }); setFailed(""); };
    const known = kept.get(name);
    if (known) { show(known); return undefined; }
    const control = new AbortController();
    const timer = setTimeout(async () => {
      try {
        show(keep(name, await store.api.frame(fileId, { at_seconds: at, signal: control.signal })));
      } catch (error) {
        if (!control.signal.aborted) setFailed(sentence(error));
      }
    }, PAUSE);
    return () => { clearTimeout(timer); control.abort(); };
  }, [name, wait]);
  const isBusy = !wait && !failed && shown.name !== name;
  return html`${shown.address && html`<img src=${shown.address} alt=${label} style=${style} aria-busy=${isBusy} draggable="false" />`}
    ${failed && !silent && html`<p class="notice error" role="alert">${failed}</p>`}
    ${!shown.address && !failed && html`<p class="unseen">The server reads the frame …</p>`}`;
}
