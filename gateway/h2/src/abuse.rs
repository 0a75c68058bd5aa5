//! Budgets against floods: see [`AbuseLimits`] for what each is.
//!
//! Decides when a peer has used up a budget; the connection then ends with `ENHANCE_YOUR_CALM`. Time
//! comes from the caller, as ticks.

use crate::config::AbuseLimits;
use crate::error::{Abuse, ConnectionError};

/// Tokens for one kind of frame.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u32,
    limit: u32,
    abuse: Abuse,
    reason: &'static str,
}

#[derive(Debug)]
pub(crate) struct Budgets {
    pub(crate) resets: Budget,
    pub(crate) pings: Budget,
    pub(crate) settings: Budget,
    pub(crate) empty_data: Budget,
    pub(crate) window_updates: Budget,
    pub(crate) ignored: Budget,
}

// === impl Budget ===

impl Budget {
    fn new(limit: u32, abuse: Abuse, reason: &'static str) -> Self {
        Self {
            left: limit,
            limit,
            abuse,
            reason,
        }
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Result<(), ConnectionError> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(ConnectionError::calm(self.abuse, self.reason)),
        }
    }

    #[inline]
    pub(crate) fn earn(&mut self, tokens: u32) {
        self.left = self.left.saturating_add(tokens).min(self.limit);
    }

    fn refill(&mut self) {
        self.left = self.limit;
    }
}

// === impl Budgets ===

impl Budgets {
    pub(crate) fn new(limits: &AbuseLimits) -> Self {
        Self {
            resets: Budget::new(limits.resets, Abuse::Resets, "too many reset streams"),
            pings: Budget::new(limits.pings, Abuse::Pings, "too many PING frames"),
            settings: Budget::new(limits.settings, Abuse::Settings, "too many SETTINGS frames"),
            empty_data: Budget::new(
                limits.empty_data,
                Abuse::EmptyData,
                "too many empty DATA frames",
            ),
            window_updates: Budget::new(
                limits.window_updates,
                Abuse::WindowUpdates,
                "too many WINDOW_UPDATE frames",
            ),
            ignored: Budget::new(
                limits.ignored,
                Abuse::Ignored,
                "too many PRIORITY or unknown frames",
            ),
        }
    }

    /// A second has passed.
    pub(crate) fn tick(&mut self) {
        let Self {
            resets,
            pings,
            settings,
            empty_data,
            window_updates,
            ignored,
        } = self;
        for budget in [resets, pings, settings, empty_data, window_updates, ignored] {
            budget.refill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_and_a_tick_fills_it() {
        let mut budgets = Budgets::new(&AbuseLimits {
            pings: 2,
            ..AbuseLimits::default()
        });
        assert!(budgets.pings.take().is_ok());
        assert!(budgets.pings.take().is_ok());
        assert!(budgets.pings.take().is_err());
        budgets.tick();
        assert!(budgets.pings.take().is_ok());
        budgets.pings.earn(100);
        assert_eq!(budgets.pings.left, 2);
    }
}
