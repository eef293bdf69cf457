import { html } from "../preact.js";
import { counted } from "../format.js";

/** Names below the bars, at most. */
const NAMES = 6;

/**
 * Bars, with the same figures as a table for those who do not see it.
 * @param {{label: string, unit: string, bars: {name: string, value: number}[], text?: (value: number) => string}} properties
 *   `unit`: of one, "render"
 */
export function BarChart({ label, unit, bars, text = (value) => counted(value, unit) }) {
  const most = Math.max(...bars.map((bar) => bar.value), 0);
  const every = Math.ceil(bars.length / NAMES);
  return html`<figure class="chart">
    <figcaption class="row"><span class="grow">${label}</span><small>${most ? `up to ${text(most)}` : "none"}</small></figcaption>
    <div class="bars" aria-hidden="true">${bars.map((bar) => html`<span title=${`${bar.name}: ${text(bar.value)}`}>
      <i style=${{ height: `${most ? (bar.value / most) * 100 : 0}%` }}></i></span>`)}</div>
    <div class="names" aria-hidden="true">${bars.map((bar, at) => at % every === 0
    && html`<span style=${{ flexGrow: Math.min(every, bars.length - at) }}>${bar.name}</span>`)}</div>
    <div class="visually-hidden"><table><caption>${label}</caption><tbody>
      ${bars.map((bar) => html`<tr><th scope="row">${bar.name}</th><td>${text(bar.value)}</td></tr>`)}
    </tbody></table></div>
  </figure>`;
}
