import { openAsBlob } from "node:fs";
import { createWebhook, getRender, uploadFile, upscale } from "./generated";

const [url, key, clip] = process.argv.slice(2);
const passed = globalThis.fetch;
globalThis.fetch = (path, init) => passed(url + path, init); // orval's own way to a server is a mutator
const headers = { Authorization: `Bearer ${key}` };
// With several types of body, orval leaves the choice of its Content-Type to you.
const json = { headers: { ...headers, "Content-Type": "application/json" } };

const uploaded = await uploadFile({ file: await openAsBlob(clip) }, { headers });
if (uploaded.status !== 200) throw new Error(uploaded.data.errors[0].message);
const file = uploaded.data.file;
const made = await upscale({ file_id: file.id, target_fps: 23.976 }, json);
if (made.status !== 200) throw new Error(made.data.errors[0].message);
let render = made.data.render;
while (render.status !== "completed" && render.status !== "failed") {
  const answer = await getRender(render.id, { headers });
  if (answer.status !== 200) throw new Error(answer.data.errors[0].message);
  render = answer.data.render;
}
const created = await createWebhook({ url: "http://127.0.0.1:9/hook" }, json);
if (created.status !== 200) throw new Error(created.data.errors[0].message);
console.log(file.sizeBytes, render.status, render.targetFpsExact, created.data.webhook.url);
