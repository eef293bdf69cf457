// A render that is asked for once more, with other options, of the same file.

import { html, useState } from "../preact.js";
import { filled, renderOptions } from "../options.js";
import { store, useLoaded, useStore } from "../store.js";
import { Notice } from "../components/notices.js";
import { beginRender, RenderForm } from "./render_form.js";

/** @param {{id: string}} properties `id` of the render whose options the form is filled with */
export function RenderAgain({ id }) {
  const { description, engines } = useStore();
  const [changed, setChanged] = useState(/** @type {import("../options.js").Values | null} */ (null));
  const load = async () => {
    const { render } = await store.api.get(`/v1/renders/${id}`);
    return { render, stored: (await store.api.get(`/v1/files/${render.fileId}`)).file };
  };
  const [loaded, , failed] = useLoaded(load, [id]);
  const options = renderOptions(description, engines);
  const values = loaded && (changed ?? filled(options, loaded.render));
  const begin = async () => {
    if (loaded && values) location.hash = `#/renders/${(await beginRender(loaded.stored, options, values)).id}`;
  };
  return html`<p class="back"><a href=${`#/renders/${id}`}>The render</a></p>
    <h1>Render again</h1>
    ${failed && html`<${Notice} kind="error">${failed}<//>
      <p>If the original was deleted, <a href="#/">choose the video again</a>.</p>`}
    ${loaded && html`<article class="card" aria-label=${loaded.stored.name}>
      <h2>${loaded.stored.name}</h2>
      <${RenderForm} id="again" stored=${loaded.stored} name=${loaded.stored.name} options=${options} values=${values} onValues=${setChanged} onBegin=${begin} />
    </article>`}`;
}
