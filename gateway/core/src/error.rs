//! The one error of configuration: where in the update, and what is wrong there.

use std::fmt;

/// A configuration update that was refused; nothing of it took effect.
///
/// `path` is the place in the JSON document (`clusters[3].outlier.max_ejection_percent`), or, for
/// an object that the update does not carry but would break, its kind and name
/// (`listeners(public).route_table`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ConfigError {
    /// Where, as a path of field names and indexes; `update` is the whole document.
    pub path: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn new(path: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self {
            path: path.to_string(),
            message: message.to_string(),
        }
    }

    /// The same error seen from one level up; an empty path means the parent itself.
    pub(crate) fn under(self, parent: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            path: format!("{parent}{dot}{}", self.path),
            ..self
        }
    }
}
