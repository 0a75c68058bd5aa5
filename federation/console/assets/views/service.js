// One service: for each region of callers where calls go and why, who exports it, what is in conflict.

import { h } from "../dom.js";
import { count, duration, moment, ms, NONE, rate, share } from "../format.js";
import { Resource } from "../resource.js";
import { bar, head, message, name, problem, reason, table, tag } from "../ui.js";
import { entryRows } from "./timeline.js";

export const title = "Service";

export function create({ store, refresh, parameters }) {
  const found = new Resource(refresh);
  const service = `${parameters.namespace}/${parameters.name}`;
  const path = `/api/services/${encodeURIComponent(parameters.namespace)}/${encodeURIComponent(parameters.name)}`;
  return {
    title: service,
    render() {
      const { services, exports, timeline } = store.state.live.versions;
      found.want(path, `${services} ${exports} ${timeline}`);
      return render(service, found);
    },
    close: () => found.close(),
  };
}

function render(service, { data, error }) {
  const top = head(h("span", { class: "name" }, data?.service ?? service), h("p", null, data ? about(data) : error ? null : "Reading …"));
  if (!data) return [crumbs(service), top, error ? problem(error) : null];
  return [
    crumbs(data.service),
    top,
    error ? problem(error) : null,
    ...data.exports.filter((entry) => entry.conflict).map(conflict),
    ...data.sources.map(source),
    data.sources.length === 0 ? message("", h("p", null, "The resolver has concluded nothing about this service yet.")) : null,
    h("section", { class: "panel", key: "exports" }, exportsTable(data.exports)),
    data.flows.length > 0 ? h("section", { class: "panel", key: "flows" }, flowsTable(data.flows)) : null,
    data.timeline?.length > 0 ? h("section", { class: "panel", key: "timeline" }, entryRows(data.timeline, "What happened")) : null,
  ];
}

const crumbs = (service) =>
  h("nav", { "aria-label": "Path", key: "path" }, h("a", { href: "/services" }, "Services"), h("span", { class: "muted" }, ` / ${service}`));

function about(data) {
  const ports = data.ports.map((port) => `${port.name ? `${port.name} ` : ""}${port.port}/${port.protocol}`).join(", ");
  const imports = data.imports.length > 0 ? `imported as ${data.imports.join(", ")}` : "";
  return [data.type, ports, imports].filter(Boolean).join(" · ");
}

function conflict(entry) {
  const { message: sentence, rulingCluster } = entry.conflict;
  const rule = rulingCluster ? ` ${rulingCluster} exported it first, so its word rules.` : "";
  return h("div", { class: "message warn", key: `conflict ${entry.cluster}` }, h("p", null, h("strong", null, `Conflict in ${entry.cluster}: `), sentence.replace(/[^.]$/, "$&."), rule));
}

function source(entry) {
  const note = [`weights: ${entry.weightsOrigin || "none set; local first"}`, `failover: ${entry.failoverOrigin || "none set; by weight or capacity"}`];
  return h(
    "section",
    { class: "panel", key: `from ${entry.region}` },
    table({
      caption: `For callers in ${entry.region}`,
      note: note.join(" · "),
      rows: entry.clusters,
      key: (row) => row.cluster,
      columns: [
        { label: "Cluster", head: true, cell: (row) => [name(row.cluster), row.stale ? [" ", tag("stale", "warn")] : null] },
        { label: "Ready", number: true, cell: (row) => `${row.ready}/${row.total}` },
        { label: "Asked", number: true, cell: (row) => share(row.askedBp) },
        { label: "In force", className: "tight", cell: (row) => [bar(row.inForceBp ?? 0, row.askedBp, row.drain ? "drain" : ""), h("span", { class: "figure" }, share(row.inForceBp))] },
        { label: "Drain", className: "tight", cell: (row) => (row.drain ? [tag(row.drain.phase, "drain"), h("span", { class: "sub" }, `${share(row.drain.remainingBp)} left`), h("span", { class: "sub" }, `grace ${duration(row.drain.graceMs)}`)] : "") },
        { label: "Why", className: "wide", cell: (row) => h("ul", { class: "stack" }, row.reasons.map((why) => h("li", null, reason(why)))) },
        { label: "If that fails", className: "wide", cell: (row) => tiers(row.tiers) },
      ],
    }),
    entry.reasons.length > 0 ? h("div", { class: "body" }, h("ul", { class: "stack" }, entry.reasons.map((why) => h("li", null, reason(why))))) : null,
  );
}

function tiers(found) {
  if (found.length === 0) return h("span", { class: "muted" }, "nowhere else");
  return h(
    "ol",
    { class: "tiers" },
    found.map((tier) =>
      h("li", null, tier.clusters.map((member, index) => [index ? " + " : "", name(member.cluster), tier.clusters.length > 1 ? ` (${member.weight})` : ""]), h("span", { class: "sub" }, reason(tier.reason))),
    ),
  );
}

function exportsTable(exports) {
  if (exports.length === 0) return h("p", { class: "empty" }, "No cluster exports it.");
  return table({
    caption: "Exports",
    note: "The oldest export's word rules",
    rows: exports,
    key: (row) => row.cluster,
    columns: [
      { label: "Cluster", head: true, cell: (row) => name(row.cluster) },
      { label: "Region", cell: (row) => name(row.region) },
      { label: "Endpoints ready", number: true, cell: (row) => `${count(row.ready)}/${count(row.total)}` },
      { label: "Capacity", number: true, cell: (row) => count(row.capacity) },
      { label: "Precedence", number: true, cell: (row) => row.precedence },
      { label: "Exported", className: "tight", cell: (row) => (row.exportedAt ? moment(Date.parse(row.exportedAt) / 1000) : NONE) },
      { label: "Conditions", className: "wide", cell: (row) => row.conditions.map((entry) => h("span", { class: "sub" }, h("strong", null, `${entry.type}=${entry.status}`), ` ${entry.reason}${entry.message ? `: ${entry.message}` : ""}`)) },
    ],
  });
}

function flowsTable(flows) {
  return table({
    caption: "Calls now",
    rows: flows,
    key: (row) => `${row.from}>${row.to} ${row.tier}`,
    columns: [
      { label: "From", head: true, cell: (row) => name(row.from) },
      { label: "To", cell: (row) => name(row.to) },
      { label: "Tier", number: true, cell: (row) => row.tier },
      { label: "Calls/s", number: true, cell: (row) => rate(row.callsPerS) },
      { label: "Errors/s", number: true, cell: (row) => h("span", { class: row.errorsPerS > 0 ? "bad" : null }, rate(row.errorsPerS)) },
      { label: "p50", number: true, cell: (row) => ms(row.p50Ms) },
      { label: "p99", number: true, cell: (row) => ms(row.p99Ms) },
      { label: "Open", number: true, cell: (row) => count(row.open) },
    ],
  });
}
