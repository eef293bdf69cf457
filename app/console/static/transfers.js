// Videos on their way to the server, as people see them: what is sent, how fast, and why it waits.

import { ApiError, sentence } from "./api.js";
import { UploadPause } from "./vendor/regen-client/uploads.js";

const RATE_WINDOW_SECONDS = 5;

/** @typedef {"waiting" | "sending" | "fetching" | "paused" | "offline" | "checking" | "ready" | "failed"} TransferState */
/** @typedef {import("./vendor/regen-client/index.js").VideoFile} VideoFile */

/** What to do about a refusal that trying again does not change; empty for others. @param {number} status */
function adviceOn(status) {
  if (status === 415) return "If it is a video, see whether a player on your device opens it, and convert it to MP4; otherwise choose another file.";
  if (status === 413) return "Choose a smaller or shorter video, or ask the operator of this server for more; the view Usage shows what is allowed.";
  if (status === 403) return "Sign in with a key that may do this.";
  return [400, 404, 422].includes(status) ? "Change that, or choose another video." : "";
}

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
    /** @type {string | undefined} */
    this.uploadId = undefined;
    /** @type {VideoFile | null} The file at the server. */
    this.stored = null;
    this.error = "";
    /** @type {string} What else to do, where the same would be refused again. */
    this.advice = "";
    /** @type {import("./options.js").Values} What was chosen for its render. */
    this.values = {};
    this.resumed = false;
    this.sentBytes = 0;
    /** @type {[number, number][]} Time and bytes sent, for the speed. */
    this.history = [];
    this.abort = new AbortController();
    this.pausing = new UploadPause();
  }

  /** What the user calls it. */
  get name() { return this.file.name; }

  /** Bytes per second over the last seconds; 0 while nothing is known. */
  get speed() {
    const [first, last] = [this.history[0], this.history.at(-1)];
    return first && last && last[0] > first[0] ? Math.max(0, (last[1] - first[1]) / (last[0] - first[0])) : 0;
  }

  /** @param {TransferState} state */
  become(state) {
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }

  /** Sends what is missing, again and again while the network is away. Never rejects: the state and `error` say what
   * happened. */
  async run() {
    this.error = "";
    this.advice = "";
    this.history = [];
    if (this.pausing.paused) {
      this.pausing.resume();
      this.become("sending");
      return;
    }
    this.abort = new AbortController();
    const { signal } = this.abort;
    try {
      this.stored = await this.send(signal);
      this.become("ready");
    } catch (error) {
      if (signal.aborted) return;
      this.error = sentence(error);
      this.advice = error instanceof ApiError ? adviceOn(error.status) : "";
      this.become("failed");
    }
  }

  /** @param {AbortSignal} signal @returns {Promise<VideoFile>} */
  send(signal) {
    this.become("sending");
    const api = this.api().patient((error) => {
      // A full disk, for one, which an operator may free meanwhile.
      this.error = error instanceof ApiError ? sentence(error) : "";
      if (this.state !== "paused") this.become("offline");
    });
    return api.upload(this.file, { signal, pause: this.pausing, onProgress: (progress) => this.note(progress) });
  }

  pause() {
    this.pausing.pause();
    this.become("paused");
  }

  /** Forgets the upload at the server too. */
  async drop() {
    this.abort.abort();
    if (this.uploadId && !this.stored) await this.api().delete(`/v1/uploads/${this.uploadId}`).catch(() => {});
  }

  /** @param {import("./vendor/regen-client/index.js").Progress} progress */
  note({ done, total, uploadId }) {
    const isFirst = this.uploadId === undefined;
    this.uploadId = uploadId;
    // Before any was sent: parts that arrived earlier, or another day.
    if (isFirst) this.resumed = done > 0;
    if (this.state === "offline" && done > this.sentBytes) this.state = "sending";
    if (this.state === "sending" && done === total) this.state = "checking";
    this.sentBytes = done;
    const now = performance.now() / 1000;
    this.history.push([now, done]);
    while (this.history.length > 2 && now - this.history[0][0] > RATE_WINDOW_SECONDS) this.history.shift();
    this.dispatchEvent(new Event("change"));
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

  /** @param {AbortSignal} signal @returns {Promise<VideoFile>} */
  send(signal) {
    this.become("fetching");
    return this.api().upload(this.url, { signal });
  }
}
