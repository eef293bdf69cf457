import { html } from "../preact.js";
import { count } from "../format.js";

const [WIDTH, HEIGHT, FOOT, TOP] = [640, 160, 20, 20];

/**
 * Bars, with the same figures as a table for those who do not see it.
 * @param {{label: string, unit: string, bars: {name: string, value: number}[], text?: (value: number) => string}} properties
 */
export function BarChart({ label, unit, bars, text = (value) => `${count(value)} ${unit}` }) {
  const most = Math.max(...bars.map((bar) => bar.value), 0);
  const step = WIDTH / Math.max(bars.length, 1);
  const high = HEIGHT - FOOT - TOP;
  return html`<figure class="chart">
    <figcaption>${label}</figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
      <line x1="0" x2=${WIDTH} y1=${HEIGHT - FOOT} y2=${HEIGHT - FOOT} />
      ${bars.map((bar, at) => {
    const tall = most ? (bar.value / most) * high : 0;
    const every = Math.ceil(bars.length / 8);
    return html`<g>
          <rect x=${at * step + step * 0.15} y=${HEIGHT - FOOT - tall} width=${step * 0.7} height=${tall} rx="2">
            <title>${`${bar.name}: ${text(bar.value)}`}</title>
          </rect>
          ${at % every === 0 && html`<text class=${at ? undefined : "first"} x=${at ? at * step + step / 2 : 0} y=${HEIGHT - 5}>${bar.name}</text>`}
        </g>`;
  })}
      <text class="most" x="0" y="12">${most ? text(most) : ""}</text>
    </svg>
    <div class="visually-hidden"><table><caption>${label}</caption><tbody>
      ${bars.map((bar) => html`<tr><th scope="row">${bar.name}</th><td>${text(bar.value)}</td></tr>`)}
    </tbody></table></div>
  </figure>`;
}
