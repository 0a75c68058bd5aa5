//! TLS by rustls: what a listener presents and demands, and what this gateway presents to its peers.
//!
//! Decides which certificate answers a server name, and whether a peer's identity (the SPIFFE id in the URI names
//! of its certificate, never its address or DNS name) is allowed. Key material enters here as PEM and leaves only
//! inside rustls; no error text contains any of it. A changed certificate means a new config: connections that
//! stand keep the old one.

mod identity;
mod sni;

use std::io;
use std::sync::Arc;

use gateway_core::Name;
use gateway_core::config::Secret;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};

use identity::{AnyClientVerifier, ClientIdentityVerifier, ServerIdentityVerifier};
use sni::{ByServerName, Keys};

/// Offered by ALPN; HTTP/1.1 is accepted only to answer it with a clear refusal.
const SERVER_ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate, key or authority that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("secret `{secret}`: {reason}")]
pub struct TlsError {
    secret: String,
    reason: String,
}

/// Demand on the client's certificate: an authority and the identities that are let in.
pub struct ClientDemand<'a> {
    /// Where the authorities are.
    pub authorities: &'a Secret,
    /// SPIFFE ids, exact or with a trailing `*`; empty lets in every holder of a valid certificate.
    pub allowed: &'a [Name],
    /// Everybody is let in, with or without a certificate.
    pub optional: bool,
}

/// The certificates of a listener: those of single server names, and those for the rest.
pub struct Certificates<'a> {
    /// For all other names.
    pub rest: Vec<&'a Secret>,
    /// By the names that clients ask for.
    pub by_name: Vec<(&'a [Name], Vec<&'a Secret>)>,
}

// === impl Certificates ===

impl Certificates<'_> {
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.by_name.is_empty()
    }

    fn resolver(&self) -> Result<ByServerName, TlsError> {
        let keys = |secrets: &[&Secret]| {
            let keys = secrets.iter().map(|secret| certified_key(secret));
            Ok(Keys::new(keys.collect::<Result<_, _>>()?))
        };
        let by_name = self
            .by_name
            .iter()
            .map(|(names, secrets)| Ok((*names, keys(secrets)?)))
            .collect::<Result<_, TlsError>>()?;
        Ok(ByServerName::new(by_name, keys(&self.rest)?))
    }
}

/// Config of a TLS listener: one of `certificates` by server name, the first when none fits.
pub fn server_config(
    certificates: &Certificates<'_>,
    demand: Option<&ClientDemand<'_>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions");
    let builder = match demand {
        None => builder.with_no_client_auth(),
        Some(demand) if demand.optional => {
            authorities(demand.authorities)?;
            builder.with_client_cert_verifier(Arc::new(AnyClientVerifier::new(&provider)))
        }
        Some(demand) => {
            let roots = authorities(demand.authorities)?;
            let verifier = ClientIdentityVerifier::new(roots, provider, demand.allowed)
                .map_err(|reason| error(demand.authorities, reason))?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates.resolver()?));
    config.alpn_protocols = SERVER_ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Config for connections to peer gateways: own identity, their authority, the identities they may have.
pub fn peer_config(
    identity: &Secret,
    authority: &Secret,
    allowed: &[Name],
) -> Result<Arc<ClientConfig>, TlsError> {
    let key = certified_key(identity)?;
    let verifier = ServerIdentityVerifier::new(authorities(authority)?, &provider(), allowed);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What ended a TLS session with a peer, and which side ended it.
pub fn fault_words(fault: &io::Error) -> String {
    let inner = fault.get_ref().and_then(|it| it.downcast_ref());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("TLS: the peer refused this gateway: {alert:?}")
        }
        Some(rustls::Error::InvalidCertificate(reason)) => {
            let words = certificate_words(reason);
            format!("TLS: the peer's certificate is refused here: {words}")
        }
        Some(other) => format!("TLS: {other}"),
        None => format!("TLS: {fault}"),
    }
}

fn certificate_words(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => "not signed by an authority known here".to_owned(),
        CertificateError::Other(own) => own.0.to_string(),
        other => other.to_string(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certified_key(secret: &Secret) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(secret, secret.certificate_pem.as_deref(), "certificate")?;
    let text = secret
        .private_key_pem
        .as_deref()
        .ok_or_else(|| error(secret, "has no private key"))?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_reason_may_quote_the_key| error(secret, "the private key is not valid PEM"))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map(Arc::new)
        .map_err(|reason| {
            error(
                secret,
                format!("certificate and key cannot be used: {reason}"),
            )
        })
}

fn authorities(secret: &Secret) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(secret, secret.ca_pem.as_deref(), "CA certificate")? {
        roots
            .add(certificate)
            .map_err(|reason| error(secret, format!("CA certificate cannot be used: {reason}")))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(
    secret: &Secret,
    text: Option<&str>,
    what: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = text.ok_or_else(|| error(secret, format!("has no {what}")))?;
    let chain = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|reason| error(secret, format!("the {what} is not valid PEM: {reason}")))?;
    if chain.is_empty() {
        return Err(error(
            secret,
            format!("the {what} PEM contains no certificate"),
        ));
    }
    Ok(chain)
}

fn error(secret: &Secret, reason: impl Into<String>) -> TlsError {
    TlsError {
        secret: secret.name.to_string(),
        reason: reason.into(),
    }
}
