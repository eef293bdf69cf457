// One step against a real server: `node server.mjs STEP`. Prints what it saw, as JSON. REGEN_SERVER and REGEN_KEY name the
// server, FILM a video of three parts, ARGUMENT what a step is about.

import { once } from "node:events";
import { createServer } from "node:http";
import * as client from "regen-client/node";

const { ARGUMENT = "", FILM = "", REGEN_KEY = "key", REGEN_SERVER = "" } = process.env;
const { Regen } = client;
const regen = new Regen();
const impatient = new Regen(undefined, undefined, { retries: 0, partsAtOnce: 1 });

const told = (error) => ({
  kind: Object.keys(client).find((name) => client[name] === error?.constructor),
  status: error?.status,
  messages: error?.messages,
});
const refusal = (promise) => promise.then(() => "nothing was refused", told);

const steps = {
  "upload and break off": () => refusal(impatient.upload(FILM)),

  async upload() {
    const sent = [];
    const file = await regen.upload(FILM, { onProgress: ({ done }) => sent.push(done) });
    return { file, first: sent[0], last: sent.at(-1) };
  },

  async render() {
    const options = { engine: "regen-4x", end: 1, output_quality: "lossless", metadata: { order: "A-17" } };
    const estimate = await regen.estimate(ARGUMENT, options);
    const seen = [];
    const asked = await regen.upscale(ARGUMENT, options);
    const render = await regen.wait(asked, { timeout: 100, onProgress: (one) => seen.push(one) });
    return { estimate, asked, render, seen };
  },

  // Behind a proxy that lets no event through.
  async poll() {
    let polls = 0;
    const send = (url, init) => {
      if (String(url).endsWith("/events")) return Promise.resolve(new Response("Sign in, please."));
      polls += /\/v1\/renders\/\w+$/.test(String(url));
      return fetch(url, init);
    };
    const polling = new Regen(undefined, undefined, { fetch: send, pollSeconds: 0.1 });
    const render = await polling.wait(await polling.upscale(ARGUMENT, { scale: 1, start: 0.5, end: 1 }), { timeout: 100 });
    const refused = await refusal(polling.events(render).next());
    return { render, polls, refused };
  },

  "download and break off": () => refusal(impatient.download(ARGUMENT, "out.mp4")),

  async download() {
    const done = [];
    await regen.download(ARGUMENT, "out.mp4", { onProgress: (one) => done.push(one.done) });
    return { first: done[0], name: await regen.fileName(ARGUMENT) };
  },

  async "download in one program"() {
    return { size: (await regen.download(ARGUMENT)).size };
  },

  preview: () => regen.preview(ARGUMENT, { at_seconds: 0.5, crop: { x: 8, y: 8, width: 64, height: 36 } }),

  async webhook() {
    const received = [];
    const server = createServer(async (request, response) => {
      let body = "";
      for await (const piece of request) body += piece;
      received.push({ body, headers: request.headers });
      response.writeHead(204).end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { current } = (await regen.request("GET", "/v1/webhooks/secret")).secret;
    const url = `http://127.0.0.1:${server.address().port}/`;
    const render = await regen.wait(await regen.upscale(ARGUMENT, { scale: 1, end: 0.2, webhook_url: url }));
    for (let looks = 0; received.length < 3 && looks < 400; looks++) await new Promise((next) => setTimeout(next, 50));
    server.closeAllConnections();
    server.close();
    const events = [];
    for (const { body, headers } of received) events.push(await client.verifyWebhook(body, headers, current));
    const [{ body, headers }] = received;
    const forged = await refusal(client.verifyWebhook(body.replace("render.", "forged."), headers, current));
    return { id: render.id, events: events.map((one) => [one.type, one.data.render.id]).sort(), forged };
  },

  async errors() {
    const stranger = new Regen(REGEN_SERVER, `${REGEN_KEY}x`);
    const render = await regen.upscale(ARGUMENT, { priority: -100 });
    await regen.cancel(render).catch(() => {});
    return {
      options: await refusal(regen.upscale(ARGUMENT, { engine: "none", target_fps: 500 })),
      absent: await refusal(regen.getRender("none")),
      stranger: await refusal(stranger.usage()),
      noVideo: await refusal(regen.upload(new File(["no video"], "text.mp4"))),
      tooMuch: await refusal(regen.estimate(ARGUMENT, { start: 5, end: 4 })),
      ended: await refusal(regen.wait(render, { timeout: 60 })),
    };
  },
};

console.log(JSON.stringify(await steps[process.argv[2]]()));
