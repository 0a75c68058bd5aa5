//! Frames (RFC 9113 sections 4 and 6): headers in and out, padding, SETTINGS parameters.
//!
//! Decides where the parts of a frame lie and what a malformed one is called. Leaves to `connection`
//! what a frame means.

use crate::error::{ConnectionError, ErrorCode};

/// Length of a frame header.
pub(crate) const HEADER_LEN: usize = 9;
/// Frame payload that every peer accepts.
pub(crate) const DEFAULT_MAX_FRAME_SIZE: u32 = 16_384;
/// Frame payload that no setting can exceed (section 4.2).
pub(crate) const MAX_FRAME_SIZE: u32 = (1 << 24) - 1;
/// Flow-control windows end here (section 6.9.1).
pub(crate) const WINDOW_MAX: u32 = (1 << 31) - 1;
/// Windows begin with this (section 6.9.2).
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) len: u32,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) stream_id: u32,
}

/// A parameter of SETTINGS that this crate knows (section 6.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Setting {
    HeaderTableSize(u32),
    EnablePush(u32),
    MaxConcurrentStreams(u32),
    InitialWindowSize(u32),
    MaxFrameSize(u32),
    MaxHeaderListSize(u32),
}

// === impl Kind ===

impl Kind {
    const fn from_u8(kind: u8) -> Self {
        match kind {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }

    const fn to_u8(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Priority => 2,
            Self::RstStream => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            // Never sent; 0xff is not registered.
            Self::Unknown => 0xff,
        }
    }
}

// === impl FrameHeader ===

impl FrameHeader {
    pub(crate) const fn new(kind: Kind, flags: u8, stream_id: u32, len: u32) -> Self {
        Self {
            len,
            kind,
            flags,
            stream_id,
        }
    }

    #[inline]
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        Self {
            len: u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]),
            kind: Kind::from_u8(bytes[3]),
            flags: bytes[4],
            // The highest bit is reserved.
            stream_id: u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) & WINDOW_MAX,
        }
    }

    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let len = self.len.to_be_bytes();
        let id = self.stream_id.to_be_bytes();
        [
            len[1],
            len[2],
            len[3],
            self.kind.to_u8(),
            self.flags,
            id[0],
            id[1],
            id[2],
            id[3],
        ]
    }

    pub(crate) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

// === impl Setting ===

impl Setting {
    /// Reads one parameter; `None` for those to be ignored.
    pub(crate) fn parse(bytes: [u8; 6]) -> Result<Option<Self>, ConnectionError> {
        let [id_high, id_low, value @ ..] = bytes;
        let value = u32::from_be_bytes(value);
        match (u16::from_be_bytes([id_high, id_low]), value) {
            (1, _) => Ok(Some(Self::HeaderTableSize(value))),
            (2, 0 | 1) => Ok(Some(Self::EnablePush(value))),
            (2, _) => Err(ConnectionError::protocol(
                "SETTINGS_ENABLE_PUSH is neither 0 nor 1",
            )),
            (3, _) => Ok(Some(Self::MaxConcurrentStreams(value))),
            (4, 0..=WINDOW_MAX) => Ok(Some(Self::InitialWindowSize(value))),
            (4, _) => Err(ConnectionError::new(
                ErrorCode::FlowControlError,
                "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1",
            )),
            (5, DEFAULT_MAX_FRAME_SIZE..=MAX_FRAME_SIZE) => Ok(Some(Self::MaxFrameSize(value))),
            (5, _) => Err(ConnectionError::protocol(
                "SETTINGS_MAX_FRAME_SIZE out of range",
            )),
            (6, _) => Ok(Some(Self::MaxHeaderListSize(value))),
            _ => Ok(None),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 6] {
        let (id, value) = match self {
            Self::HeaderTableSize(value) => (1, value),
            Self::EnablePush(value) => (2, value),
            Self::MaxConcurrentStreams(value) => (3, value),
            Self::InitialWindowSize(value) => (4, value),
            Self::MaxFrameSize(value) => (5, value),
            Self::MaxHeaderListSize(value) => (6, value),
        };
        let value = value.to_be_bytes();
        [0, id, value[0], value[1], value[2], value[3]]
    }
}

/// Cuts the padding off a DATA or HEADERS payload: offset of the content in the payload, and the content.
#[inline]
pub(crate) fn unpad(
    header: FrameHeader,
    payload: &[u8],
) -> Result<(usize, &[u8]), ConnectionError> {
    if !header.has(PADDED) {
        return Ok((0, payload));
    }
    let (&padding, rest) = payload
        .split_first()
        .ok_or(ConnectionError::frame_size("padded frame without a length"))?;
    let len = rest
        .len()
        .checked_sub(usize::from(padding))
        .ok_or(ConnectionError::protocol("padding longer than the frame"))?;
    Ok((1, &rest[..len]))
}

/// The 31-bit number that begins `bytes`.
pub(crate) fn read_u31(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & WINDOW_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn header_gives_back_what_it_took(len in 0u32..1 << 24, kind in 0u8..10, flags: u8, id in 0u32..1 << 31) {
            let header = FrameHeader::new(Kind::from_u8(kind), flags, id, len);
            prop_assert_eq!(FrameHeader::parse(&header.to_bytes()), header);
        }

        #[test]
        fn unpad_never_panics(flags: u8, payload: Vec<u8>) {
            let header = FrameHeader::new(Kind::Data, flags, 1, payload.len() as u32);
            if let Ok((offset, content)) = unpad(header, &payload) {
                prop_assert_eq!(&payload[offset..offset + content.len()], content);
            }
        }
    }

    #[test]
    fn settings_out_of_range_name_their_error() {
        let code = |id: u8, value: u32| {
            let value = value.to_be_bytes();
            Setting::parse([0, id, value[0], value[1], value[2], value[3]])
                .map_err(|error| error.code)
        };
        assert_eq!(code(2, 2), Err(ErrorCode::ProtocolError));
        assert_eq!(code(4, 1 << 31), Err(ErrorCode::FlowControlError));
        assert_eq!(code(5, 16_383), Err(ErrorCode::ProtocolError));
        assert_eq!(code(5, 1 << 24), Err(ErrorCode::ProtocolError));
        assert_eq!(
            code(5, (1 << 24) - 1),
            Ok(Some(Setting::MaxFrameSize((1 << 24) - 1)))
        );
        assert_eq!(code(99, 7), Ok(None));
    }

    #[test]
    fn settings_give_back_what_they_took() {
        for setting in [
            Setting::HeaderTableSize(1),
            Setting::EnablePush(0),
            Setting::MaxConcurrentStreams(7),
            Setting::InitialWindowSize(WINDOW_MAX),
            Setting::MaxFrameSize(16_384),
            Setting::MaxHeaderListSize(9),
        ] {
            assert_eq!(Setting::parse(setting.to_bytes()), Ok(Some(setting)));
        }
    }

    #[test]
    fn padding_is_cut_off_or_refused() {
        let padded = FrameHeader::new(Kind::Data, PADDED, 1, 0);
        assert_eq!(unpad(padded, &[2, 7, 8, 0, 0]), Ok((1, &[7, 8][..])));
        assert_eq!(unpad(padded, &[2, 0, 0]), Ok((1, &[][..])));
        assert_eq!(
            unpad(padded, &[3, 0, 0]).map_err(|e| e.code),
            Err(ErrorCode::ProtocolError)
        );
        assert_eq!(
            unpad(padded, &[]).map_err(|e| e.code),
            Err(ErrorCode::FrameSizeError)
        );
    }
}
