//! Bencode for scripts: writes what it is told, in the order it is told, valid or not.

/// A value. `Raw` is copied as it is, which is how broken values are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum B {
    /// `i…e`
    Int(i64),
    /// `n:…`
    Str(Vec<u8>),
    /// `l…e`
    List(Vec<B>),
    /// `d…e`, in the order given.
    Dict(Vec<(Vec<u8>, B)>),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

impl B {
    /// A string.
    pub fn str(bytes: impl AsRef<[u8]>) -> B {
        B::Str(bytes.as_ref().to_vec())
    }

    /// Bytes as they are.
    pub fn raw(bytes: impl AsRef<[u8]>) -> B {
        B::Raw(bytes.as_ref().to_vec())
    }

    /// A dictionary with its keys in the right order.
    pub fn dict<const N: usize>(entries: [(&str, B); N]) -> B {
        let mut entries: Vec<_> =
            entries.into_iter().map(|(k, v)| (k.as_bytes().to_vec(), v)).collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        B::Dict(entries)
    }

    /// The same dictionary with one more entry, or with another value for it.
    #[must_use]
    pub fn with(self, key: &str, value: B) -> B {
        let B::Dict(mut entries) = self else { panic!("not a dictionary: {self:?}") };
        entries.retain(|(k, _)| k != key.as_bytes());
        entries.push((key.as_bytes().to_vec(), value));
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        B::Dict(entries)
    }

    /// The same dictionary without this entry.
    #[must_use]
    pub fn without(self, key: &str) -> B {
        let B::Dict(mut entries) = self else { panic!("not a dictionary: {self:?}") };
        entries.retain(|(k, _)| k != key.as_bytes());
        B::Dict(entries)
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        let string = |s: &[u8], out: &mut Vec<u8>| {
            out.extend(format!("{}:", s.len()).bytes());
            out.extend(s);
        };
        match self {
            B::Int(n) => out.extend(format!("i{n}e").bytes()),
            B::Str(s) => string(s, out),
            B::Raw(bytes) => out.extend(bytes),
            B::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.write(out));
                out.push(b'e');
            }
            B::Dict(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    string(key, out);
                    value.write(out);
                }
                out.push(b'e');
            }
        }
    }

    /// Reads one value; what follows it is ignored (BEP 9 puts data behind a dictionary).
    pub fn decode(bytes: &[u8]) -> Option<B> {
        Some(B::read(bytes)?.0)
    }

    /// Reads one value and tells how long it was.
    pub fn read(bytes: &[u8]) -> Option<(B, usize)> {
        match *bytes.first()? {
            b'i' => {
                let end = bytes.iter().position(|&b| b == b'e')?;
                let n = std::str::from_utf8(bytes.get(1..end)?).ok()?.parse().ok()?;
                Some((B::Int(n), end + 1))
            }
            b'l' => {
                let (mut items, mut at) = (Vec::new(), 1);
                while *bytes.get(at)? != b'e' {
                    let (item, len) = B::read(&bytes[at..])?;
                    items.push(item);
                    at += len;
                }
                Some((B::List(items), at + 1))
            }
            b'd' => {
                let (mut entries, mut at) = (Vec::new(), 1);
                while *bytes.get(at)? != b'e' {
                    let (key, len) = B::read(&bytes[at..])?;
                    at += len;
                    let (value, len) = B::read(&bytes[at..])?;
                    at += len;
                    let B::Str(key) = key else { return None };
                    entries.push((key, value));
                }
                Some((B::Dict(entries), at + 1))
            }
            _ => {
                let colon = bytes.iter().position(|&b| b == b':')?;
                let len: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
                let text = bytes.get(colon + 1..colon + 1 + len)?;
                Some((B::Str(text.to_vec()), colon + 1 + len))
            }
        }
    }

    /// The entry of a dictionary.
    pub fn get(&self, key: &str) -> Option<&B> {
        let B::Dict(entries) = self else { return None };
        entries.iter().find(|(k, _)| k == key.as_bytes()).map(|(_, v)| v)
    }

    /// The bytes of a string.
    pub fn bytes(&self) -> Option<&[u8]> {
        if let B::Str(s) = self { Some(s) } else { None }
    }

    /// The number.
    pub fn int(&self) -> Option<i64> {
        if let B::Int(n) = self { Some(*n) } else { None }
    }

    /// The items of a list.
    pub fn items(&self) -> Option<&[B]> {
        if let B::List(items) = self { Some(items) } else { None }
    }
}

/// `l` so many times, closed again: deeper than any parser may follow.
pub fn nested_lists(depth: usize) -> Vec<u8> {
    let mut out = vec![b'l'; depth];
    out.resize(depth * 2, b'e');
    out
}

#[test]
fn scripts_read_what_they_write() {
    let value = B::dict([("b", B::Int(-3)), ("a", B::List(vec![B::str("x"), B::dict([])]))]);
    assert_eq!(value.encode(), b"d1:al1:xdee1:bi-3ee");
    assert_eq!(B::decode(&value.encode()), Some(value));
}
