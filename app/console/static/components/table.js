import { html } from "../preact.js";

/** The heading of a column of buttons, which needs none for eyes. */
export const ACTIONS = "Actions";

/** A table, each of whose rows is a card on narrow screens. Browsers take what is not laid out as a table for none, so
 * that the roles are said.
 * @param {{label: string, columns: string[], rows: {key: string, cells: any[], below?: any}[] | undefined}} properties
 *   `below`: what is shown beneath the row, over all columns */
export function Table({ label, columns, rows }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}><table role="table">
    <thead role="rowgroup"><tr role="row">${columns.map((name) => html`<th role="columnheader">${
      name === ACTIONS ? html`<span class="visually-hidden">${name}</span>` : name}</th>`)}</tr></thead>
    <tbody role="rowgroup">${rows?.map(({ key, cells, below }) => html`<tr role="row" key=${key}>${
      cells.map((cell, index) => html`<td role="cell" data-column=${columns[index]}><div>${cell}</div></td>`)}</tr>
    ${below && html`<tr role="row" key=${`${key} below`}><td role="cell" colspan=${columns.length}>${below}</td></tr>`}`)}</tbody></table></div>`;
}
