/** The page: what is shown at which address, the keys, who is signed in. */

import { currentAddress, goTo } from "./address.js";
import { ask } from "./dialog.js";
import { fill } from "./element.js";
import { showEntities } from "./entities.js";
import { showEntity } from "./entity.js";
import { showInstance } from "./instance.js";
import { showInstances } from "./instances.js";
import { showNodes } from "./nodes.js";
import { complain } from "./notice.js";
import { showOverview } from "./overview.js";
import { isSignedIn, keyName, readSession, showSignIn, signOut } from "./session.js";
import { chooseTheme } from "./theme.js";
import { keepTime } from "./times.js";

/**
 * @typedef {import("./address.js").Address} Address
 * @typedef {(place: Element, address: Address, signal: AbortSignal) => ((address: Address) => void) | void} Show
 *   shows a page until the signal; what it gives is told of another query of the same page
 */

const PAGES = /** @type {Object<string, Show>} */ ({
  overview: showOverview,
  instances: (place, address, signal) =>
    (address.id === null ? showInstances : showInstance)(place, address, signal),
  entities: (place, address, signal) =>
    (address.id === null ? showEntities : showEntity)(place, address, signal),
  nodes: showNodes,
});

const JUMPS = /** @type {Object<string, string>} */ ({
  o: "#/overview",
  i: "#/instances",
  e: "#/entities",
  n: "#/nodes",
});

const KEYS = `g o, g i, g e, g n: to the overview, the instances, the entities, the nodes.
/ : to the first filter.
↑ ↓ or j k, Page up, Page down, Home, End: through a list.
Enter: opens what is chosen; the space bar selects it.
Escape: closes a dialog.`;

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
let shown = "";
let leaving = new AbortController();
/** @type {((address: Address) => void) | void} */
let update;

function show() {
  const address = currentAddress();
  const page = address.page in PAGES ? address.page : "overview";
  const name = `${page}/${address.id ?? ""}`;
  if (name === shown && update) {
    update(address);
    return;
  }
  shown = name;
  leaving.abort();
  leaving = new AbortController();
  fill(main);
  scrollTo(0, 0);
  document.title = `${address.id ?? page[0].toUpperCase() + page.slice(1)} · Perdure`;
  for (const link of document.querySelectorAll("#pages a")) {
    if (link.getAttribute("data-page") === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  update = PAGES[page](main, address, leaving.signal);
}

async function begin() {
  const session = await readSession();
  const out = /** @type {HTMLButtonElement} */ (document.getElementById("sign-out"));
  out.hidden = !isSignedIn();
  out.title = `Signed in as ${keyName()}`;
  if (!session.may_read) {
    leaving.abort();
    shown = "";
    showSignIn(main, begin);
    return;
  }
  show();
}

function listenToKeys() {
  let isJump = false;
  addEventListener("keydown", (event) => {
    const target = /** @type {Element} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, dialog")) return;
    if (isJump && event.key in JUMPS) goTo(JUMPS[event.key]);
    else if (event.key === "/") /** @type {HTMLElement | null} */ (main.querySelector("input, select"))?.focus();
    else if (event.key === "?") showKeys();
    else {
      isJump = event.key === "g";
      return;
    }
    isJump = false;
    event.preventDefault();
  });
}

function showKeys() {
  ask({ title: "Keyboard", text: KEYS, action: "Close", keep: "" });
}

function showStream() {
  const words = /** @type {Object<string, string>} */ ({ live: "Live", waiting: "Reconnecting", off: "" });
  const light = /** @type {HTMLElement} */ (document.getElementById("stream"));
  addEventListener("stream", (event) => {
    const state = /** @type {CustomEvent} */ (event).detail;
    light.className = `stream is-${state}`;
    light.textContent = words[state];
  });
}

addEventListener("hashchange", show);
addEventListener("signed-out", () => begin().catch(complain));
addEventListener("unhandledrejection", (event) => complain(event.reason));
document.getElementById("sign-out")?.addEventListener("click", signOut);
document.getElementById("keys")?.addEventListener("click", showKeys);
document.getElementById("skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the address says which page this is
  main.focus();
});
chooseTheme(/** @type {HTMLElement} */ (document.getElementById("theme")));
listenToKeys();
showStream();
keepTime();
begin().catch(complain);
