/** A client of the Regen video upscale API, for browsers and Node. `regen-client/node` also takes paths of files. */
export { ApiError, InvalidWebhook, NoAnswer, RegenError, RenderFailed, WaitTimeout } from "./errors.js";
export { Regen } from "./regen.js";
export { UploadPause } from "./uploads.js";
export { verifyWebhook } from "./webhooks.js";
