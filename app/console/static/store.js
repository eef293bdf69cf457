// What the views share: the session, the transfers, messages. One store; views read it with `useStore`.

import { useEffect, useState } from "./preact.js";
import { Api, ApiError, NoAnswer, pause, sentence } from "./api.js";

const KEY = "regen.key";
/** Until what failed is tried again, unless the server refuses. */
const RETRY_SECONDS = 3;

/** Whether the server is away, rather than that it refuses. @param {unknown} error */
const isAway = (error) => error instanceof NoAnswer || (error instanceof ApiError && error.status >= 500);

/** @typedef {{text: string, kind: "error" | "done"}} Message */

export class Store extends EventTarget {
  constructor() {
    super();
    /** @type {string} */
    this.key = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
    /** @type {string} Why the user has to sign in again. */
    this.signedOut = "";
    /** @type {string} The id of the key's user. */
    this.userId = "";
    /** @type {string} The key's own id. */
    this.keyId = "";
    /** @type {string[]} The key's scopes. */
    this.scopes = [];
    /** @type {string | undefined} When the key expires. */
    this.keyExpires = undefined;
    /** @type {boolean} Whether the key may use `/v1/admin`. */
    this.isAdmin = false;
    /** @type {boolean} Whether it is known what this server and this key can do. */
    this.isKnown = false;
    /** @type {boolean} Whether this is the mock, which has controls of its own. */
    this.isMock = "mock" in document.documentElement.dataset;
    /** @type {import("./api.js").Row | null} The API's own description. */
    this.description = null;
    /** @type {import("./api.js").Row[]} The engines that can be chosen, as `/v1/engines` tells them. */
    this.engines = [];
    /** @type {Message | null} */
    this.message = null;
    this.api = this.makeApi();
  }

  makeApi() {
    return new Api(this.key, () => this.signOut("This key is not valid any more. Sign in with another one."));
  }

  changed() { this.dispatchEvent(new Event("change")); }

  /** @param {string} key @param {boolean} remember  On this device, not only in this tab. */
  async signIn(key, remember) {
    const api = new Api(key);
    await api.get("/v1/renders", { query: { limit: 1 } });
    (remember ? localStorage : sessionStorage).setItem(KEY, key);
    this.key = key;
    this.signedOut = "";
    this.api = this.makeApi();
    await this.look();
  }

  /** @param {string} why */
  signOut(why = "") {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    this.key = "";
    this.isAdmin = false;
    this.signedOut = why;
    this.api = this.makeApi();
    this.changed();
  }

  /** Exchanges the code of the link that `regen serve` prints for a key. @param {string} code */
  async signInByLink(code) {
    const { key } = await new Api("").post("/console/sign-in", { code });
    await this.signIn(key, false);
  }

  /** Learns what this server and this key can do. */
  async look() {
    const [description, engines, key] = await Promise.all([
      this.api.get("/openapi.json"), this.api.get("/v1/engines"), this.api.get("/v1/key"),
    ]);
    this.description = description;
    this.engines = engines.engines;
    this.userId = key.key.userId;
    this.keyId = key.key.id;
    this.scopes = key.key.scopes;
    this.keyExpires = key.key.expiresAt;
    this.isAdmin = this.scopes.includes("admin");
    this.isKnown = true;
    this.changed();
  }

  /** As `look`, again and again while the server is away. Never rejects. */
  async learn() {
    for (const { key } = this; key && key === this.key; await pause(RETRY_SECONDS)) {
      try {
        return await this.look();
      } catch (error) {
        this.fail(error);
        if (!isAway(error)) return;
      }
    }
  }

  /** @param {unknown} error */
  fail(error) {
    if (error instanceof DOMException && error.name === "AbortError") return;
    this.say(sentence(error), "error");
  }

  /** @param {string} text @param {Message["kind"]} kind */
  say(text, kind = "done") {
    this.message = { text, kind };
    this.changed();
  }
}

export const store = new Store();

/** Whether the page was opened by the link that `regen serve` prints. */
export const SIGN_IN_LINK = /^#\/sign-in\/(.+)$/;

// This module is a script of the page by itself: it asks while the other modules are still on their way.
if (!SIGN_IN_LINK.test(location.hash)) store.learn();

/** The store, read again at each of its changes. */
export function useStore() {
  const [, render] = useState(0);
  useEffect(() => {
    const update = () => render((/** @type {number} */ n) => n + 1);
    store.addEventListener("change", update);
    return () => store.removeEventListener("change", update);
  }, []);
  return store;
}

/**
 * Loads something now, and again every `seconds` while the page is visible; sooner while the server is away.
 * @template T
 * @param {() => Promise<T>} load @param {unknown[]} inputs @param {number} [seconds]
 * @returns {[T | undefined, () => Promise<void>, string]} the value, a way to load it anew, and what failed
 */
export function useLoaded(load, inputs, seconds) {
  const [value, setValue] = useState(/** @type {T | undefined} */ (undefined));
  const [failed, setFailed] = useState("");
  const [away, setAway] = useState(false);
  const [again] = useState(() => ({ load }));
  again.load = load;
  const reload = async () => {
    try {
      setValue(await again.load());
      setFailed("");
      setAway(false);
    } catch (error) {
      setFailed(sentence(error));
      setAway(isAway(error));
    }
  };
  useEffect(() => { reload(); }, [...inputs, store.key]);
  const every = away ? RETRY_SECONDS : seconds;
  useEffect(() => {
    if (!every) return undefined;
    const look = () => { if (!document.hidden) reload(); };
    const timer = setInterval(look, every * 1000);
    document.addEventListener("visibilitychange", look);
    return () => { clearInterval(timer); document.removeEventListener("visibilitychange", look); };
  }, [every]);
  return [value, reload, failed];
}
