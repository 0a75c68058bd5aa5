// The map: regions and the traffic between them, with the same figures as a table below it.
// Decides: where regions stand and how a flow is drawn. Leaves to others: states (states.js).
// Invariants: nothing is told by colour alone; at most REGIONS_DRAWN regions are drawn, all are listed.

import { h, svg } from "../dom.js";
import { count, missing, ms, NONE, plural, rate, seconds } from "../format.js";
import { clusterState, regionFlows, regionState } from "../states.js";
import { figures, head, message, name, panel, table, tag } from "../ui.js";

const REGIONS_DRAWN = 12;
const NODE = { width: 196, height: 74 };
const LABEL = 104; // room for a flow's figures
const LINE = 17;

export const title = "Map";

export function create({ store, refresh }) {
  let width = 0;
  const observer = new ResizeObserver(([entry]) => {
    const next = Math.round(entry.contentRect.width);
    if (next !== width) {
      width = next;
      refresh();
    }
  });
  observer.observe(document.getElementById("main"));
  return {
    render: () => render(store.state.live, width || document.getElementById("main").clientWidth),
    close: () => observer.disconnect(),
  };
}

function render(live, width) {
  const flows = regionFlows(live);
  return [
    head("Map", h("p", null, leader(live))),
    totals(live),
    ...problems(live),
    Object.keys(live.regions).length === 0
      ? message("", h("p", null, "No cluster has joined yet. A cluster appears here when its agent has reached etcd."))
      : h("div", { class: "mapwrap", key: "map" }, drawing(live, flows, width)),
    flowTable(flows),
    clusterTable(live),
  ];
}

const leader = (live) =>
  live.leader
    ? `${live.leader.resolver} leads, term ${live.leader.term}, revision ${live.revision}`
    : "No resolver leads; what is resolved stays in force.";

function totals(live) {
  const { totals: sum } = live;
  const errors = h("span", { class: sum.errorsPerS > 0 ? "bad" : null }, rate(sum.errorsPerS));
  return figures([
    ["calls a second", rate(sum.callsPerS)],
    ["errors a second", errors],
    ["services", count(sum.services)],
    ["weights not as asked", h("a", { href: "/services?state=differs" }, count(sum.differing))],
    ["export conflicts", h("a", { href: "/services?state=conflict" }, count(sum.conflicts))],
    ["gateways", count(sum.gateways)],
    ["stale clusters", h("span", { class: sum.staleClusters ? "warn" : null }, count(sum.staleClusters))],
  ]);
}

function problems(live) {
  const found = [...(live.problems ?? [])];
  for (const [cluster, { quarantine, degraded }] of Object.entries(live.clusters)) {
    if (quarantine) {
      const missing = (quarantine.missing ?? []).map(String).join(", ");
      found.push(`${cluster} is quarantined: ${quarantine.reason} Missing: ${missing}. If they are meant to be gone: fedctl accept-shrink ${cluster}`);
    }
    found.push(...(degraded ?? []).map((sentence) => `${cluster}: ${sentence}`));
  }
  if (found.length === 0) return [];
  return [h("div", { class: "message warn", key: "problems" }, h("ul", null, found.map((text) => h("li", null, text))))];
}

// --- the drawing

function drawing(live, flows, width) {
  const regions = Object.keys(live.regions).sort().slice(0, REGIONS_DRAWN);
  const { places, height } = layout(regions.length, width);
  const at = new Map(regions.map((region, index) => [region, places[index]]));
  const drawn = flows.filter((flow) => at.has(flow.from) && at.has(flow.to) && flow.from !== flow.to);
  const arcs = drawn.map((flow) => arc(flow, at.get(flow.from), at.get(flow.to)));
  const left = Object.keys(live.regions).length - regions.length;
  return [
    svg(
      "svg",
      { class: "map", role: "img", "aria-label": spoken(live, flows), viewBox: `0 0 ${width} ${height}`, width, height },
      arcs.map(({ line }) => line),
      regions.map((region) => node(live, region, at.get(region), flows)),
      arcs.map(({ label }) => label),
    ),
    left > 0 ? h("p", { class: "muted" }, `${plural(left, "more region")} in the tables below.`) : null,
  ];
}

/** Two regions side by side, or one above the other where it is narrow; more on an ellipse. */
function layout(number, width) {
  const narrow = width < 2 * NODE.width + 260;
  if (number === 1) return { places: [{ x: width / 2, y: 60 }], height: 120 };
  if (number === 2 && narrow) {
    return { places: [{ x: width / 2, y: 44 }, { x: width / 2, y: 266 }], height: 310 };
  }
  if (number === 2) {
    const reach = Math.min(width / 2 - NODE.width / 2 - 4, 400);
    return { places: [{ x: width / 2 - reach, y: 82 }, { x: width / 2 + reach, y: 82 }], height: 164 };
  }
  const rx = Math.min(width / 2 - NODE.width / 2 - 4, 430);
  const ry = narrow ? 60 + 48 * number : 120 + 18 * number;
  const height = 2 * ry + NODE.height + 20;
  const places = [...Array(number).keys()].map((index) => {
    const angle = Math.PI + (2 * Math.PI * index) / number;
    return { x: width / 2 + rx * Math.cos(angle), y: height / 2 + ry * Math.sin(angle) };
  });
  return { places, height };
}

function node(live, region, { x, y }, flows) {
  const state = regionState(live, region);
  const clusters = live.regions[region].clusters;
  const local = flows.find((flow) => flow.from === region && flow.to === region);
  const left = x - NODE.width / 2;
  const top = y - NODE.height / 2;
  const own = local ? `${rate(local.callsPerS)}/s stay here` : "no local calls";
  return svg(
    "g",
    { key: `region ${region}` },
    svg("rect", { class: `node ${state.tone}`, x: left, y: top, width: NODE.width, height: NODE.height, rx: 4 }),
    svg("text", { class: "title", x: left + 14, y: top + 24 }, short(region, 21)),
    svg("text", { class: state.tone, x: left + 14, y: top + 43 }, state.word),
    svg("text", { class: "muted", x: left + NODE.width - 14, y: top + 43, "text-anchor": "end" }, plural(clusters.length, "cluster")),
    svg("text", { class: "muted", x: left + 14, y: top + 61 }, own),
  );
}

const short = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

/** A flow as an arrow that bows to its own right, so that both directions can be told apart. */
function arc(flow, from, to) {
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const distance = Math.hypot(dx, dy);
  const side = { x: -dy / distance, y: dx / distance };
  // Both directions' figures stand beside each other where the way is steep, above each other else.
  const bow = (LABEL / 2 + 8) * Math.abs(side.x) + 36 * Math.abs(side.y);
  const middle = { x: (from.x + to.x) / 2 - side.x * bow * 2, y: (from.y + to.y) / 2 - side.y * bow * 2 };
  const start = edge(from, middle, 0);
  const end = edge(to, middle, 5);
  const bad = flow.errorsPerS > 0;
  const kind = bad ? "bad" : flow.callsPerS > 0 ? "" : "idle";
  const key = `${flow.from}>${flow.to}`;
  // The middle of a quadratic curve lies half-way to its control point.
  const label = { x: (start.x + end.x) / 4 + middle.x / 2, y: (start.y + end.y) / 4 + middle.y / 2 };
  return {
    line: svg(
      "g",
      { key },
      svg("path", { class: `flow ${kind}`.trim(), d: `M${place(start)}Q${place(middle)} ${place(end)}`, "stroke-width": thickness(flow.callsPerS) }),
      svg("path", { class: `head-mark ${kind}`.trim(), d: arrow(middle, end) }),
    ),
    label: svg("g", { key: `label ${key}` }, words(flow, label)),
  };
}

const place = ({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`;
const thickness = (calls) => (calls > 0 ? Math.min(6, 1 + Math.log10(1 + calls)).toFixed(1) : "1");

/** Where the line from a node's centre to `towards` leaves its box, `gap` outside. */
function edge(centre, towards, gap) {
  const dx = towards.x - centre.x;
  const dy = towards.y - centre.y;
  const scale = Math.min(
    (NODE.width / 2 + gap) / Math.max(Math.abs(dx), 1e-6),
    (NODE.height / 2 + gap) / Math.max(Math.abs(dy), 1e-6),
  );
  return { x: centre.x + dx * scale, y: centre.y + dy * scale };
}

function arrow(from, tip) {
  const angle = Math.atan2(tip.y - from.y, tip.x - from.x);
  const corner = (turn) => ({ x: tip.x - 10 * Math.cos(angle + turn), y: tip.y - 10 * Math.sin(angle + turn) });
  return `M${place(tip)}L${place(corner(0.42))}L${place(corner(-0.42))}Z`;
}

/** The figures of a flow, a line each, on the page's own ground so that the arrow passes behind. */
function words(flow, { x, y }) {
  const lines = [
    { text: `${rate(flow.callsPerS)} calls/s`, tone: "" },
    flow.errorsPerS > 0 ? { text: `${rate(flow.errorsPerS)} errors/s`, tone: "bad" } : null,
    missing(flow.p99Ms) ? null : { text: `p99 ${ms(flow.p99Ms)}`, tone: "muted" },
  ].filter(Boolean);
  const high = LINE * lines.length + 6;
  const wide = 7 * Math.max(...lines.map(({ text }) => text.length)) + 6;
  return [
    svg("rect", { class: "label", x: x - wide / 2, y: y - high / 2, width: wide, height: high }),
    lines.map(({ text, tone }, index) => svg("text", { class: tone || null, x, y: y - high / 2 + 16 + LINE * index, "text-anchor": "middle" }, text)),
  ];
}

function spoken(live, flows) {
  const regions = Object.keys(live.regions).map((region) => `${region}: ${regionState(live, region).word}`);
  return `Map of ${plural(regions.length, "region")}. ${regions.join(". ")}. ${plural(flows.length, "flow")}, listed in the table below.`;
}

// --- the same as tables

function flowTable(flows) {
  if (flows.length === 0) {
    return panel("Traffic", null, h("p", { class: "empty" }, "No gateway has reported calls in the last seconds."));
  }
  return h(
    "section",
    { class: "panel", key: "flows" },
    table({
      caption: "Traffic between regions",
      rows: flows,
      key: (flow) => `${flow.from}>${flow.to}`,
      columns: [
        { label: "From", head: true, cell: (flow) => name(flow.from) },
        { label: "To", cell: (flow) => (flow.from === flow.to ? h("span", { class: "muted" }, "stays in the region") : name(flow.to)) },
        { label: "Calls/s", number: true, cell: (flow) => rate(flow.callsPerS) },
        { label: "Errors/s", number: true, cell: (flow) => h("span", { class: flow.errorsPerS > 0 ? "bad" : null }, rate(flow.errorsPerS)) },
        { label: "p50", number: true, cell: (flow) => ms(flow.p50Ms) },
        { label: "p99", number: true, cell: (flow) => ms(flow.p99Ms) },
        { label: "Open", number: true, cell: (flow) => count(flow.open) },
      ],
    }),
  );
}

function clusterTable(live) {
  const rows = Object.entries(live.clusters)
    .map(([cluster, value]) => ({ cluster, ...value }))
    .sort((a, b) => a.region.localeCompare(b.region) || a.cluster.localeCompare(b.cluster));
  if (rows.length === 0) return null;
  return h(
    "section",
    { class: "panel", key: "clusters" },
    table({
      caption: "Clusters",
      rows,
      key: (row) => row.cluster,
      columns: [
        { label: "Cluster", head: true, cell: (row) => name(row.cluster) },
        { label: "Region", cell: (row) => name(row.region) },
        { label: "State", cell: (row) => stateCell(live, row) },
        { label: "Exports", number: true, cell: (row) => count(row.exports) },
        { label: "Gateways connected", number: true, cell: (row) => count(row.gatewaysConnected) },
        { label: "Agent", cell: (row) => row.version ?? NONE },
      ],
    }),
  );
}

function stateCell(live, row) {
  const { word, tone } = clusterState(live, row.cluster);
  const age = row.stale && row.staleSince ? ` for ${seconds(Date.now() / 1000 - row.staleSince)}` : "";
  return [tag(word, tone), age ? h("span", { class: "muted" }, age) : null];
}
