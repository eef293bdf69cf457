// Videos on their way to the server: small ones in one request, others in parts that may be sent again.
import { ApiError, NoAnswer, RegenError } from "./errors.js";
import { hex, md5 } from "./md5.js";
import { Silence, lost } from "./requests.js";
/** The largest video that is sent in one request, unless the settings say otherwise. */
export const WHOLE_BYTES = 8 * 1024 * 1024;
/** How many uploads are opened for one video when others take its upload, and the statuses that tell of it. */
const [MOST_UPLOADS, TAKEN, REPLACED] = [3, [404, 409], 400];
/** The ids of those of this program, which no other transfer may go on with. */
const underWay = new Set();
/** Stops an upload for a while: parts under way are given up, those that arrived are kept. */
export class UploadPause {
    #released;
    #release;
    #stop = new AbortController();
    get paused() {
        return this.#released !== undefined;
    }
    pause() {
        if (this.#released)
            return;
        this.#released = new Promise((resolve) => {
            this.#release = resolve;
        });
        this.#stop.abort(new DOMException("The upload is paused.", "AbortError"));
    }
    resume() {
        this.#stop = new AbortController();
        this.#release?.();
        this.#released = undefined;
    }
    /** Resolves once the upload may go on, to a signal that is aborted at the next pause. */
    async passed(signal) {
        while (this.#released)
            await until(this.#released, signal);
        return this.#stop.signal;
    }
}
export async function upload(requests, video, { partsAtOnce, wholeBytes, partBytes, sendPart }, options) {
    const { signal } = options;
    const name = nameOf(video, options.name);
    if (video.size <= wholeBytes || !video.size) {
        await options.pause?.passed(signal);
        return sendWhole(requests, "/v1/files", "file", video, {}, { ...options, name });
    }
    const asked = { name, size_bytes: video.size, part_size_bytes: partBytes };
    let found = await find(requests, asked, video, signal);
    for (let triesLeft = MOST_UPLOADS - 1;; triesLeft--) {
        if (!found || underWay.has(found.opened.id)) {
            const opened = await requests.row("POST", "/v1/uploads", "upload", { json: asked, signal });
            found = { opened, received: [] };
        }
        const { id } = found.opened;
        underWay.add(id);
        let taken = TAKEN;
        try {
            const transfer = new Transfer(requests, video, found.opened, sendPart, options);
            const parts = await transfer.sendAll(found.received, partsAtOnce);
            taken = [...TAKEN, REPLACED];
            return await requests.row("POST", `/v1/uploads/${id}/complete`, "file", { json: { parts }, slow: true, signal });
        }
        catch (error) {
            // Another page or program that sends a video of this name and size may have taken the same upload.
            if (!(error instanceof ApiError && taken.includes(error.status) && triesLeft))
                throw error;
        }
        finally {
            underWay.delete(id);
        }
        found = undefined;
    }
}
/** The property `name` of the answer to a form with the video. */
export async function sendWhole(requests, path, property, video, fields, { name, onProgress, signal, headers }) {
    if (!video.size)
        throw new RegenError("The video is empty.");
    const form = new FormData();
    for (const [field, value] of Object.entries(fields))
        form.append(field, value);
    form.append("file", video, nameOf(video, name));
    const row = await requests.row("POST", path, property, { form, headers: headers ?? {}, slow: true, signal });
    onProgress?.({ stage: "upload", done: video.size, total: video.size });
    return row;
}
/** The parts of one video, several under way at the same time. */
class Transfer {
    requests;
    video;
    opened;
    sendPart;
    options;
    #etags = new Map();
    /** Bytes sent, of each part. */
    #sent = new Map();
    #failed = new AbortController();
    #signal;
    constructor(requests, video, opened, sendPart, options) {
        this.requests = requests;
        this.video = video;
        this.opened = opened;
        this.sendPart = sendPart;
        this.options = options;
        const { signal } = options;
        this.#signal = signal ? AbortSignal.any([signal, this.#failed.signal]) : this.#failed.signal;
    }
    async sendAll(received, partsAtOnce) {
        for (const part of received) {
            this.#etags.set(part.number, part.etag);
            this.#sent.set(part.number, this.#bytes(part.number).size);
        }
        this.#tell();
        const waiting = [];
        for (let number = 1; number <= this.opened.partCount; number++) {
            if (!this.#etags.has(number))
                waiting.push(number);
        }
        const send = async () => {
            try {
                for (let number = waiting.shift(); number; number = waiting.shift())
                    await this.#send(number);
            }
            catch (error) {
                this.#failed.abort(error);
                throw error;
            }
        };
        await Promise.all(Array.from({ length: Math.min(partsAtOnce, waiting.length) }, send));
        return [...this.#etags].sort(([a], [b]) => a - b).map(([number, etag]) => ({ number, etag }));
    }
    async #send(number) {
        const retries = this.requests.newRetries();
        for (;;) {
            const paused = await this.options.pause?.passed(this.#signal);
            const signal = paused ? AbortSignal.any([this.#signal, paused]) : this.#signal;
            try {
                // A fresh URL for each try: signed ones expire.
                const request = { query: { after: number - 1, limit: 1 }, signal };
                const path = `/v1/uploads/${this.opened.id}/parts`;
                const [part] = await this.requests.row("GET", path, "parts", request);
                if (!part)
                    throw new RegenError(`The upload ${this.opened.id} has no part ${number}.`);
                const onSent = (bytes) => this.#count(number, bytes);
                const options = { timeout: this.requests.timeout, signal, onSent };
                this.#finish(number, await this.sendPart(part.url, this.#bytes(number), options));
                return;
            }
            catch (error) {
                this.#count(number, 0);
                if (paused?.aborted && !this.#signal.aborted)
                    continue;
                await retries.pause(error, this.#signal, error instanceof ApiError && error.status === 403);
            }
        }
    }
    #bytes(number) {
        return bytesOf(this.video, this.opened, number);
    }
    #finish(number, etag) {
        this.#etags.set(number, etag);
        this.#count(number, this.#bytes(number).size);
    }
    #count(number, bytes) {
        this.#sent.set(number, bytes);
        this.#tell();
    }
    #tell() {
        let done = 0;
        for (const sent of this.#sent.values())
            done += sent;
        const { id, sizeBytes } = this.opened;
        this.options.onProgress?.({ stage: "upload", done, total: sizeBytes, uploadId: id });
    }
}
/** The open upload of this name and size of which most was received; undefined where there is none, or where another
 * video's parts are all that it has. */
async function find(requests, { name, size_bytes: size }, video, signal) {
    let best;
    for (const one of await requests.rows("/v1/uploads", "uploads", 1000, { signal })) {
        if (one.status !== "open" || one.name !== name || one.sizeBytes !== size || underWay.has(one.id))
            continue;
        const opened = await requests.row("GET", `/v1/uploads/${one.id}`, "upload", { signal });
        const received = [];
        for (const part of opened.receivedParts ?? []) {
            signal?.throwIfAborted();
            if (await isSame(part, bytesOf(video, opened, part.number)))
                received.push(part);
        }
        const isOurs = received.length > 0 || !opened.receivedParts?.length;
        if (isOurs && (!best || received.length > best.received.length))
            best = { opened, received };
    }
    return best;
}
function bytesOf(video, { partSizeBytes }, number) {
    const start = (number - 1) * partSizeBytes;
    return video.slice(start, start + partSizeBytes);
}
/** Whether a received part is this video's, by its ETag: MD5 from S3, the start of SHA-256 from local storage. Of others
 * nothing is known, and the part is sent again: another video may have the same name and size. */
async function isSame(part, bytes) {
    const etag = part.etag.replaceAll('"', "").toLowerCase();
    if (etag.length < 32)
        return false;
    const content = new Uint8Array(await bytes.arrayBuffer());
    // Pages have SHA-256 in secure contexts alone.
    const sha256 = await crypto.subtle?.digest("SHA-256", content);
    return (sha256 && hex(new Uint8Array(sha256)).startsWith(etag)) || md5(content) === etag;
}
/** By XMLHttpRequest where there is one, because `fetch` does not tell how much was sent. */
export const sendPart = (url, part, options) => typeof XMLHttpRequest === "undefined" ? sendByFetch(url, part, options) : sendByXhr(url, part, options);
const sendByFetch = async (url, part, { timeout, signal, onSent }) => {
    // Without news of what was sent, only the whole can be waited for: as long as at 32 kB/s.
    const silence = new Silence(timeout + part.size / 32_768, signal);
    try {
        const response = await fetch(url, { method: "PUT", body: part, signal: silence.signal, credentials: "omit" });
        const text = await response.text();
        if (!response.ok)
            throw ApiError.of(response.status, response.statusText, response.headers, text);
        onSent(part.size);
        return etagOf(response.headers.get("ETag"));
    }
    catch (error) {
        throw lost(error, silence.signal);
    }
    finally {
        silence.end();
    }
};
const sendByXhr = (url, part, { timeout, signal, onSent }) => new Promise((resolve, reject) => {
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
        if (status < 200 || status > 299)
            reject(ApiError.of(status, statusText, headersOf(request), responseText));
        else
            try {
                resolve(etagOf(request.getResponseHeader("ETag")));
            }
            catch (error) {
                reject(error);
            }
    };
    request.onerror = () => reject(new NoAnswer("No answer from the server: the connection broke."));
    request.onabort = () => reject(silence.signal.reason);
    request.onloadend = () => silence.end();
    if (silence.signal.aborted)
        reject(silence.signal.reason);
    else
        request.send(part);
});
/** All that a page may see: a browser reports it as an error when one is asked for that an object store does not expose. */
function headersOf(request) {
    const lines = request.getAllResponseHeaders().trim().split(/\r\n/);
    return new Headers(lines.map((line) => line.split(/: ?(.*)/, 2)).filter(([name]) => name));
}
export function etagOf(header) {
    if (header)
        return header;
    throw new RegenError("The ETag of a part cannot be read: the bucket's CORS rule has to expose it.");
}
export function nameOf(video, name) {
    const given = name ?? (typeof File !== "undefined" && video instanceof File ? video.name : "video");
    // Servers refuse control characters in a form.
    return given.replaceAll(/\p{Cc}/gu, "");
}
/** What `promise` resolves to; rejects when `signal` is aborted before. */
function until(promise, signal) {
    if (!signal)
        return promise;
    return new Promise((resolve, reject) => {
        const stop = () => reject(signal.reason);
        if (signal.aborted)
            stop();
        signal.addEventListener("abort", stop, { once: true });
        promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
    });
}
