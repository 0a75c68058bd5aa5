//! Checks of each object by itself: ranges, names, duplicates.

use super::Update;
use crate::ConfigError;

pub(super) fn update(_update: &Update) -> Result<(), ConfigError> {
    Ok(())
}
