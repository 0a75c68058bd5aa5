// What the live document says of regions and clusters, in one word each. Pure.
// Decides: which word rules when several hold (the worst first), and its tone.

import { missing } from "./format.js";

/** The drain of all services that is in force for a cluster, if there is one. */
export function drainOf(live, cluster, region) {
  return Object.values(live.drains).find(
    (drain) =>
      missing(drain.service) &&
      ["Ramping", "Draining", "Drained"].includes(drain.progress) &&
      drain.target === (drain.targetKind === "Region" ? region : cluster),
  );
}

/** One cluster: `{word, tone, dead}`. Dead: silent, and no gateway of it reports any more. */
export function clusterState(live, name) {
  const cluster = live.clusters[name];
  const drain = drainOf(live, name, cluster.region);
  if (cluster.stale && !cluster.gatewaysConnected && !cluster.reportAt) return { word: "Silent", tone: "bad" };
  if (cluster.stale) return { word: "Stale", tone: "warn" };
  if (cluster.quarantine) return { word: "Quarantined", tone: "warn" };
  if (drain) return { word: drain.progress, tone: "drain" };
  if (cluster.degraded?.length) return { word: "Degraded", tone: "warn" };
  return { word: "Live", tone: "good" };
}

const RANK = ["bad", "warn", "drain", "good"];

/** One region: the worst of its clusters, and how many of them are so when it is not all. */
export function regionState(live, region) {
  const found = live.regions[region].clusters.map((cluster) => clusterState(live, cluster));
  const worst = found.reduce((a, b) => (RANK.indexOf(b.tone) < RANK.indexOf(a.tone) ? b : a), {
    word: "Live",
    tone: "good",
  });
  const same = found.filter((state) => state.word === worst.word).length;
  return same === found.length ? worst : { ...worst, word: `${worst.word} ${same} of ${found.length}` };
}

/** The tone of a drain's progress. */
export const drainTone = (progress) =>
  ({ Refused: "bad", NotPermitted: "bad", UnknownTarget: "bad", Returning: "", Expired: "", Pending: "" })[progress] ?? "drain";

/** Flows between regions, summed over their clusters; the worst latency stands. */
export function regionFlows(live) {
  const found = new Map();
  for (const flow of Object.values(live.flows)) {
    const key = `${flow.fromRegion}>${flow.toRegion}`;
    const sum = found.get(key) ?? {
      ...{ from: flow.fromRegion, to: flow.toRegion, callsPerS: 0, errorsPerS: 0, open: 0 },
      ...{ p50Ms: null, p99Ms: null },
    };
    sum.callsPerS += flow.callsPerS;
    sum.errorsPerS += flow.errorsPerS;
    sum.open += flow.open ?? 0;
    sum.p50Ms = highest(sum.p50Ms, flow.p50Ms ?? null);
    sum.p99Ms = highest(sum.p99Ms, flow.p99Ms ?? null);
    found.set(key, sum);
  }
  return [...found.values()].sort((a, b) => a.from.localeCompare(b.from) || a.to.localeCompare(b.to));
}

const highest = (a, b) => (a === null ? b : b === null ? a : Math.max(a, b));
