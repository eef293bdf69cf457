// Results on their way from the server: continued where they broke off, and delivered when they are complete.

import { ApiError, NoAnswer, RegenError } from "./errors.js";
import type { Requests, Streamed } from "./requests.js";
import type { OnProgress } from "./types.js";

/** What is written of a file by earlier tries, or an earlier program. */
export interface Rest {
  size: number;
  etag: string;
}

/** Where a download goes. */
export interface Destination<Result> {
  /** What is there already; undefined if nothing can be continued. */
  rest(): Promise<Rest | undefined>;
  /** Bytes of the file with this ETag follow, from `start` on; 0 forgets all that is there. */
  begin(etag: string, start: number): Promise<void>;
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** The bytes of this try have ended, whether or not all are there. */
  end(): Promise<void>;
  /** All bytes are there. */
  complete(): Promise<Result>;
}

export interface DownloadOptions {
  /** `output` by default. */
  result?: "output" | "input" | "thumbnail" | undefined;
  onProgress?: OnProgress | undefined;
  signal?: AbortSignal | undefined;
}

/** Writes the file at the URL that `locate` finds, which is asked again for each try, because signed URLs expire. */
export async function download<Result>(
  requests: Requests,
  locate: () => Promise<string>,
  destination: Destination<Result>,
  { onProgress, signal }: DownloadOptions,
): Promise<Result> {
  const retries = requests.newRetries();
  for (;;) {
    const url = await locate();
    const before = await destination.rest();
    try {
      await fetchRest(requests, url, destination, before, onProgress, signal);
      return await destination.complete();
    } catch (error) {
      if (((await destination.rest())?.size ?? 0) > (before?.size ?? 0)) retries.restart();
      await retries.pause(error, signal, error instanceof ApiError && error.status === 403);
    }
  }
}

async function fetchRest<Result>(
  requests: Requests,
  url: string,
  destination: Destination<Result>,
  rest: Rest | undefined,
  onProgress: OnProgress | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const headers: Record<string, string> = { Range: `bytes=${rest?.size ?? 0}-` };
  if (rest) headers["If-Range"] = rest.etag;
  let streamed: Streamed;
  try {
    streamed = await requests.stream("GET", url, { headers, signal });
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 416 && rest)) throw error;
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
    } finally {
      await destination.end();
    }
    if (done !== total) throw new NoAnswer(`The download broke off after ${done} of ${total} bytes.`);
  } finally {
    await streamed.close();
  }
}

/** Where the answer begins in the file, and the file's length, in bytes. */
function extentOf({ status, headers }: Response): [number, number] {
  const found = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("Content-Range") ?? "");
  if (status === 206 && found) return [Number(found[1]), Number(found[2])];
  const length = headers.get("Content-Length");
  if (status === 200 && length) return [0, Number(length)];
  throw new RegenError("The server does not say how long the file is.");
}

/** What the server calls the file at a URL: a plain name, without folders, that is not hidden. */
export async function serverName(requests: Requests, url: string, signal?: AbortSignal): Promise<string> {
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
function lastBytes(text: string, most: number): string {
  const bytes = new TextEncoder().encode(text).slice(-most);
  return new TextDecoder().decode(bytes).replace(/^\uFFFD+/, "");
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Keeps the file in memory. */
export class InMemory implements Destination<Blob> {
  #pieces: Uint8Array<ArrayBuffer>[] = [];
  #rest: Rest = { size: 0, etag: "" };

  async rest(): Promise<Rest | undefined> {
    return this.#rest.size && this.#rest.etag ? { ...this.#rest } : undefined;
  }

  async begin(etag: string, start: number): Promise<void> {
    if (start === 0) this.#pieces = [];
    this.#rest = { size: start, etag };
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#pieces.push(bytes);
    this.#rest.size += bytes.length;
  }

  async end(): Promise<void> {}

  async complete(): Promise<Blob> {
    return new Blob(this.#pieces);
  }
}

/** Passes the file on, and closes the stream at its end. What was passed on cannot be taken back. */
export class ToStream implements Destination<void> {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #rest: Rest = { size: 0, etag: "" };

  constructor(stream: WritableStream<Uint8Array>) {
    this.#writer = stream.getWriter();
  }

  async rest(): Promise<Rest | undefined> {
    return this.#rest.size && this.#rest.etag ? { ...this.#rest } : undefined;
  }

  async begin(etag: string, start: number): Promise<void> {
    if (start !== this.#rest.size) throw new RegenError("The file changed while it was downloaded.");
    this.#rest.etag = etag;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#writer.write(bytes);
    this.#rest.size += bytes.length;
  }

  async end(): Promise<void> {}

  async complete(): Promise<void> {
    await this.#writer.close();
  }

  async abort(reason: unknown): Promise<void> {
    await this.#writer.abort(reason).catch(() => {});
  }
}
