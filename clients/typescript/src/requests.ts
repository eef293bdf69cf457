// Requests to the API: addresses, the key, time-outs, retries, and errors as exceptions.

import { ApiError, NoAnswer, RegenError } from "./errors.js";

const FIRST_PAUSE_SECONDS = 0.5;
const LONGEST_PAUSE_SECONDS = 30;
/** The server may read or fetch a whole video before it answers. */
const SLOW_ANSWER_SECONDS = 600;

export interface Settings {
  /** Seconds for which a connection may be silent; 60 by default. */
  timeout?: number;
  /** How often in a row a request is tried again; 4 by default. */
  retries?: number;
  /** The longest `Retry-After`, in seconds, that is waited for; 60 by default. */
  longestWaitSeconds?: number;
  /** Parts of an upload that are sent at the same time; 4 by default. */
  partsAtOnce?: number;
  /** The size of a part, in bytes, as far as the server takes it; by default the server's. */
  partBytes?: number;
  /** Seconds between two looks at a render without events; 2 by default. */
  pollSeconds?: number;
  /** The largest video, in bytes, that is sent in one request; 8 MiB by default. */
  wholeBytes?: number;
  /** Called before a request or a part is tried again, with the reason. */
  onRetry?: (error: RegenError) => void;
  /** In place of the global `fetch`, for what is sent to the API and read from it. */
  fetch?: typeof fetch;
}

export interface Request {
  json?: unknown;
  form?: FormData;
  query?: Record<string, string | number | undefined>;
  headers?: Record<string, string>;
  /** The server may take minutes. */
  slow?: boolean;
  signal?: AbortSignal | undefined;
}

/** Ends what is silent for too long. */
export class Silence {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(seconds: number, outer?: AbortSignal) {
    this.signal = outer ? AbortSignal.any([outer, this.#controller.signal]) : this.#controller.signal;
    this.broken(seconds);
  }

  /** Counts anew, up to `seconds`. */
  broken(seconds: number): void {
    clearTimeout(this.#timer);
    const error = new NoAnswer(`No answer from the server: silent for ${seconds} seconds.`);
    this.#timer = setTimeout(() => this.#controller.abort(error), seconds * 1000);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

/** An answer whose body is read piece by piece. */
export class Streamed {
  readonly response: Response;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #silence: Silence;
  readonly #seconds: number;

  constructor(response: Response, silence: Silence, seconds: number) {
    this.response = response;
    this.#reader = response.body?.getReader();
    this.#silence = silence;
    this.#seconds = seconds;
  }

  /** The next bytes; undefined at the end. Throws NoAnswer if the connection breaks. */
  async read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    this.#silence.broken(this.#seconds);
    try {
      const piece = await this.#reader?.read();
      return piece?.value as Uint8Array<ArrayBuffer> | undefined;
    } catch (error) {
      throw lost(error, this.#silence.signal);
    }
  }

  async close(): Promise<void> {
    this.#silence.end();
    await this.#reader?.cancel().catch(() => {});
  }
}

/** Counts down: `most` retries in a row, each after a longer pause. */
export class Retries {
  #made = 0;
  readonly #most: number;
  readonly #longest: number;
  readonly #onRetry: Settings["onRetry"];

  constructor({ retries = 4, longestWaitSeconds = 60, onRetry }: Settings) {
    this.#most = retries;
    this.#longest = longestWaitSeconds;
    this.#onRetry = onRetry;
  }

  restart(): void {
    this.#made = 0;
  }

  /** Waits until the next try. Throws the error if it is final; that a URL has expired is not, where the next try has
   * a new one. */
  async pause(error: unknown, signal?: AbortSignal, expired = false): Promise<void> {
    if (signal?.aborted || !(error instanceof RegenError)) throw error;
    const asked = error.retryAfter ?? 0;
    if (!(error.repeatable || expired) || this.#made >= this.#most || asked > this.#longest) throw error;
    this.#onRetry?.(error);
    const own = Math.min(FIRST_PAUSE_SECONDS * 2 ** this.#made++, LONGEST_PAUSE_SECONDS);
    // Clients that were turned away together do not come back together.
    await pause(Math.max(asked, own / 2) + (Math.random() * own) / 2, signal);
  }
}

export class Requests {
  readonly baseUrl: string;
  readonly timeout: number;
  readonly #key: string;
  readonly #settings: Settings;
  readonly #headers: Record<string, string>;

  /** `headers` are sent with every request. */
  constructor(baseUrl: string, key: string, settings: Settings, headers: Record<string, string> = {}) {
    this.baseUrl = address(baseUrl);
    this.timeout = settings.timeout ?? 60;
    this.#key = key;
    this.#settings = settings;
    this.#headers = headers;
  }

  newRetries(): Retries {
    return new Retries(this.#settings);
  }

  /** One try, whose body is not read yet. A path of the API is sent with the key, any other URL without it. Throws
   * ApiError for every status but 2xx, NoAnswer if the connection is lost. */
  async stream(method: string, url: string, request: Request = {}, silenceSeconds = this.timeout): Promise<Streamed> {
    const { json, form, query = {}, slow = false, signal } = request;
    const target = new URL(url.startsWith("/") ? this.baseUrl + url : url);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) target.searchParams.set(name, String(value));
    }
    const headers = new Headers({ ...this.#headers, ...request.headers });
    if (url.startsWith("/")) headers.set("Authorization", `Bearer ${this.#key}`);
    if (json !== undefined) headers.set("Content-Type", "application/json");
    const body = form ?? (json === undefined ? null : JSON.stringify(json));
    const silence = new Silence(slow ? Math.max(this.timeout, SLOW_ANSWER_SECONDS) : silenceSeconds, signal);
    let streamed: Streamed;
    try {
      const send = this.#settings.fetch ?? fetch;
      const init = { method, headers, body, signal: silence.signal } as const;
      const response = await send(target, { ...init, cache: "no-store", credentials: "omit" });
      streamed = new Streamed(response, silence, silenceSeconds);
    } catch (error) {
      silence.end();
      throw lost(error, silence.signal);
    }
    const { response } = streamed;
    if (response.ok) return streamed;
    throw ApiError.of(response.status, response.statusText, response.headers, await textOf(streamed));
  }

  /** The answer as JSON, after retries; undefined if it is empty. All tries of a POST have one Idempotency-Key, so that
   * it makes one thing. */
  async send(method: string, path: string, request: Request = {}): Promise<unknown> {
    const headers = { ...(method === "POST" ? { "Idempotency-Key": randomKey() } : {}), ...request.headers };
    const retries = this.newRetries();
    for (;;) {
      let text: string;
      try {
        text = await textOf(await this.stream(method, path, { ...request, headers }));
      } catch (error) {
        await retries.pause(error, request.signal);
        continue;
      }
      try {
        return text ? JSON.parse(text) : undefined;
      } catch {
        throw new RegenError(`${path} did not answer as the Regen API does: no JSON.`);
      }
    }
  }

  /** What is at a path, after retries. */
  async blob(path: string, request: Request = {}): Promise<Blob> {
    const retries = this.newRetries();
    for (;;) {
      try {
        return await blobOf(await this.stream("GET", path, request));
      } catch (error) {
        await retries.pause(error, request.signal);
      }
    }
  }

  /** The property `name` of the answer. */
  async row<T>(method: string, path: string, name: string, request: Request = {}): Promise<T> {
    return propertyOf(await this.send(method, path, request), name, path) as T;
  }

  /** At most `most` rows of a list, the newest first. */
  async rows<T>(path: string, name: string, most: number, request: Request = {}): Promise<T[]> {
    const rows: T[] = [];
    let cursor: string | undefined;
    do {
      const query = { ...request.query, limit: Math.min(most - rows.length, 100), cursor };
      const page = await this.send("GET", path, { ...request, query });
      rows.push(...(propertyOf(page, name, path) as T[]));
      cursor = (page as { nextCursor?: string }).nextCursor;
    } while (cursor && rows.length < most);
    return rows;
  }
}

/** Without a slash or a `/v1` at the end, which the paths have. */
export function address(baseUrl: string): string {
  return baseUrl.trim().replace(/(\/v1)?\/*$/, "");
}

/** Resolves after `seconds`, or in a page once its network is back; rejects when `signal` is aborted. */
export function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  const page = typeof window === "undefined" ? undefined : window;
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      page?.removeEventListener("online", end);
      if (signal?.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    if (signal?.aborted) return end();
    signal?.addEventListener("abort", end);
    page?.addEventListener("online", end);
  });
}

/** The error of a connection that broke: the caller's own abort, or NoAnswer. */
export function lost(error: unknown, signal?: AbortSignal): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof RegenError) return error;
  const { message, cause } = error as Error;
  const reason = cause instanceof Error ? `${message}: ${cause.message}` : message;
  return new NoAnswer(`No answer from the server: ${reason}`, { cause: error });
}

async function textOf(streamed: Streamed): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (let piece = await streamed.read(); piece; piece = await streamed.read()) {
      text += decoder.decode(piece, { stream: true });
    }
  } finally {
    await streamed.close();
  }
  return text + decoder.decode();
}

async function blobOf(streamed: Streamed): Promise<Blob> {
  const pieces: BlobPart[] = [];
  try {
    for (let piece = await streamed.read(); piece; piece = await streamed.read()) pieces.push(piece);
  } finally {
    await streamed.close();
  }
  return new Blob(pieces, { type: streamed.response.headers.get("Content-Type") ?? "" });
}

function propertyOf(answer: unknown, name: string, path: string): unknown {
  const value = (answer as Record<string, unknown> | null | undefined)?.[name];
  if (value === undefined) throw new RegenError(`${path} did not answer as the Regen API does: no \`${name}\`.`);
  return value;
}

// Not randomUUID, which pages have in secure contexts alone.
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
