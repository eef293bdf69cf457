// A render's stream of events, continued after the last one.

import { RegenError } from "./errors.js";
import type { Requests, Streamed } from "./requests.js";
import type { RenderEvent } from "./types.js";

/** The server breaks the silence of a stream every 15 seconds. */
const SILENCE_SECONDS = 20;

export class Events {
  /** Whether it is worth to follow them (again). */
  available = true;
  /** Whether the render's end was told. */
  ended = false;
  /** Why there are none: the server has no events, a proxy does not let them through, or the render is not there. */
  refusal: unknown;
  /** Why the last stream could not be opened: the server is away for now. */
  lost: RegenError | undefined;
  #lastId = "";
  readonly #requests: Requests;
  readonly #path: string;

  constructor(requests: Requests, renderId: string) {
    this.#requests = requests;
    this.#path = `/v1/renders/${encodeURIComponent(renderId)}/events`;
  }

  /** What is told until the render's end, or until the stream breaks off. */
  async *follow(signal?: AbortSignal): AsyncGenerator<RenderEvent, void> {
    const headers: Record<string, string> = this.#lastId ? { "Last-Event-ID": this.#lastId } : {};
    let streamed: Streamed;
    try {
      streamed = await this.#requests.stream("GET", this.#path, { headers, signal }, SILENCE_SECONDS);
    } catch (error) {
      signal?.throwIfAborted();
      this.lost = error instanceof RegenError && error.repeatable ? error : undefined;
      this.available = this.lost !== undefined;
      if (!this.available) this.refusal = error;
      return;
    }
    this.lost = undefined;
    try {
      const { status, headers: answered } = streamed.response;
      if (status === 204) this.ended = true;
      else if (answered.get("Content-Type")?.startsWith("text/event-stream")) yield* this.#read(streamed);
      else {
        this.available = false;
        this.refusal = new RegenError(`${this.#path} was answered with something else than events.`);
      }
    } catch (error) {
      if (!(error instanceof RegenError)) throw error;
    } finally {
      if (this.ended) this.available = false;
      await streamed.close();
    }
  }

  async *#read(streamed: Streamed): AsyncGenerator<RenderEvent, void> {
    const decoder = new TextDecoder();
    let text = "";
    for (let piece = await streamed.read(); piece; piece = await streamed.read()) {
      text = (text + decoder.decode(piece, { stream: true })).replaceAll("\r", "");
      // Only the empty line makes an event of what came before it.
      const blocks = text.split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = this.#parse(block);
        if (event) yield event;
        if (this.ended) return;
      }
    }
  }

  #parse(block: string): RenderEvent | undefined {
    const fields = new Map(
      block.split("\n").map((line) => {
        const [, name = line, value = ""] = /^([^:]*): ?(.*)$/.exec(line) ?? [];
        return [name, value];
      }),
    );
    const content = fields.get("data");
    if (content === undefined) return undefined;
    this.#lastId = fields.get("id") ?? this.#lastId;
    this.ended = fields.get("event") === "end";
    return this.ended ? undefined : JSON.parse(content);
  }
}
