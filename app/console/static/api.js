// The API's client: requests, errors in words, and events of a render. Works on the public API alone.

/** @typedef {Record<string, any>} Row  A JSON object as the API answers it. */

const TRIES = 4;
const LONGEST_PAUSE_SECONDS = 10;

/** The server's answer to a request that failed. `messages` are the sentences for the user. */
export class ApiError extends Error {
  /** @param {number} status  HTTP status; 0 if no answer came. @param {string[]} messages @param {string} [requestId] */
  constructor(status, messages, requestId) {
    super(messages.join(" "));
    this.status = status;
    this.messages = messages;
    this.requestId = requestId;
  }
}

/** The address of the API: the page's own directory, so that any path of a proxy works. */
export const BASE = new URL(".", document.baseURI).href.replace(/\/$/, "");

/** Resolves after `seconds`; rejects when `signal` is aborted.
 * @param {number} seconds @param {AbortSignal} [signal] @returns {Promise<void>} */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

export class Api {
  /** @param {string} key  API key; empty for requests that need none. @param {() => void} [onRefused]  Called on 401. */
  constructor(key, onRefused = () => {}) {
    this.key = key;
    this.onRefused = onRefused;
  }

  /**
   * Sends a request; repeats it after 429, 503 and a lost connection if that is safe.
   * @param {string} method @param {string} path
   * @param {{json?: unknown, query?: Record<string, string|number|undefined>, headers?: Record<string, string>,
   *          signal?: AbortSignal}} [options]
   * @returns {Promise<Response>} Throws ApiError.
   */
  async send(method, path, { json, query = {}, headers = {}, signal } = {}) {
    const url = new URL(BASE + path);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value));
    const sent = { ...headers };
    if (this.key) sent.Authorization = `Bearer ${this.key}`;
    if (json !== undefined) sent["Content-Type"] = "application/json";
    // What is made twice would be paid twice: the key makes a repetition safe.
    if (method === "POST") sent["Idempotency-Key"] ??= crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
    const body = json === undefined ? undefined : JSON.stringify(json);
    for (let tried = 1; ; tried++) {
      let response;
      try {
        response = await fetch(url, { method, headers: sent, body, signal, cache: "no-store" });
      } catch (error) {
        if (signal?.aborted) throw error;
        if (tried < TRIES && navigator.onLine) { await pause(tried, signal); continue; }
        throw new ApiError(0, ["The server cannot be reached. Check the connection; this page tries again by itself."]);
      }
      if (response.ok || response.status === 304) return response;
      const wait = Number(response.headers.get("Retry-After") ?? "0");
      if ([429, 503].includes(response.status) && tried < TRIES && wait <= LONGEST_PAUSE_SECONDS) {
        await pause(wait || tried, signal);
        continue;
      }
      if (response.status === 401) this.onRefused();
      throw await asError(response);
    }
  }

  /** @param {string} path @param {Parameters<Api["send"]>[2]} [options] @returns {Promise<Row>} */
  async get(path, options) { return (await this.send("GET", path, options)).json(); }

  /** @param {string} path @param {unknown} [json] @param {Parameters<Api["send"]>[2]} [options] @returns {Promise<Row>} */
  async post(path, json, options) { return (await this.send("POST", path, { ...options, json })).json(); }

  /** @param {string} path @param {unknown} json @returns {Promise<Row>} */
  async patch(path, json) { return (await this.send("PATCH", path, { json })).json(); }

  /** @param {string} path @returns {Promise<void>} */
  async delete(path) { await this.send("DELETE", path); }

  /** All rows of a list, at most `most`, newest first.
   * @param {string} path @param {string} name  Property of the rows. @param {number} most
   * @param {Record<string, string|undefined>} [query] @returns {Promise<Row[]>} */
  async list(path, name, most = 100, query = {}) {
    /** @type {Row[]} */
    const rows = [];
    let cursor;
    do {
      const page = await this.get(path, { query: { ...query, limit: Math.min(most - rows.length, 100), cursor } });
      rows.push(...page[name]);
      cursor = page.nextCursor;
    } while (cursor && rows.length < most);
    return rows;
  }

  /**
   * Follows a render's events until its end; reconnects with the last event's id.
   * @param {string} id @param {(data: Row, name: string) => void} onEvent @param {AbortSignal} signal
   */
  async follow(id, onEvent, signal) {
    let last = "";
    while (!signal.aborted) {
      try {
        /** @type {Record<string, string>} */
        const headers = last ? { "Last-Event-ID": last } : {};
        const response = await this.send("GET", `/v1/renders/${id}/events`, { headers, signal });
        if (response.status === 204 || !response.body) return;
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        let text = "";
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          text += value.replaceAll("\r", "");
          for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
            const event = parseEvent(text.slice(0, end));
            text = text.slice(end + 2);
            if (!event.data) continue;
            last = event.id ?? last;
            onEvent(JSON.parse(event.data), event.event);
            if (event.event === "end") return;
          }
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && [401, 403, 404].includes(error.status)) throw error;
      }
      await pause(2, signal).catch(() => {});
    }
  }
}

/** @param {Response} response @returns {Promise<ApiError>} */
async function asError(response) {
  const id = response.headers.get("X-Request-ID") ?? undefined;
  try {
    const messages = (await response.json()).errors.map((/** @type {Row} */ one) => one.message);
    return new ApiError(response.status, messages, id);
  } catch {
    return new ApiError(response.status, [`The server answered ${response.status}.`], id);
  }
}

/** @param {string} block @returns {Record<string, string>} */
function parseEvent(block) {
  /** @type {Record<string, string>} */
  const event = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) event[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, "");
  }
  return event;
}
