// The mock's own controls: what it received, the webhooks that it sent, its faults as switches, its clock.

import { html } from "../preact.js";
import { when } from "../format.js";
import { BASE } from "../api.js";
import { store, useLoaded } from "../store.js";
import { Notice } from "../components/notices.js";
import { Table } from "../components/table.js";

const SECONDS = 3;

/** Faults that a client should survive, each one rule of the mock. @type {{label: string, rule: Record<string, any>}[]} */
const FAULTS = [
  { label: "Every second upload is answered 503", rule: { route: "POST /v1/upscale", probability: 0.5, action: { status: 503, headers: { "Retry-After": "1" } } } },
  { label: "Answers take two seconds", rule: { route: "* /v1/*", action: { latency_seconds: 2 } } },
  { label: "Connections are cut after the work", rule: { route: "POST /v1/upscale", action: { cut: "after" } } },
  { label: "Renders fail", rule: { route: "POST /v1/upscale", action: { render: { fail: "The film tore." } } } },
  { label: "Renders never end", rule: { route: "POST /v1/upscale", action: { render: { stuck_in: "processing" } } } },
  { label: "Links have expired", rule: { route: "GET /v1/renders*", action: { expired_urls: true } } },
  { label: "Webhooks come twice", rule: { route: "WEBHOOK *", action: { webhook: "doubled" } } },
  { label: "Webhooks are signed wrongly", rule: { route: "WEBHOOK *", action: { webhook: "forged" } } },
];

/** @param {string} method @param {string} path @param {unknown} [body] */
async function ask(method, path, body) {
  const answer = await fetch(`${BASE}/_mock${path}`, {
    method, headers: body ? { "Content-Type": "application/json" } : {}, body: body ? JSON.stringify(body) : undefined,
  });
  if (!answer.ok) throw new Error((await answer.json()).errors[0].message);
  return answer.status === 204 ? {} : answer.json();
}

export function Mock() {
  const load = async () => ({
    state: await ask("GET", ""), rules: (await ask("GET", "/faults")).rules, requests: (await ask("GET", "/requests")).requests,
    webhooks: (await ask("GET", "/webhooks")).webhooks,
  });
  const [loaded, reload, failed] = useLoaded(load, [], SECONDS);
  const act = async (/** @type {Promise<unknown>} */ work) => {
    try {
      await work;
      await reload();
    } catch (error) { store.fail(error); }
  };
  const isSame = (/** @type {Record<string, any>} */ one, /** @type {Record<string, any>} */ other) =>
    one.route === other.route && JSON.stringify(one.action) === JSON.stringify(other.action);
  /** The mock removes rules all at once; the others, also those of programs, are added again. @param {Record<string, any>} rule */
  const toggle = async (rule) => {
    // As they are now: another switch may have been moved since they were shown.
    /** @type {Record<string, any>[]} */
    const now = (await ask("GET", "/faults")).rules;
    const others = now.filter((one) => !isSame(one, rule)).map(({ seen, hits, ...one }) => one);
    const wanted = others.length === now.length ? [...others, rule] : others;
    await ask("DELETE", "/faults");
    if (wanted.length) await ask("POST", "/faults", wanted);
  };
  return html`<h1>Mock</h1>
    <p>This is not a server but the mock: it enlarges videos plainly, and misbehaves on request.</p>
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    ${loaded && html`
      <h2>Faults</h2>
      <div class="switches">${FAULTS.map((fault) => html`<label class="check">
        <input type="checkbox" role="switch" checked=${loaded.rules.some((/** @type {any} */ one) => isSame(one, fault.rule))} onChange=${() => act(toggle(fault.rule))} /> ${fault.label}</label>`)}</div>
      <h2>Clock</h2>
      <p>It shows ${when(loaded.state.now)}: ${loaded.state.clock ? "requests move it." : "this machine's time and what was added to it."}</p>
      <div class="row">${[[60, "a minute"], [3600, "an hour"], [90000, "25 hours"]].map(([seconds, words]) => html`
        <button onClick=${() => act(ask("POST", "/clock", { advance_seconds: seconds }))}>${words} on</button>`)}
        <button class="quiet" onClick=${() => act(ask("POST", "/reset"))}>Start anew</button></div>
      <h2>Requests</h2>
      <${Table} label="Requests" columns=${["Number", "Request", "Answer", "Fault", "Fields"]}
        rows=${loaded.requests.slice(-100).reverse().map((/** @type {any} */ one) => ({ key: one.number, cells: [
          one.number, `${one.method} ${one.path}`, one.status, one.fault ? JSON.stringify(one.fault) : "",
          html`<code>${JSON.stringify(one.json ?? one.fields ?? {})}</code>`,
        ] }))} />
      <h2>Webhooks sent</h2>
      ${loaded.webhooks.length === 0 && html`<p class="empty">None yet. <a href="#/webhooks">Add an address</a>.</p>`}
      ${loaded.webhooks.length > 0 && html`<${Table} label="Webhooks sent" columns=${["Number", "Event", "Address", "Attempt", "Answer", "Fault", "Body"]}
        rows=${loaded.webhooks.slice(-100).reverse().map((/** @type {any} */ one) => ({ key: one.number, cells: [
          one.number, one.body.type, one.url, one.attempt, one.status ?? one.error ?? (one.fault?.webhook === "lost" ? "not sent" : "none yet"),
          one.fault ? JSON.stringify(one.fault) : "", html`<details><summary>${one.id}</summary><code>${JSON.stringify(one.body)}</code></details>`,
        ] }))} />`}`}`;
}
