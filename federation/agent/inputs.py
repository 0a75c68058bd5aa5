"""What the agent reads: its objects and the federation's state, kept in two cells.

Decides: when the last good state from disk stands in for what has not arrived yet; when to save.
Leaves to others: watching (source and store), what follows (``publisher``, ``routing``).
Invariants: what is live is never replaced by what is from disk; only complete, live state is saved;
each bad object or stored value is logged once, when it becomes bad.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from contextlib import aclosing

from federation.agent.disk import StateDir, StateDirError
from federation.agent.settings import AgentSettings
from federation.agent.shield import Shield
from federation.agent.state import ClusterObjects, FederationState
from federation.aio import Latest, any_change
from federation.derive.kept_certificates import (
    KeptCertificates,
    good_secrets,
    keep_certificates,
)
from federation.model.objects import ObjectSnapshot
from federation.ports import Clock, Entry, Listing, ObjectSource, Store
from federation.telemetry import catalogue, gauge, stamp
from federation.wire.etcd import ViewReader
from federation.wire.etcd_keys import Keys

log = logging.getLogger(__name__)

SAVING_SHARE = 0.1
"""Part of the time that saving may take where objects change all the time."""


class Inputs:
    """The cells and the loops that fill them. One owner: the agent."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        store: Store,
        keys: Keys,
        source: ObjectSource,
        disk: StateDir,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._keys = keys
        self._source = source
        self._disk = disk
        self._reader = ViewReader(keys, now=clock.now)
        self._complaints: dict[str, str] = {}
        self._saved: tuple[ObjectSnapshot, Listing] | None = None
        self._saving = threading.Lock()
        self._on_disk: tuple[ObjectSnapshot, list[Entry]] | None = None
        self._shield = Shield({})
        self._certificates = KeptCertificates()
        self._held = 0
        self.objects: Latest[ClusterObjects] = Latest()
        self.federation: Latest[FederationState] = Latest()

    def __repr__(self) -> str:
        return f"Inputs(objects={self.objects!r}, federation={self.federation!r})"

    def recall(self) -> None:
        """Read the last good state from disk; to be called once, before the loops."""
        try:
            self._saved = self._disk.load()
        except StateDirError as error:
            log.warning("last good state is unusable", extra={"reason": str(error)})
        if self._saved is not None:
            objects = self._saved[0].objects
            self._shield = Shield(objects)
            self._certificates = KeptCertificates(good=good_secrets(objects))

    async def watch_federation(self) -> None:
        """Keep ``federation`` current, for ever."""
        async with aclosing(self._store.mirror(self._keys.state)) as listings:
            async for listing in listings:
                self._take_listing(listing, live=True)

    async def watch_objects(self) -> None:
        """Keep ``objects`` current, for ever."""
        async with aclosing(self._source.snapshots()) as snapshots:
            async for snapshot in snapshots:
                if snapshot.synced:
                    self._take_objects(snapshot)

    async def fall_back_to_disk(self) -> bool:
        """After the settings' patience put the last good state in place of what is missing."""
        await asyncio.sleep(self._settings.from_disk_after_s)
        if self.objects.value is not None and self.federation.value is not None:
            return False
        if self._saved is None:
            log.warning("nothing is known yet and nothing was saved; serving nothing")
            return False
        objects, listing = self._saved
        if self.objects.value is None:
            self.objects.set(ClusterObjects(objects, objects, live=False))
        if self.federation.value is None:
            self._take_listing(listing, live=False)
        log.warning("serving the last good state", extra={"revision": listing.revision})
        return True

    async def save(self) -> None:
        """Save live state when it has changed, at most as often as the settings say."""
        clock = asyncio.get_running_loop().time
        async with aclosing(any_change(self.objects, self.federation)) as changes:
            async for _ in changes:
                if (unsaved := self._unsaved()) is not None:
                    began = clock()
                    await asyncio.to_thread(self._save, *unsaved)
                    took_s = clock() - began
                    await asyncio.sleep(max(self._settings.save_every_s, took_s / SAVING_SHARE))

    def save_last(self) -> None:
        """Save what has changed since the last time; to be called once the loops have ended."""
        if (unsaved := self._unsaved()) is not None:
            self._save(*unsaved)

    def _unsaved(self) -> tuple[ObjectSnapshot, Listing] | None:
        objects, federation = self.objects.value, self.federation.value
        if objects is None or federation is None or not (objects.live and federation.live):
            return None
        listing = federation.listing
        if self._on_disk == (objects.routed, _lasting(listing)):
            return None
        return objects.routed, listing

    def _save(self, objects: ObjectSnapshot, listing: Listing) -> None:
        with self._saving:  # a save that was cancelled goes on in its thread
            try:
                self._disk.save(objects, listing)
            except OSError as error:
                log.warning("last good state was not saved", extra={"reason": str(error)})
            self._on_disk = (objects, _lasting(listing))

    def _take_listing(self, listing: Listing, *, live: bool) -> None:
        reading = self._reader.read(listing.revision, listing.entries)
        self._complain("stored value", {entry.key: entry.message for entry in reading.problems})
        if live and self._settings.cluster in reading.view.accepted_shrinks:
            self._accept_loss()
        self.federation.set(FederationState(listing, reading, live))
        gauge(catalogue.STORE_REVISION, listing.revision)
        if live:
            stamp(catalogue.STORE_HEARD)

    def _accept_loss(self) -> None:
        self._shield.accept()
        self._source.accept_loss()
        objects = self.objects.value
        if objects is not None and objects.live:
            self._take_objects(objects.shown)

    def _take_objects(self, snapshot: ObjectSnapshot) -> None:
        rejected = {str(key): why.message for key, why in snapshot.rejected.items()}
        self._complain("object", rejected)
        shielded = self._shield.cover(snapshot)
        self._certificates = keep_certificates(self._certificates, shielded.snapshot)
        faults = self._certificates.faults
        kept = "; its last good certificate stays in use"
        self._complain("Secret", {k.qualified_name: f"{it}{kept}" for k, it in faults.items()})
        if len(shielded.held) != self._held:
            self._held = len(shielded.held)
            gauge(catalogue.OBJECTS_HELD, self._held)
            self._tell_held(len(snapshot.objects))
        routed = self._certificates.snapshot
        self.objects.set(ClusterObjects(snapshot, routed, live=True, kept_certificates=faults))

    def _tell_held(self, shown: int) -> None:
        if self._held:
            log.error(
                "the source lost most objects; routing keeps them",
                extra={
                    "shown": shown,
                    "held": self._held,
                    "next": "bring the objects back, or, if they are meant to be gone, "
                    f"`fedctl accept-shrink {self._settings.cluster}`",
                },
            )
        else:
            log.info("routing follows the source again", extra={"shown": shown})

    def _complain(self, what: str, problems: Mapping[str, str]) -> None:
        known = {key: text for key, text in self._complaints.items() if key.startswith(what)}
        fresh = {f"{what} {name}": text for name, text in problems.items()}
        for key, text in fresh.items():
            if known.get(key) != text:
                log.warning("%s is not used", what, extra={"subject": key, "reason": text})
        for key in known.keys() - fresh.keys():
            log.info("%s is in order again", what, extra={"subject": key})
            del self._complaints[key]
        self._complaints |= fresh


def _lasting(listing: Listing) -> list[Entry]:
    """What of the federation's state is worth a write."""
    return [entry for entry in listing.entries if not entry.leased]
