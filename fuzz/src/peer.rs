//! What a peer says: its handshake, its stream of messages, and its extensions.

use bytes::{Bytes, BytesMut};
use trackless::base::limits::{BLOCK_LEN, PEER_MESSAGE_MAX};
use trackless::base::{InfoHash, Instant, PeerId};
use trackless::peer::{Connection, Geometry};
use trackless::wire::bitfield::Bitfield;
use trackless::wire::extension::{
    ExtensionHandshake, METADATA_PIECE_LEN, MetadataMessage, PEX_PEERS_MAX, Pex,
};
use trackless::wire::handshake::{HANDSHAKE_LEN, Handshake};
use trackless::wire::peer::{Framer, Message};

use super::input::Input;

/// Any bytes as a handshake.
pub fn handshake(data: &[u8]) {
    if let Ok(read) = Handshake::decode(data) {
        assert_eq!(read.encode(), data);
        let _ = (read.supports_dht(), read.supports_fast(), read.supports_extensions());
    }
    // As a stream that comes in two pieces.
    let at = data.first().map_or(0, |n| usize::from(*n)).min(data.len());
    let (mut framer, mut buf) = (Framer::new(), BytesMut::from(&data[..at]));
    let early = framer.next_frame(&mut buf);
    if let Ok(None) = early {
        assert!(framer.wanted(&buf) > 0);
        buf.extend_from_slice(&data[at..]);
        let late = framer.next_frame(&mut buf);
        let whole = Framer::new().next_frame(&mut BytesMut::from(data));
        assert_eq!(late, whole, "however it was cut");
    }
}

/// Bytes as a stream of messages, cut anywhere, into a connection.
pub fn messages(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let geometry = Geometry { pieces: 10, piece_len: 4 * BLOCK_LEN, last_len: 100 };
    let ours = Handshake::new(InfoHash::new([9; 20]), PeerId::new([1; 20]), true);
    let mut theirs = Handshake::new(InfoHash::new([9; 20]), PeerId::new([2; 20]), flags & 1 != 0);
    theirs.reserved = input.array();
    let known = (flags & 2 == 0).then_some(geometry);
    let mut now = Instant::ZERO;
    let mut connection = Connection::accept(now, &ours, &theirs, known);
    connection.say_pieces(Some(&Bitfield::all(geometry.pieces)));
    let mut framer = Framer::new();
    let mut buf = BytesMut::from(&theirs.encode()[..]);
    assert_eq!(framer.next_frame(&mut buf).map(|f| f.map(|f| f.len())), Ok(Some(HANDSHAKE_LEN)));
    while !input.is_empty() {
        buf.extend_from_slice(input.bytes(300));
        loop {
            let frame = match framer.next_frame(&mut buf) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    assert!(framer.wanted(&buf) > 0);
                    break;
                }
                Err(_) => return,
            };
            assert!(frame.len() <= PEER_MESSAGE_MAX);
            round_trip(&frame);
            now += std::time::Duration::from_millis(u64::from(flags));
            if connection.handle_frame(now, &frame).is_err() {
                return;
            }
            if flags & 4 != 0 && connection.tick(now).is_err() {
                return;
            }
            connection.take_output(now);
        }
    }
    if known.is_none() {
        let _ = connection.set_geometry(geometry);
    }
}

fn round_trip(frame: &Bytes) {
    let Ok(message) = Message::decode(frame) else { return };
    let mut out = Vec::new();
    message.encode(&mut out);
    // What we do not know we could not say again.
    if !matches!(message, Message::Unknown { .. }) {
        assert_eq!(out[4..], frame[..]);
    }
}

/// Any bytes as a message of each extension.
pub fn extension(data: &[u8]) {
    if let Ok(read) = ExtensionHandshake::decode(data) {
        assert!(read.metadata_id != Some(0) && read.pex_id != Some(0));
        assert!(read.client.as_ref().is_none_or(|name| name.len() <= 3 * 96));
        // A name that was no text grows when it is made one, and is cut once more.
        let read = ExtensionHandshake { client: None, ..read };
        let again = ExtensionHandshake::decode(&read.encode()).expect("we read what we write");
        let size = read.metadata_size.filter(|size| i64::try_from(*size).is_ok());
        assert_eq!(again, ExtensionHandshake { metadata_size: size, ..read });
    }
    let payload = Bytes::copy_from_slice(data);
    if let Ok(read) = MetadataMessage::decode(&payload) {
        let mut out = Vec::new();
        read.encode(&mut out);
        let again = MetadataMessage::decode(&Bytes::from(out)).expect("we read what we write");
        if let MetadataMessage::Data { data, total_size, .. } = &read {
            assert!(data.len() <= METADATA_PIECE_LEN && *total_size <= i64::MAX as u64);
        }
        assert_eq!(again, read);
    }
    if let Ok(read) = Pex::decode(data) {
        assert!(read.added.len() <= PEX_PEERS_MAX && read.dropped.len() <= PEX_PEERS_MAX);
        let again = Pex::decode(&read.encode()).expect("we read what we write");
        // Both families in their order, IPv4 first.
        assert_eq!(again, read);
    }
}
