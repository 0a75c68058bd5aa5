// Routes: the rules in force at a cluster's gateways, and a tester: this call → which rule, where, why.

import { ApiError, post, query } from "../api.js";
import { h } from "../dom.js";
import { count, plural } from "../format.js";
import { Resource } from "../resource.js";
import { field, head, name, pages, panel, problem, reason, select, table, tag } from "../ui.js";

const PER_PAGE = 50;
const TYPING_MS = 200;

export const title = "Routes";

export function create({ store, refresh, location, replace }) {
  const list = new Resource(refresh);
  const tester = { values: { host: null, method: "", headers: "", kind: "grpc" }, result: null, error: null, busy: false };
  let typing = 0;
  const values = () => Object.fromEntries(location().searchParams);
  const change = (changes) => {
    if ("cluster" in changes) Object.assign(tester, { result: null, error: null });
    replace(query("/routes", { ...values(), page: "", ...changes }));
    refresh();
  };
  const test = async () => {
    Object.assign(tester, { busy: true, error: null });
    refresh();
    try {
      tester.result = await post("/api/routes/test", asked(tester.values, list.data));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      Object.assign(tester, { error, result: null });
    }
    tester.busy = false;
    refresh();
  };
  return {
    render() {
      const { versions, clusters } = store.state.live;
      // Clusters that join are to be chosen from, too.
      list.want(query("/api/routes", { ...values(), per: PER_PAGE }), `${versions.routes} ${Object.keys(clusters).sort()}`);
      const typed = (text) => {
        clearTimeout(typing);
        typing = setTimeout(() => change({ q: text }), TYPING_MS);
      };
      return render({ list, tester, test, values: values(), change, typed });
    },
    close() {
      clearTimeout(typing);
      list.close();
    },
  };
}

/** The call that the form describes; headers are lines of `name: value`. */
function asked(values, list) {
  const headers = values.headers
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean)
    .map((line) => {
      const colon = line.indexOf(":", 1);
      return colon < 0 ? [line, ""] : [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
    });
  const grpc = values.kind === "grpc";
  return {
    ...{ cluster: list.cluster, host: (values.host ?? firstHost(list)).trim(), port: null, method: values.method.trim() },
    ...{ headers, grpc, ...(grpc ? {} : { httpMethod: values.kind }) },
  };
}

const firstHost = (list) => list?.listeners.flatMap((listener) => listener.hosts).find((host) => host && !host.startsWith("*")) ?? "";

function render({ list, tester, test, values, change, typed }) {
  const found = list.data;
  return [
    head("Routes", h("p", null, found ? plural(found.total, "rule") : list.error ? null : "Reading …")),
    list.error ? problem(list.error) : null,
    found ? testerPanel(found, tester, test, change) : null,
    tester.result ? resultPanel(tester.result) : null,
    found ? rulesPanel(found, values, change, typed) : null,
  ];
}

// --- the tester

function testerPanel(found, tester, test, change) {
  const { values } = tester;
  const set = (key) => (event) => { values[key] = event.target.value; };
  const text = (key, value, more) => h("input", { type: "text", value, autocomplete: "off", autocapitalize: "off", spellcheck: "false", required: true, on: { input: set(key) }, ...more });
  return panel(
    "Where would this call go?",
    "Asked of the rules in force; nothing is sent.",
    h(
      "form",
      { class: "body", on: { submit: (event) => { event.preventDefault(); if (!tester.busy) test(); } } },
      h(
        "div",
        { class: "fields tester" },
        field("cluster", "From cluster", select({ on: { change: (event) => change({ cluster: event.target.value }) } }, found.clusters.map((cluster) => [cluster, cluster]), found.cluster)),
        field("host", "Host", text("host", values.host ?? firstHost(found), { placeholder: "grpc.example.com" })),
        field("kind", "Kind of call", select({ on: { change: set("kind") } }, [["grpc", "gRPC"], ...["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].map((verb) => [verb, `HTTP ${verb}`])], values.kind)),
        h("div", { class: "twice" }, field("method", "gRPC method or path", text("method", values.method, { placeholder: "package.Service/Method" }))),
        h("div", { class: "span" }, field("headers", "Headers", h("textarea", { rows: 2, spellcheck: "false", on: { input: set("headers") } }, values.headers), "One a line, as name: value")),
      ),
      h("div", { class: "actions" }, h("button", { type: "submit", class: "primary", disabled: tester.busy }, "Test")),
    ),
    h("div", { key: "tester-outcome", role: "status" }, tester.error ? h("div", { class: "body" }, problem(tester.error)) : tester.result ? h("p", { class: "sr" }, tester.result.sentence) : null),
  );
}

const RESULTS = { forward: "good", refuse: "bad", redirect: "", none: "bad" };

function resultPanel(found) {
  return panel(
    "Answer",
    null,
    h(
      "div",
      { class: "body stackwide" },
      h("p", { class: "answer" }, tag(found.result, RESULTS[found.result] ?? ""), " ", found.sentence),
      h("dl", { class: "spread" }, facts(found).map(([label, value]) => [h("dt", null, label), h("dd", null, value)])),
    ),
    found.destinations.length > 0 ? destinationTable(found.destinations) : null,
    found.considered.length > 0 ? consideredTable(found) : null,
  );
}

function facts(found) {
  const status = found.answer ?? found.redirect;
  return [
    ["Rule", found.rule],
    ["Listener", found.listener ? `${found.listener.name}, port ${found.listener.port}` : null],
    ["Host", found.host ? [name(found.host.asked), found.host.why ? `: ${found.host.why}` : ""] : null],
    ["Answered by the gateway", status ? `${status.status} ${status.message ?? status.location ?? ""}` : null],
    ["Policies", found.policies?.length ? h("ul", null, found.policies.map((text) => h("li", null, text))) : null],
  ].filter(([, value]) => value);
}

const percent = (ppm) => `${Number((ppm / 10_000).toFixed(2))} %`;

function destinationTable(destinations) {
  const rows = destinations.flatMap((to, index) => to.tiers.map((tier, level) => ({ ...tier, to, first: level === 0, id: `${index} ${tier.priority}` })));
  const bare = destinations.filter((to) => to.tiers.length === 0).map((to, index) => ({ to, clusters: [], first: true, priority: null, id: `bare ${index}` }));
  return table({
    caption: "Destinations",
    note: "the first tier with a healthy endpoint takes the call",
    rows: [...rows, ...bare],
    key: (row) => row.id,
    rowClass: (row) => (row.first ? null : "joined"),
    columns: [
      { label: "To", head: true, cell: (row) => (row.first ? (row.to.service ? h("a", { class: "name", href: `/services/${row.to.service}` }, row.to.service) : name(row.to.upstream)) : h("span", { class: "sr" }, row.to.service ?? row.to.upstream)) },
      { label: "Share", number: true, cell: (row) => (row.first ? percent(row.to.sharePpm) : "") },
      { label: "Tier", number: true, cell: (row) => row.priority ?? "" },
      { label: "Cluster", cell: (row) => h("ul", { class: "stack" }, row.clusters.map((entry) => h("li", null, name(entry.cluster), h("span", { class: "muted" }, entry.peer ? " by its gateway" : " here")))) },
      { label: "Endpoints", className: "wide", cell: (row) => h("ul", { class: "stack" }, row.clusters.map((entry) => h("li", null, endpoints(entry)))) },
      { label: "Why", className: "wide", cell: (row) => (row.first ? row.to.reasons.map((why) => h("span", { class: "sub" }, reason(why))) : "") },
    ],
  });
}

function endpoints(entry) {
  if (entry.endpointCount === 0) return h("span", { class: "bad" }, "none");
  const more = entry.endpointCount - entry.endpoints.length;
  const draining = entry.draining ? ` (${entry.draining} draining)` : "";
  return [entry.endpoints.map((address, index) => [index ? ", " : "", name(address)]), more > 0 ? ` and ${more} more` : "", draining];
}

function consideredTable({ considered, moreConsidered }) {
  return table({
    caption: "Rules considered",
    note: moreConsidered ? `in order of precedence; ${count(moreConsidered)} more not shown` : "in order of precedence",
    rows: considered.map((entry, index) => ({ ...entry, index })),
    key: (row) => row.index,
    columns: [
      { label: "Rule", head: true, cell: (row) => row.rule },
      { label: "Matched", cell: (row) => (row.matched ? tag("yes", "good") : tag("no")) },
      { label: "Why", className: "wide", cell: (row) => row.why },
    ],
  });
}

// --- the rules

function rulesPanel(found, values, change, typed) {
  const filter = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Rules", on: { submit: (event) => event.preventDefault() } },
    field("q", "Rule, host or match contains", h("input", { type: "search", value: values.q ?? "", autocomplete: "off", spellcheck: "false", on: { input: (event) => typed(event.target.value) } })),
  );
  const body = found.rules.length === 0 ? h("p", { class: "empty" }, found.total === 0 ? "No rule is in force." : "No rule matches.") : ruleTable(found);
  return h("section", { class: "panel", key: "rules" }, filter, body, pages(found, (page) => change({ page })));
}

function ruleTable(found) {
  return table({
    caption: `Rules in force in ${found.cluster}`,
    note: "in order of precedence",
    rows: found.rules.map((rule, index) => ({ ...rule, index })),
    key: (row) => row.index,
    columns: [
      { label: "Host", className: "tight", cell: (row) => [name(row.host), h("span", { class: "muted" }, `:${row.port}`)] },
      { label: "Match", head: true, className: "wide", cell: (row) => row.match },
      { label: "Action", cell: (row) => tag(row.action, row.action === "refuse" ? "bad" : "") },
      { label: "To", className: "wide", cell: (row) => (row.destinations.length > 0 ? h("ul", { class: "stack" }, row.destinations.map((to) => h("li", null, name(to.upstream), " ", percent(to.sharePpm)))) : row.reason) },
      { label: "Rule", className: "wide", cell: (row) => row.rule },
    ],
  });
}
