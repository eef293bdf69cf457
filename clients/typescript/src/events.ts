// A render's stream of events, continued after the last one.

import { RegenError } from "./errors.js";
import type { Requests, Streamed } from "./requests.js";
import type { OnProgress } from "./types.js";

/** The server breaks the silence of a stream every 15 seconds. */
const SILENCE_SECONDS = 20;

export class Events {
  /** Whether it is worth to follow them (again). */
  available = true;
  #lastId = "";
  readonly #requests: Requests;
  readonly #path: string;
  readonly #onProgress: OnProgress | undefined;

  constructor(requests: Requests, renderId: string, onProgress?: OnProgress) {
    this.#requests = requests;
    this.#path = `/v1/renders/${encodeURIComponent(renderId)}/events`;
    this.#onProgress = onProgress;
  }

  /** Reads until the render's end, and is true then, or until the stream breaks off. */
  async follow(signal?: AbortSignal): Promise<boolean> {
    const headers: Record<string, string> = this.#lastId ? { "Last-Event-ID": this.#lastId } : {};
    let streamed: Streamed;
    try {
      streamed = await this.#requests.stream("GET", this.#path, { headers, signal }, SILENCE_SECONDS);
    } catch (error) {
      signal?.throwIfAborted();
      // A server without events, or a proxy that does not let them through: poll.
      this.available = error instanceof RegenError && error.repeatable;
      return false;
    }
    try {
      const ended = streamed.response.status === 204 || (await this.#readToEnd(streamed));
      if (ended) this.available = false;
      return ended;
    } catch (error) {
      if (error instanceof RegenError) return false;
      throw error;
    } finally {
      await streamed.close();
    }
  }

  async #readToEnd(streamed: Streamed): Promise<boolean> {
    const decoder = new TextDecoder();
    let text = "";
    for (let piece = await streamed.read(); piece; piece = await streamed.read()) {
      text = (text + decoder.decode(piece, { stream: true })).replaceAll("\r", "");
      // Only the empty line makes an event of what came before it.
      const events = text.split("\n\n");
      text = events.pop() ?? "";
      for (const event of events) if (this.#isEnd(event)) return true;
    }
    return false;
  }

  #isEnd(event: string): boolean {
    const fields = new Map(
      event.split("\n").map((line) => {
        const [, name = line, value = ""] = /^([^:]*): ?(.*)$/.exec(line) ?? [];
        return [name, value];
      }),
    );
    const content = fields.get("data");
    if (content === undefined) return false;
    this.#lastId = fields.get("id") ?? this.#lastId;
    if (fields.get("event") === "end") return true;
    const { framesDone: done = 0, frames: total = 0, status, etaSeconds } = JSON.parse(content);
    this.#onProgress?.({ stage: "render", done, total, status, etaSeconds });
    return false;
  }
}
