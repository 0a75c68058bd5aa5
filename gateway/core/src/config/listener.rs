//! Listeners and the secrets that they and the clusters refer to.

use std::{fmt, net::IpAddr};

use serde::Deserialize;

use super::{ListenerTelemetry, Name};

/// One address to accept connections on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Unique name; logs, events and the reply to an update use it.
    pub name: Name,
    /// IP address to bind.
    pub address: IpAddr,
    /// Port to bind; 0 lets the system choose.
    pub port: u16,
    /// Who connects here.
    pub kind: ListenerKind,
    /// `None`: HTTP/2 in clear text with prior knowledge.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
    /// How long clients' connections live; default: without bounds.
    #[serde(default)]
    pub connection: ConnectionPolicy,
    /// The route table of every call on this listener; `None` where nothing but bytes is passed through.
    #[serde(default)]
    pub route_table: Option<Name>,
    /// What is told about its calls; `None`: nothing but counters.
    #[serde(default)]
    pub telemetry: Option<ListenerTelemetry>,
    /// Without TLS and without calls: every connection goes on to endpoints as it is.
    #[serde(default)]
    pub passthrough: Option<Passthrough>,
}

/// The life of clients' connections (gRPC's server keepalive); `crate::aging` acts by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionPolicy {
    /// A connection without calls is asked to leave after this long; `None`: never.
    pub max_idle_ms: Option<u64>,
    /// A connection is asked to leave at this age, a tenth more or less at random; `None`: never.
    pub max_age_ms: Option<u64>,
    /// Calls that are left so long after it was asked to leave for its age end; `None`: never.
    pub max_age_grace_ms: Option<u64>,
    /// Silence before a PING; `None`: no PINGs.
    pub ping_after_ms: Option<u64>,
    /// Silence after the PING before the connection counts as dead; `None`: 20000.
    pub ping_timeout_ms: Option<u64>,
    /// Which PINGs of a client are too many; `None`: what HTTP/2 itself bounds.
    pub ping_limit: Option<PingLimit>,
}

/// PINGs that a client may send (gRPC's enforcement policy).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingLimit {
    /// Least time between two PINGs.
    pub min_interval_ms: u64,
    /// Whether PINGs are fine while there are no calls. Default no: then one in two hours is.
    #[serde(default)]
    pub without_calls: bool,
    /// PINGs that may come too early; the next one ends the connection. Default 2.
    #[serde(default = "default_strikes")]
    pub strikes: u32,
}

const fn default_strikes() -> u32 {
    2
}

/// Who connects to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenerKind {
    /// Clients.
    Ingress,
    /// Gateways of other clusters; answers made here are marked so that the caller can tell them
    /// from the service's.
    EastWest,
}

/// TLS on a listener: terminated here, or passed on by server name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// Secrets with the certificates for server names that no chain has, chosen by the names in
    /// them; the first is served when none fits.
    #[serde(default)]
    pub certificates: Vec<Name>,
    /// Secret whose `ca_pem` client certificates must chain to; `None` asks for no client
    /// certificate.
    #[serde(default)]
    pub client_ca: Option<Name>,
    /// Clients without a certificate, or with one that is not valid, are let in as well.
    #[serde(default)]
    pub client_optional: bool,
    /// SPIFFE ids that clients may have, see [`spiffe_allowed`]; empty accepts every id that
    /// `client_ca` signed.
    #[serde(default)]
    pub allowed_spiffe: Vec<Name>,
    /// What holds for single server names. A name belongs to one chain at most.
    #[serde(default)]
    pub chains: Vec<TlsChain>,
}

/// What happens to clients that ask for one of some server names: with `certificates` TLS ends here and calls are
/// routed, with `passthrough` TLS goes on as it is; with both TLS ends here and the bytes in it go on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsChain {
    /// Lower-case names, exact or `*.suffix` (one label or more); empty: every other name, and
    /// clients that send none.
    #[serde(default)]
    pub server_names: Vec<Name>,
    /// Secrets with the certificates, as in [`ListenerTls::certificates`].
    #[serde(default)]
    pub certificates: Vec<Name>,
    /// Where bytes go on to.
    #[serde(default)]
    pub passthrough: Option<Passthrough>,
}

/// Where connections go whose bytes are nobody's business here. To endpoints that are peers' gateways they go in the
/// mutual TLS of their cluster, whose server name says to the peer what is meant.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passthrough {
    /// For logs and counters.
    pub name: Name,
    /// Clusters by weight.
    pub weighted: Vec<PassthroughTarget>,
    /// A connection on which nothing moves ends after this long; `None`: 3600000.
    #[serde(default)]
    pub idle_ms: Option<u64>,
}

/// A cluster that gets connections.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassthroughTarget {
    /// Its name.
    pub cluster: Name,
    /// Its part, 0 to 1000000.
    pub weight: u32,
}

/// Certificate material. `Debug` prints which parts are there, never their text.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Unique name.
    pub name: Name,
    /// Certificate chain, leaf first.
    #[serde(default)]
    pub certificate_pem: Option<String>,
    /// Private key of the leaf.
    #[serde(default)]
    pub private_key_pem: Option<String>,
    /// Certificates to trust.
    #[serde(default)]
    pub ca_pem: Option<String>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redacted = |part: &Option<String>| part.as_ref().map(|_| "<redacted>");
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("certificate_pem", &redacted(&self.certificate_pem))
            .field("private_key_pem", &redacted(&self.private_key_pem))
            .field("ca_pem", &redacted(&self.ca_pem))
            .finish()
    }
}

/// Whether `id` is one of `patterns`: the id itself, or a prefix of it when the pattern ends with
/// `*`.
///
/// No patterns allow every id (the certificate's chain was checked before).
#[must_use]
pub fn spiffe_allowed(patterns: &[Name], id: &str) -> bool {
    patterns.is_empty()
        || patterns
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => id.starts_with(prefix),
                None => id == &**pattern,
            })
}
