/** As `regen-client`, in Node: videos and results are also paths, and server and key come from the environment. */

import { createHash } from "node:crypto";
import { openAsBlob } from "node:fs";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Destination, DownloadOptions, Rest } from "./downloads.js";
import { type Found, type Source, Regen as WebRegen } from "./regen.js";
import type { Settings } from "./requests.js";
import type { Render } from "./types.js";

export * from "./index.js";

/** A client of the Regen API. A video may also be a path. */
export class Regen extends WebRegen {
  /** `baseUrl` and `key` default to REGEN_SERVER and REGEN_KEY. */
  constructor(baseUrl?: string, key?: string, settings: Settings = {}) {
    const { REGEN_SERVER = "", REGEN_KEY = "" } = process.env;
    super(baseUrl || REGEN_SERVER, key || REGEN_KEY, settings, {
      "User-Agent": "regen-client (node)",
      "Accept-Encoding": "identity",
    });
  }

  /** The result of a render, given by its id too, or what is at a signed URL: as a Blob, into a stream, or to a path. There
   * the file appears when it is complete; called again, a download that was interrupted goes on. */
  override download(what: Render | string, to?: null, options?: DownloadOptions): Promise<Blob>;
  override download(
    what: Render | string,
    to: WritableStream<Uint8Array> | string,
    options?: DownloadOptions,
  ): Promise<void>;
  override async download(
    what: Render | string,
    to?: WritableStream<Uint8Array> | string | null,
    options: DownloadOptions = {},
  ): Promise<Blob | void> {
    if (typeof to === "string") return this.downloadTo(what, await ToPath.of(to), options);
    return super.download(what, to as null, options);
  }

  protected override async find(video: Source): Promise<Found> {
    const found = await super.find(video);
    if (typeof video !== "string" || "file_url" in found) return found;
    // An id has no dot and no folder.
    const isFile = await stat(video).then(
      (one) => one.isFile(),
      () => false,
    );
    if (/^[\w-]+$/.test(video) && !isFile) return found;
    await stat(video); // whose error is plainer than that of openAsBlob
    return { bytes: await openAsBlob(video), name: basename(video) };
  }
}

/** A file beside the path until it is complete. Its name, `.NAME.ETAG.part`, holds the ETag, so that any process can go on
 * with it; the Python client's is the same. */
class ToPath implements Destination<void> {
  #part: string | undefined;
  #file: FileHandle | undefined;

  private constructor(readonly path: string) {}

  static async of(path: string): Promise<ToPath> {
    if (
      await stat(path).then(
        (one) => one.isDirectory(),
        () => false,
      )
    ) {
      throw new TypeError(`${path} is a folder: name the file to write.`);
    }
    return new ToPath(path);
  }

  /** The newest incomplete download that can be continued. */
  async rest(): Promise<Rest | undefined> {
    const folder = dirname(this.path);
    const start = `${this.#start}%22`;
    const names = (await readdir(folder)).filter((name) => name.startsWith(start) && name.endsWith(".part"));
    const found = await Promise.all(
      names.map(async (name) => ({ path: join(folder, name), name, ...(await statOf(join(folder, name))) })),
    );
    const [newest] = found.filter((one) => one.size).sort((a, b) => b.mtimeMs - a.mtimeMs);
    this.#part = newest?.path;
    return newest && { size: newest.size, etag: decodeURIComponent(newest.name.slice(this.#start.length, -5)) };
  }

  async begin(etag: string, start: number): Promise<void> {
    const kept = encodeURIComponent(etag).replaceAll(".", "%2E");
    const part = join(dirname(this.path), `${this.#start}${kept}.part`);
    if (this.#part && this.#part !== part) await rm(this.#part, { force: true }); // of a file that has changed since
    this.#part = part;
    this.#file = await open(part, start ? "a" : "w");
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#file?.writeFile(bytes);
  }

  async end(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }

  async complete(): Promise<void> {
    if (this.#part) await rename(this.#part, this.path);
  }

  /** With the ETag a long name would not fit in a file's name: then what tells it from others. */
  get #start(): string {
    const name = basename(this.path);
    if (Buffer.byteLength(name) <= 150) return `.${name}.`;
    const digest = createHash("sha256").update(name).digest("hex");
    return `.${[...name].slice(0, 20).join("")}~${digest.slice(0, 16)}.`;
  }
}

async function statOf(path: string): Promise<{ size: number; mtimeMs: number }> {
  return stat(path).catch(() => ({ size: 0, mtimeMs: 0 }));
}
