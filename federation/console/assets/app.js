// The console's page put together: addresses, navigation, freshness, and the view that is shown.
// Decides: which view an address means, when the screen is drawn (once a frame at most), where the
// focus goes when the view changes. Leaves to others: data (live.js, resource.js), views (views/).

import { remove } from "./api.js";
import { h, patchChildren } from "./dom.js";
import { missing, plural, seconds } from "./format.js";
import { connect } from "./live.js";
import { createStore } from "./store.js";
import { head, message, tag } from "./ui.js";
import * as drains from "./views/drains.js";
import * as gateways from "./views/gateways.js";
import * as map from "./views/map.js";
import * as routes from "./views/routes.js";
import * as service from "./views/service.js";
import * as services from "./views/services.js";
import * as signin from "./views/signin.js";
import * as timeline from "./views/timeline.js";

const NAV = [["/", map], ["/services", services], ["/gateways", gateways], ["/drains", drains], ["/timeline", timeline], ["/routes", routes]];
const AGE_MS = 1_000;

const store = createStore({ session: null, live: null, connection: "connecting", heardAt: Date.now() });
const main = document.getElementById("main");
let shown = { key: null, view: null };
let frame = 0;
let moved = false; // the reader went somewhere: the focus follows

/** Draw what has changed, with the next frame. */
function refresh() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    draw();
  });
}

/** Which view the address means: its module and the names in the path. */
function resolve(path) {
  const found = NAV.find(([address]) => address === path);
  if (found) return { module: found[1], parameters: {} };
  const parts = path.split("/").slice(1).map(decode);
  if (parts.length === 3 && parts[0] === "services" && parts[1] && parts[2]) {
    return { module: service, parameters: { namespace: parts[1], name: parts[2] } };
  }
  return { module: null, parameters: {} };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function draw() {
  const { session, live } = store.state;
  const { module, parameters } = resolve(location.pathname);
  if (session && !session.rights.read) show("sign-in", signin, {});
  else if (!live) show("waiting", waiting, {});
  else show(module ? location.pathname : "nowhere", module ?? nowhere, parameters);
  patchChildren(main, content());
  document.title = `${shown.view.title ?? shown.module.title} – Federation`;
  drawNavigation();
  drawFreshness();
  if (moved) {
    moved = false;
    main.querySelector("h1")?.focus();
    scrollTo(0, 0);
  }
}

/** What the view shows; a fault in it is told, and leaves navigation and the other views alone. */
function content() {
  try {
    return shown.view.render().filter(Boolean);
  } catch (error) {
    reportError(error);
    return [head(shown.module.title), message("bad", h("p", null, `This page cannot be shown: ${error.message}. Reload it; if that does not help, the page and the server may be of different versions.`))];
  }
}

function show(key, module, parameters) {
  if (shown.key === key) return;
  shown.view?.close();
  main.replaceChildren();
  shown = { key, module, view: module.create({ store, refresh, parameters, replace, signedIn: started, location: () => new URL(location.href) }) };
}

const waiting = { title: "Federation", create: () => ({ render: () => [head("Federation"), h("p", { class: "muted" }, "Waiting for the state of the federation …")], close() {} }) };
const nowhere = {
  title: "Not found",
  create: () => ({ render: () => [head("Not found"), message("", h("p", null, `Nothing is at ${location.pathname}. `, h("a", { href: "/" }, "Go to the map")))], close() {} }),
};

function drawNavigation() {
  const { session, live } = store.state;
  const may = session?.rights.read !== false;
  const active = Object.values(live?.drains ?? {}).filter((drain) => drain.requested).length;
  const items = NAV.map(([address, module]) => {
    const current = location.pathname === address || (address !== "/" && location.pathname.startsWith(`${address}/`));
    const note = module === drains && active ? tag(String(active), "drain") : null;
    note?.setAttribute("aria-label", `, ${plural(active, "drain")} in force`);
    note?.setAttribute("role", "img");
    return h("li", null, h("a", { href: address, "aria-current": current ? "page" : null }, module.title, note));
  });
  patchChildren(document.getElementById("nav"), may ? items : []);
  const who = session?.user && session.via !== "loopback" ? [h("span", { class: "name" }, session.user), " ", h("button", { type: "button", class: "quiet", on: { click: signOut } }, "Sign out")] : [];
  patchChildren(document.getElementById("session"), who.map((part) => (part instanceof Node ? part : document.createTextNode(part))));
}

function drawFreshness() {
  const { connection, live } = store.state;
  const word = { live: "Live", connecting: "Connecting", lost: "Not connected" }[connection];
  patchChildren(document.getElementById("connection"), [h("span", { class: `tag ${connection === "live" ? "good" : connection === "lost" ? "bad" : ""}` }, word)]);
  const sentence = staleness(store.state);
  patchChildren(document.getElementById("banner"), sentence && live ? [h("p", null, sentence[0]), h("p", { class: "muted", "aria-live": "off" }, sentence[1])] : []);
}

/** Why what is shown may be old, and how old it is: told apart, so that only the first is spoken. */
function staleness({ connection, live, heardAt }) {
  if (connection === "lost") {
    return ["The connection to the console's server is lost; trying again.", `Showing state of ${seconds((Date.now() - heardAt) / 1000)} ago.`];
  }
  if (live && !live.store.reachable) {
    const age = seconds(Date.now() / 1000 - live.store.since);
    return ["etcd is away. Traffic goes on as it was; nothing can be changed.", `Showing state of ${age} ago.${live.store.reason ? ` ${live.store.reason}` : ""}`];
  }
  return null;
}

function replace(address) {
  history.replaceState(null, "", address);
}

function started(session) {
  store.set({ session });
  live.start();
}

async function signOut() {
  live.close();
  await remove("/api/session");
  location.assign("/");
}

// Links within the page change the view without loading it anew.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const address = new URL(link.href);
  if (address.origin !== location.origin || address.hash || link.target || link.hasAttribute("download")) return;
  event.preventDefault();
  history.pushState(null, "", address);
  moved = true;
  refresh();
});
addEventListener("popstate", () => {
  moved = true;
  refresh();
});

const live = connect(store, (session) => store.set({ session }));
store.subscribe(refresh);
setInterval(() => {
  const { connection, live: document_ } = store.state;
  const running = Object.values(document_?.drains ?? {}).some((drain) => !missing(drain.startedAt));
  const silent = Object.values(document_?.clusters ?? {}).some((cluster) => cluster.stale);
  if (connection !== "live" || !document_?.store.reachable || running || silent) refresh();
}, AGE_MS);
refresh();
live.start();
