//! Header lists that outlive the read they came from: one byte arena and spans, reused from call to call.

use gateway_h2::Field;

/// Owned header fields in order.
#[derive(Debug, Default)]
pub struct HeaderList {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    name_len: u32,
    value_len: u32,
    sensitive: bool,
}

// === impl HeaderList ===

impl HeaderList {
    pub const NONE: Self = Self {
        bytes: Vec::new(),
        spans: Vec::new(),
    };

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// Bytes of memory that it holds on to.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    /// Appends a field.
    pub fn push(&mut self, field: Field<'_>) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(field.name);
        self.bytes.extend_from_slice(field.value);
        self.spans.push(Span {
            start,
            name_len: field.name.len() as u32,
            value_len: field.value.len() as u32,
            sensitive: field.sensitive,
        });
    }

    /// Makes one field of all with this name, where the first of them stands. Takes time and memory for their bytes
    /// once, however many they are.
    pub fn join(&mut self, name: &[u8], separator: &[u8]) {
        let (mut at, mut sensitive, mut values) = (None, false, Vec::new());
        for (index, span) in self.spans.iter().enumerate() {
            if span.name(&self.bytes) == name {
                at = at.or(Some(index));
                sensitive |= span.sensitive;
                values.push(span.value(&self.bytes));
            }
        }
        let Some(at) = at else { return };
        let value = values.join(separator);
        self.remove(name);
        self.push(Field {
            name,
            value: &value,
            sensitive,
        });
        let last = self.spans.len() - 1;
        self.spans[at..=last].rotate_right(1);
    }

    /// Appends a field that compression may index.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        self.push(Field::new(name, value));
    }

    /// Appends all fields of another list.
    pub fn extend(&mut self, other: &Self) {
        for field in other.iter() {
            self.push(field);
        }
    }

    /// Removes every field with this name; its bytes stay in the arena until `clear`.
    pub fn remove(&mut self, name: &[u8]) {
        let bytes = &self.bytes;
        self.spans.retain(|span| span.name(bytes) != name);
    }

    /// Gives the first field of this name another value, in its place.
    pub fn replace(&mut self, name: &[u8], value: &[u8]) {
        let bytes = &self.bytes;
        let Some(at) = self.spans.iter().position(|span| span.name(bytes) == name) else {
            return;
        };
        let sensitive = self.spans[at].sensitive;
        self.push(Field {
            name,
            value,
            sensitive,
        });
        self.spans.swap_remove(at);
    }

    /// Keeps the fields whose name is wanted.
    pub fn retain(&mut self, is_wanted: impl Fn(&[u8]) -> bool) {
        let bytes = &self.bytes;
        self.spans.retain(|span| is_wanted(span.name(bytes)));
    }

    /// The value of the first field with this name.
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find(|field| field.name == name)
            .map(|field| field.value)
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.spans.iter().map(|span| Field {
            name: span.name(&self.bytes),
            value: span.value(&self.bytes),
            sensitive: span.sensitive,
        })
    }
}

// === impl Span ===

impl Span {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..(self.start + self.name_len) as usize]
    }

    fn value(self, bytes: &[u8]) -> &[u8] {
        let start = (self.start + self.name_len) as usize;
        &bytes[start..start + self.value_len as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_were_split_are_joined() {
        let mut list = HeaderList::default();
        for (name, value) in [
            ("a", "b"),
            ("cookie", "a=1"),
            ("x", "y"),
            ("cookie", "b=2"),
            ("cookie", "c=3"),
        ] {
            list.add(name.as_bytes(), value.as_bytes());
        }
        list.join(b"cookie", b"; ");
        let names: Vec<_> = list.iter().map(|it| it.name.to_vec()).collect();
        assert_eq!(names, [&b"a"[..], b"cookie", b"x"]);
        assert_eq!(list.value(b"cookie"), Some(&b"a=1; b=2; c=3"[..]));
        list.join(b"absent", b"; ");
        assert_eq!(list.iter().count(), 3);
    }

    #[test]
    fn many_split_fields_cost_their_bytes() {
        let mut list = HeaderList::default();
        for _ in 0..1_000 {
            list.add(b"cookie", &[b'c'; 40]);
            list.add(b"x", b"y");
        }
        let before = list.bytes.len();
        list.join(b"cookie", b"; ");
        assert!(list.bytes.len() < 2 * before);
    }
}
