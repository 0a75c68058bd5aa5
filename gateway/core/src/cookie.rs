//! Reading cookies out of a request (RFC 6265, section 5.4), as far as a gateway needs it.

use crate::HeaderLookup;

/// The value of the first cookie with this name; names are case-sensitive.
///
/// HTTP/2 may split cookies over several fields; only those in the field that
/// [`HeaderLookup::first`] gives are seen, so who implements it joins them by `; `.
#[must_use]
pub fn value<'a>(headers: &'a impl HeaderLookup, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.first("cookie")?.split(|byte| *byte == b';');
    let mut found = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        (pair[..equals].trim_ascii_end() == name.as_bytes()).then(|| &pair[equals + 1..])
    });
    found.next().map(|value| {
        let value = value.trim_ascii();
        value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""))
            .unwrap_or(value)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Cookies<'a>(&'a [u8]);

    impl HeaderLookup for Cookies<'_> {
        fn first(&self, name: &str) -> Option<&[u8]> {
            (name == "cookie").then_some(self.0)
        }
    }

    #[test]
    fn the_first_of_the_name_counts() {
        let cookies = Cookies(b"a=1; id=x=y ;id=z; ID=w; q=\"quoted\"; bare");
        let value = |name| value(&cookies, name).map(|value| std::str::from_utf8(value).unwrap());
        assert_eq!(value("a"), Some("1"));
        assert_eq!(value("id"), Some("x=y"));
        assert_eq!(value("q"), Some("quoted"));
        assert_eq!(value("bare"), None);
        assert_eq!(value("d"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            name in "[a-c]{1,2}",
        ) {
            let cookies = Cookies(&bytes);
            if let Some(found) = value(&cookies, &name) {
                prop_assert!(!found.contains(&b';'));
            }
        }
    }
}
