// Results on their way from the server: continued where they broke off, and delivered when they are complete.
import { ApiError, NoAnswer, RegenError } from "./errors.js";
/** Writes the file at the URL that `locate` finds, which is asked again for each try, because signed URLs expire. */
export async function download(requests, locate, destination, { onProgress, signal }) {
    const retries = requests.newRetries();
    for (;;) {
        const url = await locate();
        const before = await destination.rest();
        try {
            await fetchRest(requests, url, destination, before, onProgress, signal);
            return await destination.complete();
        }
        catch (error) {
            if (((await destination.rest())?.size ?? 0) > (before?.size ?? 0))
                retries.restart();
            await retries.pause(error, signal, error instanceof ApiError && error.status === 403);
        }
    }
}
async function fetchRest(requests, url, destination, rest, onProgress, signal) {
    const headers = { Range: `bytes=${rest?.size ?? 0}-` };
    if (rest)
        headers["If-Range"] = rest.etag;
    let streamed;
    try {
        streamed = await requests.stream("GET", url, { headers, signal });
    }
    catch (error) {
        if (!(error instanceof ApiError && error.status === 416 && rest))
            throw error;
        await destination.begin("", 0); // the whole file is there, or it is another one's
        await destination.end();
        throw new NoAnswer("The download begins again.", { cause: error });
    }
    try {
        const [start, total] = extentOf(streamed.response);
        const etag = streamed.response.headers.get("ETag") ?? "";
        if (start && (start !== rest?.size || etag !== rest.etag)) {
            throw new RegenError("The server answered with another part of the file than was asked for.");
        }
        // A weak ETag does not promise the same bytes.
        await destination.begin(etag.startsWith("W/") ? "" : etag, start);
        let done = start;
        try {
            for (let piece = await streamed.read(); piece; piece = await streamed.read()) {
                await destination.write(piece);
                done += piece.length;
                onProgress?.({ stage: "download", done, total });
            }
        }
        finally {
            await destination.end();
        }
        if (done !== total)
            throw new NoAnswer(`The download broke off after ${done} of ${total} bytes.`);
    }
    finally {
        await streamed.close();
    }
}
/** Where the answer begins in the file, and the file's length, in bytes. */
function extentOf({ status, headers }) {
    const found = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("Content-Range") ?? "");
    if (status === 206 && found)
        return [Number(found[1]), Number(found[2])];
    const length = headers.get("Content-Length");
    if (status === 200 && length)
        return [0, Number(length)];
    throw new RegenError("The server does not say how long the file is.");
}
/** What the server calls the file at a URL: a plain name, without folders, that is not hidden. */
export async function serverName(requests, url, signal) {
    // Of one byte: a URL that is signed for GET allows no HEAD.
    const streamed = await requests.stream("GET", url, { headers: { Range: "bytes=0-0" }, signal });
    await streamed.close();
    const disposition = streamed.response.headers.get("Content-Disposition") ?? "";
    // `filename*` is exact; `filename` beside it is for those who read ASCII alone.
    const exact = /filename\*\s*=\s*utf-8'[^']*'([^;\s]+)/i.exec(disposition)?.[1];
    const plain = /filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))/i.exec(disposition);
    const given = exact
        ? decoded(exact)
        : (plain?.[1]?.replaceAll(/\\(.)/g, "$1") ?? plain?.[2] ?? decoded(new URL(url).pathname));
    const last = given.split(/[/\\]/).at(-1) ?? "";
    const name = last.replaceAll(/\p{C}/gu, "").trim().replace(/^\.+/, "");
    return lastBytes(name, 200) || "download";
}
/** The end of a text, at most so many bytes of UTF-8. */
function lastBytes(text, most) {
    const bytes = new TextEncoder().encode(text).slice(-most);
    return new TextDecoder().decode(bytes).replace(/^\uFFFD+/, "");
}
function decoded(text) {
    try {
        return decodeURIComponent(text);
    }
    catch {
        return text;
    }
}
/** Keeps the file in memory. */
export class InMemory {
    #pieces = [];
    #rest = { size: 0, etag: "" };
    async rest() {
        return this.#rest.size && this.#rest.etag ? { ...this.#rest } : undefined;
    }
    async begin(etag, start) {
        if (start === 0)
            this.#pieces = [];
        this.#rest = { size: start, etag };
    }
    async write(bytes) {
        this.#pieces.push(bytes);
        this.#rest.size += bytes.length;
    }
    async end() { }
    async complete() {
        return new Blob(this.#pieces);
    }
}
/** Passes the file on, and closes the stream at its end. What was passed on cannot be taken back. */
export class ToStream {
    #writer;
    #rest = { size: 0, etag: "" };
    constructor(stream) {
        this.#writer = stream.getWriter();
    }
    async rest() {
        return this.#rest.size && this.#rest.etag ? { ...this.#rest } : undefined;
    }
    async begin(etag, start) {
        if (start !== this.#rest.size)
            throw new RegenError("The file changed while it was downloaded.");
        this.#rest.etag = etag;
    }
    async write(bytes) {
        await this.#writer.write(bytes);
        this.#rest.size += bytes.length;
    }
    async end() { }
    async complete() {
        await this.#writer.close();
    }
    async abort(reason) {
        await this.#writer.abort(reason).catch(() => { });
    }
}
