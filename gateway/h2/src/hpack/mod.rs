//! HPACK, header compression for HTTP/2 (RFC 7541).
//!
//! Decides how header lists become bytes and back, both directions, with both dynamic tables. Leaves
//! to `header` what a header list must look like, and to `connection` in which order blocks are sent:
//! each block changes the tables, so blocks are encoded when they enter the output, never before, and
//! every received block is decoded, wanted or not.

mod decoder;
mod dynamic_table;
mod encoder;
mod hash;
mod huffman;
mod integer;
pub(crate) mod static_table;

#[cfg(test)]
mod tests;

pub(crate) use decoder::{Decoded, Decoder};
pub(crate) use encoder::Encoder;

/// Size of both tables until SETTINGS say otherwise (RFC 9113 section 6.5.2).
pub(crate) const DEFAULT_TABLE_SIZE: u32 = 4096;

/// What an entry costs beside its bytes (RFC 7541 section 4.1).
pub(crate) const ENTRY_OVERHEAD: usize = 32;

/// A block that cannot be decoded: the tables are lost, and with them the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HpackError(pub(crate) &'static str);
