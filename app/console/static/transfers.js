// Videos on their way to the server: in parts, several at once, with pause and resume.

import { ApiError, pause } from "./api.js";

const PARTS_AT_ONCE = 3;
const PART_BYTES = 8 * 1024 * 1024;
const LONGEST_REST_SECONDS = 15;
const RATE_WINDOW_SECONDS = 5;

/** @typedef {"waiting" | "sending" | "fetching" | "paused" | "offline" | "checking" | "ready" | "failed"} TransferState */

let made = 0;

/** One video of the user: sent, then checked by the server, then a file of theirs. */
export class Transfer extends EventTarget {
  /** @param {File} file @param {() => import("./api.js").Api} api */
  constructor(file, api) {
    super();
    this.id = ++made;
    this.file = file;
    this.api = api;
    /** @type {TransferState} */
    this.state = "waiting";
    /** @type {import("./api.js").Row | null} */
    this.upload = null;
    /** @type {import("./api.js").Row | null} The file at the server. */
    this.stored = null;
    this.error = "";
    this.resumed = false;
    /** @type {Map<number, string>} ETags of the parts that arrived. */
    this.etags = new Map();
    /** @type {Map<number, number>} Bytes sent of the parts under way. */
    this.underWay = new Map();
    /** @type {[number, number][]} Time and bytes sent, for the speed. */
    this.history = [];
    this.abort = new AbortController();
  }

  /** What the user calls it. */
  get name() { return this.file.name; }

  get sentBytes() {
    let bytes = 0;
    for (const number of this.etags.keys()) bytes += this.partSize(number);
    for (const sent of this.underWay.values()) bytes += sent;
    return bytes;
  }

  /** Bytes per second over the last seconds; 0 while nothing is known. */
  get speed() {
    const [first, last] = [this.history[0], this.history.at(-1)];
    return first && last && last[0] > first[0] ? Math.max(0, (last[1] - first[1]) / (last[0] - first[0])) : 0;
  }

  /** @param {number} number from 1 */
  partSize(number) {
    const size = this.upload?.partSizeBytes ?? 0;
    return Math.max(0, Math.min(size, this.file.size - (number - 1) * size));
  }

  /** @param {TransferState} state */
  become(state) {
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }

  /** Sends what is missing. Never rejects: the state and `error` say what happened. */
  async run() {
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.error = "";
    this.history = [];
    this.become("sending");
    try {
      await this.open();
      await this.sendParts(signal);
      this.become("checking");
      const parts = [...this.etags].sort(([a], [b]) => a - b).map(([number, etag]) => ({ number, etag }));
      const answer = await this.api().post(`/v1/uploads/${this.upload?.id}/complete`, { parts }, { signal });
      this.stored = answer.file;
      this.become("ready");
    } catch (error) {
      if (signal.aborted) return;
      this.error = error instanceof Error ? error.message : String(error);
      this.become("failed");
    }
  }

  pause() {
    this.abort.abort();
    this.underWay.clear();
    this.become("paused");
  }

  /** Forgets the upload at the server too. */
  async drop() {
    this.abort.abort();
    if (this.upload && !this.stored) await this.api().delete(`/v1/uploads/${this.upload.id}`).catch(() => {});
  }

  /** Opens an upload, or goes on with an open one of the same name and size: after a reload, or another day. */
  async open() {
    if (!this.upload) {
      const open = await this.api().list("/v1/uploads", "uploads");
      const same = open.find((one) => one.status === "open" && one.name === this.file.name
        && one.sizeBytes === this.file.size);
      this.resumed = Boolean(same);
      const asked = { name: this.file.name, size_bytes: this.file.size, part_size_bytes: PART_BYTES };
      this.upload = same ?? (await this.api().post("/v1/uploads", asked)).upload;
    }
    const state = (await this.api().get(`/v1/uploads/${this.upload?.id}`)).upload;
    for (const part of state.receivedParts ?? []) this.etags.set(part.number, part.etag);
    this.upload = state;
  }

  /** @param {AbortSignal} signal */
  async sendParts(signal) {
    /** @type {number[]} */
    const missing = [];
    for (let number = 1; number <= this.upload?.partCount; number++) if (!this.etags.has(number)) missing.push(number);
    const send = async () => {
      for (let number = missing.shift(); number; number = missing.shift()) await this.sendPart(number, signal);
    };
    await Promise.all(Array.from({ length: PARTS_AT_ONCE }, send));
  }

  /** Sends one part, again and again while the network is away. @param {number} number @param {AbortSignal} signal */
  async sendPart(number, signal) {
    for (let tried = 1; ; tried++) {
      const page = await this.partUrl(number, signal);
      const start = (number - 1) * this.upload?.partSizeBytes;
      try {
        const etag = await this.put(page.url, this.file.slice(start, start + page.sizeBytes), number, signal);
        this.underWay.delete(number);
        this.etags.set(number, etag);
        this.error = "";
        if (this.state === "offline") this.become("sending");
        return;
      } catch (error) {
        this.underWay.delete(number);
        if (signal.aborted || (error instanceof ApiError && error.status >= 400 && error.status < 500
          && ![403, 408, 429].includes(error.status))) throw error;
        // A full disk, for one, which an operator may free meanwhile.
        this.error = error instanceof ApiError && error.status ? error.message : "";
        this.become("offline");
        await pause(Math.min(tried, LONGEST_REST_SECONDS), signal);
      }
    }
  }

  /** A fresh address of the part, which the server signs; waits while the server is away.
   * @param {number} number @param {AbortSignal} signal */
  async partUrl(number, signal) {
    for (let tried = 1; ; tried++) {
      try {
        const query = { after: number - 1, limit: 1 };
        return (await this.api().get(`/v1/uploads/${this.upload?.id}/parts`, { query, signal })).parts[0];
      } catch (error) {
        if (signal.aborted || !(error instanceof ApiError) || ![0, 429, 502, 503, 504].includes(error.status)) throw error;
        this.become("offline");
        await pause(Math.min(tried, LONGEST_REST_SECONDS), signal);
      }
    }
  }

  /** XMLHttpRequest, because fetch does not tell how much was sent.
   * @param {string} url @param {Blob} body @param {number} number @param {AbortSignal} signal
   * @returns {Promise<string>} the part's ETag */
  put(url, body, number, signal) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const stop = () => request.abort();
      signal.addEventListener("abort", stop, { once: true });
      request.open("PUT", url);
      request.upload.onprogress = (event) => {
        this.underWay.set(number, event.loaded);
        this.note();
      };
      request.onload = () => {
        signal.removeEventListener("abort", stop);
        if (request.status < 300) return resolve(request.getResponseHeader("ETag") ?? "");
        return reject(new ApiError(request.status, sentences(request)));
      };
      request.onerror = () => reject(new ApiError(0, ["The connection broke."]));
      request.onabort = () => reject(signal.reason ?? new ApiError(0, ["The connection broke."]));
      request.send(body);
    });
  }

  note() {
    const now = performance.now() / 1000;
    this.history.push([now, this.sentBytes]);
    while (this.history.length > 2 && now - this.history[0][0] > RATE_WINDOW_SECONDS) this.history.shift();
    this.dispatchEvent(new Event("change"));
  }
}

/** Those of our own server; an object store answers otherwise. @param {XMLHttpRequest} request @returns {string[]} */
function sentences(request) {
  try {
    return JSON.parse(request.responseText).errors.map((/** @type {import("./api.js").Row} */ one) => one.message);
  } catch {
    return [`A part was answered with ${request.status}.`];
  }
}

/** A video at an address, which the server fetches where its operator allows that. */
export class Fetch extends Transfer {
  /** @param {string} url @param {() => import("./api.js").Api} api */
  constructor(url, api) {
    super(new File([], url), api);
    this.url = url;
  }

  get name() { return this.url; }

  async run() {
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.error = "";
    this.become("fetching");
    try {
      this.stored = (await this.api().post("/v1/files", { file_url: this.url }, { signal })).file;
      this.become("ready");
    } catch (error) {
      if (signal.aborted) return;
      this.error = error instanceof Error ? error.message : String(error);
      this.become("failed");
    }
  }
}
