//! Fields of one hop (RFC 9110 section 7.6.1), and what the `connection` fields of a head say.

use httparse::Header;

use crate::refusal::Refusal;

/// What the `connection` fields say.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Options {
    pub(crate) close: bool,
    pub(crate) upgrade: bool,
    /// Names other fields, which end here.
    pub(crate) nominates: bool,
}

/// Elements that the `connection` fields of a head may have: each is compared with each field.
const OPTIONS_MAX: usize = 32;

/// Reads the `connection` fields.
pub(crate) fn options(fields: &[Header<'_>]) -> Result<Options, Refusal> {
    let mut options = Options::default();
    for (at, option) in connection_options(fields).enumerate() {
        if at >= OPTIONS_MAX {
            return Err(Refusal::new(431, "the connection field names too much"));
        }
        if option.eq_ignore_ascii_case(b"close") {
            options.close = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            options.upgrade = true;
        } else if !option.eq_ignore_ascii_case(b"keep-alive") {
            options.nominates = true;
        }
    }
    Ok(options)
}

/// Whether a `connection` field names this one.
pub(crate) fn is_nominated(fields: &[Header<'_>], name: &str) -> bool {
    connection_options(fields).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
}

fn connection_options<'a>(fields: &'a [Header<'_>]) -> impl Iterator<Item = &'a [u8]> {
    values(fields, "connection").flat_map(list)
}

/// All values of a field.
pub(crate) fn values<'a>(
    fields: &'a [Header<'_>],
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value)
}

/// The elements of a comma-separated value.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// A field that concerns one hop, by its name in any case.
pub(crate) fn is_of_one_hop(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 7] = [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"te",
        b"http2-settings",
    ];
    NAMES.iter().any(|it| it.eq_ignore_ascii_case(name))
}

/// A field that no trailer section may hold (RFC 9110 section 6.5.1): it would change what was understood already.
pub(crate) fn is_forbidden_trailer(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 8] = [
        b"content-length",
        b"host",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"content-type",
        b"content-encoding",
        b"trailer",
    ];
    is_of_one_hop(name) || NAMES.iter().any(|it| it.eq_ignore_ascii_case(name))
}
