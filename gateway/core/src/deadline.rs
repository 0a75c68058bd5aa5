//! `grpc-timeout`: at most eight digits and a unit.
//!
//! Milliseconds are the unit of deadlines here. Reading rounds up (a client that gives 300
//! microseconds does not get 0), writing rounds down, so a deadline never grows on its way.

/// A `grpc-timeout` that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout must be one to eight digits and one of H, M, S, m, u, n")]
pub struct InvalidTimeout;

/// Most digits that the specification allows.
const DIGITS_MAX: usize = 8;

/// Units in milliseconds that [`format_grpc_timeout`] writes, finest first.
const UNITS: [(u64, u8); 4] = [(1, b'm'), (1_000, b'S'), (60_000, b'M'), (3_600_000, b'H')];

/// Reads `grpc-timeout` as milliseconds, rounded up.
///
/// # Errors
/// When it is not one to eight digits and a unit.
pub fn parse_grpc_timeout(value: &[u8]) -> Result<u64, InvalidTimeout> {
    let (&unit, digits) = value.split_last().ok_or(InvalidTimeout)?;
    if !(1..=DIGITS_MAX).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidTimeout);
    }
    // Eight digits of hours are 3.6e14 ms: no overflow.
    let amount = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(amount * 3_600_000),
        b'M' => Ok(amount * 60_000),
        b'S' => Ok(amount * 1_000),
        b'm' => Ok(amount),
        b'u' => Ok(amount.div_ceil(1_000)),
        b'n' => Ok(amount.div_ceil(1_000_000)),
        _ => Err(InvalidTimeout),
    }
}

/// Writes milliseconds as `grpc-timeout`, in the finest unit that holds them in eight digits,
/// rounded down.
///
/// 0 becomes `1n`, since the specification wants a positive number; more than 99999999 hours become
/// that.
#[must_use]
pub fn format_grpc_timeout(ms: u64, buffer: &mut [u8; 16]) -> &str {
    const AMOUNT_MAX: u64 = 99_999_999;
    let (amount, unit) = if ms == 0 {
        (1, b'n')
    } else {
        let fitting = UNITS.iter().find(|(scale, _)| ms / scale <= AMOUNT_MAX);
        fitting.map_or((AMOUNT_MAX, b'H'), |&(scale, unit)| (ms / scale, unit))
    };
    let mut start = buffer.len() - 1;
    buffer[start] = unit;
    let mut left = amount;
    while left > 0 {
        start -= 1;
        buffer[start] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    // Digits and a letter are ASCII: there is nothing to fall back to.
    std::str::from_utf8(&buffer[start..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_read() {
        let table = [
            ("1H", 3_600_000),
            ("2M", 120_000),
            ("3S", 3_000),
            ("4m", 4),
            ("5u", 1),
            ("6n", 1),
            ("0m", 0),
            ("0n", 0),
            ("1000001u", 1_001),
            ("99999999H", 359_999_996_400_000),
        ];
        for (value, ms) in table {
            assert_eq!(parse_grpc_timeout(value.as_bytes()), Ok(ms), "{value}");
        }
    }

    #[test]
    fn what_is_not_digits_and_a_unit_is_refused() {
        for value in [
            "",
            "m",
            "1",
            "1s",
            "-1m",
            "+1m",
            " 1m",
            "1 m",
            "1.5S",
            "123456789m",
            "1mm",
        ] {
            assert_eq!(
                parse_grpc_timeout(value.as_bytes()),
                Err(InvalidTimeout),
                "{value:?}"
            );
        }
    }

    #[test]
    fn the_finest_unit_that_fits_is_written() {
        let table = [
            (0, "1n"),
            (1, "1m"),
            (99_999_999, "99999999m"),
            (100_000_000, "100000S"),
            (100_000_999, "100000S"),
            (99_999_999_999, "99999999S"),
            (100_000_000_000, "1666666M"),
            (u64::MAX, "99999999H"),
        ];
        for (ms, value) in table {
            assert_eq!(format_grpc_timeout(ms, &mut [0; 16]), value);
        }
    }

    proptest! {
        #[test]
        fn a_deadline_never_grows_and_keeps_its_size(ms in 1..359_999_996_400_000_u64) {
            let mut buffer = [0; 16];
            let written = format_grpc_timeout(ms, &mut buffer);
            prop_assert!(written.len() <= 9);
            let read = parse_grpc_timeout(written.as_bytes()).unwrap();
            prop_assert!(read <= ms && ms - read <= ms / 1_000 + 1);
        }

        #[test]
        fn reading_never_panics(value in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = parse_grpc_timeout(&value);
        }
    }
}
