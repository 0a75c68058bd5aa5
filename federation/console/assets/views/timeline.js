// The timeline: who changed what, and what the resolver concluded.
// Decides: its filter and how far back is shown. Leaves to others: what counts as an entry (server).

import { get, query } from "../api.js";
import { h } from "../dom.js";
import { moment, NONE } from "../format.js";
import { Resource } from "../resource.js";
import { field, head, name, problem, select, table, tag } from "../ui.js";

const PER_READ = 100;
const OLDER_MAX = 2_000;
const TYPING_MS = 200;
const KINDS = ["drain", "resolution", "export", "policy", "cluster", "gateway", "leader", "object", "status"];

export const title = "Timeline";

export function create({ store, refresh, location, replace }) {
  const list = new Resource(refresh);
  let typing = 0;
  let older = [];
  let next = undefined; // where to go on after `older`; undefined: after the list's own end
  let error = null;
  const values = () => Object.fromEntries(location().searchParams);
  const change = (changes) => {
    older = [];
    next = undefined;
    replace(query("/timeline", { ...values(), ...changes }));
    refresh();
  };
  const more = async () => {
    const before = next === undefined ? list.data.next : next;
    try {
      const found = await get(query("/api/timeline", { ...values(), before, limit: PER_READ }));
      older = [...older, ...found.entries].slice(0, OLDER_MAX);
      next = older.length >= OLDER_MAX ? null : found.next;
      error = null;
    } catch (problemFound) {
      error = problemFound;
    }
    refresh();
  };
  return {
    render() {
      const asked = values();
      list.want(query("/api/timeline", { ...asked, limit: PER_READ }), store.state.live.versions.timeline);
      const typed = (text) => {
        clearTimeout(typing);
        typing = setTimeout(() => change({ q: text }), TYPING_MS);
      };
      return render({ list, older, next, error, asked, change, typed, more });
    },
    close() {
      clearTimeout(typing);
      list.close();
    },
  };
}

function render({ list, older, next, error, asked, change, typed, more }) {
  const found = list.data;
  const entries = found ? unique([...found.entries, ...older]) : [];
  const further = next === undefined ? found?.next : next;
  return [
    head("Timeline", h("p", null, found ? reach(found) : list.error ? null : "Reading …")),
    list.error ? problem(list.error) : null,
    error ? problem(error) : null,
    h(
      "section",
      { class: "panel", key: "timeline" },
      h(
        "form",
        { class: "filters", role: "search", "aria-label": "Timeline", on: { submit: (event) => event.preventDefault() } },
        field("q", "Text contains", h("input", { type: "search", value: asked.q ?? "", autocomplete: "off", spellcheck: "false", on: { input: (event) => typed(event.target.value) } })),
        field("kind", "About", select({ on: { change: (event) => change({ kind: event.target.value }) } }, [["", "All"], ...KINDS.map((kind) => [kind, kind])], asked.kind ?? "")),
      ),
      found && entries.length === 0 ? h("p", { class: "empty" }, "Nothing has happened that matches.") : null,
      entries.length > 0 ? entryRows(entries, "Decisions and changes", true) : null,
      further ? h("div", { class: "pages" }, h("button", { type: "button", on: { click: more } }, "Show older")) : null,
    ),
  ];
}

const unique = (entries) => [...new Map(entries.map((entry) => [entry.id, entry])).values()];

function reach(found) {
  if (found.complete) return "Goes back to the store's beginning.";
  return found.sinceAt ? `Goes back to ${moment(found.sinceAt)}; what was before is not kept.` : `Goes back to revision ${found.sinceRevision}.`;
}

/** Entries as a table, newest first. */
export function entryRows(entries, caption, hidden = false) {
  return table({
    ...{ caption, hidden },
    className: "timeline",
    rows: entries,
    key: (row) => row.id,
    columns: [
      { label: "When", className: "tight", cell: when },
      { label: "Who", className: "who", cell: (row) => row.actor ?? NONE },
      { label: "What", head: true, className: "wide", cell: what },
      { label: "Why", className: "wide", cell: (row) => (row.reason ? [h("strong", null, row.reason), row.detail ? `: ${row.detail}` : ""] : row.detail) },
      { label: "Changes", className: "wide", cell: changes },
      { label: "Revision", number: true, cell: (row) => row.revision },
    ],
  });
}

function when(row) {
  if (row.at === null) return NONE;
  const about = { estimated: "about ", before: "by " }[row.timeFrom] ?? "";
  return h("time", { datetime: new Date(row.at * 1000).toISOString() }, about, moment(row.at));
}

const what = (row) => [
  row.severity === "warning" ? [tag("warning", "warn"), " "] : null,
  row.service ? h("a", { class: "name", href: `/services/${row.service}` }, row.object) : name(row.object),
  ` ${row.what}`,
  row.count > 1 ? h("span", { class: "muted" }, ` (${row.count} steps)`) : null,
];

function changes(row) {
  if (!row.changes?.length) return "";
  return h("ul", { class: "stack" }, row.changes.map((change) => h("li", null, `${change.what}: ${change.before ?? NONE} → ${change.after ?? NONE}`)));
}
