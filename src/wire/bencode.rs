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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(input: &[u8]) -> Result<Value<'_>, BencodeError> {
        parse(input, Limits::MESSAGE)
    }

    #[test]
    fn values_of_every_kind_are_read() {
        let d = read(b"d1:ai-42e1:b4:spam1:cli1eld1:xi0eeeee").unwrap().dict().unwrap();
        assert_eq!(d.get(b"a").unwrap().int(), Some(-42));
        assert_eq!(d.get(b"b").unwrap().str(), Some("spam"));
        let c = d.get(b"c").unwrap().list().unwrap();
        assert_eq!(c.raw(), b"li1eld1:xi0eeee");
        assert_eq!(c.iter().count(), 2);
        assert_eq!(d.get(b"d"), None);
        assert_eq!(d.iter().map(|(k, _)| k[0]).collect::<Vec<_>>(), b"abc");
    }

    #[test]
    fn first_of_two_equal_keys_is_the_one_and_order_is_free() {
        let d = read(b"d1:zi1e1:ai2e1:zi3ee").unwrap().dict().unwrap();
        assert_eq!(d.get(b"z").unwrap().int(), Some(1));
        assert_eq!(d.get(b"a").unwrap().int(), Some(2));
    }

    #[test]
    fn raw_value_is_what_came() {
        let d = read(b"d1:ai-42e1:b4:spam1:cli1eld1:xi0eeee1:d0:e").unwrap().dict().unwrap();
        let raw: Vec<_> = d.entries().map(|e| e.raw).collect();
        assert_eq!(raw, [&b"i-42e"[..], b"4:spam", b"li1eld1:xi0eeee", b"0:"]);
    }

    #[test]
    fn canonical_is_what_has_one_spelling() {
        for good in [&b"i0e"[..], b"0:", b"le", b"de", b"d1:ad1:xi1ee2:aai2ee", b"ld1:ai1e1:bi2eee"]
        {
            assert!(read(good).unwrap().is_canonical());
        }
        for bad in
            [&b"d1:bi1e1:ai2ee"[..], b"d1:ai1e1:ai1ee", b"d2:aai1e1:ai2ee", b"lld1:bi1e1:ai2eeee"]
        {
            assert!(!read(bad).unwrap().is_canonical(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn sloppy_numbers_are_refused() {
        for bad in [
            &b"i-0e"[..],
            b"i00e",
            b"i007e",
            b"i+5e",
            b"ie",
            b"i-e",
            b"i--1e",
            b"i1.5e",
            b"i 1e",
            b"i99999999999999999999e",
            b"i9223372036854775808e",
            b"01:x",
            b"99999999999999999999999:x",
            b"-1:x",
            b"i1",
            b"1",
            b"1:",
            b"x",
            b"",
            b"e",
            b"de1:a",
            b"d1:ae",
            b"di1ei2ee",
            b"dlei1ee",
            b"18446744073709551615:x",
        ] {
            assert!(read(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(read(b"i-9223372036854775808e").unwrap().int(), Some(i64::MIN));
        assert_eq!(read(b"i9223372036854775807e").unwrap().int(), Some(i64::MAX));
        assert_eq!(read(b"0:").unwrap().bytes(), Some(&b""[..]));
    }

    #[test]
    fn nesting_and_number_of_values_are_bounded() {
        let nested = |n: usize| [vec![b'l'; n], vec![b'e'; n]].concat();
        let deepest = Limits::MESSAGE.depth_max;
        assert!(read(&nested(deepest)).is_ok());
        assert_eq!(read(&nested(deepest + 1)), Err(BencodeError::TooDeep));
        assert_eq!(read(&vec![b'l'; 1 << 20]), Err(BencodeError::TooDeep));
        let dicts = b"d1:a".repeat(300);
        assert_eq!(read(&dicts), Err(BencodeError::TooDeep));
        let many =
            [b"l".to_vec(), b"i1e".repeat(Limits::MESSAGE.tokens_max), b"e".to_vec()].concat();
        assert_eq!(read(&many), Err(BencodeError::TooMany));
    }

    #[test]
    fn prefix_leaves_what_follows() {
        let (v, len) = parse_prefix(b"d1:ai1eexyz", Limits::MESSAGE).unwrap();
        assert_eq!((v.dict().unwrap().raw(), len), (&b"d1:ai1ee"[..], 8));
        assert_eq!(read(b"i1ex"), Err(BencodeError::Trailing(3)));
    }

    fn walk(v: Value<'_>, out: &mut Vec<u8>) {
        match v {
            Value::Int(n) => {
                Writer::new(out).int(n);
            }
            Value::Bytes(b) => {
                Writer::new(out).bytes(b);
            }
            Value::List(l) => {
                Writer::new(out).list();
                l.iter().for_each(|v| walk(v, out));
                Writer::new(out).end();
            }
            Value::Dict(d) => {
                Writer::new(out).dict();
                for (k, v) in d.iter() {
                    Writer::new(out).bytes(k);
                    walk(v, out);
                }
                Writer::new(out).end();
            }
        }
    }

    fn tree() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(|n| format!("i{n}e").into_bytes()),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|b| [
                format!("{}:", b.len()).into_bytes(),
                b
            ]
            .concat()),
        ];
        leaf.prop_recursive(8, 64, 6, |inner| {
            let key = prop::collection::vec(any::<u8>(), 0..5)
                .prop_map(|b| [format!("{}:", b.len()).into_bytes(), b].concat());
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(|v| [
                    b"l".to_vec(),
                    v.concat(),
                    b"e".to_vec()
                ]
                .concat()),
                prop::collection::vec((key, inner), 0..6).prop_map(|v| {
                    let body: Vec<u8> = v.into_iter().flat_map(|(k, v)| [k, v].concat()).collect();
                    [b"d".to_vec(), body, b"e".to_vec()].concat()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_writes_back_the_same(bytes in tree()) {
            let mut out = Vec::new();
            walk(read(&bytes).unwrap(), &mut out);
            prop_assert_eq!(out, bytes);
        }

        #[test]
        fn no_bytes_whatsoever_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(v) = read(&bytes) {
                walk(v, &mut Vec::new());
            }
        }

        #[test]
        fn a_cut_or_flipped_message_never_panics(bytes in tree(), cut in any::<usize>(), flip in any::<u8>()) {
            let at = cut % bytes.len();
            prop_assert!(read(&bytes[..at]).is_err());
            let mut bad = bytes.clone();
            bad[at] ^= flip;
            if let Ok(v) = read(&bad) {
                walk(v, &mut Vec::new());
            }
        }

        #[test]
        fn bencodish_noise_never_panics(bytes in prop::collection::vec(prop::sample::select(b"dlei0123456789:-".to_vec()), 0..120)) {
            if let Ok(v) = read(&bytes) {
                let mut out = Vec::new();
                walk(v, &mut out);
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
