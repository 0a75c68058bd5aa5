//! PING on silent connections: an endpoint (or client) that vanished without a word is noticed in the configured time.
//!
//! A timer runs only while a connection has streams. It looks when the last bytes came: nothing for the interval and no
//! PING out: send one; a PING out and nothing since for the timeout: the connection is dead. Any byte counts as life.
//!
//! Servers of the gRPC family close connections on which PINGs outnumber their own frames ("too many pings", two are
//! allowed). Peer gateways do not; to all others this module sends no third PING in a row without a frame of a stream
//! in between, and none while it has sent nothing since the last bytes came. What that leaves open (a server that
//! vanishes during a long silence) is found by the kernel: TCP keepalive, and a limit on bytes without acknowledgement.

use std::io;
use std::time::Duration;

use gateway_core::config::{Cluster, Keepalive};
use mio::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

use crate::call::CallId;
use crate::conn::{Conn, ConnId, Death, Side};
use crate::worker::{Timer, Worker};

/// PINGs in a row without a frame of a stream from a server that is no peer gateway.
const PINGS_IN_VAIN_MAX: u32 = 2;

/// The kernel's look is the slower one: PING comes first where it may be sent.
const KERNEL_SILENCE_MIN: Duration = Duration::from_secs(10);
/// Without configured PINGs.
const KERNEL_SILENCE_DEFAULT: Duration = Duration::from_secs(60);

/// What the timer's look at a connection leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Look {
    Again(u64),
    Ping(u64),
    Dead,
}

impl Worker {
    /// Starts the timer of a connection that has streams and has none yet.
    pub fn watch_liveness(&mut self, key: usize) {
        let Some(conn) = self.conns.get(key) else {
            return;
        };
        if conn.liveness_timer.is_some() || conn.calls.is_empty() || conn.dead.is_some() {
            return;
        }
        let id = conn.id;
        if let Some(keepalive) = self.keepalive_of(conn) {
            let at_ms = self.now_ms + keepalive.interval_ms;
            let timer = self.timers.set(at_ms, Timer::Liveness(id));
            self.conns[key].liveness_timer = Some(timer);
        }
    }

    /// The same for the client's connection of a new call: nothing may be written to it for a while.
    pub fn watch_liveness_of_client(&mut self, id: CallId) {
        let key = self.calls[id.key as usize].down.conn;
        self.watch_liveness(key);
    }

    fn keepalive_of(&self, conn: &Conn) -> Option<Keepalive> {
        // HTTP/1 has no PING; the kernel looks after its connections.
        if conn.codec.is_h1() {
            return None;
        }
        match &conn.side {
            Side::Up(up) => {
                let cluster = self.pools[up.pool].cluster;
                self.clusters[cluster].handle.config.keepalive.clone()
            }
            Side::Down(down) => {
                if down.life.as_ref().is_some_and(|it| it.ends_silence()) {
                    return None;
                }
                let silence_ms = self.settings.downstream_keepalive_ms;
                (silence_ms > 0).then_some(Keepalive {
                    interval_ms: silence_ms,
                    timeout_ms: silence_ms,
                })
            }
        }
    }

    /// The timer's look.
    pub fn on_liveness(&mut self, id: ConnId) {
        let now_ms = self.now_ms;
        let Some(conn) = self.conn(id) else { return };
        conn.liveness_timer = None;
        if conn.calls.is_empty() || conn.dead.is_some() {
            conn.ping_sent_ms = None;
            return;
        }
        let conn = &self.conns[id.key];
        let Some(keepalive) = self.keepalive_of(conn) else {
            return;
        };
        let patient = match &conn.side {
            Side::Up(up) => self.pools[up.pool].endpoint.peer,
            Side::Down(_) => true,
        };
        let next = match look(conn, &keepalive, patient, now_ms) {
            Look::Dead => {
                self.stats.numbers.liveness_deaths.add(1);
                return self.kill(id.key, Death::Silent);
            }
            Look::Again(at_ms) => at_ms,
            Look::Ping(at_ms) => {
                let conn = &mut self.conns[id.key];
                conn.codec.ping(now_ms.to_be_bytes());
                conn.ping_sent_ms = Some(now_ms);
                conn.pings_in_vain += 1;
                self.mark_dirty(id.key);
                at_ms
            }
        };
        let timer = self.timers.set(next, Timer::Liveness(id));
        self.conns[id.key].liveness_timer = Some(timer);
    }
}

fn look(conn: &Conn, keepalive: &Keepalive, patient: bool, now_ms: u64) -> Look {
    let interval_ms = keepalive.interval_ms;
    if let Some(sent_ms) = conn.ping_sent_ms
        && conn.last_read_ms < sent_ms
    {
        let end_ms = sent_ms + keepalive.timeout_ms;
        return if now_ms >= end_ms {
            Look::Dead
        } else {
            Look::Again(end_ms)
        };
    }
    if now_ms < conn.last_read_ms + interval_ms {
        return Look::Again(conn.last_read_ms + interval_ms);
    }
    if !patient && conn.pings_in_vain >= PINGS_IN_VAIN_MAX {
        return Look::Again(now_ms + interval_ms);
    }
    if !patient && conn.last_write_ms < conn.last_read_ms {
        return Look::Again(now_ms + interval_ms);
    }
    Look::Ping(now_ms + keepalive.timeout_ms)
}

/// Has the kernel end a connection whose other end acknowledges nothing.
pub(crate) fn watch_by_kernel(stream: &TcpStream, cluster: &Cluster) -> io::Result<()> {
    let keepalive = cluster.keepalive.as_ref();
    let silence = keepalive.map_or(KERNEL_SILENCE_DEFAULT, |keepalive| {
        let configured = Duration::from_millis(keepalive.interval_ms + keepalive.timeout_ms);
        // It holds for the handshake too, which has a time of its own.
        let connecting = Duration::from_millis(cluster.connect_timeout_ms);
        configured.max(connecting).max(KERNEL_SILENCE_MIN)
    });
    let socket = SockRef::from(stream);
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(silence))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(silence)
            .with_interval(silence / 4),
    )
}
