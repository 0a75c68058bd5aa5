//! What passed of one call: bytes, and messages by gRPC's framing.
//!
//! A message counts when its five bytes of prefix have come; what follows is skipped by its length, however it is cut
//! into frames. Leaves to others where the numbers go (`series`).

/// What passed in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    pub request: Half,
    pub response: Half,
}

/// What passed in one direction, without framing of HTTP/2.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Half {
    pub bytes: u64,
    pub messages: u32,
    framing: Framing,
}

/// Where the bytes so far have ended.
#[derive(Clone, Copy, Debug, Default)]
struct Framing {
    /// Of the message, not yet seen.
    left: u32,
    /// Bytes of the next prefix that were seen.
    seen: u8,
    /// The length, as far as it was seen.
    length: u32,
}

/// Compressed or not, and the length.
const PREFIX: usize = 5;

// === impl Flow ===

impl Flow {
    /// Nothing.
    pub const NONE: Self = Self {
        request: Half::NONE,
        response: Half::NONE,
    };
}

// === impl Half ===

impl Half {
    const NONE: Self = Self {
        bytes: 0,
        messages: 0,
        framing: Framing {
            left: 0,
            seen: 0,
            length: 0,
        },
    };

    /// Bytes of a call of gRPC; returns the messages that began in them.
    pub fn count(&mut self, data: &[u8]) -> u32 {
        self.bytes += data.len() as u64;
        let began = self.framing.count(data);
        self.messages = self.messages.saturating_add(began);
        began
    }

    /// Bytes of something else.
    pub fn count_bytes(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
    }
}

// === impl Framing ===

impl Framing {
    fn count(&mut self, mut data: &[u8]) -> u32 {
        let mut began = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let skipped = data.len().min(self.left as usize);
                self.left -= skipped as u32;
                data = &data[skipped..];
            } else if self.seen == 0 && data.len() >= PREFIX {
                self.left = u32::from_be_bytes([data[1], data[2], data[3], data[4]]);
                data = &data[PREFIX..];
                began += 1;
            } else {
                if self.seen > 0 {
                    self.length = self.length << 8 | u32::from(data[0]);
                }
                self.seen += 1;
                data = &data[1..];
                if usize::from(self.seen) == PREFIX {
                    self.left = self.length;
                    (self.seen, self.length) = (0, 0);
                    began += 1;
                }
            }
        }
        began
    }
}

#[cfg(test)]
mod tests {
    use super::Half;

    fn message(len: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(len.to_be_bytes());
        bytes.extend(std::iter::repeat_n(0xff, len as usize));
        bytes
    }

    #[test]
    fn messages_count_once_however_they_are_cut() {
        let lengths = [0, 3, 0, 0, 300, 70_000, 1];
        let all: Vec<u8> = lengths.into_iter().flat_map(message).collect();
        for cut in [1, 2, 3, 4, 5, 6, 7, 299, 16_384, all.len()] {
            let mut half = Half::default();
            let began: u32 = all.chunks(cut).map(|part| half.count(part)).sum();
            assert_eq!((began, half.messages), (7, 7), "in parts of {cut}");
            assert_eq!(half.bytes, all.len() as u64);
        }
    }

    #[test]
    fn what_is_no_grpc_counts_bytes_alone() {
        let mut half = Half::default();
        half.count_bytes(&[0; 20]);
        assert_eq!((half.bytes, half.messages), (20, 0));
    }
}
