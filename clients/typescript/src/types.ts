// Shapes of the API under short names. They come from its description; openapi.ts is generated from it.

import type { components, operations } from "./openapi.js";

type Shapes = components["schemas"];

export type Render = Shapes["Render"];
export type RenderStatus = Shapes["RenderStatus"];
export type VideoFile = Shapes["VideoFile"];
export type Estimate = Shapes["Estimate"];
export type Preview = Shapes["Preview"];
export type Engine = Shapes["Engine"];
export type Usage = Shapes["Usage"];
export type Upload = Shapes["Upload"];
export type PartToSend = Shapes["PartToSend"];
export type ReceivedPart = Shapes["ReceivedPart"];
export type WebhookEvent = Shapes["RenderEventBody"] | Shapes["TestEventBody"];
export type { components, operations, paths } from "./openapi.js";

type DistributiveOmit<T, Names extends string> = T extends unknown ? Omit<T, Names> : never;

/** How to render a video, in the API's spelling: docs/options.md of the server. Options left out are the server's
 * defaults; others than these are sent as they are. */
export type RenderOptions = Partial<
  DistributiveOmit<operations["upscale"]["requestBody"]["content"]["application/json"], "file" | "file_id" | "file_url">
>;

/** How to make a preview, as for a render. */
export type PreviewOptions = Omit<Shapes["PreviewRequest"], "file_id">;

/** What an event tells of a render under way; what does not apply is left out. */
export interface RenderEvent extends Pick<Render, "id" | "status" | "progress" | "etaSeconds" | "queuePosition"> {
  framesDone?: number;
  frames?: number;
}

/** `done` of `total`: bytes of an upload or a download, frames of a render. `total` is 0 while it is unknown. */
export interface Progress {
  stage: "upload" | "render" | "download";
  done: number;
  total: number;
  status?: RenderStatus;
  etaSeconds?: number;
  /** Of an upload in parts. */
  uploadId?: string;
}

export type OnProgress = (progress: Progress) => void;
