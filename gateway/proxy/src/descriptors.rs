//! File descriptors at their limit: accepting stops, serving does not.
//!
//! Each worker holds some descriptors that it does not need. When the system gives no more, listeners pause (clients
//! wait in the socket's queue), and a connection to an endpoint takes the place of a spare one. Spares are bought back
//! before listeners go on.

use std::fs::File;
use std::io;

/// Connections to endpoints that a worker can still make at the limit.
const SPARES_MAX: usize = 16;
/// `ENFILE` (the system's table is full) and `EMFILE` (this process's is), the same on Linux, the BSDs and macOS.
const SHORT: [i32; 2] = [23, 24];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SpareDescriptors(Vec<File>);

/// True when the system has no descriptor for us.
pub(crate) fn are_short(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| SHORT.contains(&code))
}

// === impl SpareDescriptors ===

impl SpareDescriptors {
    /// Buys spares as far as the system gives any.
    pub fn fill(&mut self) {
        while self.0.len() < SPARES_MAX {
            let Ok(file) = File::open("/dev/null") else {
                return;
            };
            self.0.push(file);
        }
    }

    pub fn is_full(&self) -> bool {
        self.0.len() == SPARES_MAX
    }

    /// Frees one; false when none is left.
    pub fn give_up_one(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::{SpareDescriptors, are_short};
    use std::io;

    #[test]
    fn spares_are_bought_given_up_and_bought_back() {
        let mut spares = SpareDescriptors::default();
        assert!(!spares.give_up_one());
        spares.fill();
        assert!(spares.is_full());
        assert!(spares.give_up_one());
        assert!(!spares.is_full());
        spares.fill();
        assert!(spares.is_full());
    }

    #[test]
    fn only_a_missing_descriptor_is_a_shortage() {
        assert!(are_short(&io::Error::from_raw_os_error(24)));
        assert!(!are_short(&io::Error::from_raw_os_error(111)));
    }
}
