//! The rate limits of a route table, by name; tables share those that are configured alike.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::ConfigError;
use crate::config::{Name, RateLimitConfig};
use crate::limit::RateLimit;
use crate::route::RouteTable;

/// Limits by name; routes that repeat one share it, and so do tables beside and after each other.
#[derive(Debug, Default)]
pub(super) struct Limits {
    by_name: HashMap<Name, Arc<RateLimit>>,
}

/// Limits that there are already.
#[derive(Debug, Default)]
pub(crate) struct KnownLimits {
    by_name: HashMap<Name, Vec<Arc<RateLimit>>>,
}

// === impl KnownLimits ===

impl KnownLimits {
    pub(crate) fn add(&mut self, table: &RouteTable) {
        for limit in table.limits() {
            let alike = self.by_name.entry(Name::clone(&limit.config().name));
            let alike = alike.or_default();
            if !alike.iter().any(|known| Arc::ptr_eq(known, limit)) {
                alike.push(Arc::clone(limit));
            }
        }
    }

    fn find(&self, config: &RateLimitConfig) -> Option<&Arc<RateLimit>> {
        let mut alike = self.by_name.get(&config.name)?.iter();
        alike.find(|known| known.config() == config)
    }
}

// === impl Limits ===

impl Limits {
    /// The limit of this configuration: that of another route, or a known one, or a new one.
    pub(super) fn limit(
        &mut self,
        config: &RateLimitConfig,
        known: &KnownLimits,
    ) -> Result<Arc<RateLimit>, ConfigError> {
        if let Some(own) = self.by_name.get(&config.name) {
            if own.config() == config {
                return Ok(Arc::clone(own));
            }
            let message = format!("`{}` is another limit in this table", config.name);
            return Err(ConfigError::new("name", message));
        }
        let limit = match known.find(config) {
            Some(known) => Arc::clone(known),
            None => Arc::new(RateLimit::compile(config.clone())?),
        };
        self.by_name
            .insert(Name::clone(&config.name), Arc::clone(&limit));
        Ok(limit)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<RateLimit>> {
        self.by_name.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<RateLimit>> {
        self.by_name.values()
    }
}
