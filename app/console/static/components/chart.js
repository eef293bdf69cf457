import { html } from "../preact.js";
import { count } from "../format.js";

const [WIDTH, HEIGHT, FOOT, TOP] = [640, 160, 20, 16];

/**
 * Bars, with the same figures as a table for those who do not see it.
 * @param {{label: string, unit: string, bars: {name: string, value: number}[]}} properties
 */
export function BarChart({ label, unit, bars }) {
  const most = Math.max(...bars.map((bar) => bar.value), 0);
  const step = WIDTH / Math.max(bars.length, 1);
  const high = HEIGHT - FOOT - TOP;
  return html`<figure class="chart">
    <figcaption>${label}</figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
      <line x1="0" x2=${WIDTH} y1=${HEIGHT - FOOT} y2=${HEIGHT - FOOT} />
      ${bars.map((bar, at) => {
    const tall = most ? (bar.value / most) * high : 0;
    const every = Math.ceil(bars.length / 10);
    return html`<g>
          <rect x=${at * step + step * 0.15} y=${HEIGHT - FOOT - tall} width=${step * 0.7} height=${tall} rx="2">
            <title>${`${bar.name}: ${count(bar.value)} ${unit}`}</title>
          </rect>
          ${at % every === 0 && html`<text x=${at * step + step / 2} y=${HEIGHT - 5}>${bar.name}</text>`}
        </g>`;
  })}
      <text class="most" x="0" y="11">${most ? `${count(most)} ${unit}` : ""}</text>
    </svg>
    <table class="visually-hidden"><caption>${label}</caption><tbody>
      ${bars.map((bar) => html`<tr><th scope="row">${bar.name}</th><td>${count(bar.value)} ${unit}</td></tr>`)}
    </tbody></table>
  </figure>`;
}
