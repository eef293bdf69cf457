// The console: one page, its views by the address after the `#`.

import { html, render, useEffect, useRef, useState } from "./preact.js";
import { sentence } from "./api.js";
import { SIGN_IN_LINK, store, useStore } from "./store.js";
import { later, loadAll } from "./components/later.js";
import { ICON, Message, Notice } from "./components/notices.js";
import { SignIn } from "./views/sign_in.js";

/** @typedef {{path: string, title: string, view: any, shown: () => boolean, needs?: boolean}} View
 *  `needs`: it is shown once it is known what this server and this key can do */

/** @type {View[]} */
const VIEWS = [
  { path: "", title: "New", view: later("NewRenders", () => import("./views/new_renders.js")), shown: () => true },
  { path: "renders", title: "Renders", view: later("Renders", () => import("./views/renders.js")), shown: () => true },
  { path: "usage", title: "Usage", view: later("Usage", () => import("./views/usage.js")), shown: () => true },
  { path: "webhooks", title: "Webhooks", view: later("Webhooks", () => import("./views/webhooks.js")), shown: () => true, needs: true },
  { path: "keys", title: "Keys", view: later("OwnKeys", () => import("./views/keys.js")), shown: () => true, needs: true },
  { path: "users", title: "Users and keys", view: later("Users", () => import("./views/users.js")), shown: () => store.isAdmin },
  { path: "operations", title: "Operations", view: later("Operations", () => import("./views/operations.js")), shown: () => store.isAdmin },
  { path: "mock", title: "Mock", view: later("Mock", () => import("./views/mock.js")), shown: () => store.isMock },
];
const RenderPage = later("RenderPage", () => import("./views/render_page.js"));
const RenderAgain = later("RenderAgain", () => import("./views/render_again.js"));

function useAddress() {
  const read = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  const [address, setAddress] = useState(read);
  useEffect(() => {
    const change = () => setAddress(read());
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  return address;
}

function useOnline() {
  const [online, setOnline] = useState(navigator.onLine);
  useEffect(() => {
    const change = () => setOnline(navigator.onLine);
    addEventListener("online", change);
    addEventListener("offline", change);
    return () => { removeEventListener("online", change); removeEventListener("offline", change); };
  }, []);
  return online;
}

function App() {
  const { key, isKnown } = useStore();
  const [first = "", ...rest] = useAddress();
  const online = useOnline();
  useEffect(() => { if (isKnown) loadAll(); }, [isKnown]);
  const main = useRef(/** @type {HTMLElement | null} */ (null));
  const current = VIEWS.find((view) => view.path === first && view.shown());
  const title = first === "renders" && rest.length ? "Render" : current?.title ?? "Not found";
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = key && (isKnown || current) ? `${title} – Regen` : "Regen";
  }, [first, rest[0], key, isKnown]);
  useEffect(() => {
    // A reader of the screen hears that the view has changed; the first one begins at the page's start.
    if (!isFirst.current) main.current?.focus({ preventScroll: true });
    isFirst.current = false;
  }, [first, rest.join("/")]);
  if (!key) return html`<main class="narrow"><${SignIn} /></main><${Message} />`;
  const page = () => {
    if (!isKnown && (!current || current.needs || rest.length)) return null;
    if (first === "renders" && rest[1] === "again") return html`<${RenderAgain} id=${rest[0]} />`;
    if (first === "renders" && rest.length) return html`<${RenderPage} id=${rest[0]} />`;
    if (current) return html`<${current.view} />`;
    return html`<h1>Not found</h1><p>There is nothing at this address. <a href="#/">Go to the start</a>.</p>`;
  };
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => { event.preventDefault(); main.current?.focus(); }}>Skip to the content</a>
    <header>
      <a class="brand" href="#/"><img src=${ICON} alt="" width="24" height="24" />Regen</a>
      <nav aria-label="Views">${VIEWS.filter((view) => view.shown()).map((view) => html`
        <a href=${`#/${view.path}`} aria-current=${view.path === first ? "page" : undefined}>${view.title}</a>`)}
      </nav>
      <a class="quiet" href="docs">API</a>
      <button class="quiet" onClick=${() => store.signOut()}>Sign out</button>
    </header>
    ${!online && html`<${Notice} kind="error">There is no network. What was begun goes on when it is back.<//>`}
    <main id="main" tabindex="-1" ref=${main}>${page()}</main>
    <${Message} />`;
}

/** Signs in by the link that `regen serve` prints. */
function followSignInLink() {
  const [, code] = location.hash.match(SIGN_IN_LINK) ?? [];
  if (!code) return;
  // The code is of no use twice: it leaves the address at once.
  history.replaceState(null, "", `${location.pathname}#/`);
  store.signInByLink(code).catch((error) => store.signOut(sentence(error)));
}

addEventListener("hashchange", followSignInLink);
followSignInLink();
const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.replaceChildren();
render(html`<${App} />`, root);
