// Requests to the API: addresses, the key, time-outs, retries, and errors as exceptions.
import { ApiError, NoAnswer, RegenError } from "./errors.js";
const FIRST_PAUSE_SECONDS = 0.5;
const LONGEST_PAUSE_SECONDS = 30;
/** The server may read or fetch a whole video before it answers. */
const SLOW_ANSWER_SECONDS = 600;
/** Ends what is silent for too long. */
export class Silence {
    signal;
    #controller = new AbortController();
    #timer;
    constructor(seconds, outer) {
        this.signal = outer ? AbortSignal.any([outer, this.#controller.signal]) : this.#controller.signal;
        this.broken(seconds);
    }
    /** Counts anew, up to `seconds`. */
    broken(seconds) {
        clearTimeout(this.#timer);
        const error = new NoAnswer(`No answer from the server: silent for ${seconds} seconds.`);
        this.#timer = setTimeout(() => this.#controller.abort(error), seconds * 1000);
    }
    end() {
        clearTimeout(this.#timer);
    }
}
/** An answer whose body is read piece by piece. */
export class Streamed {
    response;
    #reader;
    #silence;
    #seconds;
    constructor(response, silence, seconds) {
        this.response = response;
        this.#reader = response.body?.getReader();
        this.#silence = silence;
        this.#seconds = seconds;
    }
    /** The next bytes; undefined at the end. Throws NoAnswer if the connection breaks. */
    async read() {
        this.#silence.broken(this.#seconds);
        try {
            const piece = await this.#reader?.read();
            return piece?.value;
        }
        catch (error) {
            throw lost(error, this.#silence.signal);
        }
    }
    async close() {
        this.#silence.end();
        await this.#reader?.cancel().catch(() => { });
    }
}
/** Counts down: `most` retries in a row, each after a longer pause. */
export class Retries {
    #made = 0;
    #most;
    #longest;
    #onRetry;
    constructor({ retries = 4, longestWaitSeconds = 60, onRetry }) {
        this.#most = retries;
        this.#longest = longestWaitSeconds;
        this.#onRetry = onRetry;
    }
    restart() {
        this.#made = 0;
    }
    /** Waits until the next try. Throws the error if it is final; that a URL has expired is not, where the next try has
     * a new one. */
    async pause(error, signal, expired = false) {
        if (signal?.aborted || !(error instanceof RegenError))
            throw error;
        const asked = error.retryAfter ?? 0;
        if (!(error.repeatable || expired) || this.#made >= this.#most || asked > this.#longest)
            throw error;
        this.#onRetry?.(error);
        const own = Math.min(FIRST_PAUSE_SECONDS * 2 ** this.#made++, LONGEST_PAUSE_SECONDS);
        // Clients that were turned away together do not come back together.
        await pause(Math.max(asked, own / 2) + (Math.random() * own) / 2, signal);
    }
}
export class Requests {
    baseUrl;
    timeout;
    #key;
    #settings;
    #headers;
    /** `headers` are sent with every request. */
    constructor(baseUrl, key, settings, headers = {}) {
        this.baseUrl = address(baseUrl);
        this.timeout = settings.timeout ?? 60;
        this.#key = key;
        this.#settings = settings;
        this.#headers = headers;
    }
    newRetries() {
        return new Retries(this.#settings);
    }
    /** One try, whose body is not read yet. A path of the API is sent with the key, any other URL without it. Throws
     * ApiError for every status but 2xx, NoAnswer if the connection is lost. */
    async stream(method, url, request = {}, silenceSeconds = this.timeout) {
        const { json, form, query = {}, slow = false, signal } = request;
        const target = new URL(url.startsWith("/") ? this.baseUrl + url : url);
        for (const [name, value] of Object.entries(query)) {
            if (value !== undefined)
                target.searchParams.set(name, String(value));
        }
        const headers = new Headers({ ...this.#headers, ...request.headers });
        if (url.startsWith("/"))
            headers.set("Authorization", `Bearer ${this.#key}`);
        if (json !== undefined)
            headers.set("Content-Type", "application/json");
        const body = form ?? (json === undefined ? null : JSON.stringify(json));
        const silence = new Silence(slow ? Math.max(this.timeout, SLOW_ANSWER_SECONDS) : silenceSeconds, signal);
        let streamed;
        try {
            const send = this.#settings.fetch ?? fetch;
            const init = { method, headers, body, signal: silence.signal };
            const response = await send(target, { ...init, cache: "no-store", credentials: "omit" });
            streamed = new Streamed(response, silence, silenceSeconds);
        }
        catch (error) {
            silence.end();
            throw lost(error, silence.signal);
        }
        const { response } = streamed;
        if (response.ok)
            return streamed;
        throw ApiError.of(response.status, response.statusText, response.headers, await textOf(streamed));
    }
    /** The answer as JSON, after retries; undefined if it is empty. All tries of a POST have one Idempotency-Key, so that
     * it makes one thing. */
    async send(method, path, request = {}) {
        const headers = { ...(method === "POST" ? { "Idempotency-Key": randomKey() } : {}), ...request.headers };
        const retries = this.newRetries();
        for (;;) {
            let text;
            try {
                text = await textOf(await this.stream(method, path, { ...request, headers }));
            }
            catch (error) {
                await retries.pause(error, request.signal);
                continue;
            }
            try {
                return text ? JSON.parse(text) : undefined;
            }
            catch {
                throw new RegenError(`${path} did not answer as the Regen API does: no JSON.`);
            }
        }
    }
    /** What is at a path, after retries. */
    async blob(path, request = {}) {
        const retries = this.newRetries();
        for (;;) {
            try {
                return await blobOf(await this.stream("GET", path, request));
            }
            catch (error) {
                await retries.pause(error, request.signal);
            }
        }
    }
    /** The property `name` of the answer. */
    async row(method, path, name, request = {}) {
        return propertyOf(await this.send(method, path, request), name, path);
    }
    /** At most `most` rows of a list, the newest first. */
    async rows(path, name, most, request = {}) {
        const rows = [];
        let cursor;
        do {
            const query = { ...request.query, limit: Math.min(most - rows.length, 100), cursor };
            const page = await this.send("GET", path, { ...request, query });
            rows.push(...propertyOf(page, name, path));
            cursor = page.nextCursor;
        } while (cursor && rows.length < most);
        return rows;
    }
}
/** Without a slash or a `/v1` at the end, which the paths have. */
export function address(baseUrl) {
    return baseUrl.trim().replace(/(\/v1)?\/*$/, "");
}
/** Resolves after `seconds`, or in a page once its network is back; rejects when `signal` is aborted. */
export function pause(seconds, signal) {
    const page = typeof window === "undefined" ? undefined : window;
    return new Promise((resolve, reject) => {
        const end = () => {
            clearTimeout(timer);
            signal?.removeEventListener("abort", end);
            page?.removeEventListener("online", end);
            if (signal?.aborted)
                reject(signal.reason);
            else
                resolve();
        };
        const timer = setTimeout(end, seconds * 1000);
        if (signal?.aborted)
            return end();
        signal?.addEventListener("abort", end);
        page?.addEventListener("online", end);
    });
}
/** The error of a connection that broke: the caller's own abort, or NoAnswer. */
export function lost(error, signal) {
    if (signal?.aborted)
        return signal.reason;
    if (error instanceof RegenError)
        return error;
    const { message, cause } = error;
    const reason = cause instanceof Error ? `${message}: ${cause.message}` : message;
    return new NoAnswer(`No answer from the server: ${reason}`, { cause: error });
}
async function textOf(streamed) {
    const decoder = new TextDecoder();
    let text = "";
    try {
        for (let piece = await streamed.read(); piece; piece = await streamed.read()) {
            text += decoder.decode(piece, { stream: true });
        }
    }
    finally {
        await streamed.close();
    }
    return text + decoder.decode();
}
async function blobOf(streamed) {
    const pieces = [];
    try {
        for (let piece = await streamed.read(); piece; piece = await streamed.read())
            pieces.push(piece);
    }
    finally {
        await streamed.close();
    }
    return new Blob(pieces, { type: streamed.response.headers.get("Content-Type") ?? "" });
}
function propertyOf(answer, name, path) {
    const value = answer?.[name];
    if (value === undefined)
        throw new RegenError(`${path} did not answer as the Regen API does: no \`${name}\`.`);
    return value;
}
// Not randomUUID, which pages have in secure contexts alone.
function randomKey() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
