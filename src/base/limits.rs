//! Every limit on what a stranger can grow, with its reason. Relations between them are asserted
//! below, at compile time. A limit is enforced where its name is used; the test of what happens
//! when it is reached stands there too.

/// Nesting in a datagram or peer message. Real ones have 4; the rest is room for extensions.
pub const BENCODE_DEPTH_MAX: usize = 16;
/// Nesting in a torrent file. Real ones have 6; some tools put whole trees into extra keys.
pub const TORRENT_DEPTH_MAX: usize = 100;
/// Values in a datagram or peer message: an npm node that returns 600 peers fits.
pub const MESSAGE_TOKENS_MAX: usize = 2_000;
/// Values in a torrent file: 500,000 files of six values each.
pub const TORRENT_TOKENS_MAX: usize = 3_000_000;
/// A torrent file, or the info dictionary in it, in bytes. A real one of 14 MB exists.
pub const METADATA_SIZE_MAX: usize = 32 << 20;

/// Bytes of one request on the wire (BEP 3); every deployed client refuses more than 16 KiB.
pub const BLOCK_LEN: u32 = 16 * 1024;
/// Bytes of one length-prefixed peer message that we take: the bitfield of `PIECES_MAX` pieces is the
/// longest, with 205 KiB. A connection may hold one that is never completed.
pub const PEER_MESSAGE_MAX: usize = 256 << 10;
/// Largest piece length that we accept in a torrent, in bytes.
pub const PIECE_LEN_MAX: u64 = 256 << 20;
/// Pieces in one torrent: as many 20-byte hashes as the largest info dictionary can hold.
pub const PIECES_MAX: usize = METADATA_SIZE_MAX / 20;
/// Files in one torrent.
pub const FILES_MAX: usize = 500_000;

/// Bytes of a DHT datagram that we read. npm nodes return their whole table.
pub const DATAGRAM_READ_MAX: usize = 8 * 1024;
/// Bytes of a DHT datagram that we send: fits the smallest common path MTU with room to spare.
pub const DATAGRAM_SEND_MAX: usize = 1_200;

/// Bytes of an item's bencoded value (BEP 44): what every node may be expected to store.
pub const ITEM_VALUE_MAX: usize = 1_000;
/// Bytes of an item's salt (BEP 44).
pub const ITEM_SALT_MAX: usize = 64;
/// Bytes of a datagram with an item, which `DATAGRAM_SEND_MAX` has no room for: what one Ethernet
/// frame carries over IPv6.
pub const DATAGRAM_ITEM_MAX: usize = 1_452;

const _: () =
    assert!(PIECES_MAX / 8 + 16 <= PEER_MESSAGE_MAX, "the largest bitfield is one message");
const _: () = assert!(BLOCK_LEN as usize + 13 <= PEER_MESSAGE_MAX, "a block is one message");
const _: () = assert!(DATAGRAM_ITEM_MAX <= DATAGRAM_READ_MAX, "we can read what we send");
const _: () = assert!(DATAGRAM_SEND_MAX <= DATAGRAM_ITEM_MAX, "an item needs more room, not less");
const _: () =
    assert!(MESSAGE_TOKENS_MAX < TORRENT_TOKENS_MAX, "a torrent holds more than a message");

/// Accepted connections that have not yet sent their handshake. The oldest leaves for a new one.
pub const HANDSHAKES_PENDING_MAX: usize = 200;
/// The same, from one address: several clients behind one NAT fit, a flood does not.
pub const HANDSHAKES_PENDING_PER_IP_MAX: usize = 20;
/// Torrents in one engine.
pub const TORRENTS_MAX: usize = 100_000;
/// DHT operations that the host has asked for and that are not over.
pub const DHT_COMMANDS_MAX: usize = 10_000;
