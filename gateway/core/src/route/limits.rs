//! The rate limits of a route table, by name.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::ConfigError;
use crate::config::{Name, RateLimitConfig};
use crate::limit::RateLimit;

/// Limits by name; routes that repeat one share it, and so do tables that follow each other.
#[derive(Debug, Default)]
pub(super) struct Limits {
    by_name: HashMap<Name, Arc<RateLimit>>,
    /// Those of the table before.
    before: HashMap<Name, Arc<RateLimit>>,
}

impl Limits {
    pub(super) fn after(before: Option<&Self>) -> Self {
        Self {
            by_name: HashMap::new(),
            before: before
                .map(|before| before.by_name.clone())
                .unwrap_or_default(),
        }
    }

    /// The limit of this configuration: that of another route, or of the table before, or a new
    /// one.
    pub(super) fn limit(
        &mut self,
        config: &RateLimitConfig,
    ) -> Result<Arc<RateLimit>, ConfigError> {
        if let Some(known) = self.by_name.get(&config.name) {
            if known.config() == config {
                return Ok(Arc::clone(known));
            }
            let message = format!("`{}` is another limit in this table", config.name);
            return Err(ConfigError::new("name", message));
        }
        let before = self.before.get(&config.name);
        let limit = match before.filter(|before| before.config() == config) {
            Some(before) => Arc::clone(before),
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
