//! A scripted peer that listens: honest in every step, except where a test replaces one. It counts
//! what it is asked for.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use trackless::base::hash::sha1;

use super::peer::{self, UT_METADATA, Wire, id};
use super::{B, Content};

/// What a connection goes through. Each step returns an error to close the connection.
type Step<T> = Arc<dyn Fn(&mut Talk, T) -> io::Result<()> + Send + Sync>;

/// The steps of a scripted peer.
#[derive(Clone)]
pub struct Script {
    accept: Step<()>,
    greet: Step<()>,
    metadata: Step<u32>,
    block: Step<Block>,
    info: Option<Arc<Vec<u8>>>,
}

/// A block asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Index of the piece.
    pub piece: u32,
    /// Offset in it.
    pub begin: u32,
    /// Bytes.
    pub len: u32,
}

impl Script {
    /// A seeder without fault.
    pub fn honest() -> Self {
        Self {
            accept: Arc::new(|_, ()| Ok(())),
            greet: Arc::new(|talk, ()| talk.greet()),
            metadata: Arc::new(|talk, piece| talk.send_metadata(piece)),
            block: Arc::new(|talk, block| talk.send_block(block)),
            info: None,
        }
    }

    /// Another info dictionary than the content's.
    #[must_use]
    pub fn with_info(mut self, info: Vec<u8>) -> Self {
        self.info = Some(Arc::new(info));
        self
    }

    /// Before the other's handshake is read.
    #[must_use]
    pub fn on_accept(
        mut self,
        step: impl Fn(&mut Talk) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.accept = Arc::new(move |talk, ()| step(talk));
        self
    }

    /// After the handshakes, instead of extension handshake, bitfield and unchoke.
    #[must_use]
    pub fn on_greet(
        mut self,
        step: impl Fn(&mut Talk) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.greet = Arc::new(move |talk, ()| step(talk));
        self
    }

    /// Instead of answering a request for a piece of metadata.
    #[must_use]
    pub fn on_metadata(
        mut self,
        step: impl Fn(&mut Talk, u32) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.metadata = Arc::new(step);
        self
    }

    /// Instead of answering a request for a block.
    #[must_use]
    pub fn on_block(
        mut self,
        step: impl Fn(&mut Talk, Block) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.block = Arc::new(step);
        self
    }

    /// The same at this pace, a block at a time: there is time for something in the middle.
    #[must_use]
    pub fn paced(self, pace: Duration) -> Self {
        let answer = self.block.clone();
        self.on_block(move |talk, block| {
            std::thread::sleep(pace);
            answer(talk, block)
        })
    }

    /// Honest, but nobody is greeted before the gate opens.
    #[must_use]
    pub fn behind(self, gate: &Gate) -> Self {
        let gate = gate.clone();
        self.on_accept(move |_| {
            gate.wait(Duration::from_secs(60));
            Ok(())
        })
    }
}

/// One connection of a scripted peer.
pub struct Talk {
    /// The raw connection.
    pub wire: Wire,
    /// What is seeded.
    pub content: Arc<Content>,
    /// Content as one run of bytes.
    pub bytes: Arc<Vec<u8>>,
    /// Blocks asked for on this connection, this one included.
    pub asked: usize,
    info: Arc<Vec<u8>>,
    remote_metadata_id: u8,
    log: Arc<Log>,
}

impl Talk {
    /// Extension handshake, full bitfield, unchoke.
    pub fn greet(&mut self) -> io::Result<()> {
        let size = i64::try_from(self.info.len()).unwrap();
        let hello = peer::extension_handshake(Some(B::Int(size))).encode();
        self.wire.send_extended(0, &hello)?;
        self.send_bitfield()?;
        self.wire.send(id::UNCHOKE, &[])
    }

    /// Every piece is here.
    pub fn send_bitfield(&mut self) -> io::Result<()> {
        self.wire.send(id::BITFIELD, &full_bitfield(self.content.pieces()))
    }

    /// The length of the true info dictionary.
    pub fn info_len(&self) -> usize {
        self.info.len()
    }

    /// A piece of the true info dictionary.
    pub fn metadata_piece(&self, piece: u32) -> Vec<u8> {
        let at = usize::try_from(piece).unwrap() * METADATA_PIECE;
        self.info.iter().skip(at).take(METADATA_PIECE).copied().collect()
    }

    /// Answers with the true piece.
    pub fn send_metadata(&mut self, piece: u32) -> io::Result<()> {
        let data = self.metadata_piece(piece);
        self.send_metadata_data(piece, self.info_len(), &data)
    }

    /// Answers with any piece.
    pub fn send_metadata_data(&mut self, piece: u32, total: usize, data: &[u8]) -> io::Result<()> {
        let head = B::dict([
            ("msg_type", B::Int(1)),
            ("piece", B::Int(piece.into())),
            ("total_size", B::Int(i64::try_from(total).unwrap())),
        ]);
        self.send_metadata_message(&head, data)
    }

    /// A message of the metadata extension; none if the other end has not named its id yet.
    pub fn send_metadata_message(&mut self, head: &B, data: &[u8]) -> io::Result<()> {
        let id = self.remote_metadata_id;
        self.wire.send_extended(id, &[head.encode().as_slice(), data].concat())
    }

    /// The right bytes of a block.
    pub fn block(&self, block: Block) -> Vec<u8> {
        let at = usize::try_from(block.piece).unwrap() * self.content.piece_len
            + usize::try_from(block.begin).unwrap();
        let len = usize::try_from(block.len).unwrap();
        self.bytes.iter().skip(at).take(len).copied().collect()
    }

    /// Answers with the right block.
    pub fn send_block(&mut self, block: Block) -> io::Result<()> {
        let data = self.block(block);
        self.send_block_data(block.piece, block.begin, &data)
    }

    /// Answers with any block.
    pub fn send_block_data(&mut self, piece: u32, begin: u32, data: &[u8]) -> io::Result<()> {
        self.log.change(|state| state.blocks_sent += 1);
        self.wire.send(id::PIECE, &[peer::numbers(&[piece, begin]).as_slice(), data].concat())
    }

    /// The script has done what it is there for.
    pub fn deed(&self) {
        self.log.change(|state| state.deeds += 1);
    }

    fn run(&mut self, script: &Script) -> io::Result<()> {
        (script.accept)(self, ())?;
        self.wire.limit_reads(Duration::from_secs(120));
        let theirs = self.wire.read_handshake()?;
        let info_hash = sha1(&self.info);
        if theirs[28..48] != info_hash {
            return Err(io::Error::other("another torrent"));
        }
        self.log.change(|state| state.handshakes += 1);
        let id = *b"-XX0001-script-peer-";
        self.wire.send_raw(&peer::handshake(&info_hash, peer::EXTENSIONS, &id))?;
        (script.greet)(self, ())?;
        loop {
            let (message, payload) = self.wire.read()?;
            self.on_message(script, message, &payload)?;
        }
    }

    fn on_message(&mut self, script: &Script, message: u8, payload: &[u8]) -> io::Result<()> {
        self.log.change(|state| state.messages += 1);
        match message {
            id::REQUEST => {
                let [piece, begin, len] = peer::read_numbers(payload)[..] else {
                    return Err(io::Error::other("a request that is not three numbers"));
                };
                let block = Block { piece, begin, len };
                self.asked += 1;
                self.log.change(|state| state.blocks.push(block));
                (script.block)(self, block)
            }
            id::EXTENDED => self.on_extended(script, payload),
            _ => Ok(()),
        }
    }

    fn on_extended(&mut self, script: &Script, payload: &[u8]) -> io::Result<()> {
        let Some((&extended_id, body)) = payload.split_first() else { return Ok(()) };
        let Some(message) = B::decode(body) else { return Ok(()) };
        if extended_id == 0 {
            let id = message.get("m").and_then(|m| m.get("ut_metadata")).and_then(B::int);
            self.remote_metadata_id = id.and_then(|id| u8::try_from(id).ok()).unwrap_or(0);
            return Ok(());
        }
        let is_request = message.get("msg_type").and_then(B::int) == Some(0);
        let piece = message.get("piece").and_then(B::int).and_then(|p| u32::try_from(p).ok());
        match piece {
            Some(piece) if is_request && extended_id == UT_METADATA => {
                self.log.change(|state| state.metadata_requests += 1);
                (script.metadata)(self, piece)
            }
            _ => Ok(()),
        }
    }
}

/// What a scripted peer has seen.
#[derive(Debug, Clone, Default)]
pub struct LogState {
    /// When connections came in.
    pub dials: Vec<Instant>,
    /// Connections that have been closed, by either side.
    pub closed: usize,
    /// Handshakes for the right torrent.
    pub handshakes: usize,
    /// Messages read.
    pub messages: usize,
    /// Metadata pieces asked for.
    pub metadata_requests: usize,
    /// Blocks asked for, in order.
    pub blocks: Vec<Block>,
    /// Blocks sent, right or wrong.
    pub blocks_sent: usize,
    /// How often a script called [`Talk::deed`].
    pub deeds: usize,
}

#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    news: Condvar,
}

impl Log {
    fn change(&self, change: impl FnOnce(&mut LogState)) {
        change(&mut self.state.lock().unwrap());
        self.news.notify_all();
    }
}

/// A scripted peer, listening. Dropping it closes its connections.
pub struct Seeder {
    /// Where it listens.
    pub addr: SocketAddr,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Seeder {
    /// Listens and follows the script on every connection.
    pub fn start(addr: SocketAddr, content: &Content, script: Script) -> Self {
        let listener = TcpListener::bind(addr).unwrap_or_else(|e| panic!("{addr}: {e}"));
        let addr = listener.local_addr().unwrap();
        let (log, stop) = (Arc::new(Log::default()), Arc::new(AtomicBool::new(false)));
        let open = Arc::new(Mutex::new(Vec::new()));
        let seeder = Self { addr, log, stop, open };
        let (log, stop, open) = (seeder.log.clone(), seeder.stop.clone(), seeder.open.clone());
        let bytes = Arc::new(content.bytes());
        let info = script.info.clone().unwrap_or_else(|| Arc::new(content.info()));
        let content = Arc::new(content.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                open.lock().unwrap().extend(stream.try_clone());
                log.change(|state| state.dials.push(Instant::now()));
                let mut talk = Talk {
                    wire: Wire::new(stream),
                    content: content.clone(),
                    bytes: bytes.clone(),
                    asked: 0,
                    info: info.clone(),
                    remote_metadata_id: 0,
                    log: log.clone(),
                };
                let script = script.clone();
                std::thread::spawn(move || {
                    let _ = talk.run(&script);
                    let _ = talk.wire.stream().and_then(|s| s.shutdown(Shutdown::Both));
                    talk.log.change(|state| state.closed += 1);
                });
            }
        });
        seeder
    }

    /// What it has seen so far.
    pub fn log(&self) -> LogState {
        self.log.state.lock().unwrap().clone()
    }

    /// Forgets what it has seen.
    pub fn forget(&self) {
        self.log.change(|state| *state = LogState::default());
    }

    /// Waits until what it has seen satisfies `wanted`; false if that does not happen in time.
    pub fn wait(&self, limit: Duration, wanted: impl Fn(&LogState) -> bool) -> bool {
        let state = self.log.state.lock().unwrap();
        let waited = self.log.news.wait_timeout_while(state, limit, |state| !wanted(state));
        !waited.unwrap().1.timed_out()
    }

    /// Closes every connection that is open now.
    pub fn hang_up(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl fmt::Debug for Seeder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seeder").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The listener's thread sits in accept: one connection wakes it.
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
        self.hang_up();
    }
}

/// Shut until somebody opens it, open from then on.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everybody through.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits for it; false if it stayed shut.
    pub fn wait(&self, limit: Duration) -> bool {
        let open = self.0.0.lock().unwrap();
        !self.0.1.wait_timeout_while(open, limit, |open| !*open).unwrap().1.timed_out()
    }
}

/// A bitfield with all of these pieces.
pub fn full_bitfield(pieces: usize) -> Vec<u8> {
    let mut bits = vec![0xff; pieces.div_ceil(8)];
    if !pieces.is_multiple_of(8) {
        *bits.last_mut().unwrap() = 0xff << (8 - pieces % 8);
    }
    bits
}

/// Bytes in a piece of metadata (BEP 9).
pub const METADATA_PIECE: usize = 16 * 1024;
