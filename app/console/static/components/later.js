// Components whose modules are loaded when they are first shown: the page does not wait for all of them.

import { html, useEffect, useState } from "../preact.js";
import { Notice } from "./notices.js";

/** @type {(() => Promise<unknown>)[]} */
const waiting = [];

/** @param {string} name  Of the component. @param {() => Promise<Record<string, any>>} load  Imports its module. */
export function later(name, load) {
  /** @type {any} */
  let component;
  const ready = async () => { component = (await load())[name]; };
  waiting.push(ready);
  return function Later(/** @type {Record<string, unknown>} */ properties) {
    const [, setTurn] = useState(0);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      // Since this was rendered, `loadAll` may have loaded it.
      if (component) setTurn(1);
      else ready().then(() => setTurn(1), () => setFailed(true));
    }, []);
    if (component) return html`<${component} ...${properties} />`;
    return failed ? html`<${Notice} kind="error">The server cannot be reached. Load this page again when it is back.<//>` : null;
  };
}

/** Loads the modules of all of them while nothing else is to be done: the next view is then there at once, also without
 * the network. */
export function loadAll() {
  const idle = window.requestIdleCallback ?? setTimeout;
  idle(async () => { for (const ready of waiting.splice(0)) await ready().catch(() => {}); });
}
