//! One raw connection of the peer wire protocol (BEP 3, 6, 9, 10): frames in, frames out, nothing
//! decided. What is sent may be as wrong as a test wants it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::B;

/// Message ids of BEP 3, 5, 6 and 10.
pub mod id {
    #![allow(missing_docs)]
    pub const CHOKE: u8 = 0;
    pub const UNCHOKE: u8 = 1;
    pub const INTERESTED: u8 = 2;
    pub const NOT_INTERESTED: u8 = 3;
    pub const HAVE: u8 = 4;
    pub const BITFIELD: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const PIECE: u8 = 7;
    pub const CANCEL: u8 = 8;
    pub const PORT: u8 = 9;
    pub const SUGGEST: u8 = 13;
    pub const HAVE_ALL: u8 = 14;
    pub const REJECT: u8 = 16;
    pub const ALLOWED_FAST: u8 = 17;
    pub const EXTENDED: u8 = 20;
}

/// The extended ids that the scripts give out in their own handshake.
pub const UT_METADATA: u8 = 3;
/// For peer exchange.
pub const UT_PEX: u8 = 5;

/// Reserved bits: the extension protocol alone.
pub const EXTENSIONS: [u8; 8] = [0, 0, 0, 0, 0, 0x10, 0, 0];
/// Reserved bits: the extension protocol and the fast extension.
pub const EXTENSIONS_AND_FAST: [u8; 8] = [0, 0, 0, 0, 0, 0x10, 0, 0x04];

/// A connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Takes over a connection.
    pub fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream }
    }

    /// Connects.
    pub fn dial(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect_timeout(&addr, Duration::from_secs(10))?))
    }

    /// Connects from an address of our own.
    pub fn dial_from(addr: SocketAddr, from: IpAddr) -> io::Result<Self> {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&addr.into(), Duration::from_secs(10))?;
        Ok(Self::new(socket.into()))
    }

    /// Connects from an address of our own and exchanges handshakes for this torrent.
    pub fn greet(addr: SocketAddr, from: IpAddr, info_hash: &[u8; 20]) -> io::Result<Self> {
        let mut wire = Self::dial_from(addr, from)?;
        wire.limit_reads(Duration::from_secs(20));
        wire.send_raw(&handshake(info_hash, EXTENSIONS_AND_FAST, b"-XX0001-hostile-peer"))?;
        wire.read_handshake()?;
        Ok(wire)
    }

    /// A second handle on the same connection.
    pub fn stream(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Reads fail after this long.
    pub fn limit_reads(&self, limit: Duration) {
        let _ = self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))));
    }

    /// Writes fail after this long.
    pub fn limit_writes(&self, limit: Duration) {
        let _ = self.stream.set_write_timeout(Some(limit));
    }

    /// Reads 68 bytes.
    pub fn read_handshake(&mut self) -> io::Result<[u8; 68]> {
        let mut bytes = [0; 68];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// One message.
    pub fn send(&mut self, id: u8, payload: &[u8]) -> io::Result<()> {
        self.send_raw(&frame(id, payload))
    }

    /// One message of an extension.
    pub fn send_extended(&mut self, extended_id: u8, payload: &[u8]) -> io::Result<()> {
        self.send(id::EXTENDED, &[&[extended_id], payload].concat())
    }

    /// Asks for a block.
    pub fn request(&mut self, piece: u32, begin: u32, len: u32) -> io::Result<()> {
        self.send(id::REQUEST, &numbers(&[piece, begin, len]))
    }

    /// The next message that is not a keep-alive: its id and payload.
    pub fn read(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            let mut prefix = [0; 4];
            self.stream.read_exact(&mut prefix)?;
            let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap();
            if len == 0 {
                continue;
            }
            if len > 4 << 20 {
                return Err(io::Error::other("the program sent a message of more than 4 MiB"));
            }
            let mut body = vec![0; len];
            self.stream.read_exact(&mut body)?;
            let id = body.remove(0);
            return Ok((id, body));
        }
    }

    /// Reads until a message satisfies `wanted`.
    pub fn read_until(
        &mut self,
        limit: Duration,
        wanted: impl Fn(u8, &[u8]) -> bool,
    ) -> io::Result<(u8, Vec<u8>)> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.limit_reads(left);
            let (id, payload) = self.read()?;
            if wanted(id, &payload) {
                return Ok((id, payload));
            }
        }
    }

    /// Reads and forgets until the other end closes: true if it does within the time.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut sink = [0; 16 * 1024];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.limit_reads(left);
            match self.stream.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    return false;
                }
                Err(_) => return true,
            }
        }
    }
}

/// The 68 bytes that open a connection.
pub fn handshake(info_hash: &[u8; 20], reserved: [u8; 8], peer_id: &[u8; 20]) -> Vec<u8> {
    [b"\x13BitTorrent protocol".as_slice(), &reserved, info_hash, peer_id].concat()
}

/// A message with its length prefix.
pub fn frame(id: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len() + 1).unwrap();
    [&len.to_be_bytes(), [id].as_slice(), payload].concat()
}

/// Numbers as the wire writes them.
pub fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// Reads numbers back; as many as there are.
pub fn read_numbers(payload: &[u8]) -> Vec<u32> {
    payload.chunks_exact(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect()
}

/// An extension handshake with these extensions; `metadata_size` is any value at all.
pub fn extension_handshake(metadata_size: Option<B>) -> B {
    let m =
        B::dict([("ut_metadata", B::Int(UT_METADATA.into())), ("ut_pex", B::Int(UT_PEX.into()))]);
    let handshake = B::dict([("m", m), ("v", B::str("script")), ("reqq", B::Int(500))]);
    match metadata_size {
        Some(size) => handshake.with("metadata_size", size),
        None => handshake,
    }
}
