//! Which certificate answers a server name: the chain of the name, inside it the certificate that has the name (exact,
//! then `*.parent`), else its first; for names that no chain has, the rest of the listener's certificates alike.

use std::collections::HashMap;
use std::sync::Arc;

use gateway_core::Name;
use gateway_core::server_name::ServerNames;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

#[derive(Debug)]
pub(super) struct ByServerName {
    chains: ServerNames<Keys>,
    rest: Keys,
}

/// Certificates that share a chain.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    names: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

// === impl ByServerName ===

impl ByServerName {
    /// `rest` may have none: then the first chain answers names that none has.
    pub(super) fn new(by_name: Vec<(&[Name], Keys)>, rest: Keys) -> Self {
        let first = by_name.first().map(|(_, keys)| keys.clone());
        let rest = if rest.default.is_none() {
            first.unwrap_or(rest)
        } else {
            rest
        };
        Self {
            chains: ServerNames::new(by_name),
            rest,
        }
    }
}

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let keys = self.chains.find(name).unwrap_or(&self.rest);
        name.and_then(|name| keys.find(name))
            .or(keys.default.as_ref())
            .cloned()
    }
}

// === impl Keys ===

impl Keys {
    /// Names are read from the certificates; a name that two have belongs to the earlier one.
    pub(super) fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut names = HashMap::new();
        for key in &keys {
            for name in dns_names(key) {
                names.entry(name).or_insert_with(|| Arc::clone(key));
            }
        }
        Self {
            names,
            default: keys.into_iter().next(),
        }
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.names.get(&name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.names.get(&format!("*.{parent}"))
        })
    }
}

fn dns_names(key: &CertifiedKey) -> Vec<String> {
    let Some(certificate) = key
        .cert
        .first()
        .and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok())
    else {
        return Vec::new();
    };
    certificate
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect()
}
