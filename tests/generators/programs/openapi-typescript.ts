import createClient from "openapi-fetch";
import { openAsBlob } from "node:fs";
import type { paths } from "./generated";

const [url, key, clip] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });
const form = new FormData();
form.append("file", await openAsBlob(clip), "clip.mp4");
const uploaded = await client.POST("/v1/files", { body: { file: "" }, bodySerializer: () => form });
const file = uploaded.data!.file;
const made = await client.POST("/v1/upscale", { body: { file_id: file.id, target_fps: 23.976 } });
let render = made.data!.render;
while (render.status !== "completed" && render.status !== "failed") {
  const answer = await client.GET("/v1/renders/{render_id}", { params: { path: { render_id: render.id } } });
  render = answer.data!.render;
}
const created = await client.POST("/v1/webhooks", { body: { url: "http://127.0.0.1:9/hook" } });
console.log(file.sizeBytes, render.status, render.targetFpsExact, created.data!.webhook.url);
