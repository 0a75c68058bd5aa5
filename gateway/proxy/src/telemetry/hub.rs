//! What workers hand over and the owner takes: records by sink, in batches, each sink with a bound of its own.
//!
//! A worker fills an outbox of its own and takes the lock here once for a batch (some thousand calls, or a tenth of a
//! second), never for a call. At a sink's bound its oldest batches go, counted: what a collector gets when it is back is
//! the newest. Nobody taking costs `SINK_BYTES_MAX` for each sink, and no more than `SINKS_MAX` of them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway_core::Name;
use serde_json::{Value, json};

/// Bytes that wait for one sink.
pub(crate) const SINK_BYTES_MAX: usize = 4 << 20;
/// Sinks with something in them: those of a configuration, and those that it had before.
const SINKS_MAX: usize = 64;
/// Lines of tapped calls that wait.
const TAP_LINES_MAX: usize = 1_024;

/// Where records go.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Sink {
    /// Spans for a collector.
    Spans(Name),
    /// Log records for a collector.
    Logs(Name),
    /// Lines for a file.
    File(Name),
}

/// Records of one worker for one sink.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub bytes: Vec<u8>,
    pub items: u64,
}

/// Records of one collector: its name, their kind (`traces` or `logs`), how many they are, and their bytes.
pub type Taken = (String, &'static str, u64, Vec<u8>);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    /// Lines for files have come, or files shall be opened again, or all ends.
    more: Condvar,
    /// When somebody last took tapped calls.
    tapped_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    rings: HashMap<Sink, Ring>,
    /// Lost because there were too many sinks.
    homeless: u64,
    tapped: VecDeque<Vec<u8>>,
    tapped_dropped: u64,
    /// The tap in force.
    tap: u64,
    /// Files that listeners name, until the writer knows of them.
    named_files: Option<Vec<Name>>,
    reopen: bool,
    ending: bool,
}

#[derive(Debug, Default)]
struct Ring {
    batches: VecDeque<Batch>,
    queued_bytes: usize,
    /// Handed over, or written.
    items: u64,
    dropped: u64,
    failing: Option<String>,
}

/// What the writer of files shall do next.
pub(crate) struct FileWork {
    pub reopen: bool,
    pub ending: bool,
    /// What listeners name from now on, after a change.
    pub named: Option<Vec<Name>>,
    pub batches: Vec<(Name, Batch)>,
}

// === impl Batch ===

impl Batch {
    pub fn with_room(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            items: 0,
        }
    }
}

// === impl Hub ===

impl Hub {
    /// Takes a worker's records, in place of the oldest where there is no room.
    pub fn push(&self, sink: &Sink, batch: Batch) {
        let mut inner = self.lock();
        if !inner.rings.contains_key(sink) {
            if inner.rings.len() >= SINKS_MAX {
                inner.homeless += batch.items;
                return;
            }
            inner.rings.insert(sink.clone(), Ring::default());
        }
        if let Some(ring) = inner.rings.get_mut(sink) {
            ring.push(batch);
        }
        if matches!(sink, Sink::File(_)) {
            self.more.notify_one();
        }
    }

    /// Takes what waits for collectors: of each at most `bytes_max`, but one batch at least.
    pub fn take(&self, bytes_max: usize) -> Vec<Taken> {
        // Megabytes are joined here, where no worker waits for the lock.
        let parts = self.lock().collector_batches(bytes_max);
        let join = |(name, kind, batches): (Name, &'static str, Vec<Batch>)| {
            let items = batches.iter().map(|batch| batch.items).sum();
            let bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
            let mut batches = batches.into_iter().map(|batch| batch.bytes);
            let mut joined = batches.next().unwrap_or_default();
            joined.reserve_exact(bytes - joined.len());
            batches.for_each(|more| joined.extend_from_slice(&more));
            (name.to_string(), kind, items, joined)
        };
        parts.into_iter().map(join).collect()
    }

    /// Forgets sinks that no listener names any more, once they are empty; the others show in the counters from now on.
    pub fn follow<'a>(&self, named: impl Iterator<Item = &'a Sink>) {
        let named: Vec<&Sink> = named.collect();
        let is_named = |sink: &Sink| named.contains(&sink);
        let mut inner = self.lock();
        let keep = |sink: &Sink, ring: &mut Ring| is_named(sink) || ring.queued_bytes > 0;
        inner.rings.retain(keep);
        for &sink in &named {
            if inner.rings.len() < SINKS_MAX && !inner.rings.contains_key(sink) {
                inner.rings.insert(sink.clone(), Ring::default());
            }
        }
        let files = inner.rings.keys().filter_map(|sink| match sink {
            Sink::File(path) if is_named(sink) => Some(path.clone()),
            _ => None,
        });
        let files = files.collect();
        inner.named_files = Some(files);
        self.more.notify_one();
    }

    /// For `stats`: one object for each sink.
    pub fn summary(&self) -> Value {
        let inner = self.lock();
        let mut all: Vec<_> = inner.rings.iter().collect();
        all.sort_by_key(|(sink, _)| match sink {
            Sink::Spans(name) => (0, name),
            Sink::Logs(name) => (1, name),
            Sink::File(path) => (2, path),
        });
        let all = all.into_iter().map(|(sink, ring)| ring.summary(sink));
        Value::Array(all.collect())
    }

    // --- tapped calls ---

    /// Another tap begins, or none: its number. Nobody sees what the one before has asked for.
    pub fn begin_tap(&self) -> u64 {
        let mut inner = self.lock();
        inner.tapped.clear();
        inner.tap += 1;
        inner.tap
    }

    /// Takes a tapped call, in place of the oldest where too many wait; of a tap that is over it takes none.
    pub fn tap(&self, tap: u64, line: Vec<u8>) {
        let mut inner = self.lock();
        if inner.tap != tap {
            return;
        }
        if inner.tapped.len() == TAP_LINES_MAX {
            inner.tapped.pop_front();
            inner.tapped_dropped += 1;
        }
        inner.tapped.push_back(line);
    }

    /// Up to `max` lines, oldest first.
    pub fn take_tapped(&self, max: usize) -> Vec<u8> {
        let mut inner = self.lock();
        let count = max.min(inner.tapped.len());
        inner.tapped.drain(..count).flatten().collect()
    }

    /// Somebody looks at this moment.
    pub fn note_tap_taken(&self, now_ms: u64) {
        self.tapped_ms.store(now_ms, Ordering::Relaxed);
    }

    /// How long nobody has looked.
    pub fn tap_untaken_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.tapped_ms.load(Ordering::Relaxed))
    }

    /// Records and lines lost because there were too many sinks.
    pub fn homeless(&self) -> u64 {
        self.lock().homeless
    }

    /// Lines lost at the bound.
    pub fn tapped_dropped(&self) -> u64 {
        self.lock().tapped_dropped
    }

    // --- files ---

    /// Has files opened again before the next line.
    pub fn reopen(&self) {
        self.lock().reopen = true;
        self.more.notify_one();
    }

    /// Has the writer of files end.
    pub fn end(&self) {
        self.lock().ending = true;
        self.more.notify_one();
    }

    /// Waits for lines of files that are not among `put_off`, at most for `wait`.
    pub fn file_work(&self, put_off: &[Name], wait: Duration) -> FileWork {
        let mut inner = self.lock();
        let batches = inner.file_batches(put_off);
        let is_told = inner.reopen || inner.ending || inner.named_files.is_some();
        if batches.is_empty() && !is_told {
            let waited = self.more.wait_timeout(inner, wait);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let late = if batches.is_empty() {
            inner.file_batches(put_off)
        } else {
            batches
        };
        FileWork {
            reopen: std::mem::take(&mut inner.reopen),
            ending: inner.ending,
            named: inner.named_files.take(),
            batches: late,
        }
    }

    /// Says how writing to a file went: lines written, lines given up, and why it fails now.
    pub fn file_result(&self, path: &Name, written: u64, lost: u64, failing: Option<String>) {
        if let Some(ring) = self.lock().rings.get_mut(&Sink::File(path.clone())) {
            ring.items += written;
            ring.dropped += lost;
            ring.failing = failing;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    /// What waits for collectors, counted as handed over.
    fn collector_batches(&mut self, bytes_max: usize) -> Vec<(Name, &'static str, Vec<Batch>)> {
        let mut all = Vec::new();
        for (sink, ring) in &mut self.rings {
            let (name, kind) = match sink {
                Sink::Spans(name) => (name, "traces"),
                Sink::Logs(name) => (name, "logs"),
                Sink::File(_) => continue,
            };
            let (mut batches, mut room) = (Vec::new(), bytes_max);
            while let Some(batch) = ring.pop(room, batches.is_empty()) {
                room = room.saturating_sub(batch.bytes.len());
                ring.items += batch.items;
                batches.push(batch);
            }
            if !batches.is_empty() {
                all.push((name.clone(), kind, batches));
            }
        }
        all
    }

    fn file_batches(&mut self, put_off: &[Name]) -> Vec<(Name, Batch)> {
        let mut all = Vec::new();
        for (sink, ring) in &mut self.rings {
            if let Sink::File(path) = sink
                && !put_off.contains(path)
                && let Some(batch) = ring.pop(usize::MAX, true)
            {
                all.push((path.clone(), batch));
            }
        }
        all
    }
}

// === impl Ring ===

impl Ring {
    fn push(&mut self, batch: Batch) {
        while self.queued_bytes + batch.bytes.len() > SINK_BYTES_MAX {
            let Some(oldest) = self.batches.pop_front() else {
                self.dropped += batch.items;
                return;
            };
            self.queued_bytes -= oldest.bytes.len();
            self.dropped += oldest.items;
        }
        self.queued_bytes += batch.bytes.len();
        self.batches.push_back(batch);
    }

    /// The oldest batch, if it fits or is the first.
    fn pop(&mut self, room: usize, is_first: bool) -> Option<Batch> {
        let fits = self.batches.front()?.bytes.len() <= room || is_first;
        let batch = fits.then(|| self.batches.pop_front()).flatten()?;
        self.queued_bytes -= batch.bytes.len();
        Some(batch)
    }

    fn summary(&self, sink: &Sink) -> Value {
        let (name, kind) = match sink {
            Sink::Spans(name) => (name, "traces"),
            Sink::Logs(name) => (name, "logs"),
            Sink::File(path) => {
                return json!({
                    "file": &**path,
                    "lines": self.items,
                    "dropped": self.dropped,
                    "failing": self.failing,
                });
            }
        };
        json!({
            "collector": &**name,
            "kind": kind,
            "items": self.items,
            "dropped": self.dropped,
            "queued_bytes": self.queued_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, Hub, SINK_BYTES_MAX, SINKS_MAX, Sink, TAP_LINES_MAX};

    fn batch(bytes: usize, items: u64) -> Batch {
        Batch {
            bytes: vec![1; bytes],
            items,
        }
    }

    #[test]
    fn nobody_taking_costs_bounded_memory_and_the_newest_stay() {
        let hub = Hub::default();
        let sink = Sink::Spans("otel".into());
        for items in 1..=100 {
            hub.push(&sink, batch(1 << 20, items));
        }
        let summary = &hub.summary()[0];
        assert_eq!(summary["queued_bytes"], SINK_BYTES_MAX);
        assert_eq!(summary["dropped"], (1..=96).sum::<u64>());
        let taken = hub.take(1);
        assert_eq!(
            (taken[0].2, taken[0].3.len()),
            (97, 1 << 20),
            "one at least"
        );
        let taken = hub.take(2 << 20);
        assert_eq!((taken[0].2, taken[0].3.len()), (98 + 99, 2 << 20));
        hub.push(&sink, batch(SINK_BYTES_MAX + 1, 5));
        assert_eq!(hub.take(usize::MAX).len(), 0);
        let dropped = (1..=96).sum::<u64>() + 100 + 5;
        assert_eq!(hub.summary()[0]["dropped"], dropped);
    }

    #[test]
    fn sinks_are_bounded_and_forgotten_once_empty() {
        let hub = Hub::default();
        for number in 0..2 * SINKS_MAX {
            hub.push(&Sink::Logs(number.to_string().into()), batch(1, 1));
        }
        assert_eq!(hub.lock().rings.len(), SINKS_MAX);
        assert_eq!(hub.homeless(), SINKS_MAX as u64);
        hub.follow(std::iter::empty());
        assert_eq!(hub.lock().rings.len(), SINKS_MAX, "they hold something");
        assert_eq!(hub.take(usize::MAX).len(), SINKS_MAX);
        let named = Sink::File("/a".into());
        hub.follow(std::iter::once(&named));
        assert_eq!(hub.summary()[0]["file"], "/a");
        assert_eq!(hub.lock().rings.len(), 1);
    }

    #[test]
    fn tapped_lines_are_bounded() {
        let hub = Hub::default();
        let tap = hub.begin_tap();
        for number in 0..TAP_LINES_MAX + 2 {
            hub.tap(tap, format!("{number}\n").into_bytes());
        }
        assert_eq!(hub.tapped_dropped(), 2);
        assert_eq!(hub.take_tapped(2), b"2\n3\n");
        let next = hub.begin_tap();
        assert_eq!(hub.take_tapped(9), b"");
        hub.tap(tap, b"of the one before".to_vec());
        hub.tap(next, b"its own".to_vec());
        assert_eq!(hub.take_tapped(9), b"its own");
    }
}
