import { openAsBlob } from "node:fs";
import { Configuration, FilesApi, RendersApi, WebhooksApi } from "./generated";

const [url, key, clip] = process.argv.slice(2);
const configuration = new Configuration({ basePath: url, accessToken: key });
const video = new File([await openAsBlob(clip)], "clip.mp4");
const { file } = (await new FilesApi(configuration).uploadFile(video)).data;
const renders = new RendersApi(configuration);
let { render } = (await renders.upscale({ file_id: file.id, target_fps: 23.976 })).data;
while (render.status !== "completed" && render.status !== "failed") {
  render = (await renders.getRender(render.id)).data.render;
}
const { webhook } = (await new WebhooksApi(configuration).createWebhook({ url: "http://127.0.0.1:9/hook" })).data;
console.log(file.sizeBytes, render.status, render.targetFpsExact, webhook.url);
