use super::*;
use proptest::prelude::*;

const HEX: &str = "0123456789abcdef0123456789abcdef01234567";
// The same 20 bytes.
const BASE32: &str = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH";

fn parse(text: &str) -> Link {
    Link::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn error(text: &str) -> LinkError {
    Link::parse(text).expect_err(text)
}

#[test]
fn a_hash_is_read_in_every_form() {
    let want = Link::new(HEX.parse().unwrap());
    for text in [
        HEX.to_owned(),
        HEX.to_uppercase(),
        format!("  {HEX}\n"),
        BASE32.to_owned(),
        BASE32.to_lowercase(),
        format!("urn:btih:{HEX}"),
        format!("magnet:?xt=urn:btih:{HEX}"),
        format!("MAGNET:?XT=URN:BTIH:{}", HEX.to_uppercase()),
        format!("magnet:?xt=urn:btih:{BASE32}"),
        format!("magnet:?xt.1=urn:btih:{HEX}"),
        format!("magnet://?xt=urn:btih:{HEX}"),
        format!("magnet:?xt=urn%3Abtih%3A{HEX}"),
        format!("magnet%3A%3Fxt%3Durn%3Abtih%3A{HEX}"),
        format!("magnet:?unknown=1&&=&xl=5&xt=urn:btih:{HEX}&"),
        format!("magnet:?xt=urn:ed2k:354B15E68FB8F36D7CD88FF94116CDC1&xt=urn:btih:{HEX}"),
        format!("magnet:?xt=urn:btmh:1220{}&xt=urn:btih:{HEX}", "0".repeat(64)),
        format!("magnet:?xt=urn:btih:short&xt=urn:btih:{HEX}"),
        format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{BASE32}"),
    ] {
        assert_eq!(parse(&text), want, "{text}");
    }
}

#[test]
fn everything_in_a_link_is_read() {
    let link = parse(&format!(
        "magnet:?xt=urn:btih:{HEX}&amp;dn=a+b%20%C3%A9&dn=second&amp;tr=udp%3A%2F%2Ft%3A1%2Fa+b&tr.1=http://u/&ws=http://w/\
         &x.pe=1.2.3.4:5&x.pe=[::1]:6&x.pe=host.example:7&x.pe=1.2.3.4:0&x.pe=nonsense&x.pe=%20:1&so=4-6,0,2-3,9"
    ));
    assert_eq!(link.name.as_deref(), Some("a b é"));
    assert_eq!(link.trackers, ["udp://t:1/a+b", "http://u/"]);
    assert_eq!(link.webseeds, ["http://w/"]);
    assert_eq!(
        link.peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["1.2.3.4:5", "[::1]:6", "host.example:7"]
    );
    assert_eq!(link.select, Some(vec![0..=0, 2..=6, 9..=9]));
    assert!(link.is_selected(5) && !link.is_selected(1) && parse(HEX).is_selected(1));
}

#[test]
fn ampersands_of_web_pages_are_ampersands() {
    for and in ["&", "&amp;", "&AMP;", "&#38;", "&#x26;", "&#X26;", "&amp;amp;", "&amp;#38;"] {
        let link = parse(&format!("magnet:?dn=x{and}xt=urn:btih:{HEX}{and}x.pe=1.2.3.4:5"));
        assert_eq!(link.info_hash.to_string(), HEX, "{and}");
        assert_eq!((link.name.as_deref(), link.peers.len()), (Some("x"), 1), "{and}");
    }
}

#[test]
fn first_hash_wins_and_the_other_is_told() {
    let other = "f".repeat(40);
    let link = parse(&format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{other}"));
    assert_eq!((link.info_hash.to_string(), link.other_hash), (HEX.to_owned(), other.parse().ok()));
}

#[test]
fn what_is_wrong_is_named() {
    use LinkError as E;
    let v2 = format!("1220{}", "a".repeat(64));
    for (text, want) in [
        (String::new(), E::Empty),
        (" \n".into(), E::Empty),
        ("hello".into(), E::Unrecognised("hello".into())),
        ("http://x/\u{1b}[2J".into(), E::Unrecognised("http://x/\\u{1b}[2J".into())),
        ("magnet:".into(), E::NoParameters),
        ("magnet:?".into(), E::NoParameters),
        ("magnet:?dn=x".into(), E::NoHash),
        ("magnet:?xt=urn:btih:".into(), E::HashLength(0)),
        (format!("magnet:?xt=urn:btih:{}", &HEX[1..]), E::HashLength(39)),
        (format!("magnet:?xt=urn:btih:{HEX}0"), E::HashLength(41)),
        (format!("magnet:?xt=urn:btih:{}g", &HEX[1..]), E::HashDigit('g')),
        (format!("magnet:?xt=urn:btih:{}é", &HEX[1..]), E::HashDigit('é')),
        (format!("magnet:?xt=urn:btih:1{}", &BASE32[1..]), E::HashDigit('1')),
        (format!("{}g", &HEX[1..]), E::HashDigit('g')),
        (HEX[1..].to_owned(), E::HashLength(39)),
        (v2.clone(), E::V2Only),
        (format!("magnet:?xt=urn:btmh:{v2}"), E::V2Only),
        ("magnet:?xt=urn:btmh:1220".into(), E::BadMultihash),
        (format!("magnet:?xs=urn:btpk:{}", "a".repeat(64)), E::KeyOnly),
        ("magnet:?xt=urn:sha1:ABC".into(), E::OtherNetwork("urn:sha1:ABC".into())),
        (format!("magnet:?xt=urn:btih:{HEX}&so=1-"), E::BadSelect("1-".into())),
        (format!("magnet:?xt=urn:btih:{HEX}&so=5-2"), E::BadSelect("5-2".into())),
        (format!("magnet:?xt=urn:btih:{HEX}&so=-1"), E::BadSelect("-1".into())),
        (format!("magnet:?xt=urn:btih:{HEX}&so=4294967296"), E::BadSelect("4294967296".into())),
        (format!("magnet:?xt=urn:btih:{HEX}&so=a"), E::BadSelect("a".into())),
    ] {
        assert_eq!(error(&text), want, "{text}");
        assert!(!want.to_string().contains('\n'));
    }
}

#[test]
fn huge_links_are_bounded() {
    let base = format!("magnet:?xt=urn:btih:{HEX}");
    let many = parse(&(base.clone() + &"&tr=udp://tracker.example:80/announce".repeat(10_000)));
    assert_eq!(many.trackers.len(), LIST_LEN_MAX);
    assert_eq!(parse(&(base.clone() + "&so=0-4294967295")).select, Some(vec![0..=u32::MAX]));
    assert!(matches!(
        error(&(base.clone() + "&so=" + &"1,".repeat(20_000) + "1")),
        LinkError::BadSelect(_)
    ));
    assert!(matches!(error(&(base + &"x".repeat(LINK_LEN_MAX))), LinkError::TooLong(_)));
    assert_eq!(error(&"é".repeat(1000)).to_string().chars().filter(|c| *c == 'é').count(), 60);
}

fn any_link() -> impl Strategy<Value = Link> {
    let text = || "\\PC{1,12}";
    let peer = prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| PeerHint::Addr((ip, port.max(1)).into())),
        any::<([u16; 8], u16)>().prop_map(|(ip, port)| PeerHint::Addr((ip, port.max(1)).into())),
        ("[a-z]{1,9}\\.[a-z]{2}", 1..u16::MAX).prop_map(|(host, port)| PeerHint::Host(host, port)),
    ];
    let list = |s| prop::collection::vec(s, 0..3);
    let ranges = prop::option::of(prop::collection::vec(any::<(u32, u32)>(), 1..5))
        .prop_map(|r| r.map(|r| merged(r.into_iter().map(|(a, b)| a.min(b)..=a.max(b)).collect())));
    let hashes = (any::<[u8; 20]>(), prop::option::of(any::<[u8; 20]>()));
    (
        hashes,
        prop::option::of(text()),
        prop::collection::vec(peer, 0..3),
        list(text()),
        list(text()),
        ranges,
    )
        .prop_map(|((hash, other), name, peers, trackers, webseeds, select)| Link {
            info_hash: InfoHash::new(hash),
            other_hash: other.filter(|o| *o != hash).map(InfoHash::new),
            name,
            peers,
            trackers,
            webseeds,
            select,
        })
}

proptest! {
    #[test]
    fn a_link_reads_back_as_it_was_written(link in any_link()) {
        prop_assert_eq!(Link::parse(&link.to_string()), Ok(link));
    }

    #[test]
    fn no_text_whatsoever_panics(text in any::<String>(), tail in "[a-z%0-9=&.:;+-]{0,80}") {
        let _ = Link::parse(&text);
        let _ = Link::parse(&format!("magnet:?{tail}"));
        let _ = Link::parse(&format!("magnet:?xt=urn:btih:{HEX}&so={tail}"));
        let _ = Link::parse(&format!("magnet:?xt=urn:btih:{HEX}&x.pe={text}"));
    }
}
