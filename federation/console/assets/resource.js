// A list from the server, kept fresh while a view shows it.
// Decides: when it is read again: its address changed, or the live document says that it would look
// different, then at most every two seconds. Invariants: one request at a time; an answer to an
// address that is no longer wanted is dropped; what was shown stays while the next is on its way.

import { ApiError, get } from "./api.js";

const PACE_MS = 2_000;

export class Resource {
  /** `changed` is called when there is something new to show. */
  constructor(changed) {
    this.changed = changed;
    this.data = null;
    this.error = null;
    this.path = "";
    this.version = undefined;
    this.wanted = "";
    this.wantedVersion = undefined;
    this.readAt = 0;
    this.timer = 0;
    this.busy = false;
    this.closed = false;
  }

  /** Say what is to be shown now; reads it if that is news. */
  want(path, version) {
    this.wanted = path;
    this.wantedVersion = version;
    if (!this.busy) this.schedule();
  }

  /** Read again whatever the version says. */
  again() {
    this.version = Symbol("stale");
    this.readAt = 0;
    clearTimeout(this.timer);
    this.timer = 0;
    if (!this.busy) this.schedule();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
  }

  schedule() {
    const moved = this.wanted !== this.path;
    if (this.closed || (!moved && this.wantedVersion === this.version)) return;
    if (moved) clearTimeout(this.timer);
    else if (this.timer) return;
    const wait = moved ? 0 : Math.max(0, this.readAt + PACE_MS - Date.now());
    if (wait === 0) {
      this.timer = 0;
      this.read();
    } else {
      this.timer = setTimeout(() => {
        this.timer = 0;
        this.read();
      }, wait);
    }
  }

  async read() {
    this.busy = true;
    const path = this.wanted;
    const version = this.wantedVersion;
    let found = null;
    let error = null;
    try {
      found = await get(path);
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem;
      error = problem;
    } finally {
      this.busy = false;
      this.readAt = Date.now();
    }
    if (this.closed) return;
    if (path === this.wanted) {
      if (error === null || path !== this.path) this.data = found;
      this.error = error;
      this.path = path;
      this.version = version;
      this.changed();
    }
    this.schedule();
  }
}
