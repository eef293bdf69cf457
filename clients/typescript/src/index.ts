/** A client of the Regen video upscale API, for browsers and Node. `regen-client/node` also takes paths of files. */

export type { Destination, DownloadOptions, Rest } from "./downloads.js";
export { ApiError, InvalidWebhook, NoAnswer, RegenError, RenderFailed, WaitTimeout } from "./errors.js";
export { type CallOptions, Regen, type Source, type WaitOptions } from "./regen.js";
export type { Request, Settings } from "./requests.js";
export type * from "./types.js";
export { type UploadOptions, UploadPause } from "./uploads.js";
export { verifyWebhook } from "./webhooks.js";
