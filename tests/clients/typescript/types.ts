// What a program may write and what it may not, as the compiler sees it.

import { ApiError, type Progress, type Render, Regen, type RenderOptions, verifyWebhook } from "regen-client";
import { Regen as NodeRegen } from "regen-client/node";

const options: RenderOptions = { target_fps: 23.976, codec: "hevc", metadata: { order: "A-17" }, start: "00:01:23.5" };
const regen = new Regen("https://regen.example.com", "key", { timeout: 30 });
const show = ({ stage, done, total }: Progress): string => `${stage} ${done} of ${total}`;

export async function all(video: File): Promise<number> {
  const render: Render = await regen.upscale(video, { ...options, option_of_tomorrow: 1 }, { onProgress: show });
  const blob: Blob = await regen.download(await regen.wait(render, { timeout: 60 }));
  await new NodeRegen().download(render.id, "out.mp4");
  const event = await verifyWebhook("{}", new Headers(), "whsec_");
  if ("render" in event.data) console.log(event.data.render.status, render.output.frames);
  return blob.size;
}

export const messages = (error: unknown): readonly string[] => (error instanceof ApiError ? error.messages : []);

// @ts-expect-error an engine is a text
regen.upscale("id", { engine: 4 });
// @ts-expect-error in a page there are no paths
regen.download("id", "out.mp4");
