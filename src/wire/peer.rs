//! Peer messages (BEP 3), with those of the fast extension (BEP 6), the DHT port (BEP 5) and the
//! envelope of the extension protocol (BEP 10); and the splitter that finds them in a stream.
//!
//! A block is never copied: a frame is split off the receive buffer, and the payload of a
//! [`Message::Piece`] is a slice of that frame.

use bytes::{Buf, Bytes, BytesMut};

use crate::base::limits::{BLOCK_LEN, PEER_MESSAGE_MAX};
use crate::wire::handshake::{HANDSHAKE_LEN, PROTOCOL};

/// Splits a byte stream into frames: first the handshake, then the bodies of messages.
#[derive(Debug, Clone, Default)]
pub struct Framer {
    is_open: bool,
}

/// Why a stream cannot be a peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are those of another protocol, or of an encrypted connection.
    #[error("not the BitTorrent protocol")]
    Protocol,
    /// A message announces more bytes than we take.
    #[error("a message of {0} bytes is too long")]
    TooLong(u32),
}

impl Framer {
    /// A splitter that expects the handshake first.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next frame off `buf`: the 68 bytes of the handshake, or the body of one message
    /// without its length prefix (empty for a keep-alive). `None` until it is complete.
    ///
    /// Fails as soon as it can be known that no frame will come: on the first byte that is not
    /// the protocol's name, or on a length prefix beyond the limit.
    pub fn next_frame(&mut self, buf: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        if !self.is_open {
            let begun = buf.len().min(PROTOCOL.len());
            if buf[..begun] != PROTOCOL[..begun] {
                return Err(FrameError::Protocol);
            }
            if buf.len() < HANDSHAKE_LEN {
                return Ok(None);
            }
            self.is_open = true;
            return Ok(Some(buf.split_to(HANDSHAKE_LEN).freeze()));
        }
        let Some(len) = announced_len(buf) else { return Ok(None) };
        let whole = usize::try_from(len).unwrap_or(usize::MAX);
        if whole > PEER_MESSAGE_MAX {
            return Err(FrameError::TooLong(len));
        }
        if buf.len() - PREFIX_LEN < whole {
            return Ok(None);
        }
        buf.advance(PREFIX_LEN);
        Ok(Some(buf.split_to(whole).freeze()))
    }

    /// How many more bytes complete the frame that `buf` begins with; zero if it is complete.
    pub fn wanted(&self, buf: &BytesMut) -> usize {
        let whole = if !self.is_open {
            HANDSHAKE_LEN
        } else {
            let announced = announced_len(buf).map_or(0, |len| usize::try_from(len).unwrap_or(0));
            PREFIX_LEN + announced.min(PEER_MESSAGE_MAX)
        };
        whole.saturating_sub(buf.len())
    }
}

fn announced_len(buf: &BytesMut) -> Option<u32> {
    buf.first_chunk().map(|prefix| u32::from_be_bytes(*prefix))
}

/// Part of a piece, as a request names it: not yet checked against any torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// Index of the piece.
    pub piece: u32,
    /// Offset in the piece, in bytes.
    pub begin: u32,
    /// Bytes.
    pub len: u32,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Nothing; the connection is still alive.
    KeepAlive,
    /// "I will not answer your requests."
    Choke,
    /// "Ask."
    Unchoke,
    /// "You have something that I want."
    Interested,
    /// "You have nothing that I want."
    NotInterested,
    /// "I have this piece now."
    Have(u32),
    /// The pieces that the sender has; read it with [`crate::wire::bitfield::Bitfield::decode`].
    Bitfield(Bytes),
    /// "Send me this block."
    Request(BlockRef),
    /// A block.
    Piece {
        /// Index of the piece.
        piece: u32,
        /// Offset in the piece, in bytes.
        begin: u32,
        /// The data.
        block: Bytes,
    },
    /// "I no longer need this block."
    Cancel(BlockRef),
    /// The UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// "This piece is cheap for me to send" (BEP 6).
    Suggest(u32),
    /// "I have everything" (BEP 6).
    HaveAll,
    /// "I have nothing" (BEP 6).
    HaveNone,
    /// "I will not send this block" (BEP 6).
    Reject(BlockRef),
    /// "You may ask for this piece even while choked" (BEP 6).
    AllowedFast(u32),
    /// A message of the extension protocol (BEP 10): 0 is its handshake.
    Extended {
        /// The number that the receiver gave to the extension.
        id: u8,
        /// Its content.
        payload: Bytes,
    },
    /// A message that we do not know: to be ignored.
    Unknown {
        /// Its number.
        id: u8,
    },
}

/// Why a frame is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A known message whose length cannot be right.
    #[error("message {id} of {len} bytes has the wrong length")]
    WrongLength {
        /// Its number.
        id: u8,
        /// Bytes behind the number.
        len: usize,
    },
}

impl Message {
    /// Reads the body of one message, as [`Framer::next_frame`] gives it.
    pub fn decode(frame: &Bytes) -> Result<Message, MessageError> {
        let Some((&id, body)) = frame.split_first() else { return Ok(Message::KeepAlive) };
        let wrong = MessageError::WrongLength { id, len: body.len() };
        let empty = |message| if body.is_empty() { Ok(message) } else { Err(wrong) };
        let number = || <[u8; 4]>::try_from(body).map(u32::from_be_bytes).map_err(|_| wrong);
        match id {
            CHOKE => empty(Message::Choke),
            UNCHOKE => empty(Message::Unchoke),
            INTERESTED => empty(Message::Interested),
            NOT_INTERESTED => empty(Message::NotInterested),
            HAVE => Ok(Message::Have(number()?)),
            BITFIELD => Ok(Message::Bitfield(frame.slice(1..))),
            REQUEST => Ok(Message::Request(block_ref(body).ok_or(wrong)?)),
            PIECE => {
                let (piece, rest) = body.split_first_chunk().ok_or(wrong)?;
                let (begin, _) = rest.split_first_chunk().ok_or(wrong)?;
                Ok(Message::Piece {
                    piece: u32::from_be_bytes(*piece),
                    begin: u32::from_be_bytes(*begin),
                    block: frame.slice(PIECE_BODY_HEAD..),
                })
            }
            CANCEL => Ok(Message::Cancel(block_ref(body).ok_or(wrong)?)),
            PORT => {
                let port = <[u8; 2]>::try_from(body).map_err(|_| wrong)?;
                Ok(Message::Port(u16::from_be_bytes(port)))
            }
            SUGGEST => Ok(Message::Suggest(number()?)),
            HAVE_ALL => empty(Message::HaveAll),
            HAVE_NONE => empty(Message::HaveNone),
            REJECT => Ok(Message::Reject(block_ref(body).ok_or(wrong)?)),
            ALLOWED_FAST => Ok(Message::AllowedFast(number()?)),
            EXTENDED => match body.first() {
                Some(&id) => Ok(Message::Extended { id, payload: frame.slice(2..) }),
                None => Err(wrong),
            },
            id => Ok(Message::Unknown { id }),
        }
    }

    /// Appends the whole message, length prefix included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::KeepAlive => out.extend_from_slice(&[0; PREFIX_LEN]),
            Message::Choke => head(out, 0, CHOKE),
            Message::Unchoke => head(out, 0, UNCHOKE),
            Message::Interested => head(out, 0, INTERESTED),
            Message::NotInterested => head(out, 0, NOT_INTERESTED),
            Message::Have(piece) => numbered(out, HAVE, *piece),
            Message::Bitfield(bits) => {
                head(out, bits.len(), BITFIELD);
                out.extend_from_slice(bits);
            }
            Message::Request(block) => of_block(out, REQUEST, block),
            Message::Piece { piece, begin, block } => {
                let len = u32::try_from(block.len()).expect("a block fits a message");
                out.extend_from_slice(&piece_head(*piece, *begin, len));
                out.extend_from_slice(block);
            }
            Message::Cancel(block) => of_block(out, CANCEL, block),
            Message::Port(port) => {
                head(out, 2, PORT);
                out.extend_from_slice(&port.to_be_bytes());
            }
            Message::Suggest(piece) => numbered(out, SUGGEST, *piece),
            Message::HaveAll => head(out, 0, HAVE_ALL),
            Message::HaveNone => head(out, 0, HAVE_NONE),
            Message::Reject(block) => of_block(out, REJECT, block),
            Message::AllowedFast(piece) => numbered(out, ALLOWED_FAST, *piece),
            Message::Extended { id, payload } => {
                head(out, 1 + payload.len(), EXTENDED);
                out.push(*id);
                out.extend_from_slice(payload);
            }
            Message::Unknown { id } => head(out, 0, *id),
        }
    }
}

/// The head of a piece message, which goes out before the block itself: length prefix, number,
/// piece, offset.
pub fn piece_head(piece: u32, begin: u32, len: u32) -> [u8; PIECE_HEAD_LEN] {
    let body = u32::try_from(PIECE_BODY_HEAD).expect("nine").saturating_add(len);
    let mut out = [0; PIECE_HEAD_LEN];
    out[..4].copy_from_slice(&body.to_be_bytes());
    out[4] = PIECE;
    out[5..9].copy_from_slice(&piece.to_be_bytes());
    out[9..].copy_from_slice(&begin.to_be_bytes());
    out
}

/// Bytes of [`piece_head`].
pub const PIECE_HEAD_LEN: usize = 13;

fn block_ref(body: &[u8]) -> Option<BlockRef> {
    let body: &[u8; 12] = body.try_into().ok()?;
    let at = |i: usize| u32::from_be_bytes([body[i], body[i + 1], body[i + 2], body[i + 3]]);
    Some(BlockRef { piece: at(0), begin: at(4), len: at(8) })
}

fn head(out: &mut Vec<u8>, body_len: usize, id: u8) {
    let len = u32::try_from(1 + body_len).expect("what we send is far below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.push(id);
}

fn numbered(out: &mut Vec<u8>, id: u8, piece: u32) {
    head(out, 4, id);
    out.extend_from_slice(&piece.to_be_bytes());
}

fn of_block(out: &mut Vec<u8>, id: u8, block: &BlockRef) {
    head(out, 12, id);
    out.extend_from_slice(&block.piece.to_be_bytes());
    out.extend_from_slice(&block.begin.to_be_bytes());
    out.extend_from_slice(&block.len.to_be_bytes());
}

const PREFIX_LEN: usize = 4;
const PIECE_BODY_HEAD: usize = 9;

const CHOKE: u8 = 0;
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const NOT_INTERESTED: u8 = 3;
const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
const CANCEL: u8 = 8;
const PORT: u8 = 9;
const SUGGEST: u8 = 13;
const HAVE_ALL: u8 = 14;
const HAVE_NONE: u8 = 15;
const REJECT: u8 = 16;
const ALLOWED_FAST: u8 = 17;
const EXTENDED: u8 = 20;

const _: () = assert!(BLOCK_LEN as usize + PIECE_BODY_HEAD <= PEER_MESSAGE_MAX, "a block passes");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{InfoHash, PeerId};
    use crate::wire::handshake::Handshake;
    use proptest::prelude::*;

    fn handshake() -> [u8; HANDSHAKE_LEN] {
        Handshake::new(InfoHash::new([1; 20]), PeerId::new([2; 20]), true).encode()
    }

    fn open_framer() -> Framer {
        let (mut framer, mut buf) = (Framer::new(), BytesMut::from(&handshake()[..]));
        assert!(framer.next_frame(&mut buf).unwrap().is_some());
        framer
    }

    fn messages() -> impl Strategy<Value = Message> {
        let block =
            || {
                (any::<u32>(), any::<u32>(), any::<u32>())
                    .prop_map(|(piece, begin, len)| BlockRef { piece, begin, len })
            };
        let bytes = || prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from);
        prop_oneof![
            Just(Message::KeepAlive),
            Just(Message::Choke),
            Just(Message::Unchoke),
            Just(Message::Interested),
            Just(Message::NotInterested),
            Just(Message::HaveAll),
            Just(Message::HaveNone),
            any::<u32>().prop_map(Message::Have),
            any::<u32>().prop_map(Message::Suggest),
            any::<u32>().prop_map(Message::AllowedFast),
            any::<u16>().prop_map(Message::Port),
            block().prop_map(Message::Request),
            block().prop_map(Message::Cancel),
            block().prop_map(Message::Reject),
            bytes().prop_map(Message::Bitfield),
            (any::<u32>(), any::<u32>(), bytes())
                .prop_map(|(piece, begin, block)| Message::Piece { piece, begin, block }),
            (any::<u8>(), bytes()).prop_map(|(id, payload)| Message::Extended { id, payload }),
            (21..=255u8).prop_map(|id| Message::Unknown { id }),
        ]
    }

    #[test]
    fn first_foreign_byte_ends_the_stream() {
        for bad in [&b"GET / HTTP"[..], b"\x13BitTorrent protocoL", b"\x00"] {
            let mut buf = BytesMut::from(bad);
            assert_eq!(Framer::new().next_frame(&mut buf), Err(FrameError::Protocol));
        }
        let mut part = BytesMut::from(&b"\x13BitTor"[..]);
        assert_eq!(Framer::new().next_frame(&mut part), Ok(None));
        assert_eq!(Framer::new().wanted(&part), 61);
    }

    #[test]
    fn length_prefix_beyond_the_limit_ends_the_stream() {
        let mut buf = BytesMut::from(&[0xff; 4][..]);
        assert_eq!(open_framer().next_frame(&mut buf), Err(FrameError::TooLong(u32::MAX)));
        let longest = u32::try_from(PEER_MESSAGE_MAX).unwrap();
        let mut buf = BytesMut::from(&longest.to_be_bytes()[..]);
        assert_eq!(open_framer().next_frame(&mut buf), Ok(None));
        assert_eq!(open_framer().wanted(&buf), PEER_MESSAGE_MAX);
    }

    #[test]
    fn known_message_of_wrong_length_is_refused() {
        for bad in [
            &[CHOKE, 0][..],
            &[HAVE, 0, 0, 0],
            &[HAVE, 0, 0, 0, 0, 0],
            &[REQUEST; 12],
            &[REQUEST; 14],
            &[PIECE; 8],
            &[PORT, 0],
            &[HAVE_ALL, 1],
            &[REJECT; 3],
            &[EXTENDED],
            &[ALLOWED_FAST],
        ] {
            assert!(Message::decode(&Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(
            Message::decode(&Bytes::from_static(&[99, 1, 2])),
            Ok(Message::Unknown { id: 99 })
        );
    }

    #[test]
    fn block_is_a_slice_of_the_frame() {
        let frame = Bytes::from([&[PIECE, 0, 0, 0, 1, 0, 0, 0x40, 0][..], &[7; 100]].concat());
        let Ok(Message::Piece { piece, begin, block }) = Message::decode(&frame) else { panic!() };
        assert_eq!((piece, begin, block.len()), (1, 0x4000, 100));
        assert_eq!(block.as_ptr(), frame[9..].as_ptr());
        assert_eq!(piece_head(1, 0x4000, 100)[4..], frame[..9]);
    }

    proptest! {
        #[test]
        fn messages_cut_anywhere_come_back_whole(
            sent in prop::collection::vec(messages(), 0..20), step in 1..50usize,
        ) {
            let mut stream = handshake().to_vec();
            sent.iter().for_each(|m| m.encode(&mut stream));
            let (mut framer, mut buf) = (Framer::new(), BytesMut::new());
            let mut frames = Vec::new();
            for part in stream.chunks(step) {
                buf.extend_from_slice(part);
                while let Some(frame) = framer.next_frame(&mut buf).unwrap() {
                    frames.push(frame);
                }
                prop_assert!(framer.wanted(&buf) > 0);
            }
            prop_assert!(buf.is_empty());
            prop_assert_eq!(&frames[0][..], &handshake()[..]);
            let read: Vec<_> = frames[1..].iter().map(|f| Message::decode(f).unwrap()).collect();
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn no_bytes_whatsoever_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&Bytes::from(bytes.clone()));
            let mut buf = BytesMut::from(&bytes[..]);
            let mut framer = open_framer();
            while let Ok(Some(_)) = framer.next_frame(&mut buf) {}
            let _ = framer.wanted(&buf);
        }
    }
}
