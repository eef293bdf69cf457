// The API's client, as the console uses it: regen-client, with what a page needs around it.

import { ApiError, NoAnswer, RegenError } from "./vendor/regen-client/errors.js";
import { Regen } from "./vendor/regen-client/regen.js";

export { ApiError, NoAnswer };
export { pause } from "./vendor/regen-client/requests.js";

/** @typedef {Record<string, any>} Row  A JSON object as the API answers it. */
/** @typedef {import("./vendor/regen-client/index.js").Request} Request */
/** @typedef {import("./vendor/regen-client/index.js").Settings} Settings */

/** The address of the API: the page's own directory, so that any path of a proxy works. */
export const BASE = new URL(".", document.baseURI).href.replace(/\/$/, "");

const UNREACHABLE = "The server cannot be reached. Check the connection; this page tries again by itself.";
/** While nobody is signed in nothing is asked. */
const NO_KEY = "none";

/** What went wrong, in the words for people. @param {unknown} error @returns {string} */
export function sentence(error) {
  if (error instanceof ApiError) return error.messages.join(" ");
  if (error instanceof NoAnswer) return UNREACHABLE;
  return error instanceof Error ? error.message : String(error);
}

export class Api extends Regen {
  /** @param {string} key @param {() => void} [onRefused]  Called on 401. @param {Settings} [settings] */
  constructor(key, onRefused = () => {}, settings = {}) {
    super(BASE, key || NO_KEY, {
      retries: 3,
      longestWaitSeconds: 10,
      ...settings,
      fetch: async (url, init) => {
        // With the cookies of a proxy that has its own sign-in.
        const response = await fetch(url, { ...init, credentials: "same-origin" });
        if (response.status === 401) onRefused();
        return response;
      },
    });
    this.key = key;
    this.onRefused = onRefused;
  }

  /** One that tries again until it is aborted, for uploads in parts; `onRetry` is told why.
   * @param {Settings["onRetry"]} onRetry @returns {Api} */
  patient(onRetry) {
    // Small parts: what is under way is lost when the network is.
    const parts = { wholeBytes: 0, partBytes: 8 * 1024 * 1024, partsAtOnce: 3 };
    const patience = { retries: Number.POSITIVE_INFINITY, longestWaitSeconds: 600, onRetry };
    return new Api(this.key, this.onRefused, { ...parts, ...patience });
  }

  /** Follows a render for as long as the page shows it, however long the server is away.
   * @override
   * @param {Parameters<Regen["events"]>[0]} render @param {Parameters<Regen["events"]>[1]} [options]
   * @returns {ReturnType<Regen["events"]>} */
  async *events(render, options) {
    for (;;) {
      try {
        for await (const event of super.events(render, options)) yield event;
        return;
      } catch (error) {
        if (!(error instanceof RegenError && error.repeatable)) throw error;
      }
    }
  }

  /** @template [T=Row] @param {string} path @param {Request} [request] @returns {Promise<T>} */
  get(path, request) { return this.request("GET", path, request); }

  /** @template [T=Row] @param {string} path @param {unknown} [json] @param {Request} [request] @returns {Promise<T>} */
  post(path, json, request) { return this.request("POST", path, { ...request, json }); }

  /** @template [T=Row] @param {string} path @param {unknown} json @returns {Promise<T>} */
  patch(path, json) { return this.request("PATCH", path, { json }); }

  /** @param {string} path @returns {Promise<void>} */
  delete(path) { return this.request("DELETE", path); }

  /** All rows of a list, at most `most`, newest first.
   * @template [T=Row]
   * @param {string} path @param {string} name  Property of the rows. @param {number} most
   * @param {Record<string, string|undefined>} [query] @returns {Promise<T[]>} */
  list(path, name, most = 100, query = {}) { return this.requests.rows(path, name, most, { query }); }
}
