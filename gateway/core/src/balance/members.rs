//! The endpoints of a table, kept in parts so that a change copies one part and shares the rest.
//!
//! A place in here is an [`EndpointIndex`]: dense from 0, and the same from table to table for an
//! endpoint that stays, except for the last one, which takes the place of one that goes.

use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::EndpointIndex;
use crate::endpoint::Endpoint;
use crate::hash::hash_address;

/// Endpoints in a block: what one change copies, and what one change of health looks at. (Tests have
/// several blocks with few endpoints.)
const BLOCK: usize = if cfg!(test) { 4 } else { 512 };
/// Addresses in a shard of the map, about.
const SHARD: usize = BLOCK;

/// The block of a place.
pub(crate) const fn block_of(slot: u32) -> usize {
    slot as usize / BLOCK
}

/// The first place of a block.
pub(super) const fn first_of(block: usize) -> u32 {
    (block * BLOCK) as u32
}

/// Endpoints by place and by address.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    blocks: Vec<Block>,
    len: usize,
    /// How many are gateways of other clusters.
    peers: usize,
    by_address: AddressMap,
}

pub(super) type Block = Arc<Vec<Endpoint>>;

/// Places by address; the number of shards is a power of two, or 0 while it is empty.
#[derive(Debug, Clone, Default)]
struct AddressMap {
    shards: Vec<Arc<HashMap<SocketAddr, EndpointIndex>>>,
}

// === impl Members ===

impl Members {
    pub(super) fn with_capacity(endpoints: usize) -> Self {
        Self {
            by_address: AddressMap::for_about(endpoints),
            ..Self::default()
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn peers(&self) -> usize {
        self.peers
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(super) fn indexes_of(&self, block: usize) -> impl Iterator<Item = EndpointIndex> + use<> {
        (first_of(block)..)
            .take(self.blocks[block].len())
            .map(EndpointIndex)
    }

    pub(super) fn get(&self, index: EndpointIndex) -> &Endpoint {
        let slot = index.0 as usize;
        &self.blocks[slot / BLOCK][slot % BLOCK]
    }

    pub(super) fn find(&self, address: SocketAddr) -> Option<EndpointIndex> {
        self.by_address.get(address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.blocks.iter().flat_map(|block| block.iter())
    }

    /// The place that the next [`Self::push`] gives.
    pub(super) const fn next_index(&self) -> EndpointIndex {
        EndpointIndex(self.len as u32)
    }

    pub(super) fn push(&mut self, endpoint: Endpoint) {
        let index = self.next_index();
        self.by_address.insert(endpoint.address, index, self.len);
        self.peers += usize::from(endpoint.peer);
        if self.len.is_multiple_of(BLOCK) {
            self.blocks.push(Arc::default());
        }
        Arc::make_mut(&mut self.blocks[self.len / BLOCK]).push(endpoint);
        self.len += 1;
    }

    /// Puts another endpoint of the same address in its place.
    pub(super) fn replace(&mut self, index: EndpointIndex, endpoint: Endpoint) {
        let slot = index.0 as usize;
        let place = &mut Arc::make_mut(&mut self.blocks[slot / BLOCK])[slot % BLOCK];
        self.peers = self.peers + usize::from(endpoint.peer) - usize::from(place.peer);
        *place = endpoint;
    }

    /// Takes an endpoint out; the last one gets its place.
    pub(super) fn remove(&mut self, index: EndpointIndex) -> Option<Endpoint> {
        let last = Arc::make_mut(self.blocks.last_mut()?).pop()?;
        self.len -= 1;
        if self.len.is_multiple_of(BLOCK) {
            self.blocks.pop();
        }
        let removed = if index.0 as usize == self.len {
            last
        } else {
            self.by_address.insert(last.address, index, self.len);
            let slot = index.0 as usize;
            let place = &mut Arc::make_mut(&mut self.blocks[slot / BLOCK])[slot % BLOCK];
            std::mem::replace(place, last)
        };
        self.by_address.remove(removed.address);
        self.peers -= usize::from(removed.peer);
        Some(removed)
    }
}

// === impl AddressMap ===

impl AddressMap {
    fn for_about(addresses: usize) -> Self {
        let shards = (addresses / SHARD).max(1).next_power_of_two();
        Self {
            shards: vec![Arc::default(); shards],
        }
    }

    fn shard(&self, address: SocketAddr) -> usize {
        hash_address(0, address) as usize & (self.shards.len().max(1) - 1)
    }

    fn get(&self, address: SocketAddr) -> Option<EndpointIndex> {
        let shard = self.shards.get(self.shard(address))?;
        shard.get(&address).copied()
    }

    fn insert(&mut self, address: SocketAddr, index: EndpointIndex, len: usize) {
        // Grown late, in steps of eight: making all shards anew is what a change shall not cost.
        if self.shards.is_empty() || len > 8 * SHARD * self.shards.len() {
            let mut grown = Self::for_about(len);
            for (address, index) in self.shards.iter().flat_map(|shard| shard.iter()) {
                let shard = grown.shard(*address);
                Arc::make_mut(&mut grown.shards[shard]).insert(*address, *index);
            }
            *self = grown;
        }
        let shard = self.shard(address);
        Arc::make_mut(&mut self.shards[shard]).insert(address, index);
    }

    fn remove(&mut self, address: SocketAddr) {
        let shard = self.shard(address);
        if let Some(shard) = self.shards.get_mut(shard) {
            Arc::make_mut(shard).remove(&address);
        }
    }
}
