//! Magnet links (BEP 9, BEP 53) and bare info-hashes.
//!
//! Tolerant of how links really look: either case of everything, base32 hashes, `&amp;` from web
//! pages, unknown keys, hashes of other networks beside ours. What is wrong with a link that cannot
//! be used is said in one line. Trackers and web seeds are kept and not contacted. Version 2 hashes
//! (`urn:btmh:`, BEP 52) and public keys (`urn:btpk:`, BEP 46) are recognised, not used yet.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::base::InfoHash;

/// Why a link cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nothing but space.
    #[error("the link is empty")]
    Empty,
    /// Longer than any real link.
    #[error("the link has {0} bytes; at most {LINK_LEN_MAX} are read")]
    TooLong(usize),
    /// Neither `magnet:` nor a hash.
    #[error(
        "neither a magnet link nor an info-hash (40 hex digits or 32 base32 characters): `{0}`"
    )]
    Unrecognised(String),
    /// `magnet:` without parameters.
    #[error("the magnet link has no parameters: nothing after `?`")]
    NoParameters,
    /// No `xt` at all.
    #[error("the magnet link has no `xt=urn:btih:` with an info-hash")]
    NoHash,
    /// Only hashes of other networks.
    #[error("the magnet link is for another network: `{0}`")]
    OtherNetwork(String),
    /// `urn:btih:` with the wrong number of characters.
    #[error("the info-hash has {0} characters instead of 40 (hex) or 32 (base32)")]
    HashLength(usize),
    /// A character that is no digit.
    #[error("`{0}` is no digit of an info-hash")]
    HashDigit(char),
    /// `urn:btmh:` that is no SHA-256 multihash.
    #[error("the version 2 hash is malformed: not `1220` and 64 hex digits")]
    BadMultihash,
    /// Only a version 2 hash.
    #[error("this is a version 2 link (BEP 52), which is not supported yet")]
    V2Only,
    /// Only a public key.
    #[error("this link names a public key (BEP 46), which is not supported yet")]
    KeyOnly,
    /// `so=` that is no list of numbers and ranges.
    #[error("`so=` is no list of file numbers and ranges: `{0}`")]
    BadSelect(String),
}

/// A peer named in a link (`x.pe`, BEP 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerHint {
    /// An address.
    Addr(SocketAddr),
    /// A host name that has to be resolved, and a port.
    Host(String, u16),
}

impl fmt::Display for PeerHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerHint::Addr(addr) => write!(f, "{addr}"),
            PeerHint::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// What a magnet link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Which torrent: the first info-hash in the link.
    pub info_hash: InfoHash,
    /// Another info-hash in the same link: not used, worth a warning.
    pub other_hash: Option<InfoHash>,
    /// `dn`: what the link's maker calls it. Escape before printing.
    pub name: Option<String>,
    /// `x.pe`: peers to try at once.
    pub peers: Vec<PeerHint>,
    /// `tr`: kept, not contacted.
    pub trackers: Vec<String>,
    /// `ws`: kept, not contacted.
    pub webseeds: Vec<String>,
    /// `so` (BEP 53): the files to fetch, as ascending ranges that do not touch; `None` means all.
    pub select: Option<Vec<RangeInclusive<u32>>>,
}

impl Link {
    /// A link that holds nothing but the hash.
    pub fn new(info_hash: InfoHash) -> Link {
        Link {
            info_hash,
            other_hash: None,
            name: None,
            peers: Vec::new(),
            trackers: Vec::new(),
            webseeds: Vec::new(),
            select: None,
        }
    }

    /// Reads a magnet link or a bare info-hash.
    pub fn parse(text: &str) -> Result<Link, LinkError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(LinkError::Empty);
        }
        if text.len() > LINK_LEN_MAX {
            return Err(LinkError::TooLong(text.len()));
        }
        if strip_prefix(text, "magnet%3a").is_some() {
            // The whole link was escaped once too often on its way.
            return Self::parse_magnet(&unescape(text, false));
        }
        if strip_prefix(text, "magnet:").is_some() {
            return Self::parse_magnet(text);
        }
        parse_bare(text).map(Link::new)
    }

    /// Is file number `index` selected?
    pub fn is_selected(&self, index: u32) -> bool {
        self.select.as_ref().is_none_or(|ranges| ranges.iter().any(|r| r.contains(&index)))
    }

    fn parse_magnet(text: &str) -> Result<Link, LinkError> {
        let query = text.split_once('?').map_or("", |(_, query)| query);
        if query.is_empty() {
            return Err(LinkError::NoParameters);
        }
        let mut topics = Topics::default();
        let mut link = Link::new(InfoHash::new([0; 20]));
        let mut ranges = Vec::new();
        for parameter in query.split('&').map(without_entity) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            // `xt.1`, `tr.2`: numbered keys are the same keys.
            let key = unescape(key, false).to_ascii_lowercase();
            let key = key.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('.');
            match key {
                "xt" | "xs" => topics.add(key, unescape(value, false).trim()),
                "dn" if link.name.is_none() && !value.is_empty() => {
                    link.name = Some(unescape(value, true));
                }
                "tr" => keep(&mut link.trackers, unescape(value, false)),
                "ws" => keep(&mut link.webseeds, unescape(value, false)),
                "x.pe" if link.peers.len() < LIST_LEN_MAX => {
                    link.peers.extend(peer_hint(unescape(value, false).trim()));
                }
                "so" if !value.is_empty() => select(&unescape(value, true), &mut ranges)?,
                _ => {}
            }
        }
        (link.info_hash, link.other_hash) = topics.finish()?;
        link.select = (!ranges.is_empty()).then(|| merged(ranges));
        Ok(link)
    }
}

impl FromStr for Link {
    type Err = LinkError;
    fn from_str(text: &str) -> Result<Link, LinkError> {
        Link::parse(text)
    }
}

impl fmt::Display for Link {
    /// A magnet link that reads back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "magnet:?xt=urn:btih:{}", self.info_hash)?;
        if let Some(other) = &self.other_hash {
            write!(f, "&xt=urn:btih:{other}")?;
        }
        if let Some(name) = &self.name {
            write!(f, "&dn={}", Escaped(name))?;
        }
        for (index, range) in self.select.iter().flatten().enumerate() {
            f.write_str(if index == 0 { "&so=" } else { "," })?;
            let (first, last) = (range.start(), range.end());
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        self.peers.iter().try_for_each(|peer| write!(f, "&x.pe={}", Escaped(&peer.to_string())))?;
        self.trackers.iter().try_for_each(|url| write!(f, "&tr={}", Escaped(url)))?;
        self.webseeds.iter().try_for_each(|url| write!(f, "&ws={}", Escaped(url)))
    }
}

// The hashes of a link, and the best reason there is if none of them is of use.
#[derive(Default)]
struct Topics {
    found: Option<InfoHash>,
    other: Option<InfoHash>,
    bad_hash: Option<LinkError>,
    v2: Option<LinkError>,
    key: Option<LinkError>,
    foreign: Option<LinkError>,
}

impl Topics {
    fn add(&mut self, key: &str, urn: &str) {
        if strip_prefix(urn, "urn:btpk:").is_some() {
            self.key.get_or_insert(LinkError::KeyOnly);
        } else if key == "xs" {
            // Any other exact source is a place to get it from, not a name for it.
        } else if let Some(hash) = strip_prefix(urn, "urn:btih:") {
            match parse_hash(hash) {
                Ok(hash) if self.found.is_none() => self.found = Some(hash),
                Ok(hash) if self.found != Some(hash) => self.other = self.other.or(Some(hash)),
                Ok(_) => {}
                Err(e) => {
                    self.bad_hash.get_or_insert(e);
                }
            }
        } else if let Some(hash) = strip_prefix(urn, "urn:btmh:") {
            let good = is_multihash(hash);
            self.v2.get_or_insert(if good { LinkError::V2Only } else { LinkError::BadMultihash });
        } else {
            self.foreign.get_or_insert(LinkError::OtherNetwork(shown(urn)));
        }
    }

    fn finish(self) -> Result<(InfoHash, Option<InfoHash>), LinkError> {
        let why = self.bad_hash.or(self.v2).or(self.key).or(self.foreign);
        self.found.map(|hash| (hash, self.other)).ok_or(why.unwrap_or(LinkError::NoHash))
    }
}

fn parse_bare(text: &str) -> Result<InfoHash, LinkError> {
    if let Some(hash) = strip_prefix(text, "urn:btih:") {
        return parse_hash(hash);
    }
    if is_multihash(text) || strip_prefix(text, "urn:btmh:").is_some_and(is_multihash) {
        return Err(LinkError::V2Only);
    }
    // A text of the right length with one wrong character is a damaged hash; anything else is
    // something else.
    let looks_like_hash =
        matches!(text.len(), 32 | 40) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let all_digits = text.len() > 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if looks_like_hash || all_digits {
        return parse_hash(text);
    }
    Err(LinkError::Unrecognised(shown(text)))
}

fn parse_hash(text: &str) -> Result<InfoHash, LinkError> {
    match text.chars().count() {
        40 => match text.chars().find(|c| !c.is_ascii_hexdigit()) {
            Some(c) => Err(LinkError::HashDigit(c)),
            None => text.parse().map_err(|_| LinkError::HashLength(40)),
        },
        32 => base32(text),
        n => Err(LinkError::HashLength(n)),
    }
}

// RFC 4648 without padding: 32 characters of 5 bits are 20 bytes.
fn base32(text: &str) -> Result<InfoHash, LinkError> {
    let mut hash = [0u8; 20];
    let (mut bits, mut held, mut at) = (0u32, 0, 0);
    for c in text.chars() {
        let digit = match c {
            'a'..='z' => u32::from(c) - u32::from('a'),
            'A'..='Z' => u32::from(c) - u32::from('A'),
            '2'..='7' => u32::from(c) - u32::from('2') + 26,
            _ => return Err(LinkError::HashDigit(c)),
        };
        bits = (bits << 5 | digit) & 0xfff;
        held += 5;
        if held >= 8 {
            held -= 8;
            hash[at] = u8::try_from(bits >> held & 0xff).expect("masked to eight bits");
            at += 1;
        }
    }
    Ok(InfoHash::new(hash))
}

fn is_multihash(text: &str) -> bool {
    text.len() == 68 && text.starts_with("1220") && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn peer_hint(text: &str) -> Option<PeerHint> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return (addr.port() != 0).then_some(PeerHint::Addr(addr));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|p| *p != 0)?;
    let named = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let usable = !host.is_empty() && host.len() <= 253 && host.chars().all(named);
    usable.then(|| PeerHint::Host(host.to_owned(), port))
}

// BEP 53: `0,2,4-9`. A range is kept as its two ends, however much lies between.
fn select(text: &str, ranges: &mut Vec<RangeInclusive<u32>>) -> Result<(), LinkError> {
    let bad = || LinkError::BadSelect(shown(text));
    for part in text.split(',') {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |s: &str| {
            let digits = !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
            s.parse::<u32>().ok().filter(|_| digits).ok_or_else(bad)
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last || ranges.len() >= RANGES_MAX {
            return Err(bad());
        }
        ranges.push(first..=last);
    }
    Ok(())
}

fn merged(mut ranges: Vec<RangeInclusive<u32>>) -> Vec<RangeInclusive<u32>> {
    ranges.sort_unstable_by_key(|r| *r.start());
    let mut out: Vec<RangeInclusive<u32>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => out.push(range),
        }
    }
    out
}

// What is left of an ampersand that a web page wrote as an entity, perhaps more than once.
fn without_entity(mut parameter: &str) -> &str {
    while let Some(rest) =
        ["amp;", "#38;", "#x26;"].iter().find_map(|entity| strip_prefix(parameter, entity))
    {
        parameter = rest;
    }
    parameter
}

fn keep(list: &mut Vec<String>, value: String) {
    if list.len() < LIST_LEN_MAX && !value.is_empty() {
        list.push(value);
    }
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

// Percent-decoding; what is no escape stays. `+` means a space in names, not in URLs.
fn unescape(text: &str, plus_is_space: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            (b'+', _) if plus_is_space => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

// The start of a stranger's text, fit for a one-line message.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                write!(f, "{}", char::from(b))
            }
            _ => write!(f, "%{b:02X}"),
        })
    }
}

/// Bytes of one link. Some have a few hundred trackers; this is room for ten thousand.
const LINK_LEN_MAX: usize = 4 << 20;
/// Trackers, web seeds or peers that are kept of one link.
const LIST_LEN_MAX: usize = 1_000;
/// Ranges in `so=`.
const RANGES_MAX: usize = 10_000;
/// Characters of a bad link that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests;
