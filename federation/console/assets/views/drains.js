// Drains: where each stands, stopping one, starting one.
// Decides: the order of starting: first what would move is shown, then the target's name is asked for.
// Leaves to others: whether a drain may start (the server). Invariants: what is started is what was
// shown: a change of the form takes the preview back; nothing is sent without the right to write.

import { ApiError, post, remove } from "../api.js";
import { h, svg } from "../dom.js";
import { count, duration, missing, moment, NONE, plural, rate, seconds, share } from "../format.js";
import { Resource } from "../resource.js";
import { drainTone } from "../states.js";
import { field, figures, head, message, name, panel, problem, select, table, tag } from "../ui.js";

const FRESH = { target: "", service: "", over: "30s", grace: "30s", expires: "", force: false };

export const title = "Drains";

export function create({ store, refresh }) {
  const list = new Resource(refresh); // for the targets; the drains themselves are in the live document
  const form = { values: { ...FRESH }, preview: null, error: null, busy: false, confirm: "", round: 0, done: null };
  const set = (changes) => {
    Object.assign(form, changes);
    refresh();
  };
  const attempt = async (what) => {
    set({ busy: true, error: null });
    try {
      await what();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      form.error = error;
    }
    set({ busy: false });
  };
  const actions = {
    change: (field, value) => {
      form.values[field] = value;
      if (form.preview) set({ preview: null, confirm: "" });
    },
    confirm: (text) => set({ confirm: text }),
    preview: () => attempt(async () => set({ done: null, preview: await post("/api/drains/preview", body(form.values)), round: form.round + 1, confirm: "" })),
    start: () =>
      attempt(async () => {
        const { drain } = await post("/api/drains", { ...body(form.values), confirm: form.confirm });
        set({ preview: null, confirm: "", done: `The drain of ${drain.target} has been asked for.` });
      }),
    stop: (drain) =>
      attempt(async () => {
        const { message: sentence } = await remove(`/api/drains/${encodeURIComponent(drain.name)}`);
        set({ done: sentence });
      }),
  };
  return {
    render() {
      const { live, session } = store.state;
      list.want("/api/drains", Object.keys(live.clusters).sort().join());
      return render({ live, session, list, form, actions });
    },
    close: () => list.close(),
  };
}

const body = ({ target, service, over, grace, expires, force }) => ({
  ...{ target, service: service.trim() || null, over: over.trim(), grace: grace.trim() },
  ...{ expires: expires.trim() || null, force },
});

function render({ live, session, list, form, actions }) {
  const drains = Object.values(live.drains).sort((a, b) => a.name.localeCompare(b.name));
  return [
    head("Drains", h("p", null, drains.length === 0 ? "Nothing is drained." : plural(drains.length, "drain"))),
    h("div", { key: "outcome", role: "status" }, form.done ? message("good", h("p", null, form.done)) : null),
    ...drains.map((drain) => card(drain, live, session, form, actions)),
    list.error ? problem(list.error) : null,
    list.data ? startForm(list.data.targets, session, form, actions) : null,
  ];
}

function card(drain, live, session, form, { stop }) {
  const id = `drain-${drain.name}`;
  const mayStop = drain.requested && drain.stoppable && session.rights.write;
  const why = drain.requested ? (drain.whyNotStoppable ?? session.whyNot.write) : null;
  return h(
    "section",
    { class: "panel", key: id, "aria-labelledby": id },
    h(
      "header",
      null,
      h("h2", { id }, drain.targetKind, " ", name(drain.target), drain.service ? [" for ", name(drain.service)] : ""),
      tag(drain.progress, drainTone(drain.progress)),
      h("p", null, asker(drain)),
    ),
    h(
      "div",
      { class: "body stackwide" },
      drain.refusal ? message("bad", h("p", null, drain.refusal)) : ramp(drain),
      figures(facts(drain, live)),
      drain.requested
        ? h("div", { class: "actions" },
            h("button", { type: "button", class: "danger", disabled: !mayStop || form.busy, "aria-label": `Stop the drain of ${drain.target}`, on: { click: () => stop(drain) } }, "Stop drain"),
            mayStop || !why ? null : h("span", { class: "muted" }, why))
        : null,
    ),
  );
}

const asker = ({ requestedBy, byObject }) =>
  byObject ? `asked for by Drain ${byObject.name} in ${byObject.cluster}` : requestedBy ? `asked for by ${requestedBy}` : "";

function facts(drain, live) {
  const running = missing(drain.startedAt) ? null : Math.max(0, Date.now() / 1000 - drain.startedAt);
  return [
    ["of new calls still sent there", share(drain.remainingBp)],
    ["calls a second there now", rate(callsTo(drain, live))],
    ["streams left", count(drain.streamsLeft)],
    [missing(drain.startedAt) ? "not started yet" : `since its start at ${moment(drain.startedAt)}`, seconds(running)],
    ["ramp, then grace", `${duration(drain.overMs)}, ${duration(drain.graceMs)}`],
    [missing(drain.expiresAt) ? "until it is stopped" : "ends by itself", missing(drain.expiresAt) ? NONE : moment(drain.expiresAt)],
  ];
}

function callsTo(drain, live) {
  if (drain.service) return null;
  const side = drain.targetKind === "Region" ? "toRegion" : "to";
  return Object.values(live.flows).filter((flow) => flow[side] === drain.target).reduce((sum, flow) => sum + flow.callsPerS, 0);
}

function ramp({ remainingBp, progress }) {
  const gone = 10_000 - (remainingBp ?? 10_000);
  const words = `${share(gone)} of new calls have left`;
  return h(
    "div",
    { role: "progressbar", "aria-label": "Ramp", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(gone / 100), "aria-valuetext": `${progress}: ${words}` },
    svg("svg", { class: "ramp", viewBox: "0 0 1000 14", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "track", width: 1000, height: 14 }), svg("rect", { class: "fill", width: gone / 10, height: 14 })),
    h("span", { class: "muted" }, words),
  );
}

function startForm(targets, session, form, actions) {
  const { values } = form;
  const text = (key, more = {}) => h("input", { type: "text", value: values[key], autocomplete: "off", spellcheck: "false", on: { input: (event) => actions.change(key, event.target.value) }, ...more });
  const names = [
    ...targets.regions.map((region) => [region, `Region ${region}`]),
    ...targets.clusters.filter((cluster) => !targets.regions.includes(cluster)).map((cluster) => [cluster, `Cluster ${cluster}`]),
  ];
  return panel(
    "Start a drain",
    "First it shows what would move; nothing changes until you confirm.",
    h(
      "form",
      { class: "body", on: { submit: (event) => { event.preventDefault(); if (!form.busy) actions.preview(); } } },
      h(
        "div",
        { class: "fields" },
        field("target", "Region or cluster", select({ required: true, on: { change: (event) => actions.change("target", event.target.value) } }, [["", "Choose …"], ...names], values.target)),
        field("service", "Service", text("service"), "NAMESPACE/NAME; empty: all of them"),
        field("over", "Ramp", text("over", { required: true }), "From all new calls to none, e.g. 30s, 5m"),
        field("grace", "Grace", text("grace", { required: true }), "For open streams after the ramp"),
        field("expires", "End by itself after", text("expires"), "e.g. 2h; empty: when stopped"),
        h("div", { class: "field span" }, h("label", { for: "force" },
          h("input", { type: "checkbox", id: "force", on: { change: (event) => actions.change("force", event.target.checked) } }), "Force: even if a service has no healthy cluster left")),
      ),
      h("div", { class: "actions" }, h("button", { type: "submit", class: form.preview ? null : "primary", disabled: form.busy }, "Show what would move")),
    ),
    h("div", { class: "outcome", key: "form-outcome", role: "status" }, form.error ? h("div", { class: "body" }, problem(form.error)) : null, form.preview ? preview(form, session, actions) : null),
  );
}

function preview(form, session, actions) {
  const found = form.preview;
  return h(
    "div",
    { key: `preview ${form.round}` },
    h(
      "div",
      { class: "body stackwide" },
      found.admitted ? null : message("bad", h("p", null, h("strong", null, "It would be refused: "), found.reason)),
      found.warnings?.length ? message("warn", h("ul", null, found.warnings.map((sentence) => h("li", null, sentence)))) : null,
      found.admitted && found.impacts.length === 0 ? message("", h("p", null, "It serves nothing now; no calls would move.")) : null,
      found.moves?.length ? h("p", null, summed(found.moves).map(move)) : null,
    ),
    found.impacts.length > 0 ? impactTable(found) : null,
    found.admitted ? confirmation(form, session, actions) : null,
  );
}

/** Moves from one place to another as one, whoever calls. */
function summed(moves) {
  const found = new Map();
  for (const { from, to, callsPerS } of moves) {
    const key = `${from}>${to}`;
    const sum = found.get(key)?.callsPerS;
    found.set(key, { from, to, callsPerS: missing(sum) || missing(callsPerS) ? (sum ?? callsPerS) : sum + callsPerS });
  }
  return [...found.values()];
}

const move = ({ from, to, callsPerS }, index) => [index ? "; " : "", missing(callsPerS) ? "calls" : `${rate(callsPerS)} calls a second`, " would move from ", name(from), " to ", name(to)];

function impactTable({ impacts, moreImpacts }) {
  return table({
    caption: "What would move",
    note: moreImpacts ? `${plural(moreImpacts, "more service")} not shown` : plural(impacts.length, "service"),
    rows: impacts,
    key: (row) => row.service,
    columns: [
      { label: "Service", head: true, cell: (row) => name(row.service) },
      { label: "Capacity given up", number: true, cell: (row) => count(row.givenUp) },
      { label: "Left in", className: "wide", cell: (row) => (row.left.length === 0 ? tag("nothing healthy", "bad") : row.left.map((entry, index) => [index ? ", " : "", name(entry.cluster), ` (${entry.ready} ready, capacity ${count(entry.capacity)})`])) },
      { label: "Cannot help", cell: (row) => row.unable.map((entry) => h("span", { class: "sub" }, `${entry.cluster} ${entry.reason}`)) },
    ],
  });
}

function confirmation(form, session, actions) {
  const { confirm } = form.preview;
  if (!session.rights.write) return h("div", { class: "body" }, message("warn", h("p", null, session.whyNot.write ?? "You may look, but not start a drain.")));
  return h(
    "form",
    { class: "body confirm", on: { submit: (event) => { event.preventDefault(); if (form.confirm === confirm && !form.busy) actions.start(); } } },
    field("confirm", h("span", null, "Type ", name(confirm), " to start the drain"), h("input", { type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false", on: { input: (event) => actions.confirm(event.target.value) } })),
    h("div", { class: "actions" }, h("button", { type: "submit", class: "primary", disabled: form.confirm !== confirm || form.busy }, "Start drain")),
  );
}
