//! The extension protocol (BEP 10): its handshake, metadata exchange (BEP 9), peer exchange
//! (BEP 11), the upload-only message that goes with BEP 21, and pieces taken back (BEP 54).
//!
//! What a stranger sent is read from the bounded scanner's views alone; serde_bencode only writes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::base::limits::METADATA_SIZE_MAX;
use crate::wire::bencode::{self, BencodeError, Dict, Limits, Writer};

/// The number of the extension handshake itself.
pub const HANDSHAKE_ID: u8 = 0;
/// The number under which we want metadata messages.
pub const METADATA_ID: u8 = 1;
/// The number under which we want peer exchange.
pub const PEX_ID: u8 = 2;
/// The number under which we want to be told that a peer only uploads.
pub const UPLOAD_ONLY_ID: u8 = 3;
/// The number under which we want to be told that a peer lost a piece.
pub const DONT_HAVE_ID: u8 = 4;

/// Bytes of one piece of metadata (BEP 9).
pub const METADATA_PIECE_LEN: usize = 16 * 1024;

/// Why the content of an extended message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Not bencode, or beyond its limits.
    #[error("not bencode: {0}")]
    Bencode(#[from] BencodeError),
    /// Bencode, but not a dictionary.
    #[error("not a dictionary")]
    NotADictionary,
    /// A key that the message cannot do without is absent or of another type.
    #[error("a needed key is missing")]
    MissingKey,
    /// A piece number or size outside what can exist.
    #[error("a number is out of range")]
    OutOfRange,
    /// More bytes than such a message can need.
    #[error("too long")]
    TooLong,
}

/// The extension handshake (BEP 10). A key that is absent or makes no sense is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtensionHandshake {
    /// The number under which the sender takes metadata messages.
    pub metadata_id: Option<u8>,
    /// The number under which the sender takes peer exchange.
    pub pex_id: Option<u8>,
    /// The number under which the sender wants to be told that we only upload.
    pub upload_only_id: Option<u8>,
    /// The number under which the sender wants to be told that we lost a piece.
    pub dont_have_id: Option<u8>,
    /// Size of the info dictionary in bytes (BEP 9), as claimed: neither checked nor bounded.
    pub metadata_size: Option<u64>,
    /// The sender's TCP port.
    pub port: Option<u16>,
    /// Requests that the sender queues.
    pub request_queue: Option<u32>,
    /// The sender does not download (BEP 21).
    pub upload_only: bool,
    /// Name of the client, cut to a sane length. It may hold any character.
    pub client: Option<String>,
    /// Our address as the sender sees it.
    pub your_ip: Option<IpAddr>,
}

impl ExtensionHandshake {
    /// Reads the handshake.
    pub fn decode(payload: &[u8]) -> Result<Self, ExtensionError> {
        if payload.len() > HANDSHAKE_LEN_MAX {
            return Err(ExtensionError::TooLong);
        }
        let dict = dict(payload)?;
        let names = dict.get(b"m").and_then(|m| m.dict());
        let id = |name: &[u8]| -> Option<u8> {
            // BEP 10: the number 0 means that the extension was switched off.
            let id = names?.get(name)?.int()?;
            u8::try_from(id).ok().filter(|id| *id != 0)
        };
        let int = |key: &[u8]| dict.get(key).and_then(|v| v.int());
        Ok(Self {
            metadata_id: id(b"ut_metadata"),
            pex_id: id(b"ut_pex"),
            upload_only_id: id(b"upload_only"),
            dont_have_id: id(b"lt_donthave"),
            metadata_size: int(b"metadata_size").and_then(|n| u64::try_from(n).ok()),
            port: int(b"p").and_then(|n| u16::try_from(n).ok()).filter(|p| *p != 0),
            request_queue: int(b"reqq").and_then(|n| u32::try_from(n).ok()).filter(|n| *n != 0),
            upload_only: int(b"upload_only").is_some_and(|n| n != 0),
            client: dict.get(b"v").and_then(|v| v.bytes()).map(client_name),
            your_ip: dict.get(b"yourip").and_then(|v| v.bytes()).and_then(ip_of_bytes),
        })
    }

    /// The payload of the handshake message.
    pub fn encode(&self) -> Vec<u8> {
        let your_ip = self.your_ip.map(bytes_of_ip);
        let wire = WireHandshake {
            m: WireNames {
                lt_donthave: self.dont_have_id,
                upload_only: self.upload_only_id,
                ut_metadata: self.metadata_id,
                ut_pex: self.pex_id,
            },
            metadata_size: self.metadata_size.filter(|n| i64::try_from(*n).is_ok()),
            p: self.port,
            reqq: self.request_queue,
            upload_only: self.upload_only.then_some(1),
            v: self.client.as_deref(),
            yourip: your_ip.as_deref().map(Raw),
        };
        serde_bencode::to_bytes(&wire).expect("numbers and strings always encode")
    }
}

#[derive(Serialize)]
struct WireHandshake<'a> {
    m: WireNames,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reqq: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_only: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    yourip: Option<Raw<'a>>,
}

#[derive(Serialize)]
struct WireNames {
    #[serde(skip_serializing_if = "Option::is_none")]
    lt_donthave: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_only: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ut_metadata: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ut_pex: Option<u8>,
}

// A string of bytes; serde would write a slice as a list of numbers.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// A message of the metadata exchange (BEP 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataMessage {
    /// "Send me this piece of the info dictionary."
    Request {
        /// Which piece.
        piece: u32,
    },
    /// A piece of the info dictionary.
    Data {
        /// Which piece.
        piece: u32,
        /// Size of the whole info dictionary in bytes, as claimed.
        total_size: u64,
        /// The bytes, at most [`METADATA_PIECE_LEN`].
        data: Bytes,
    },
    /// "I do not send this piece."
    Reject {
        /// Which piece.
        piece: u32,
    },
    /// A kind that we do not know: to be ignored (BEP 9).
    Unknown,
}

impl MetadataMessage {
    /// Reads a message; the data of a piece stays a slice of `payload`.
    pub fn decode(payload: &Bytes) -> Result<Self, ExtensionError> {
        let (value, head_len) = bencode::parse_prefix(payload, Limits::MESSAGE)?;
        let dict = value.dict().ok_or(ExtensionError::NotADictionary)?;
        let int = |key: &[u8]| dict.get(key).and_then(|v| v.int());
        let kind = int(b"msg_type").ok_or(ExtensionError::MissingKey)?;
        if !(REQUEST..=REJECT).contains(&kind) {
            return Ok(MetadataMessage::Unknown);
        }
        let piece = int(b"piece").ok_or(ExtensionError::MissingKey)?;
        let piece = u32::try_from(piece).ok().filter(|p| *p < METADATA_PIECES_MAX);
        let piece = piece.ok_or(ExtensionError::OutOfRange)?;
        match kind {
            REQUEST => Ok(MetadataMessage::Request { piece }),
            REJECT => Ok(MetadataMessage::Reject { piece }),
            _ => {
                let total_size = int(b"total_size").ok_or(ExtensionError::MissingKey)?;
                let total_size =
                    u64::try_from(total_size).map_err(|_| ExtensionError::OutOfRange)?;
                let data = payload.slice(head_len..);
                if data.len() > METADATA_PIECE_LEN {
                    return Err(ExtensionError::TooLong);
                }
                Ok(MetadataMessage::Data { piece, total_size, data })
            }
        }
    }

    /// Appends the payload of the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            MetadataMessage::Request { piece } => head(out, REQUEST, *piece, None),
            MetadataMessage::Data { piece, total_size, data } => {
                head(out, DATA, *piece, Some(*total_size));
                out.extend_from_slice(data);
            }
            MetadataMessage::Reject { piece } => head(out, REJECT, *piece, None),
            MetadataMessage::Unknown => head(out, REJECT + 1, 0, None),
        }
    }
}

fn head(out: &mut Vec<u8>, kind: i64, piece: u32, total_size: Option<u64>) {
    let mut w = Writer::new(out);
    w.dict().bytes(b"msg_type").int(kind).bytes(b"piece").int(i64::from(piece));
    if let Some(size) = total_size {
        w.bytes(b"total_size").int(i64::try_from(size).unwrap_or(i64::MAX));
    }
    w.end();
}

/// Reads a message that takes a piece back (BEP 54): its index, unchecked.
pub fn decode_dont_have(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

/// The payload of a message that takes a piece back.
pub fn encode_dont_have(piece: u32) -> Bytes {
    Bytes::copy_from_slice(&piece.to_be_bytes())
}

/// A peer exchange message (BEP 11): what changed since the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pex {
    /// Peers that the sender connected to.
    pub added: Vec<PexPeer>,
    /// Peers that the sender lost.
    pub dropped: Vec<SocketAddr>,
}

/// A peer that another one told us of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PexPeer {
    /// Its endpoint, unchecked.
    pub addr: SocketAddr,
    /// What the sender says about it: [`PexPeer::SEED`], [`PexPeer::REACHABLE`] and others.
    pub flags: u8,
}

impl PexPeer {
    /// It only uploads.
    pub const SEED: u8 = 0x02;
    /// The sender connected to it, so that it can be reached.
    pub const REACHABLE: u8 = 0x10;

    /// Does it only upload?
    pub fn is_seed(&self) -> bool {
        self.flags & Self::SEED != 0
    }
}

impl Pex {
    /// Reads a message. Of each list the first [`PEX_PEERS_MAX`] are taken; what is behind the
    /// last whole entry is ignored.
    pub fn decode(payload: &[u8]) -> Result<Self, ExtensionError> {
        let dict = dict(payload)?;
        let list = |key: &[u8]| dict.get(key).and_then(|v| v.bytes()).unwrap_or_default();
        let mut pex = Pex::default();
        for (peers, flags, is_v4) in
            [(&b"added"[..], &b"added.f"[..], true), (b"added6", b"added6.f", false)]
        {
            let flags = list(flags).iter().copied().chain(std::iter::repeat(0));
            let room = PEX_PEERS_MAX - pex.added.len();
            let peers = endpoints(list(peers), is_v4).zip(flags).take(room);
            pex.added.extend(peers.map(|(addr, flags)| PexPeer { addr, flags }));
        }
        let dropped = endpoints(list(b"dropped"), true).chain(endpoints(list(b"dropped6"), false));
        pex.dropped = dropped.take(PEX_PEERS_MAX).collect();
        Ok(pex)
    }

    /// The payload of the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut wire = WirePex::default();
        for peer in &self.added {
            let is_v4 = peer.addr.is_ipv4();
            push_endpoint(if is_v4 { &mut wire.added } else { &mut wire.added6 }, &peer.addr);
            if is_v4 { &mut wire.flags } else { &mut wire.flags6 }.push(peer.flags);
        }
        for addr in &self.dropped {
            let list = if addr.is_ipv4() { &mut wire.dropped } else { &mut wire.dropped6 };
            push_endpoint(list, addr);
        }
        let fields = [
            ("added", &wire.added),
            ("added.f", &wire.flags),
            ("added6", &wire.added6),
            ("added6.f", &wire.flags6),
            ("dropped", &wire.dropped),
            ("dropped6", &wire.dropped6),
        ];
        let fields: std::collections::BTreeMap<_, _> =
            fields.into_iter().map(|(key, list)| (key, Raw(list))).collect();
        serde_bencode::to_bytes(&fields).expect("strings always encode")
    }
}

#[derive(Default)]
struct WirePex {
    added: Vec<u8>,
    flags: Vec<u8>,
    added6: Vec<u8>,
    flags6: Vec<u8>,
    dropped: Vec<u8>,
    dropped6: Vec<u8>,
}

fn endpoints(list: &[u8], is_v4: bool) -> impl Iterator<Item = SocketAddr> {
    list.chunks_exact(if is_v4 { 6 } else { 18 }).filter_map(|entry| {
        let (ip, port) = entry.split_at(entry.len() - 2);
        let port = u16::from_be_bytes(port.try_into().ok()?);
        Some(SocketAddr::new(ip_of_bytes(ip)?, port))
    })
}

fn push_endpoint(list: &mut Vec<u8>, addr: &SocketAddr) {
    list.extend_from_slice(&bytes_of_ip(addr.ip()));
    list.extend_from_slice(&addr.port().to_be_bytes());
}

fn dict(payload: &[u8]) -> Result<Dict<'_>, ExtensionError> {
    // aria2 and old µTorrents put bytes behind the dictionary; nobody reads them.
    let (value, _) = bencode::parse_prefix(payload, Limits::MESSAGE)?;
    value.dict().ok_or(ExtensionError::NotADictionary)
}

fn ip_of_bytes(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

fn bytes_of_ip(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn client_name(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(CLIENT_NAME_MAX)];
    String::from_utf8_lossy(bytes).into_owned()
}

const REQUEST: i64 = 0;
const DATA: i64 = 1;
const REJECT: i64 = 2;

/// Peers of one peer exchange message that are read, in each of its lists. BEP 11 allows 50 a
/// family; some clients send 100.
pub const PEX_PEERS_MAX: usize = 100;

// Real ones stay below 1 KiB; the rest is room for extensions that we do not know.
const HANDSHAKE_LEN_MAX: usize = 16 * 1024;
// The longest that is seen is about 40.
const CLIENT_NAME_MAX: usize = 96;
const METADATA_PIECES_MAX: u32 = (METADATA_SIZE_MAX / METADATA_PIECE_LEN) as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn handshake_is_written_with_sorted_keys() {
        let h = ExtensionHandshake {
            metadata_id: Some(1),
            pex_id: Some(2),
            upload_only_id: Some(3),
            dont_have_id: Some(4),
            metadata_size: Some(1000),
            port: Some(6881),
            request_queue: Some(2000),
            upload_only: true,
            client: Some("trackless".into()),
            your_ip: Some(Ipv4Addr::new(1, 2, 3, 4).into()),
        };
        let wire = b"d1:md11:lt_donthavei4e11:upload_onlyi3e11:ut_metadatai1e6:ut_pexi2ee13:metadata_sizei1000e\
            1:pi6881e4:reqqi2000e11:upload_onlyi1e1:v9:trackless6:yourip4:\x01\x02\x03\x04e";
        assert_eq!(h.encode(), wire);
        assert_eq!(ExtensionHandshake::decode(wire), Ok(h));
        assert_eq!(ExtensionHandshake::decode(b"de"), Ok(ExtensionHandshake::default()));
        assert_eq!(ExtensionHandshake::default().encode(), b"d1:mdee");
    }

    #[test]
    fn senseless_handshake_keys_are_as_if_absent() {
        let wire = b"d1:md11:ut_metadatai0e6:ut_pexi300ee13:metadata_sizei-1e1:pi0e4:reqqi-5e\
            1:vi3e6:yourip3:abce";
        assert_eq!(ExtensionHandshake::decode(wire), Ok(ExtensionHandshake::default()));
        let long = [&b"d1:v9000:"[..], &[b'x'; 9000], b"e"].concat();
        let client = ExtensionHandshake::decode(&long).unwrap().client.unwrap();
        assert_eq!(client.len(), CLIENT_NAME_MAX);
    }

    #[test]
    fn hostile_handshakes_are_refused() {
        let deep = [&b"d1:x"[..], &[b'l'; 10_000]].concat();
        let long = [&b"d1:v900000:"[..], &[b'x'; 900_000], b"e"].concat();
        for bad in [&deep[..], &long, b"", b"le", b"i1e", b"d1:m", b"d1:pi99999999999999999999ee"] {
            assert!(ExtensionHandshake::decode(bad).is_err());
        }
    }

    #[test]
    fn metadata_numbers_out_of_range_are_refused() {
        for bad in [
            &b"d8:msg_typei0e5:piecei-1ee"[..],
            b"d8:msg_typei0e5:piecei2147483648ee",
            b"d8:msg_typei0e5:piecei2048ee",
            b"d8:msg_typei0ee",
            b"d5:piecei0ee",
            b"d8:msg_typei1e5:piecei0ee",
            b"d8:msg_typei1e5:piecei0e10:total_sizei-1ee",
            b"i0e",
            b"l",
            b"",
        ] {
            assert!(MetadataMessage::decode(&Bytes::from_static(bad)).is_err());
        }
        let long = [&b"d8:msg_typei1e5:piecei0e10:total_sizei1ee"[..], &[0; 300_000]].concat();
        assert_eq!(MetadataMessage::decode(&long.into()), Err(ExtensionError::TooLong));
        let unknown = Bytes::from_static(b"d8:msg_typei9ee");
        assert_eq!(MetadataMessage::decode(&unknown), Ok(MetadataMessage::Unknown));
    }

    #[test]
    fn taken_back_piece_is_four_bytes() {
        for piece in [0, 1, 77_000, u32::MAX] {
            assert_eq!(decode_dont_have(&encode_dont_have(piece)), Some(piece));
        }
        for bad in [&[][..], &[0; 3], &[0; 5]] {
            assert_eq!(decode_dont_have(bad), None);
        }
    }

    #[test]
    fn pex_takes_a_bounded_number_and_ignores_a_torn_entry() {
        let many = [&b"d5:added60006:"[..], &[1; 60_006], b"e"].concat();
        assert_eq!(Pex::decode(&many).unwrap().added.len(), PEX_PEERS_MAX);
        let torn = Pex::decode(b"d5:added7:\x01\x02\x03\x04\x1a\xe1\x05e").unwrap();
        assert_eq!(torn.added, [PexPeer { addr: "1.2.3.4:6881".parse().unwrap(), flags: 0 }]);
        assert_eq!(Pex::decode(b"d5:addedi1e7:droppedlee"), Ok(Pex::default()));
    }

    fn addrs() -> impl Strategy<Value = Vec<SocketAddr>> {
        // Written by family, so that the order of a round trip is IPv4 first.
        let v4 = prop::collection::vec(any::<([u8; 4], u16)>(), 0..20);
        let v6 = prop::collection::vec(any::<([u8; 16], u16)>(), 0..20);
        (v4, v6).prop_map(|(v4, v6)| {
            let v4 = v4.into_iter().map(SocketAddr::from);
            v4.chain(v6.into_iter().map(SocketAddr::from)).collect()
        })
    }

    proptest! {
        #[test]
        fn pex_reads_back(added in addrs(), dropped in addrs(), flags: u8) {
            let added = added.into_iter().map(|addr| PexPeer { addr, flags }).collect();
            let pex = Pex { added, dropped };
            prop_assert_eq!(Pex::decode(&pex.encode()), Ok(pex));
        }

        #[test]
        fn metadata_messages_read_back(
            piece in 0..METADATA_PIECES_MAX, total in 0..(1u64 << 40),
            data in prop::collection::vec(any::<u8>(), 0..500),
        ) {
            let data = Bytes::from(data);
            for sent in [
                MetadataMessage::Request { piece }, MetadataMessage::Reject { piece },
                MetadataMessage::Data { piece, total_size: total, data },
            ] {
                let mut out = Vec::new();
                sent.encode(&mut out);
                prop_assert_eq!(MetadataMessage::decode(&out.into()), Ok(sent));
            }
        }

        #[test]
        fn no_bytes_whatsoever_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (ExtensionHandshake::decode(&bytes), Pex::decode(&bytes));
            let _ = MetadataMessage::decode(&bytes.into());
        }

        #[test]
        fn bencodish_noise_never_panics(
            bytes in prop::collection::vec(prop::sample::select(b"dlei0123456789:-mpv".to_vec()), 0..80),
        ) {
            let bytes = [b"d".to_vec(), bytes, b"e".to_vec()].concat();
            let _ = (ExtensionHandshake::decode(&bytes), Pex::decode(&bytes));
            let _ = MetadataMessage::decode(&bytes.into());
        }
    }
}
