//! When a call, a try or a bound is counted for metrics, and in which counters.
//!
//! A call of a client counts where it enters the federation, here: what comes from peers' gateways was counted there,
//! and counts here by the peer's cluster alone. It begins to count when it first goes to an endpoint (only then is it
//! known where to), or else when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_core::config::ListenerKind;
use gateway_core::{Breaker, Code, Name};

use crate::call::{Call, CallId};
use crate::conn::{ConnectFault, Side};
use crate::flow::Flow;
use crate::headers::HeaderList;
use crate::reply::Form;
use crate::transport::Transport;
use crate::worker::Worker;

/// A bound counts as met for so long after a call last met it.
const BOUND_MET_MS: u64 = 1_000;

impl Worker {
    /// A try of the call goes to this pool's endpoint.
    pub fn count_place(&mut self, id: CallId, pool: usize) {
        let call = &mut self.calls[id.key as usize];
        if self.listeners[call.listener].kind == ListenerKind::EastWest {
            return;
        }
        let endpoint = &self.pools[pool].endpoint;
        let place = (&endpoint.cluster_id, &endpoint.region);
        let key = self.series.enter(rpc_path(call), place, &self.stats);
        match call.series.replace(key) {
            Some(before) => self.series.leave(before),
            None => self.series.begin(key, &call.flow, &self.stats),
        }
    }

    /// Bytes of a request.
    pub fn count_request(&mut self, id: CallId, data: &[u8]) {
        let call = &mut self.calls[id.key as usize];
        let began = if call.form.is_grpc() {
            call.flow.request.count(data)
        } else {
            call.flow.request.count_bytes(data);
            0
        };
        let Some(key) = call.series else { return };
        let entry = self.series.at(key);
        entry.region.request_bytes.add(data.len() as u64);
        if let Some(rpc) = entry.rpc()
            && began > 0
        {
            rpc.msg_received.add(u64::from(began));
        }
    }

    /// Bytes of a response.
    pub fn count_response(&mut self, id: CallId, data: &[u8]) {
        let call = &mut self.calls[id.key as usize];
        let began = if call.form.is_grpc() {
            call.flow.response.count(data)
        } else {
            call.flow.response.count_bytes(data);
            0
        };
        let Some(key) = call.series else { return };
        let entry = self.series.at(key);
        entry.region.response_bytes.add(data.len() as u64);
        if let Some(rpc) = entry.rpc()
            && began > 0
        {
            rpc.msg_sent.add(u64::from(began));
        }
    }

    /// The call has ended.
    pub fn count_end(&mut self, id: CallId, code: Code, latency_us: u64) {
        let call = &mut self.calls[id.key as usize];
        let number = u32::from(code.number());
        if self.listeners[call.listener].kind == ListenerKind::EastWest {
            let conn = call.down.conn;
            return self.count_peer(conn, number);
        }
        let key = if let Some(key) = call.series {
            key
        } else {
            let place = (&self.nowhere.cluster, &self.nowhere.region);
            let key = self.series.enter(rpc_path(call), place, &self.stats);
            call.series = Some(key);
            self.series.begin(key, &call.flow, &self.stats);
            key
        };
        self.series.record(key, number, latency_us, &self.stats);
    }

    /// Counts a request that the gateway answered itself before there was a call.
    pub fn count_own(
        &mut self,
        (conn, listener): (usize, usize),
        form: Form,
        headers: &HeaderList,
        code: Code,
    ) {
        let number = u32::from(code.number());
        if self.listeners[listener].kind == ListenerKind::EastWest {
            return self.count_peer(conn, number);
        }
        let path = form.is_grpc().then(|| headers.value(b":path"));
        let place = (&self.nowhere.cluster, &self.nowhere.region);
        let path = path.map(Option::unwrap_or_default);
        let key = self.series.enter(path, place, &self.stats);
        self.series.begin(key, &Flow::default(), &self.stats);
        self.series.record(key, number, 0, &self.stats);
        self.series.leave(key);
    }

    fn count_peer(&mut self, conn: usize, code: u32) {
        let Some(conn) = self.conns.get_mut(conn) else {
            return;
        };
        let Side::Down(down) = &mut conn.side else {
            return;
        };
        let (stats, transport) = (&self.stats, &conn.transport);
        let counters = down.peer.get_or_insert_with(|| {
            let cluster = transport.peer_cluster();
            stats.peer(cluster.as_deref().unwrap_or("unknown"))
        });
        counters.record(code);
    }

    /// A connection to a peer was not made: counts what of it is TLS.
    pub fn count_peer_tls(&mut self, key: usize, fault: &ConnectFault) {
        let transport = &mut self.conns[key].transport;
        if !matches!(transport, Transport::Tls(_)) || transport.is_established() {
            return;
        }
        let numbers = &self.stats.numbers;
        match fault {
            ConnectFault::Tls(_) => numbers.tls_peer_failed.add(1),
            ConnectFault::TimedOut if transport.socket().peer_addr().is_ok() => {
                numbers.tls_peer_timeout.add(1);
            }
            _ => {}
        }
    }

    /// A call met a bound of its cluster.
    pub fn meet_bound(&mut self, cluster: usize, breaker: Breaker) {
        let state = &mut self.clusters[cluster];
        let met_ms = &mut state.met_ms[breaker as usize];
        if *met_ms == 0 {
            state.handle.shared.opened(breaker);
        }
        *met_ms = self.now_ms.max(1);
    }

    /// Once a second: bounds that no call met lately, and streams on endpoints that drain.
    pub fn count_what_stands(&mut self) {
        for (_, cluster) in &mut self.clusters {
            for breaker in Breaker::ALL {
                let met_ms = &mut cluster.met_ms[breaker as usize];
                if *met_ms > 0 && self.now_ms >= *met_ms + BOUND_MET_MS {
                    *met_ms = 0;
                    cluster.handle.shared.closed(breaker);
                }
            }
        }
        let mut streams: BTreeMap<Name, u64> = BTreeMap::new();
        for (_, pool) in &self.pools {
            if pool.draining {
                let conns = pool.conns.iter();
                let open: usize = conns.map(|key| self.conns[*key].calls.len()).sum();
                let name = &self.clusters[pool.cluster].handle.config.name;
                *streams.entry(Arc::clone(name)).or_default() += open as u64;
            }
        }
        self.stats.set_drain_streams(streams);
    }
}

/// The path of a call of gRPC.
fn rpc_path(call: &Call) -> Option<&[u8]> {
    let path = call.form.is_grpc().then(|| call.request.value(b":path"));
    path.map(Option::unwrap_or_default)
}
