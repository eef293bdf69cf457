// Videos on their way to the server: small ones in one request, others in parts that may be sent again.

import { ApiError, NoAnswer, RegenError } from "./errors.js";
import { hex, md5 } from "./md5.js";
import { type Requests, Silence, lost } from "./requests.js";
import type { OnProgress, PartToSend, ReceivedPart, Upload, VideoFile } from "./types.js";

/** The largest video that is sent in one request, unless the settings say otherwise. */
export const WHOLE_BYTES = 8 * 1024 * 1024;

/** Stops an upload for a while: parts under way are given up, those that arrived are kept. */
export class UploadPause {
  #released: Promise<void> | undefined;
  #release: (() => void) | undefined;
  #stop = new AbortController();

  get paused(): boolean {
    return this.#released !== undefined;
  }

  pause(): void {
    if (this.#released) return;
    this.#released = new Promise((resolve) => {
      this.#release = resolve;
    });
    this.#stop.abort(new DOMException("The upload is paused.", "AbortError"));
  }

  resume(): void {
    this.#stop = new AbortController();
    this.#release?.();
    this.#released = undefined;
  }

  /** Resolves once the upload may go on, to a signal that is aborted at the next pause. */
  async passed(signal?: AbortSignal): Promise<AbortSignal> {
    while (this.#released) await until(this.#released, signal);
    return this.#stop.signal;
  }
}

export interface UploadOptions {
  /** What the file is called; by default the name of a `File`. */
  name?: string;
  onProgress?: OnProgress | undefined;
  pause?: UploadPause | undefined;
  signal?: AbortSignal | undefined;
}

/** Sends the bytes of one part to a URL, and resolves to its ETag. `onSent` is called with the number of bytes sent. */
export type SendPart = (
  url: string,
  part: Blob,
  options: { timeout: number; signal: AbortSignal | undefined; onSent: (bytes: number) => void },
) => Promise<string>;

/** How the bytes are sent. */
export interface Sending {
  partsAtOnce: number;
  wholeBytes: number;
  partBytes: number | undefined;
  sendPart: SendPart;
}

export async function upload(
  requests: Requests,
  video: Blob,
  { partsAtOnce, wholeBytes, partBytes, sendPart }: Sending,
  options: UploadOptions,
): Promise<VideoFile> {
  const { signal } = options;
  const name = nameOf(video, options.name);
  if (video.size <= wholeBytes || !video.size) {
    await options.pause?.passed(signal);
    return sendWhole(requests, "/v1/files", "file", video, {}, { ...options, name });
  }
  const opened = await open(requests, { name, size_bytes: video.size, part_size_bytes: partBytes }, signal);
  const transfer = new Transfer(requests, video, opened, sendPart, options);
  const parts = await transfer.sendAll(partsAtOnce);
  const path = `/v1/uploads/${opened.id}/complete`;
  return requests.row("POST", path, "file", { json: { parts }, slow: true, signal });
}

/** The property `name` of the answer to a form with the video. */
export async function sendWhole<T>(
  requests: Requests,
  path: string,
  property: string,
  video: Blob,
  fields: Record<string, string>,
  { name, onProgress, signal, headers }: UploadOptions & { headers?: Record<string, string> },
): Promise<T> {
  if (!video.size) throw new RegenError("The video is empty.");
  const form = new FormData();
  for (const [field, value] of Object.entries(fields)) form.append(field, value);
  form.append("file", video, nameOf(video, name));
  const row = await requests.row<T>("POST", path, property, { form, headers: headers ?? {}, slow: true, signal });
  onProgress?.({ stage: "upload", done: video.size, total: video.size });
  return row;
}

/** The parts of one video, several under way at the same time. */
class Transfer {
  readonly #etags = new Map<number, string>();
  /** Bytes sent, of each part. */
  readonly #sent = new Map<number, number>();
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;

  constructor(
    readonly requests: Requests,
    readonly video: Blob,
    readonly opened: Upload,
    readonly sendPart: SendPart,
    readonly options: UploadOptions,
  ) {
    const { signal } = options;
    this.#signal = signal ? AbortSignal.any([signal, this.#failed.signal]) : this.#failed.signal;
  }

  async sendAll(partsAtOnce: number): Promise<{ number: number; etag: string }[]> {
    for (const part of this.opened.receivedParts ?? []) {
      this.#signal.throwIfAborted();
      const bytes = this.#bytes(part.number);
      if (!(await isSame(part, bytes))) continue;
      this.#etags.set(part.number, part.etag);
      this.#sent.set(part.number, bytes.size);
    }
    this.#tell();
    const waiting: number[] = [];
    for (let number = 1; number <= this.opened.partCount; number++) {
      if (!this.#etags.has(number)) waiting.push(number);
    }
    const send = async () => {
      try {
        for (let number = waiting.shift(); number; number = waiting.shift()) await this.#send(number);
      } catch (error) {
        this.#failed.abort(error);
        throw error;
      }
    };
    await Promise.all(Array.from({ length: Math.min(partsAtOnce, waiting.length) }, send));
    return [...this.#etags].sort(([a], [b]) => a - b).map(([number, etag]) => ({ number, etag }));
  }

  async #send(number: number): Promise<void> {
    const retries = this.requests.newRetries();
    for (;;) {
      const paused = await this.options.pause?.passed(this.#signal);
      const signal = paused ? AbortSignal.any([this.#signal, paused]) : this.#signal;
      try {
        // A fresh URL for each try: signed ones expire.
        const request = { query: { after: number - 1, limit: 1 }, signal };
        const path = `/v1/uploads/${this.opened.id}/parts`;
        const [part] = await this.requests.row<PartToSend[]>("GET", path, "parts", request);
        if (!part) throw new RegenError(`The upload ${this.opened.id} has no part ${number}.`);
        const onSent = (bytes: number) => this.#count(number, bytes);
        const options = { timeout: this.requests.timeout, signal, onSent };
        this.#finish(number, await this.sendPart(part.url, this.#bytes(number), options));
        return;
      } catch (error) {
        this.#count(number, 0);
        if (paused?.aborted && !this.#signal.aborted) continue;
        await retries.pause(error, this.#signal, error instanceof ApiError && error.status === 403);
      }
    }
  }

  #bytes(number: number): Blob {
    const start = (number - 1) * this.opened.partSizeBytes;
    return this.video.slice(start, start + this.opened.partSizeBytes);
  }

  #finish(number: number, etag: string): void {
    this.#etags.set(number, etag);
    this.#count(number, this.#bytes(number).size);
  }

  #count(number: number, bytes: number): void {
    this.#sent.set(number, bytes);
    this.#tell();
  }

  #tell(): void {
    let done = 0;
    for (const sent of this.#sent.values()) done += sent;
    const { id, sizeBytes } = this.opened;
    this.options.onProgress?.({ stage: "upload", done, total: sizeBytes, uploadId: id });
  }
}

type Asked = { name: string; size_bytes: number; part_size_bytes: number | undefined };

/** An open upload of this name and size, with its `receivedParts`, or a new one. */
async function open(requests: Requests, asked: Asked, signal?: AbortSignal): Promise<Upload> {
  const { name, size_bytes: size } = asked;
  const uploads = await requests.rows<Upload>("/v1/uploads", "uploads", 1000, { signal });
  const same = uploads.find((one) => one.status === "open" && one.name === name && one.sizeBytes === size);
  if (same) return requests.row("GET", `/v1/uploads/${same.id}`, "upload", { signal });
  return requests.row("POST", "/v1/uploads", "upload", { json: asked, signal });
}

/** Whether a received part is this video's, by its ETag: MD5 from S3, the start of SHA-256 from local storage. Of others
 * nothing is known, and the part is sent again: another video may have the same name and size. */
async function isSame(part: ReceivedPart, bytes: Blob): Promise<boolean> {
  const etag = part.etag.replaceAll('"', "").toLowerCase();
  if (etag.length < 32) return false;
  const content = new Uint8Array(await bytes.arrayBuffer());
  // Pages have SHA-256 in secure contexts alone.
  const sha256 = await crypto.subtle?.digest("SHA-256", content);
  return (sha256 && hex(new Uint8Array(sha256)).startsWith(etag)) || md5(content) === etag;
}

/** By XMLHttpRequest where there is one, because `fetch` does not tell how much was sent. */
export const sendPart: SendPart = (url, part, options) =>
  typeof XMLHttpRequest === "undefined" ? sendByFetch(url, part, options) : sendByXhr(url, part, options);

const sendByFetch: SendPart = async (url, part, { timeout, signal, onSent }) => {
  // Without news of what was sent, only the whole can be waited for: as long as at 32 kB/s.
  const silence = new Silence(timeout + part.size / 32_768, signal);
  try {
    const response = await fetch(url, { method: "PUT", body: part, signal: silence.signal, credentials: "omit" });
    const text = await response.text();
    if (!response.ok) throw ApiError.of(response.status, response.statusText, response.headers, text);
    onSent(part.size);
    return etagOf(response.headers.get("ETag"));
  } catch (error) {
    throw lost(error, silence.signal);
  } finally {
    silence.end();
  }
};

const sendByXhr: SendPart = (url, part, { timeout, signal, onSent }) =>
  new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const silence = new Silence(timeout, signal);
    silence.signal.addEventListener("abort", () => request.abort(), { once: true });
    request.open("PUT", url);
    request.upload.onprogress = (event) => {
      silence.broken(timeout);
      onSent(event.loaded);
    };
    request.onload = () => {
      const { status, statusText, responseText } = request;
      if (status < 200 || status > 299) reject(ApiError.of(status, statusText, headersOf(request), responseText));
      else
        try {
          resolve(etagOf(request.getResponseHeader("ETag")));
        } catch (error) {
          reject(error);
        }
    };
    request.onerror = () => reject(new NoAnswer("No answer from the server: the connection broke."));
    request.onabort = () => reject(silence.signal.reason);
    request.onloadend = () => silence.end();
    if (silence.signal.aborted) reject(silence.signal.reason);
    else request.send(part);
  });

/** All that a page may see: a browser reports it as an error when one is asked for that an object store does not expose. */
function headersOf(request: XMLHttpRequest): Headers {
  const lines = request.getAllResponseHeaders().trim().split(/\r\n/);
  return new Headers(lines.map((line) => line.split(/: ?(.*)/, 2) as [string, string]).filter(([name]) => name));
}

export function etagOf(header: string | null): string {
  if (header) return header;
  throw new RegenError("The ETag of a part cannot be read: the bucket's CORS rule has to expose it.");
}

export function nameOf(video: Blob, name?: string): string {
  return name ?? (typeof File !== "undefined" && video instanceof File ? video.name : "video");
}

/** What `promise` resolves to; rejects when `signal` is aborted before. */
function until<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
