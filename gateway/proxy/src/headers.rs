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

    /// Appends a cookie field to the one that is there: HTTP/2 may split them (RFC 9113, 8.2.3).
    pub fn push_cookie(&mut self, field: Field<'_>) {
        let bytes = &self.bytes;
        let Some(at) = self
            .spans
            .iter()
            .position(|it| it.name(bytes) == field.name)
        else {
            return self.push(field);
        };
        let whole = [self.spans[at].value(bytes), field.value].join(&b"; "[..]);
        let sensitive = self.spans.remove(at).sensitive || field.sensitive;
        self.push(Field {
            name: field.name,
            value: &whole,
            sensitive,
        });
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
    fn cookies_that_were_split_are_one_field() {
        let mut list = HeaderList::default();
        list.add(b"cookie", b"a=1");
        list.add(b"x", b"y");
        list.push_cookie(Field::new(b"cookie", b"b=2"));
        list.push_cookie(Field::new(b"cookie", b"c=3"));
        assert_eq!(list.value(b"cookie"), Some(&b"a=1; b=2; c=3"[..]));
        assert_eq!(list.iter().count(), 2);
    }
}
