//! Start-time settings of the runtime: sizes and bounds that a snapshot does not carry.

use serde::Deserialize;

/// What the runtime is started with. Every bound has a default that suits a small machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The member cluster that this gateway stands in, for what is told about calls. Default: unknown.
    pub cluster: String,
    /// Its region, for the same. Default: unknown.
    pub region: String,
    /// Worker threads, each with its own poll, listeners and upstream connections. 1 to 256; default: 1.
    pub workers: usize,
    /// Downstream connections over all workers; above it new ones are closed at once. Default: 20 000.
    pub max_connections: usize,
    /// Streams that one downstream connection may have open. Default: 256.
    pub max_concurrent_streams: u32,
    /// Largest receive window of a stream in bytes: the memory that one unread stream can hold. That of a request begins
    /// with 64 KiB, that of a response with 32 KiB, and grows up to this while the other side takes what comes; all that
    /// they grow by is at most 8 MiB for a client's connection. Default: 256 KiB.
    pub stream_window: u32,
    /// A removed listener's connections may finish their streams for this long. Default: 600 000.
    pub listener_drain_ms: u64,
    /// A new downstream connection must have completed TLS and the HTTP/2 preface with its SETTINGS by then.
    /// Default: 10 000.
    pub handshake_timeout_ms: u64,
    /// A downstream connection that has open streams but was silent for this long is asked by PING, and closed
    /// when the answer does not come within the same time again. 0: never. Default: 60 000.
    pub downstream_keepalive_ms: u64,
    /// A downstream connection that had no call for this long is asked to leave by GOAWAY and closed a moment later.
    /// 0: never. Default: 300 000.
    pub downstream_idle_ms: u64,
    /// A connection to an endpoint that carried nothing for this long is closed. 0: never. Default: 900 000.
    pub upstream_idle_ms: u64,
    /// Bytes of clients and endpoints that one worker holds at a time: what waits to be sent, what may have to be sent
    /// again, and the header lists of open calls. Above it the client connection that holds most loses its largest
    /// streams, until an eighth is free. Default: 256 MiB.
    pub buffers_max_bytes: u64,
    /// Calls open at a time over all workers, each of which has an even part; above it new ones are answered
    /// UNAVAILABLE at once. Default: 100 000.
    pub max_calls: usize,
    /// A turn of a worker's loop that takes longer is slow. From three in a row on fewer new calls are taken, and none is
    /// tried again; the others are answered UNAVAILABLE at once. 0: never. Default: 250.
    pub slow_turn_ms: u64,
    /// Labelled series of metrics over all workers; what goes beyond counts as `other`. Four fifths are for calls, the
    /// rest for clusters. Default: 10 000.
    pub metric_series_max: usize,
    /// After so many panics (each a bug that cost a connection) the gateway drains itself. 0: never. Default: 32.
    pub panics_max: usize,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("settings: {0}")]
pub struct SettingsError(String);

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            region: String::new(),
            workers: 1,
            max_connections: 20_000,
            max_concurrent_streams: 256,
            stream_window: 256 * 1024,
            listener_drain_ms: 600_000,
            handshake_timeout_ms: 10_000,
            downstream_keepalive_ms: 60_000,
            downstream_idle_ms: 300_000,
            upstream_idle_ms: 900_000,
            buffers_max_bytes: 256 << 20,
            max_calls: 100_000,
            slow_turn_ms: 250,
            metric_series_max: 10_000,
            panics_max: 32,
        }
    }
}

impl Settings {
    /// Reads and checks settings written as a JSON object; absent fields take their defaults.
    ///
    /// # Errors
    /// When it is no such object, or a field is unknown or out of its range.
    pub fn from_json(json: &[u8]) -> Result<Self, SettingsError> {
        let settings: Self =
            serde_json::from_slice(json).map_err(|error| SettingsError(error.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let within = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(SettingsError(format!(
                    "`{name}` is {value}, allowed are {least} to {most}"
                )))
            }
        };
        within("workers", self.workers as u64, 1, 256)?;
        within("max_connections", self.max_connections as u64, 1, 1 << 24)?;
        let streams = u64::from(self.max_concurrent_streams);
        within("max_concurrent_streams", streams, 1, 1 << 16)?;
        within(
            "stream_window",
            u64::from(self.stream_window),
            65_535,
            1 << 26,
        )?;
        let series = self.metric_series_max as u64;
        within("metric_series_max", series, 1_000, 1_000_000)?;
        within("max_calls", self.max_calls as u64, 1, 1 << 24)?;
        within("slow_turn_ms", self.slow_turn_ms, 0, 60_000)?;
        within("listener_drain_ms", self.listener_drain_ms, 1, 86_400_000)?;
        within(
            "handshake_timeout_ms",
            self.handshake_timeout_ms,
            1,
            600_000,
        )?;
        within(
            "downstream_keepalive_ms",
            self.downstream_keepalive_ms,
            0,
            86_400_000,
        )?;
        within("downstream_idle_ms", self.downstream_idle_ms, 0, 86_400_000)?;
        within("upstream_idle_ms", self.upstream_idle_ms, 0, 86_400_000)?;
        within(
            "buffers_max_bytes",
            self.buffers_max_bytes,
            16 << 20,
            1 << 40,
        )
    }
}
