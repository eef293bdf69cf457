import { html } from "../preact.js";
import { count, share, similarity } from "../format.js";

/** @typedef {{name: string, text: string, share: number}} Bar */

/** Measured quality, as bars on the scale that each measure has. @param {{of: import("../api.js").Row}} properties */
export function Quality({ of }) {
  const rows = [
    { name: "PSNR", value: of.psnr, text: `${count(of.psnr)} dB`, share: Math.min(1, of.psnr / 60) },
    { name: "SSIM", value: of.ssim, text: similarity(of.ssim), share: of.ssim },
    { name: "Steadiness", value: of.temporalStability, text: `${count(of.temporalStability ?? 0)} dB`, share: Math.min(1, (of.temporalStability ?? 0) / 60) },
    { name: "VMAF", value: of.vmaf, text: of.vmaf === undefined ? "" : count(of.vmaf), share: (of.vmaf ?? 0) / 100 },
  ].filter((row) => row.value !== undefined);
  return html`<section class="quality"><h2>Measured quality</h2>
    <p>Of ${count(of.frames)} frames, reduced to the original's size and compared with it.</p>
    <${Bars} rows=${rows} />
    ${of.stabiliseEffect && html`<${FilterEffect} of=${of.stabiliseEffect} />`}
  </section>`;
}

/** What less flicker cost: both pictures' flicker on one scale, and in words. @param {{of: import("../api.js").Row}} properties */
function FilterEffect({ of }) {
  const { warpingErrorBefore: before, warpingErrorAfter: after, sharpnessLost: lost } = of;
  const most = Math.max(before ?? 0, after ?? 0);
  const flicker = most > 0 ? [["Before", before], ["After", after]] : [];
  const rows = flicker.map(([name, error]) => ({ name, text: `${count(error * 1e4)}e-4`, share: error / most }));
  const words = [
    most > 0 && (after <= before ? `${share(1 - after / before)} less flicker` : `${share(after / before - 1)} more flicker`),
    lost !== undefined && (lost >= 0 ? `${share(lost)} of the sharpness lost` : `${share(-lost)} sharper`),
    of.psnrToUnfiltered < 100 ? `${count(of.psnrToUnfiltered)} dB from the pictures without it` : "the pictures are the same",
  ].filter(Boolean);
  return html`<h3>What stabilise did</h3>
    <p>${words.join("; ")}. Of ${count(of.pairs)} pairs of frames.</p>
    <${Bars} rows=${rows} label="Flicker" />`;
}

/** @param {{rows: Bar[], label?: string}} properties */
function Bars({ rows, label }) {
  return rows.map((row) => html`<div class="row"><span class="measure">${row.name}</span>
    <meter class="grow" min="0" max="1" value=${row.share} aria-label=${`${label ? `${label} ` : ""}${row.name}: ${row.text}`}></meter><output>${row.text}</output></div>`);
}
