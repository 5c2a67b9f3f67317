//! Claims about the scanner and the writer.

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
    for good in [&b"i0e"[..], b"0:", b"le", b"de", b"d1:ad1:xi1ee2:aai2ee", b"ld1:ai1e1:bi2eee"] {
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
    let many = [b"l".to_vec(), b"i1e".repeat(Limits::MESSAGE.tokens_max), b"e".to_vec()].concat();
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
