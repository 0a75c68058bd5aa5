//! Counters of one connection: plain numbers, read by the caller whenever it likes.

/// What a connection has seen and sent since it began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Frames received, of all types.
    pub frames_received: u64,
    /// DATA payload bytes received, padding left out.
    pub data_received_bytes: u64,
    /// DATA frames sent.
    pub data_frames_sent: u64,
    /// DATA payload bytes sent.
    pub data_sent_bytes: u64,
    /// Header blocks received.
    pub header_blocks_received: u64,
    /// Header blocks sent.
    pub header_blocks_sent: u64,
    /// Streams opened, by either side.
    pub streams_opened: u64,
    /// `RST_STREAM` received for live streams.
    pub resets_received: u64,
    /// `RST_STREAM` sent.
    pub resets_sent: u64,
    /// Streams that we refused: over the limit, or after our GOAWAY.
    pub streams_refused: u64,
    /// Streams that we reset because the peer broke a rule on them.
    pub stream_errors: u64,
    /// Header lists over `max_header_list_size`.
    pub header_lists_too_large: u64,
    /// PING frames received (acknowledgements left out).
    pub pings_received: u64,
    /// SETTINGS frames received (acknowledgements left out).
    pub settings_received: u64,
    /// `WINDOW_UPDATE` frames received.
    pub window_updates_received: u64,
    /// `WINDOW_UPDATE` frames sent.
    pub window_updates_sent: u64,
    /// DATA frames received that carried nothing and ended nothing.
    pub empty_data_received: u64,
    /// PRIORITY frames and frames of unknown types received.
    pub ignored_received: u64,
    /// CONTINUATION frames received.
    pub continuations_received: u64,
    /// Times the connection was ended for abuse (0 or 1).
    pub abuse_ended: u64,
}
