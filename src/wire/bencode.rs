//! Bencode (BEP 3): a bounded, non-recursive scanner with borrowed views, and a writer.
//!
//! [`parse`] walks the whole input once, checking every rule and every limit; the views it returns
//! ([`Value`], [`List`], [`Dict`]) then read bytes that are known to be well formed and cannot
//! fail. Nothing is copied and nothing allocated; `raw()` gives the bytes of any value as they came,
//! which is what hashes and signatures are made over.
//!
//! Strict in numbers (no leading zeros, no `-0`, 64 bits) and in length; tolerant of the order of
//! keys, which real clients get wrong. Of a key that comes twice the first is the one.

/// What a value may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Lists and dictionaries inside one another.
    pub depth_max: usize,
    /// Values in all, keys included.
    pub tokens_max: usize,
}

impl Limits {
    /// For one datagram or one peer message.
    pub const MESSAGE: Limits = Limits {
        depth_max: crate::base::limits::BENCODE_DEPTH_MAX,
        tokens_max: crate::base::limits::MESSAGE_TOKENS_MAX,
    };
    /// For a torrent file or an info dictionary.
    pub const TORRENT: Limits = Limits {
        depth_max: crate::base::limits::TORRENT_DEPTH_MAX,
        tokens_max: crate::base::limits::TORRENT_TOKENS_MAX,
    };
}

/// Why bytes are not bencode that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BencodeError {
    /// The input ends inside a value.
    #[error("ends too early")]
    Truncated,
    /// A byte that starts no value, or a key that is not a string.
    #[error("unexpected byte at offset {0}")]
    Unexpected(usize),
    /// A number with leading zeros, a lone or repeated sign, or more than 64 bits.
    #[error("bad number at offset {0}")]
    BadNumber(usize),
    /// Deeper than [`Limits::depth_max`].
    #[error("nested too deep")]
    TooDeep,
    /// More values than [`Limits::tokens_max`].
    #[error("too many values")]
    TooMany,
    /// Bytes after the value.
    #[error("bytes after the end at offset {0}")]
    Trailing(usize),
}

/// One bencoded value, borrowed from bytes that were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i42e`
    Int(i64),
    /// `4:spam`
    Bytes(&'a [u8]),
    /// `l...e`
    List(List<'a>),
    /// `d...e`
    Dict(Dict<'a>),
}

impl<'a> Value<'a> {
    /// The number, if it is one.
    pub fn int(self) -> Option<i64> {
        if let Value::Int(n) = self { Some(n) } else { None }
    }

    /// The string, if it is one.
    pub fn bytes(self) -> Option<&'a [u8]> {
        if let Value::Bytes(b) = self { Some(b) } else { None }
    }

    /// The string, if it is one in UTF-8.
    pub fn str(self) -> Option<&'a str> {
        self.bytes().and_then(|b| std::str::from_utf8(b).ok())
    }

    /// The list, if it is one.
    pub fn list(self) -> Option<List<'a>> {
        if let Value::List(l) = self { Some(l) } else { None }
    }

    /// The dictionary, if it is one.
    pub fn dict(self) -> Option<Dict<'a>> {
        if let Value::Dict(d) = self { Some(d) } else { None }
    }

    /// True if this is the one way to write it: the keys of each dictionary ascend and none comes
    /// twice. Numbers and lengths were checked before. The depth is bounded by [`Limits`].
    pub fn is_canonical(self) -> bool {
        match self {
            Value::Int(_) | Value::Bytes(_) => true,
            Value::List(list) => list.iter().all(Value::is_canonical),
            Value::Dict(dict) => {
                let mut last = None;
                dict.iter().all(|(key, value)| {
                    let ascends = last.is_none_or(|last| last < key);
                    last = Some(key);
                    ascends && value.is_canonical()
                })
            }
        }
    }
}

/// A list in checked bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List<'a> {
    raw: &'a [u8],
}

impl<'a> List<'a> {
    /// The bytes of the whole list, `l` and `e` included.
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// The values in order.
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let mut rest = body(self.raw);
        std::iter::from_fn(move || next_value(&mut rest))
    }
}

/// A dictionary in checked bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dict<'a> {
    raw: &'a [u8],
}

impl<'a> Dict<'a> {
    /// The bytes of the whole dictionary, `d` and `e` included.
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Keys and values in the order in which they came.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        self.entries().map(|entry| (entry.key, entry.value))
    }

    /// The same, with the bytes of each value as they came.
    pub fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        let mut rest = body(self.raw);
        std::iter::from_fn(move || {
            let key = next_value(&mut rest)?.bytes()?;
            let before = rest;
            let value = next_value(&mut rest)?;
            let raw = before.get(..before.len() - rest.len())?;
            Some(Entry { key, value, raw })
        })
    }

    /// The value of `key`; the first one if it comes twice.
    pub fn get(self, key: &[u8]) -> Option<Value<'a>> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }
}

/// What a dictionary says about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What stands there.
    pub value: Value<'a>,
    /// Its bytes as they came: what hashes and signatures are made over.
    pub raw: &'a [u8],
}

/// Reads the one value that `input` is.
pub fn parse(input: &[u8], limits: Limits) -> Result<Value<'_>, BencodeError> {
    let (value, len) = parse_prefix(input, limits)?;
    if len != input.len() {
        return Err(BencodeError::Trailing(len));
    }
    Ok(value)
}

/// Reads the value that `input` begins with, and tells its length in bytes.
pub fn parse_prefix(input: &[u8], limits: Limits) -> Result<(Value<'_>, usize), BencodeError> {
    let len = scan(input, limits)?;
    let mut rest = &input[..len];
    let value = next_value(&mut rest).ok_or(BencodeError::Truncated)?;
    Ok((value, len))
}

// Checks the value at the start of `input` and returns its length. Containers are counted in a
// bit stack instead of the call stack: one bit a level says "dictionary", and in a dictionary one
// more says "a key comes next".
fn scan(input: &[u8], limits: Limits) -> Result<usize, BencodeError> {
    assert!(limits.depth_max < 128, "the bit stack holds 127 levels");
    let (mut is_dict, mut wants_key, mut depth) = (0u128, 0u128, 0usize);
    let (mut at, mut tokens) = (0usize, 0usize);
    loop {
        let level = 1u128 << depth;
        let first = *input.get(at).ok_or(BencodeError::Truncated)?;
        let in_dict = is_dict & level != 0;
        let key_next = in_dict && wants_key & level != 0;
        if first == b'e' && depth > 0 && (!in_dict || key_next) {
            at += 1;
            depth -= 1;
        } else {
            tokens += 1;
            if tokens > limits.tokens_max {
                return Err(BencodeError::TooMany);
            }
            if key_next && !first.is_ascii_digit() {
                return Err(BencodeError::Unexpected(at));
            }
            if in_dict {
                wants_key ^= level;
            }
            match first {
                b'l' | b'd' => {
                    depth += 1;
                    if depth > limits.depth_max {
                        return Err(BencodeError::TooDeep);
                    }
                    let below = 1u128 << depth;
                    is_dict = if first == b'd' { is_dict | below } else { is_dict & !below };
                    wants_key |= below;
                    at += 1;
                    continue;
                }
                b'i' => at = read_int(input, at)?.1,
                b'0'..=b'9' => at = read_bytes(input, at)?.1,
                _ => return Err(BencodeError::Unexpected(at)),
            }
        }
        if depth == 0 {
            return Ok(at);
        }
    }
}

// `i` at `at`: the number and the offset behind its `e`.
fn read_int(input: &[u8], at: usize) -> Result<(i64, usize), BencodeError> {
    let bad = BencodeError::BadNumber(at);
    let body = &input[at + 1..];
    // 20 characters hold every i64; do not search further for the end.
    let window = &body[..body.len().min(21)];
    let Some(len) = window.iter().position(|b| *b == b'e') else {
        return Err(if body.len() > 20 { bad } else { BencodeError::Truncated });
    };
    let (sign, digits) = match &body[..len] {
        [b'-', digits @ ..] => (-1i64, digits),
        digits => (1i64, digits),
    };
    match digits {
        [] => return Err(bad),
        [b'0'] if sign < 0 => return Err(bad),
        [b'0', _, ..] => return Err(bad),
        _ => {}
    }
    let mut n = 0i64;
    for d in digits {
        if !d.is_ascii_digit() {
            return Err(bad);
        }
        let digit = i64::from(d - b'0') * sign;
        n = n.checked_mul(10).and_then(|n| n.checked_add(digit)).ok_or(bad)?;
    }
    Ok((n, at + 1 + len + 1))
}

// A digit at `at`: the string and the offset behind it.
fn read_bytes(input: &[u8], at: usize) -> Result<(&[u8], usize), BencodeError> {
    let bad = BencodeError::BadNumber(at);
    let mut len = 0usize;
    let mut i = at;
    loop {
        match *input.get(i).ok_or(BencodeError::Truncated)? {
            b':' => break,
            d @ b'0'..=b'9' if len > 0 || i == at => {
                len = len
                    .checked_mul(10)
                    .ok_or(bad)?
                    .checked_add(usize::from(d - b'0'))
                    .ok_or(bad)?;
            }
            b'0'..=b'9' => return Err(bad),
            _ => return Err(BencodeError::Unexpected(i)),
        }
        i += 1;
    }
    let end = (i + 1).checked_add(len).ok_or(bad)?;
    let bytes = input.get(i + 1..end).ok_or(BencodeError::Truncated)?;
    Ok((bytes, end))
}

fn body(raw: &[u8]) -> &[u8] {
    raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default()
}

// The next value of a checked body. `None` at its end; the checks make every other failure
// impossible, and `None` is the harmless answer should that ever be wrong.
fn next_value<'a>(rest: &mut &'a [u8]) -> Option<Value<'a>> {
    let input = *rest;
    let (value, end) = match *input.first()? {
        b'i' => read_int(input, 0).map(|(n, end)| (Value::Int(n), end)).ok()?,
        b'l' => {
            let end = container_end(input)?;
            (Value::List(List { raw: &input[..end] }), end)
        }
        b'd' => {
            let end = container_end(input)?;
            (Value::Dict(Dict { raw: &input[..end] }), end)
        }
        _ => read_bytes(input, 0).map(|(b, end)| (Value::Bytes(b), end)).ok()?,
    };
    *rest = &input[end..];
    Some(value)
}

// The length of the container at the start of checked bytes: only depth has to be counted.
fn container_end(input: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0usize);
    loop {
        match *input.get(at)? {
            b'l' | b'd' => {
                depth += 1;
                at += 1;
            }
            b'e' => {
                depth -= 1;
                at += 1;
            }
            b'i' => at += input[at..].iter().position(|b| *b == b'e')? + 1,
            _ => at = read_bytes(input, at).ok()?.1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Appends bencode to a buffer. The caller gives the keys of a dictionary in ascending order, as
/// BEP 3 demands, and an [`Writer::end`] for each list and dictionary.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes behind what `out` holds.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// `i42e`
    pub fn int(&mut self, n: i64) -> &mut Self {
        self.out.push(b'i');
        if n < 0 {
            self.out.push(b'-');
        }
        self.decimal(n.unsigned_abs());
        self.out.push(b'e');
        self
    }

    /// `4:spam`; also writes keys.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes_len(bytes.len());
        self.out.extend_from_slice(bytes);
        self
    }

    /// `4:` alone, for a string that the caller appends piecewise with [`Writer::raw`].
    pub fn bytes_len(&mut self, len: usize) -> &mut Self {
        self.decimal(len as u64);
        self.out.push(b':');
        self
    }

    /// Bytes as they are: a value encoded before, or part of a string.
    pub fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.out.extend_from_slice(encoded);
        self
    }

    /// `d`
    pub fn dict(&mut self) -> &mut Self {
        self.out.push(b'd');
        self
    }

    /// `l`
    pub fn list(&mut self) -> &mut Self {
        self.out.push(b'l');
        self
    }

    /// `e`, the end of a list or dictionary.
    pub fn end(&mut self) -> &mut Self {
        self.out.push(b'e');
        self
    }

    fn decimal(&mut self, mut n: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(n % 10).expect("a digit is below ten");
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }
}

#[cfg(test)]
mod tests;
