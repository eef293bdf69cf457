import { html } from "../preact.js";
import { cost, count, counted, period, size, span } from "../format.js";
import { store, useLoaded } from "../store.js";
import { BarChart } from "../components/chart.js";
import { Notice } from "../components/notices.js";

/** What this user rendered this month, and what is left of their limits. */
export function Usage() {
  const [usage, , failed] = useLoaded(async () => (await store.api.get("/v1/usage")).usage, [], 30);
  return html`<h1>Usage</h1>
    ${failed && html`<${Notice} kind="error">${failed}<//>`}
    ${usage && html`<${UsageFigures} of=${usage} />`}`;
}

/** @param {{of: import("../api.js").Row}} properties */
export function UsageFigures({ of }) {
  const { totals, limits } = of;
  /** @type {string[]} */
  const engines = [...new Set(of.days.map((/** @type {any} */ day) => day.engine))];
  const days = daysBetween(of.from, of.to);
  const bars = (/** @type {string | null} */ engine) => days.map((day) => ({
    name: count(Number(day.slice(8))),
    value: of.days.filter((/** @type {any} */ one) => one.day === day && (!engine || one.engine === engine))
      .reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one.gigapixels, 0),
  }));
  const used = [
    { name: "Cost of the month", value: totals.monthCost, most: limits.maxCostPerMonth, text: cost },
    { name: "Stored", value: totals.storageBytes, most: limits.maxStorageBytes, text: size },
    { name: "Renders in the queue", value: totals.queuedRenders, most: limits.maxQueuedRenders, text: count },
    { name: "Renders under way", value: totals.runningRenders, most: limits.maxRunningRenders, text: count },
  ];
  return html`
    <p class="lead">${period(of.from, of.to)}: ${counted(totals.renders, "render")}, ${count(totals.gigapixels)} gigapixels, cost ${cost(totals.cost)}</p>
    <${BarChart} label=${engines.length === 1 ? `Gigapixels by day, ${engines[0]}` : "Gigapixels by day"} unit="gigapixel" bars=${bars(null)} />
    ${engines.length > 1 && engines.map((engine) => html`<${BarChart} label=${`${engine}: gigapixels by day`} unit="gigapixel" bars=${bars(engine)} />`)}
    <h2>Limits</h2>
    <dl class="facts-table">
      ${used.map((row) => html`<div><dt>${row.name}</dt><dd>${row.text(row.value)}${row.most === undefined ? "" : ` of ${row.text(row.most)}`}
        ${row.most !== undefined && html`<meter min="0" max=${row.most} high=${row.most * 0.9} value=${row.value} aria-label=${`${row.name}, of what is allowed`}></meter>`}</dd></div>`)}
      ${limits.maxUploadBytes !== undefined && html`<div><dt>A video's size</dt><dd>up to ${size(limits.maxUploadBytes)}</dd></div>`}
      ${limits.maxDurationSeconds !== undefined && html`<div><dt>A video's length</dt><dd>up to ${span(limits.maxDurationSeconds)}</dd></div>`}
      ${limits.maxInputPixels !== undefined && html`<div><dt>A frame</dt><dd>up to ${count(limits.maxInputPixels)} pixels</dd></div>`}
      ${limits.requests !== undefined && html`<div><dt>Requests</dt><dd>${limits.requests}</dd></div>`}
    </dl>`;
}

/** @param {string} from @param {string} to @returns {string[]} ISO dates, both included */
function daysBetween(from, to) {
  const days = [];
  for (let at = Date.parse(from); at <= Date.parse(to); at += 86400_000) days.push(new Date(at).toISOString().slice(0, 10));
  return days;
}
