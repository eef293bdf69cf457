import { openAsBlob } from "node:fs";
import { createWebhook, getRender, uploadFile, upscale } from "./generated";
import { client } from "./generated/client.gen";

const [url, key, clip] = process.argv.slice(2);
client.setConfig({ baseUrl: url, auth: key, throwOnError: true });
const throwOnError = true;
const { file } = (await uploadFile({ body: { file: await openAsBlob(clip) }, throwOnError })).data;
let { render } = (await upscale({ body: { file_id: file.id, target_fps: 23.976 }, throwOnError })).data;
while (render.status !== "completed" && render.status !== "failed") {
  render = (await getRender({ path: { render_id: render.id }, throwOnError })).data.render;
}
const { webhook } = (await createWebhook({ body: { url: "http://127.0.0.1:9/hook" }, throwOnError })).data;
console.log(file.sizeBytes, render.status, render.targetFpsExact, webhook.url);
