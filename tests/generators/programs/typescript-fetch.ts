import { openAsBlob } from "node:fs";
import { Configuration, FilesApi, RendersApi, WebhooksApi } from "./generated";

const [url, key, clip] = process.argv.slice(2);
const configuration = new Configuration({ basePath: url, accessToken: key });
const { file } = await new FilesApi(configuration).uploadFile({ file: await openAsBlob(clip) });
const renders = new RendersApi(configuration);
let { render } = await renders.upscale({ upscaleRequest: { fileId: file.id, targetFps: 23.976 } });
while (render.status !== "completed" && render.status !== "failed") {
  render = (await renders.getRender({ renderId: render.id })).render;
}
const webhookRequest = { url: "http://127.0.0.1:9/hook" };
const { webhook } = await new WebhooksApi(configuration).createWebhook({ webhookRequest });
console.log(file.sizeBytes, render.status, render.targetFpsExact, webhook.url);
