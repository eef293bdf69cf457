// What the client can do.
import { InMemory, ToStream, download, serverName } from "./downloads.js";
import { RegenError, RenderFailed, WaitTimeout } from "./errors.js";
import { Events } from "./events.js";
import { Requests, pause } from "./requests.js";
import { WHOLE_BYTES, sendPart, sendWhole, upload } from "./uploads.js";
/** How long a render is asked for and followed while the server does not answer at all. */
const PATIENCE_SECONDS = 120;
const PREVIEW_SECONDS = 20;
/** A client of the Regen API. Every method may throw ApiError and NoAnswer, and what `signal` is aborted with. */
export class Regen {
    /** For `upload` and other calls: how the bytes of one part are sent. */
    sendPart = sendPart;
    requests;
    #settings;
    /** A lost connection and the statuses 408, 429, 502, 503 and 504 are tried again. */
    constructor(baseUrl, key, settings = {}, headers = {}) {
        if (!baseUrl || !key)
            throw new TypeError("Name the server's address and an API key.");
        if (!/^[!-~]+$/.test(key.trim())) {
            throw new TypeError("The API key has characters that no key has: was it copied whole, and alone?");
        }
        this.requests = new Requests(baseUrl, key.trim(), settings, headers);
        this.#settings = settings;
    }
    /** Upload a video: over 8 MiB in parts, several at once, going on with an open upload of the same content. A URL is
     * fetched by the server, where its operator allows that. */
    async upload(video, options = {}) {
        const { signal } = options;
        const found = await this.find(video);
        if ("file_id" in found) {
            return this.requests.row("GET", `/v1/files/${encodeURIComponent(found.file_id)}`, "file", { signal });
        }
        if ("file_url" in found) {
            return this.requests.row("POST", "/v1/files", "file", { json: found, slow: true, signal });
        }
        const { wholeBytes = WHOLE_BYTES, partsAtOnce = 4, partBytes } = this.#settings;
        const sending = { wholeBytes, partsAtOnce: Math.max(1, partsAtOnce), partBytes, sendPart: this.sendPart };
        return upload(this.requests, found.bytes, sending, { ...found, ...options });
    }
    /** Ask for a render. Options that this version does not know are sent as they are. */
    upscale(video, render = {}, options = {}) {
        return this.#of("/v1/upscale", "render", video, render, options);
    }
    /** What a render would cost and how long it would take. A video over 8 MiB is uploaded and kept for it. */
    estimate(video, render = {}, options = {}) {
        return this.#of("/v1/estimates", "estimate", video, render, options);
    }
    /** The answer about a video: sent with the request if it is small, otherwise uploaded before. */
    async #of(path, name, video, given, options) {
        const { signal, idempotencyKey } = options;
        const headers = idempotencyKey ? { "Idempotency-Key": idempotencyKey } : {};
        const render = Object.entries(given).filter(([, value]) => value !== undefined && value !== null);
        let found = await this.find(video);
        if ("bytes" in found && found.bytes.size <= (this.#settings.wholeBytes ?? WHOLE_BYTES)) {
            const fields = render.map(([option, value]) => [
                option,
                typeof value === "string" ? value : JSON.stringify(value),
            ]);
            const sent = { ...found, ...options, headers };
            return sendWhole(this.requests, path, name, found.bytes, Object.fromEntries(fields), sent);
        }
        if ("bytes" in found)
            found = { file_id: (await this.upload(video, options)).id };
        const json = { ...Object.fromEntries(render), ...found };
        return this.requests.row("POST", path, name, { json, headers, slow: true, signal });
    }
    /** One frame before and after, once it was made. */
    async preview(video, preview = {}, options = {}) {
        const { timeout = 300, signal } = options;
        const deadline = Date.now() + timeout * 1000;
        const found = await this.find(video);
        const file_id = "file_id" in found ? found.file_id : (await this.upload(video, options)).id;
        let request = { json: { ...preview, file_id } };
        let [method, path] = ["POST", "/v1/previews"];
        for (;;) {
            const seconds = Math.floor(Math.min(PREVIEW_SECONDS, Math.max(0, (deadline - Date.now()) / 1000)));
            const headers = seconds ? { Prefer: `wait=${seconds}` } : {};
            const made = await this.requests.row(method, path, "preview", {
                ...request,
                headers,
                slow: true,
                signal,
            });
            if (made.status === "completed" || made.status === "failed")
                return made;
            if (Date.now() >= deadline) {
                throw new WaitTimeout(`The preview ${made.id} has not ended within ${timeout} seconds.`);
            }
            [method, path, request] = ["GET", `/v1/previews/${made.id}`, {}];
            await pause(0.5, signal);
        }
    }
    /** The render once it is completed. Throws RenderFailed, and WaitTimeout after `timeout` seconds. */
    async wait(render, { timeout, onProgress, signal } = {}) {
        const late = new AbortController();
        const error = new WaitTimeout(`The render ${idOf(render)} has not ended within ${timeout} seconds.`);
        const timer = timeout === undefined ? undefined : setTimeout(() => late.abort(error), timeout * 1000);
        try {
            const ended = await this.#ended(idOf(render), signal ? AbortSignal.any([signal, late.signal]) : late.signal, onProgress);
            if (ended.status === "failed")
                throw new RenderFailed(ended);
            return ended;
        }
        finally {
            clearTimeout(timer);
        }
    }
    /** Events tell when to look; without them it is asked at intervals. */
    async #ended(id, signal, onProgress) {
        const events = new Events(this.requests, id);
        let awaySince;
        for (;;) {
            try {
                const seen = await this.getRender(id, { signal });
                awaySince = undefined;
                onProgress?.(progressOf(seen));
                if (seen.status === "completed" || seen.status === "failed")
                    return seen;
            }
            catch (error) {
                signal.throwIfAborted();
                awaySince ??= Date.now();
                const patient = Date.now() - awaySince <= PATIENCE_SECONDS * 1000;
                if (!(error instanceof RegenError && error.repeatable && patient))
                    throw error;
            }
            if (events.available)
                for await (const event of events.follow(signal))
                    onProgress?.(progressOf(event));
            if (events.ended)
                continue;
            await pause(this.#settings.pollSeconds ?? 2, signal);
        }
    }
    /** What the server tells of a render, as it happens, until its end; a stream that breaks off is continued. Throws
     * RegenError where there are no events: `wait` asks at intervals then; and NoAnswer or ApiError once the server was away for two
     * minutes. */
    async *events(render, { signal } = {}) {
        const events = new Events(this.requests, idOf(render));
        let awaySince;
        for (;;) {
            yield* events.follow(signal);
            if (events.refusal)
                throw events.refusal;
            if (!events.available)
                return;
            awaySince = events.lost && (awaySince ?? Date.now());
            if (awaySince !== undefined && Date.now() - awaySince > PATIENCE_SECONDS * 1000)
                throw events.lost;
            const asked = Math.min(events.lost?.retryAfter ?? 0, PATIENCE_SECONDS);
            await pause(Math.max(this.#settings.pollSeconds ?? 2, asked), signal);
        }
    }
    async download(what, to, options = {}) {
        if (!to)
            return this.downloadTo(what, new InMemory(), options);
        const stream = new ToStream(to);
        return this.downloadTo(what, stream, options).catch(async (error) => {
            await stream.abort(error);
            throw error;
        });
    }
    downloadTo(what, to, options) {
        return download(this.requests, () => this.#locate(what, options), to, options);
    }
    /** What the server calls the result of a render, such as `clip-4x.mp4`. */
    async fileName(what, options = {}) {
        return serverName(this.requests, await this.#locate(what, options), options.signal);
    }
    /** A fresh signed URL. */
    async #locate(what, { result = "output", signal }) {
        if (typeof what === "string" && isUrl(what))
            return what;
        const render = await this.getRender(what, { signal });
        const url = { output: render.outputFileURL, input: render.inputFileURL, thumbnail: render.thumbnailURL }[result];
        if (url)
            return url;
        throw new RegenError(`The render ${render.id} is ${render.status} and has no ${result}.`);
    }
    /** A frame of an uploaded video at a moment, as a JPEG of at most 960 pixels a side: to find a moment, also in a video
     * that a browser does not play. */
    frame(file, options = {}) {
        const { at_seconds, signal } = options;
        return this.requests.blob(`/v1/files/${encodeURIComponent(idOf(file))}/frame`, { query: { at_seconds }, signal });
    }
    getRender(render, options = {}) {
        return this.requests.row("GET", `/v1/renders/${encodeURIComponent(idOf(render))}`, "render", options);
    }
    /** At most `limit`, the newest first. */
    listRenders(query = {}, options = {}) {
        const { limit = 100, ...rest } = query;
        return this.requests.rows("/v1/renders", "renders", limit, { query: rest, ...options });
    }
    cancel(render, options = {}) {
        return this.requests.row("POST", `/v1/renders/${encodeURIComponent(idOf(render))}/cancel`, "render", options);
    }
    /** A new render like one that failed. */
    retry(render, options = {}) {
        return this.requests.row("POST", `/v1/renders/${encodeURIComponent(idOf(render))}/retry`, "render", options);
    }
    /** Sends the result to its destination again, or to another one. Resolves before that is done: see `destination`. */
    deliver(render, options = {}) {
        const { destination, ...rest } = options;
        const json = destination === undefined ? undefined : { destination };
        return this.requests.row("POST", `/v1/renders/${encodeURIComponent(idOf(render))}/deliver`, "render", {
            json,
            ...rest,
        });
    }
    engines(options = {}) {
        return this.requests.row("GET", "/v1/engines", "engines", options);
    }
    /** What was rendered and the limits. */
    usage(options = {}) {
        return this.requests.row("GET", "/v1/usage", "usage", options);
    }
    /** Any other request to the API, with retries: its answer as JSON. */
    request(method, path, request = {}) {
        return this.requests.send(method, path, request);
    }
    /** What a string names: an http(s) URL, otherwise the id of a file. */
    async find(video) {
        if (typeof video !== "string")
            return video instanceof Blob ? { bytes: video } : { file_id: video.id };
        return isUrl(video) ? { file_url: video } : { file_id: video };
    }
}
function progressOf(render) {
    const total = ("output" in render ? render.output?.frames : render.frames) ?? 0;
    const { status, etaSeconds } = render;
    const done = ("framesDone" in render ? render.framesDone : undefined) ?? Math.round(render.progress * total);
    return { stage: "render", done, total, status, ...(etaSeconds === undefined ? {} : { etaSeconds }) };
}
function idOf(what) {
    return typeof what === "string" ? what : what.id;
}
function isUrl(text) {
    return /^https?:\/\//i.test(text);
}
