//! The one thread that writes access logs to files. Traffic never waits for it.
//!
//! A file that cannot be opened or written (no folder, a full disk) is tried again each second; meanwhile its lines
//! wait up to the sink's bound (`hub`), and its state says why. A line is written whole: what is left of a line goes on
//! where it was begun, and is given up when the file was opened anew in between.
//!
//! A slow reader of a pipe (`/dev/stdout`) holds up the other files too, never traffic.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gateway_core::Name;

use super::hub::Hub;
use crate::clock::Clock;

const RETRY_MS: u64 = 1_000;
const IDLE_MS: u64 = 60_000;
/// How long a stop waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);
/// What users did is not for everybody to read.
const MODE: u32 = 0o640;

/// The thread, from its start to its end.
pub(crate) struct FileWriter {
    hub: Arc<Hub>,
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// A file, and what could not be written to it yet.
#[derive(Default)]
struct Log {
    file: Option<File>,
    rest: Vec<u8>,
    /// Lines of `rest`, one that is begun among them.
    rest_lines: u64,
    /// The last byte written was not the end of a line.
    amid_line: bool,
    again_ms: Option<u64>,
}

// === impl FileWriter ===

impl FileWriter {
    pub fn start(hub: Arc<Hub>, clock: Clock) -> io::Result<Self> {
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let (theirs, tells) = (Arc::clone(&hub), Arc::clone(&ended));
        let thread = std::thread::Builder::new()
            .name("gateway-logs".to_owned())
            .spawn(move || {
                run(&theirs, clock);
                *tells.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                tells.1.notify_all();
            })?;
        Ok(Self {
            hub,
            ended,
            thread: Some(thread),
        })
    }

    /// Has it write what waits and end. One that hangs in a write is left behind.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.hub.end();
        let ended = self.ended.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = self
            .ended
            .1
            .wait_timeout_while(ended, LAST_LINES, |ended| !*ended);
        if *waits.unwrap_or_else(PoisonError::into_inner).0 {
            let _a_panic_ends_logs_alone = thread.join();
        }
    }
}

fn run(hub: &Hub, clock: Clock) {
    let mut logs: HashMap<Name, Log> = HashMap::new();
    let mut named: Vec<Name> = Vec::new();
    loop {
        let now_ms = clock.now_ms();
        let late = |log: &Log| log.again_ms.is_some_and(|at_ms| at_ms > now_ms);
        let put_off: Vec<Name> = logs
            .iter()
            .filter(|(_, log)| log.again_ms.is_some())
            .map(|(path, _)| path.clone())
            .collect();
        let due = logs
            .values()
            .any(|log| log.again_ms.is_some() && !late(log));
        // New lines and a file's next attempt end the wait.
        let wait_ms = match due {
            true => 0,
            false if put_off.is_empty() => IDLE_MS,
            false => RETRY_MS / 4,
        };
        let work = hub.file_work(&put_off, Duration::from_millis(wait_ms));
        if work.reopen {
            for log in logs.values_mut() {
                log.file = None;
                log.again_ms = log.again_ms.map(|_| 0);
            }
        }
        named = work.named.unwrap_or(named);
        let idle = work.batches.is_empty();
        for (path, batch) in work.batches {
            let log = logs.entry(path).or_default();
            log.rest = batch.bytes;
            log.rest_lines = batch.items;
            log.again_ms = Some(0);
        }
        let now_ms = clock.now_ms();
        for (path, log) in &mut logs {
            if log.again_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                log.write(hub, path, now_ms);
            }
        }
        // A file that no listener names any more is closed after its last lines, so that its room is given back.
        logs.retain(|path, log| log.again_ms.is_some() || named.contains(path));
        if work.ending && idle {
            return;
        }
    }
}

// === impl Log ===

impl Log {
    /// Writes what is left; on failure sets the time of the next attempt.
    fn write(&mut self, hub: &Hub, path: &Name, now_ms: u64) {
        let lost = match self.open(path) {
            Ok(lost) => lost,
            Err(error) => {
                self.again_ms = Some(now_ms + RETRY_MS);
                return hub.file_result(path, 0, 0, Some(error.to_string()));
            }
        };
        let before = self.rest_lines;
        match self.write_rest() {
            Ok(()) => {
                self.again_ms = None;
                self.rest_lines = 0;
                hub.file_result(path, before, lost, None);
            }
            Err(error) => {
                self.again_ms = Some(now_ms + RETRY_MS);
                let written = before - self.rest_lines;
                hub.file_result(path, written, lost, Some(error.to_string()));
            }
        }
    }

    /// Opens the file unless it is; returns how many lines are given up for that.
    fn open(&mut self, path: &str) -> io::Result<u64> {
        if self.file.is_some() {
            return Ok(0);
        }
        self.file = Some(open(path)?);
        if !std::mem::take(&mut self.amid_line) {
            return Ok(0);
        }
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        self.rest.drain(..end.map_or(self.rest.len(), |at| at + 1));
        self.rest_lines = self.rest_lines.saturating_sub(1);
        Ok(1)
    }

    fn write_rest(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut done = 0;
        let result = loop {
            if done == self.rest.len() {
                break Ok(());
            }
            match file.write(&self.rest[done..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        if done > 0 {
            self.amid_line = self.rest[done - 1] != b'\n';
            let whole = self.rest[..done].iter().filter(|byte| **byte == b'\n');
            self.rest_lines = self.rest_lines.saturating_sub(whole.count() as u64);
            self.rest.drain(..done);
        }
        result
    }
}

/// The process's own streams are taken as they are: their files need not let themselves be opened again.
fn open(path: &str) -> io::Result<File> {
    match path {
        "/dev/stdout" => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        "/dev/stderr" => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
        _ => OpenOptions::new()
            .append(true)
            .create(true)
            .mode(MODE)
            .open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot open: {error}"))),
    }
}
