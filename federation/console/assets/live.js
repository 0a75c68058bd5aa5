// The live document over server-sent events.
// Decides: when the connection counts as lost and when it is made anew.
// Leaves to others: what the document means. Invariants: one connection at a time; after a break the
// last document stays, marked as old; a patch is applied to the document it was made for alone.

import { ApiError, session } from "./api.js";
import { merge } from "./store.js";

const SILENCE_MS = 25_000;
const AGAIN_MS = [500, 1_000, 2_000, 5_000];

/** Keep `store` fed until the page closes; `onSession` is told of each session that was read. */
export function connect(store, onSession) {
  let source = null;
  let failures = 0;
  let timer = 0;
  let watchdog = 0;

  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, SILENCE_MS);
    failures = 0;
    if (store.state.connection !== "live") store.set({ connection: "live", heardAt: Date.now() });
  };

  const close = () => {
    clearTimeout(watchdog);
    clearTimeout(timer);
    source?.close();
    source = null;
  };

  const lost = () => {
    close();
    if (store.state.connection === "live") store.set({ connection: "lost", heardAt: Date.now() });
    else store.set({ connection: "lost" });
    const wait = AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)];
    failures += 1;
    timer = setTimeout(start, wait);
  };

  const open = () => {
    source = new EventSource("/api/events");
    source.addEventListener("snapshot", (event) => {
      heard();
      store.set({ live: JSON.parse(event.data) });
    });
    source.addEventListener("patch", (event) => {
      heard();
      if (store.state.live) store.set({ live: merge(store.state.live, JSON.parse(event.data)) });
    });
    source.addEventListener("beat", heard);
    source.addEventListener("reload", () => {
      close();
      start();
    });
    source.addEventListener("error", lost);
  };

  const start = async () => {
    close();
    try {
      const found = await session();
      onSession(found);
      if (found.rights.read) open();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      lost();
    }
  };

  addEventListener("pagehide", close);
  return { start, close };
}
