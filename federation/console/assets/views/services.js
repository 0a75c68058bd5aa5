// All services: weights in force beside those asked for, with the reason where they differ.
// Decides: filter and page, which stand in the address, so that a view can be linked to.
// Leaves to others: filtering and paging itself (the server): the page never holds the whole list.

import { query } from "../api.js";
import { h } from "../dom.js";
import { count, ms, plural, rate, share } from "../format.js";
import { Resource } from "../resource.js";
import { bar, field, head, name, pages, problem, reason, select, table, tag } from "../ui.js";

const PER_PAGE = 50;
const TYPING_MS = 200;
const STATES = { differs: "weights not as asked", unresolved: "not resolved yet", notready: "no endpoint ready", conflict: "conflict", draining: "draining" };
const TONES = { unresolved: "", notready: "bad", conflict: "bad", draining: "drain" };

export const title = "Services";

export function create({ store, refresh, location, replace }) {
  const list = new Resource(refresh);
  let typing = 0;
  const values = () => Object.fromEntries(location().searchParams);
  const change = (changes) => {
    replace(query("/services", { ...values(), page: "", ...changes }));
    refresh();
  };
  return {
    render() {
      const asked = values();
      const path = query("/api/services", { ...asked, per: PER_PAGE });
      list.want(path, store.state.live.versions.services);
      return render(list, asked, change, (text) => {
        clearTimeout(typing);
        typing = setTimeout(() => change({ q: text }), TYPING_MS);
      });
    },
    close() {
      clearTimeout(typing);
      list.close();
    },
  };
}

function render(list, asked, change, typed) {
  const found = list.data;
  return [
    head("Services", h("p", null, found ? size(found) : list.error ? null : "Reading …")),
    list.error ? problem(list.error) : null,
    h("section", { class: "panel", key: "services" }, filters(found, asked, change, typed), found ? rows(found) : null,
      found ? pages(found, (page) => change({ page })) : null),
  ];
}

const size = ({ matched, total }) => (matched === total ? plural(total, "service") : `${count(matched)} of ${plural(total, "service")}`);

function filters(found, asked, change, typed) {
  const regions = found?.regions ?? [];
  const states = Object.entries(STATES).map(([state, words]) => [state, `${words[0].toUpperCase()}${words.slice(1)} (${count(found?.states[state])})`]);
  return h(
    "form",
    { class: "filters", role: "search", "aria-label": "Services", on: { submit: (event) => event.preventDefault() } },
    field("q", "Name contains", h("input", { type: "search", value: asked.q ?? "", autocomplete: "off", spellcheck: "false", on: { input: (event) => typed(event.target.value) } })),
    field("state", "Show", select({ on: { change: (event) => change({ state: event.target.value }) } }, [["", "All"], ...states], asked.state ?? "")),
    field("from", "For callers in", select({ on: { change: (event) => change({ from: event.target.value }) } }, regions.map((region) => [region, region]), found?.from)),
    field("sort", "Order", select({ on: { change: (event) => change({ sort: event.target.value }) } }, [["", "Name"], ["calls", "Calls"], ["errors", "Errors"]], asked.sort ?? "")),
  );
}

function rows(found) {
  if (found.services.length === 0) {
    const words = found.total === 0 ? "No service is exported or imported yet." : "No service matches.";
    return h("p", { class: "empty" }, words);
  }
  return table({
    caption: "Services",
    hidden: true,
    rows: found.services,
    key: (row) => row.service,
    columns: [
      { label: "Service", head: true, cell: (row) => [h("a", { class: "name", href: `/services/${row.service}` }, row.service), " ", row.states.filter((state) => state !== "differs").map((state) => tag(STATES[state] ?? state, TONES[state]))] },
      { label: "Ready", number: true, className: "lines", cell: (row) => lines(row, (entry) => `${entry.ready}/${entry.total}`) },
      { label: "Cluster", className: "tight lines", cell: (row) => lines(row, (entry) => [name(entry.cluster), entry.stale ? [" ", tag("stale", "warn")] : null]) },
      { label: "In force", className: "tight lines", cell: (row) => lines(row, (entry) => [bar(entry.inForceBp ?? 0, entry.askedBp), h("span", { class: "figure" }, share(entry.inForceBp))]) },
      { label: "Asked", number: true, className: "lines", cell: (row) => lines(row, (entry) => share(entry.askedBp)) },
      { label: "Why not as asked", className: "wide", cell: (row) => row.clusters.filter((entry) => entry.reason).map((entry) => h("span", { class: "sub" }, name(entry.cluster), " ", reason(entry.reason))) },
      { label: "Calls/s", number: true, cell: (row) => rate(row.callsPerS) },
      { label: "Errors/s", number: true, cell: (row) => h("span", { class: row.errorsPerS > 0 ? "bad" : null }, rate(row.errorsPerS)) },
      { label: "p99", number: true, cell: (row) => ms(row.p99Ms) },
    ],
  });
}

const lines = (row, cell) => h("ul", { class: "stack" }, row.clusters.map((entry) => h("li", null, cell(entry))));
