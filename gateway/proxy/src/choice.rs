//! Where a try goes: the endpoint that core chooses, by what this worker knows of how busy each is; and whether the
//! call may go anywhere, where requests are bounded.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gateway_core::config::{Cluster, LoadBalancing};
use gateway_core::{Affinity, Breaker, EndpointIndex, LoadMeter, Name, PickContext, PickError};

use crate::call::{Call, CallId};
use crate::conn::Side;
use crate::reply::{Reason, Reply};
use crate::worker::Worker;

impl Worker {
    /// Whether another try would reach an endpoint that has not failed this call yet.
    pub fn has_untried_endpoint(&mut self, id: CallId) -> bool {
        let random = self.random.u64(..);
        let call = &self.calls[id.key as usize];
        let cluster = &self.clusters[call.cluster];
        cluster.live
            && cluster.handle.endpoints.has_untried(&PickContext {
                now_ms: self.now_ms,
                random,
                tried: &call.tries.addresses,
                tried_clusters: &call.tries.clusters,
                outstanding: &|_| 0,
            })
    }

    /// The pool of the endpoint that a try goes to.
    pub fn choose(&mut self, id: CallId) -> Result<usize, PickError> {
        let random = self.random.u64(..);
        let call = &self.calls[id.key as usize];
        let key = call.cluster;
        let affinity = self.affinity(call, &self.clusters[key].handle.config);
        let tried = (&call.tries.addresses[..], &call.tries.clusters[..]);
        let index = self.pick(key, random, tried, affinity)?;
        Ok(self.pool_of(key, index))
    }

    /// The endpoint of a cluster that core chooses, apart from those tried.
    pub fn pick(
        &self,
        key: usize,
        random: u64,
        (tried, tried_clusters): (&[SocketAddr], &[Name]),
        affinity: Affinity,
    ) -> Result<EndpointIndex, PickError> {
        let now_ms = self.now_ms;
        let cluster = &self.clusters[key];
        if !cluster.live {
            return Err(PickError::Empty);
        }
        let (pools, lb) = (&self.pools, cluster.handle.config.lb);
        let load = |index| match cluster.pool_at(index) {
            Some(pool) => pools[pool].meter.load(lb, now_ms),
            None => LoadMeter::new().load(lb, now_ms),
        };
        let context = PickContext {
            now_ms,
            random,
            tried,
            tried_clusters,
            outstanding: &load,
        };
        let picked = cluster.handle.endpoints.pick_for(&context, affinity)?;
        Ok(picked.index)
    }

    /// What binds the call to an endpoint of the cluster.
    fn affinity(&self, call: &Call, cluster: &Cluster) -> Affinity {
        let client = match self.conns.get(call.down.conn).map(|conn| &conn.side) {
            Some(Side::Down(down)) => down.client,
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        Affinity {
            hash: cluster.hash(&call.request, client),
            pinned: call.session.as_ref().and_then(|session| session.pinned),
        }
    }

    /// Whether balancing wants to know how long answers take.
    pub fn times_answers(&self, id: CallId) -> bool {
        let cluster = self.calls[id.key as usize].cluster;
        self.clusters[cluster].handle.config.lb == LoadBalancing::PeakEwma
    }

    /// Takes a place for a try among the `max_requests` of its cluster, where they are bounded.
    pub fn take_place(&mut self, id: CallId) -> bool {
        let call = &mut self.calls[id.key as usize];
        let cluster = &self.clusters[call.cluster].handle;
        let Some(max) = cluster.config.max_requests else {
            return true;
        };
        let admitted = cluster.shared.admit(max);
        call.place = admitted.then(|| Arc::clone(&cluster.shared));
        admitted
    }

    pub fn answer_no_place(&mut self, id: CallId) {
        self.stats.numbers.request_overflows.add(1);
        let cluster = self.calls[id.key as usize].cluster;
        self.meet_bound(cluster, Breaker::Requests);
        let call = &self.calls[id.key as usize];
        let cluster = &self.clusters[call.cluster].handle.config;
        let (name, max) = (&cluster.name, cluster.max_requests.unwrap_or_default());
        let message = format!("cluster `{name}`: {max} requests are open already (max_requests)");
        self.answer(id, &Reply::unavailable(Reason::RequestOverflow, message));
    }
}
