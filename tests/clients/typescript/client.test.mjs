// regen-client in Node, against a mock and its faults. REGEN_SERVER and REGEN_KEY name the mock, CLIP a video.

import assert from "node:assert/strict";
import { createHash, createHmac, randomBytes } from "node:crypto";
import { mkdtemp, readFile, readdir, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import * as web from "regen-client";
import { md5 } from "./node_modules/regen-client/dist/md5.js";
import { ApiError, InvalidWebhook, NoAnswer, Regen, RenderFailed, UploadPause, WaitTimeout, verifyWebhook } from "regen-client/node";

const { CLIP } = process.env;
const MEBIBYTE = 1024 * 1024;
const settings = { retries: 3, pollSeconds: 0.02 };
const regen = new Regen(undefined, undefined, settings);
// The client's clock: its pauses are over at once, and a time-out passes when a test says so, however slow the machine is.
// Timers of others, such as those of fetch, are left alone.
const [sleep, cancel, waiting] = [setTimeout, clearTimeout, new Map()];
globalThis.setTimeout = (callback, ms, ...values) => {
  if (!new Error().stack.split("\n")[2].includes("/regen-client/")) return sleep(callback, ms, ...values);
  const timer = sleep(callback, ms < 5000 ? 0 : ms);
  if (ms >= 5000) waiting.set(timer, { callback, ms });
  return timer;
};
globalThis.clearTimeout = (timer) => {
  waiting.delete(timer);
  cancel(timer);
};
const elapse = (seconds) => {
  for (const { callback, ms } of waiting.values()) if (ms === seconds * 1000) callback();
};
const mock = (path, json, method = "POST") => regen.request(method, path, json && { json });
const faults = (...rules) => mock("/_mock/faults", { rules });
const asked = async (method, start = "") =>
  (await mock("/_mock/requests", undefined, "GET")).requests.filter((one) => one.method === method && one.path.startsWith(start));
const folder = () => mkdtemp(join(tmpdir(), "regen-"));
const bytesAt = async (url) => Buffer.from(await (await fetch(url)).arrayBuffer());

beforeEach(() => mock("/_mock/seed", { transitions: "instant" }));

test("from the video to the result", async () => {
  const [seen, out] = [[], join(await folder(), "out.mp4")];
  const onProgress = (progress) => seen.push(progress);
  const options = { target_fps: "30000/1001", metadata: { order: "A-17" }, end: 1 };
  const estimate = await regen.estimate(CLIP, options);
  const asking = await regen.upscale(CLIP, { ...options, quality: true }, { onProgress });
  assert.deepEqual([asking.status, asking.metadata], ["queued", { order: "A-17" }]);
  const render = await regen.wait(asking, { timeout: 60, onProgress });
  await regen.download(render, out, { onProgress });
  const content = await readFile(out);
  assert.deepEqual([render.output.width, render.output.frames, estimate.output.frames], [960, 30, 30]);
  assert.ok(content.equals(await bytesAt(render.outputFileURL)));
  const ends = Object.fromEntries(seen.map((one) => [one.stage, [one.done, one.total]]));
  const size = (await readFile(CLIP)).length;
  assert.deepEqual(ends, { upload: [size, size], render: [30, 30], download: [content.length, content.length] });
  assert.ok(Buffer.from(await (await regen.download(render)).arrayBuffer()).equals(content));
  let written = 0;
  await regen.download(render.id, new WritableStream({ write: (bytes) => { written += bytes.length; } }));
  assert.equal(written, content.length);
  assert.match(await regen.fileName(render, { result: "thumbnail" }), /\.jpg$/);

  const again = await regen.upscale(render.fileId, { engine: "regen-4x", option_of_tomorrow: 1 });
  assert.deepEqual((await regen.listRenders({ limit: 5 })).map((one) => one.id), [again.id, render.id]);
  const file = await regen.upload(new File([await readFile(CLIP)], "other.mp4"));
  assert.deepEqual([file.name, file.width], ["other.mp4", 240]);
  const preview = await regen.preview(file, { at_seconds: 1.2, crop: { x: 8, y: 8, width: 64, height: 36 } });
  assert.deepEqual([preview.status, preview.fileId, preview.crop.width], ["completed", file.id, 64]);
  const frame = await regen.frame(file, { at_seconds: 1.2 });
  assert.equal(frame.type, "image/jpeg");
  assert.deepEqual([...new Uint8Array(await frame.arrayBuffer())].slice(0, 3), [0xff, 0xd8, 0xff]);
  assert.ok((await regen.engines()).some((one) => one.default) && (await regen.usage()).limits);
});

test("a video at a URL becomes a file", async () => {
  const content = await readFile(CLIP);
  const server = createServer((_, response) => response.end(content)).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const url = `http://127.0.0.1:${server.address().port}/film.mp4`;
  assert.deepEqual([(await regen.upload(url)).name, (await regen.upscale(url)).status], ["film.mp4", "queued"]);
  assert.equal((await regen.preview(url)).status, "completed");
  server.close();
});

test("refusals carry their sentences", async () => {
  const refused = await regen.upscale("abc123", { target_fps: 500, engine: "regen-8x" }).catch((error) => error);
  assert.ok(refused instanceof ApiError && refused instanceof web.RegenError && refused.requestId);
  assert.deepEqual([refused.status, refused.messages.length, refused.name], [400, 2, "ApiError"]);
  await assert.rejects(regen.getRender("none"), { status: 404 });
  await assert.rejects(regen.upload("missing.mp4"), { code: "ENOENT" });
  await assert.rejects(new Regen("http://127.0.0.1:9", "key", { retries: 1 }).engines(), NoAnswer);
  assert.throws(() => new web.Regen("", "key"), TypeError);
});

test("503 twice and a lost answer make one render", async () => {
  const route = "POST /v1/upscale";
  const action = { status: 503, headers: { "Retry-After": "0.02" } };
  await faults({ route, times: 2, action }, { route, times: 1, action: { cut: "after" } });
  const render = await regen.upscale(CLIP);
  assert.deepEqual((await regen.listRenders()).map((one) => one.id), [render.id]);
  const sent = await asked("POST", "/v1");
  assert.deepEqual([sent.length, new Set(sent.map((one) => one.headers["idempotency-key"])).size], [4, 1]);
  const long = { status: 503, headers: { "Retry-After": "3600" } };
  await faults({ route: "GET /v1/engines", times: 1, action: long });
  await assert.rejects(regen.engines(), { status: 503, retryAfter: 3600 });
});

test("a render that fails, and one that does not end", async () => {
  await faults({ route: "POST /v1/upscale", times: 1, action: { render: { fail: "The film tore." } } });
  const failed = await regen.wait(await regen.upscale(CLIP)).catch((error) => error);
  assert.ok(failed instanceof RenderFailed && /The film tore/.test(failed.message));
  assert.equal((await regen.wait(await regen.retry(failed.render))).retryOf, failed.render.id);
  await faults({ route: "POST *", times: 1, action: { render: { stuck_in: "queued" } } });
  const stuck = await regen.upscale(CLIP);
  await assert.rejects(regen.wait(stuck, { timeout: 0.1 }), WaitTimeout);
  const stopped = regen.wait(stuck, { signal: AbortSignal.timeout(100) });
  await assert.rejects(stopped, { name: "TimeoutError" });
  assert.equal((await regen.cancel(stuck)).status, "failed");
});

test("a result that its destination refuses is sent to another", async () => {
  const paths = [];
  const server = createServer((request, answer) => {
    paths.push(request.url);
    request.resume().on("end", () => answer.writeHead(request.url === "/other" ? 200 : 403).end());
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = `http://127.0.0.1:${server.address().port}`;
  const ended = async (id) => {
    const { destination } = await regen.getRender(id);
    return ["delivered", "failed"].includes(destination.status) ? destination.status : ended(id);
  };
  const { id } = await regen.wait(await regen.upscale(CLIP, { destination: `${address}/first` }));
  assert.equal(await ended(id), "failed");
  assert.equal((await regen.deliver(id)).destination.status, "pending");
  assert.equal(await ended(id), "failed");
  await regen.deliver(id, { destination: `${address}/other` });
  assert.deepEqual([await ended(id), paths], ["delivered", ["/first", "/first", "/other"]]);
  server.close();
});

test("waiting with events and without", async () => {
  for (const action of [{ status: 404 }, { cut: "before" }, undefined]) {
    await mock("/_mock/seed", action ? { transitions: "polls:1" } : { transitions: "seconds:0.3", clock: null });
    if (action) await faults({ route: "GET /v1/renders/*/events", action });
    const seen = [];
    await regen.wait(await regen.upscale(CLIP), { timeout: 30, onProgress: (one) => seen.push(one.status) });
    assert.deepEqual([seen[0], seen.at(-1)], ["queued", "completed"]);
    // The render, its events, the render.
    if (!action) assert.equal((await asked("GET", "/v1")).length, 3);
  }
});

test("a stream that ends anywhere is continued after the last whole event", async () => {
  const events = Buffer.from(
    ': ping\r\n\r\nid: a-1\nevent: progress\ndata: {"status":"processing","framesDone":1}\n\n' +
      'id: done\nevent: end\ndata: {"render":{"id":"é"}}\n\n',
  );
  const whole = events.indexOf("id: done");
  let [cut, lastId, streams] = [0, undefined, 0];
  const render = { id: "r", progress: 0, status: "processing" };
  const relay = createServer((request, response) => {
    if (!request.url.endsWith("/events")) {
      response.end(JSON.stringify({ render: { ...render, status: streams < 2 ? "processing" : "completed" } }));
      return;
    }
    response.setHeader("Content-Type", "text/event-stream");
    if (++streams === 1) {
      response.write(events.subarray(0, cut), () => response.destroy());
    } else {
      lastId = request.headers["last-event-id"];
      response.end(events.subarray(whole));
    }
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => relay.once("listening", resolve));
  const client = new Regen(`http://127.0.0.1:${relay.address().port}/v1/`, "key", { pollSeconds: 0 });
  for (cut = whole; cut < events.length; cut++) {
    streams = 0;
    await client.wait("r");
    assert.deepEqual([streams, lastId], [2, "a-1"]);
  }
  relay.closeAllConnections();
  relay.close();
});

test("events are given up, as a wait is, after two minutes without the server", async () => {
  let [now, asked, reason] = [0, 0, new TypeError("fetch failed")];
  const clock = Date.now;
  Date.now = () => now;
  const send = async () => {
    now += 50_000;
    asked++;
    if (reason instanceof Error) throw reason;
    return new Response("", { status: reason });
  };
  const client = new Regen(undefined, undefined, { pollSeconds: 0, retries: 0, fetch: send });
  try {
    for (const follow of [() => client.wait("r"), () => client.events("r").next()]) {
      asked = 0;
      await assert.rejects(follow(), NoAnswer);
      assert.ok(asked >= 4 && asked <= 8, `${asked}`);
    }
    [reason, asked] = [503, 0];
    await assert.rejects(client.events("r").next(), { status: 503 });
    assert.equal(asked, 4);
  } finally {
    Date.now = clock;
  }
});

test("a download that stalls or breaks off goes on", async () => {
  const out = await folder();
  const render = await regen.wait(await regen.upscale(CLIP));
  const content = await bytesAt(render.outputFileURL);
  const stall = { download: { stall_after_bytes: 200_000, stall_seconds: 600 } };
  const told = [];
  const hasty = new Regen(undefined, undefined, { ...settings, timeout: 59, onRetry: (error) => told.push(error.message) });
  // Once the client waits for the bytes that do not come.
  const onProgress = ({ done }) => done === 200_000 && setImmediate(elapse, 59);
  for (const to of [join(out, "a.mp4"), undefined]) {
    await mock("/_mock/faults", undefined, "DELETE");
    const before = (await asked("GET", "/storage")).length;
    await faults({ route: "GET /storage/*", times: 1, action: stall });
    const blob = await hasty.download(render, to, { onProgress });
    assert.ok((to ? await readFile(to) : Buffer.from(await blob.arrayBuffer())).equals(content));
    const [first, second] = (await asked("GET", "/storage")).slice(before).map((one) => one.headers);
    assert.deepEqual([first.range, first["if-range"]], ["bytes=0-", undefined]);
    assert.ok(second.range === "bytes=200000-" && second["if-range"]);
  }
  assert.deepEqual(told, Array(2).fill("No answer from the server: silent for 59 seconds."));
  // Of what had arrived before a cut, fetch may drop what was not read yet.
  await faults({ route: "GET /storage/*", times: 1, action: { cut: "mid-body" } });
  assert.ok(Buffer.from(await (await hasty.download(render)).arrayBuffer()).equals(content));
  assert.deepEqual([told.length, (await asked("GET", "/storage")).at(-2).fault.cut], [3, "mid-body"]);

  // Continued by another program, whose first address has expired.
  await faults({ route: "GET /storage/*", times: 1, action: stall });
  const impatient = new Regen(undefined, undefined, { retries: 0, timeout: 59 });
  await assert.rejects(impatient.download(render, join(out, "b.mp4"), { onProgress }), NoAnswer);
  assert.match((await readdir(out)).sort()[0], /^\.b\.mp4\.%22.*\.part$/);
  await faults({ route: "GET /v1/renders/*", times: 1, action: { expired_urls: true } });
  await regen.download(render, join(out, "b.mp4"));
  assert.equal((await asked("GET", "/storage")).at(-1).headers.range, "bytes=200000-");
  // A file that has changed since.
  await writeFile(join(out, ".c.mp4.%22other%22.part"), "of another file");
  await regen.download(render, join(out, "c.mp4"));
  for (const name of ["b.mp4", "c.mp4"]) assert.ok((await readFile(join(out, name))).equals(content));
  assert.deepEqual((await readdir(out)).sort(), ["a.mp4", "b.mp4", "c.mp4"]);
});

test("a large video in parts, interrupted, paused and changed", async () => {
  const video = join(await folder(), "large.mp4");
  const content = await readFile(CLIP);
  const box = Buffer.alloc(8, "free");
  box.writeUInt32BE(11 * MEBIBYTE - content.length);
  await writeFile(video, Buffer.concat([content, box]));
  await truncate(video, 11 * MEBIBYTE); // three parts
  const parts = { partBytes: 5 * MEBIBYTE };
  await faults({ route: "PUT *", after: 1, times: 1, action: { status: 400 } });
  const one = new Regen(undefined, undefined, { ...settings, ...parts, partsAtOnce: 1 });
  await assert.rejects(one.upload(video), { status: 400 });
  assert.deepEqual((await asked("PUT")).map((part) => part.status), [200, 400]);

  // What arrived is not sent again; a pause keeps it too.
  await faults({ route: "PUT *", times: 1, action: { cut: "before" } });
  const [pause, seen] = [new UploadPause(), []];
  const started = Date.now();
  const onProgress = ({ done }) => {
    seen.push(done);
    if (done < 10 * MEBIBYTE || pause.paused || seen.includes(-1)) return;
    seen.push(-1);
    pause.pause();
    sleep(() => pause.resume(), 300);
  };
  const file = await one.upload(video, { onProgress, pause });
  assert.deepEqual([file.sizeBytes, file.width, seen.at(-1)], [11 * MEBIBYTE, 240, 11 * MEBIBYTE]);
  assert.ok(Date.now() - started > 300 && !pause.paused);
  assert.equal((await asked("PUT")).length, 2 + 3);
  assert.equal((await asked("POST", "/v1/uploads")).filter((sent) => sent.path === "/v1/uploads").length, 1);

  await assert.rejects(one.upload(video, { signal: AbortSignal.abort() }), { name: "AbortError" });

  // Of the same name and size, and another one all the same: what arrived of the first is not taken for it.
  await faults({ route: "PUT *", after: 1, times: 1, action: { status: 400 } });
  await assert.rejects(one.upload(video), { status: 400 });
  const changed = Buffer.from(await readFile(video)).fill("changed", content.length + 100, content.length + 107);
  await new Regen(undefined, undefined, { ...settings, ...parts }).upload(new File([changed], "large.mp4"));
  assert.equal((await asked("PUT")).length, 2 + 3 + 2 + 3);

  // Another program took the upload; several at once never take each other's.
  await faults({ route: "POST /v1/uploads/*/complete", times: 1, action: { status: 400 } });
  const opened = async () => (await asked("POST", "/v1/uploads")).filter((sent) => sent.path === "/v1/uploads").length;
  const before = await opened();
  assert.equal((await one.upload(video)).sizeBytes, 11 * MEBIBYTE);
  assert.equal(await opened(), before + 1);
  await Promise.all([one.upload(video), one.upload(video)]);
});

test("a part of an upload to S3 is known by its MD5", () => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 100_003]) {
    const bytes = randomBytes(length);
    assert.equal(md5(bytes), createHash("md5").update(bytes).digest("hex"));
  }
});

test("webhooks are held against their signature", async () => {
  const secret = `whsec_${Buffer.from("a secret of some length").toString("base64")}`;
  const other = `whsec_${Buffer.from("another secret").toString("base64")}`;
  const body = '{"type": "render.completed", "data": {"render": {"id": "é"}}}';
  const now = String(Math.floor(Date.now() / 1000));
  const signature = createHmac("sha256", "a secret of some length").update(`msg-1.${now}.${body}`).digest("base64");
  const headers = { "Webhook-Id": "msg-1", "webhook-timestamp": now, "webhook-signature": `v1,c29tZQ== v1a,x v1,${signature}` };
  const event = await verifyWebhook(Buffer.from(body), new Headers(headers), [other, secret]);
  assert.equal(event.data.render.id, "é");
  const old = String(Number(now) - 360);
  for (const [text, given, secrets] of [
    [body.replace("é", "e"), headers, secret],
    [body, headers, other],
    [body, { ...headers, "webhook-timestamp": old }, secret],
    [body, { ...headers, "webhook-timestamp": "now" }, secret],
    [body, { ...headers, "webhook-signature": "v1,é" }, secret],
    [body, {}, secret],
  ]) {
    await assert.rejects(verifyWebhook(text, given, secrets), InvalidWebhook);
  }
  await assert.rejects(verifyWebhook(body, headers, "whsec_!"), TypeError);
});
