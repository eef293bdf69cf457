// A part of a picture, chosen on it with the pointer, or by its numbers.

import { html, useRef } from "../preact.js";

/** @typedef {{x: number, y: number, width: number, height: number}} Area  In pixels of the frame. */
/** @typedef {{width: number, height: number}} Size */

/** Pixels on the screen that a pointer moves by accident. */
const LEAST_DRAG = 6;
const SIDES = /** @type {const} */ ([
  { side: "x", label: "Left", along: "width", least: 0 }, { side: "y", label: "Top", along: "height", least: 0 },
  { side: "width", label: "Width", along: "width", least: 1 }, { side: "height", label: "Height", along: "height", least: 1 },
]);

/** @param {number} value @param {number} least @param {number} most */
const within = (value, least, most) => Math.round(Math.min(most, Math.max(least, value)));

/** Shows the area over its children, and lets the pointer draw another.
 * @param {{area: Area | null, setArea: ((area: Area | null) => void) | false, of: Size, children?: any}} properties */
export function AreaOver({ area, setArea, of, children }) {
  const from = useRef(/** @type {{x: number, y: number} | null} */ (null));
  /** @param {PointerEvent} event */
  const point = (event) => {
    const box = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    return { x: within((event.clientX - box.left) / box.width * of.width, 0, of.width),
      y: within((event.clientY - box.top) / box.height * of.height, 0, of.height), scale: of.width / box.width };
  };
  const on = setArea ? {
    onPointerDown: (/** @type {PointerEvent} */ event) => {
      from.current = point(event);
      /** @type {Element} */ (event.currentTarget).setPointerCapture(event.pointerId);
    },
    onPointerMove: (/** @type {PointerEvent} */ event) => {
      if (!from.current) return;
      const { scale, ...to } = point(event);
      const drawn = { x: Math.min(to.x, from.current.x), y: Math.min(to.y, from.current.y),
        width: Math.abs(to.x - from.current.x), height: Math.abs(to.y - from.current.y) };
      if (Math.min(drawn.width, drawn.height) > LEAST_DRAG * scale) setArea(drawn);
    },
    onPointerUp: () => { from.current = null; },
    onPointerCancel: () => { from.current = null; },
  } : {};
  const percent = (/** @type {number} */ part, /** @type {number} */ whole) => `${(part / whole) * 100}%`;
  return html`<div class=${`scrubbed ${setArea ? "drawable" : ""}`} ...${on}>
    ${children}
    ${area && html`<div class="area" style=${{ left: percent(area.x, of.width), top: percent(area.y, of.height),
    width: percent(area.width, of.width), height: percent(area.height, of.height) }}></div>`}
  </div>`;
}

/** The area's numbers, for keyboards and videos that no browser plays.
 * @param {{area: Area | null, setArea: (area: Area | null) => void, of: Size}} properties */
export function AreaFields({ area, setArea, of }) {
  const middle = { x: Math.round(of.width / 4), y: Math.round(of.height / 4), width: Math.round(of.width / 2), height: Math.round(of.height / 2) };
  if (!area) {
    return html`<div class="row"><span>Shown: the whole picture, or the part that the server chooses.</span>
      <button class="quiet" onClick=${() => setArea(middle)}>Choose a part</button><small>or draw it on the picture: what the API calls <code>crop</code></small></div>`;
  }
  const change = (/** @type {keyof Area} */ side, /** @type {number} */ value) => {
    const next = { ...area, [side]: value };
    const width = within(next.width, 1, of.width), height = within(next.height, 1, of.height);
    setArea({ width, height, x: within(next.x, 0, of.width - width), y: within(next.y, 0, of.height - height) });
  };
  return html`<fieldset class="row"><legend>The part that is shown, in pixels</legend>
    ${SIDES.map(({ side, label, along, least }) => html`<label>${label} <input type="number" class="pixels" min=${least} max=${of[along]}
      value=${area[side]} onChange=${(/** @type {any} */ event) => change(side, Number(event.target.value))} /></label>`)}
    <button class="quiet" onClick=${() => setArea(null)}>The server's choice</button>
  </fieldset>`;
}
