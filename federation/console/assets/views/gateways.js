// Gateways: which configuration each has, how old it is, and what it carries.

import { h } from "../dom.js";
import { count, missing, NONE, plural, seconds } from "../format.js";
import { Resource } from "../resource.js";
import { head, name, problem, table, tag } from "../ui.js";

const TONES = { serving: "good", insync: "good", draining: "drain", servingfromsnapshot: "warn", stale: "warn" };

export const title = "Gateways";

export function create({ store, refresh }) {
  const list = new Resource(refresh);
  return {
    render() {
      list.want("/api/gateways", store.state.live.versions.gateways);
      return render(list);
    },
    close: () => list.close(),
  };
}

function render({ data, error }) {
  return [
    head("Gateways", h("p", null, data ? plural(data.gateways.length, "gateway") : error ? null : "Reading …")),
    error ? problem(error) : null,
    data ? h("section", { class: "panel", key: "gateways" }, rows(data)) : null,
  ];
}

/** When the agent last said that this configuration is the newest one. */
const confirmed = (age) => (missing(age) ? NONE : age === 0 ? "now" : `${seconds(age)} ago`);

function rows({ gateways, at }) {
  if (gateways.length === 0) return h("p", { class: "empty" }, "No gateway is connected to an agent, and none is advertised to peers.");
  return table({
    caption: "Gateways",
    hidden: true,
    rows: gateways,
    key: (row) => `${row.cluster}/${row.name}`,
    columns: [
      { label: "Gateway", head: true, cell: (row) => name(row.name) },
      { label: "Cluster", cell: (row) => name(row.cluster) },
      { label: "State", cell: (row) => [row.state ? tag(row.state, TONES[row.state.toLowerCase()] ?? "") : null, row.stale ? [" ", tag("cluster stale", "warn")] : null] },
      { label: "Configuration", number: true, cell: (row) => count(row.configVersion) },
      { label: "Confirmed", className: "tight", cell: (row) => confirmed(row.configAgeS) },
      { label: "Open calls", number: true, cell: (row) => count(row.callsOpen) },
      { label: "Connections", number: true, cell: (row) => count(row.connections) },
      { label: "East-west", cell: (row) => (row.address ? name(row.address) : "") },
      { label: "Admin", cell: (row) => (row.admin ? name(row.admin) : "") },
      { label: "Agent", cell: (row) => row.version ?? NONE },
      { label: "Reported", className: "tight", cell: (row) => (row.reportAt ? `${seconds(Math.max(0, at - row.reportAt))} ago` : NONE) },
    ],
  });
}
