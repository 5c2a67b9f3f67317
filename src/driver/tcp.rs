//! One TCP connection: a reader task that splits the stream into frames and a writer task that
//! gathers what the engine queued into vectored writes. Payload is not copied in either direction.
//!
//! The reader's channel to the event loop is bounded: when the loop is behind, the reader waits, and
//! TCP slows the peer. The writer's queue is bounded by what the core allows to be unsent.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::driver::buffers::{BUFFER_LEN, Buffers};
use crate::peer::ConnId;
use crate::swarm::DialError;
use crate::wire::peer::Framer;

/// What a connection's tasks tell the event loop.
#[derive(Debug)]
pub(super) enum Input {
    /// A stranger connected. The next one behind a few waits until this is dropped.
    Accepted(TcpStream, SocketAddr, OwnedSemaphorePermit),
    /// A dial succeeded.
    Connected(ConnId, TcpStream),
    /// A dial failed.
    ConnectFailed(ConnId, DialError),
    /// Frames came in.
    Frames(ConnId, Vec<Bytes>),
    /// So many more bytes were written.
    Sent(ConnId, usize),
    /// The connection is over.
    Closed(ConnId),
}

/// Something to write.
#[derive(Debug)]
pub(super) enum Item {
    /// Whole messages.
    Bytes(Bytes),
    /// A piece message.
    Block([u8; 13], Bytes),
}

/// The event loop's end of a connection.
#[derive(Debug)]
pub(super) struct Handle {
    items: mpsc::Sender<Item>,
    reader: JoinHandle<()>,
    // Dropped with the handle, and that is what it says.
    _held: oneshot::Sender<()>,
}

impl Handle {
    /// Queues; false if the writer is gone or its queue full, which the core's bounds rule out.
    pub(super) fn send(&self, item: Item) -> bool {
        self.items.try_send(item).is_ok()
    }

    /// Stops reading; the writer writes what is queued, for a moment, and closes. A peer that takes
    /// nothing does not keep its descriptor any longer than that.
    pub(super) fn close(self) {
        self.reader.abort();
    }
}

/// Starts the two tasks of a connection.
pub(super) fn start(
    conn: ConnId,
    stream: TcpStream,
    inputs: mpsc::Sender<Input>,
    buffers: Arc<Buffers>,
) -> Handle {
    // Small messages must not wait for acknowledgements of earlier ones.
    let _ = stream.set_nodelay(true);
    let (read, write_half) = stream.into_split();
    let (items, queue) = mpsc::channel(ITEMS_QUEUED_MAX);
    let (held, let_go) = oneshot::channel();
    tokio::spawn(write(write_items(conn, write_half, queue, inputs.clone()), let_go));
    let reader = tokio::spawn(async move {
        read_frames(conn, read, &inputs, &buffers).await;
        // The loop may be gone already.
        let _ = inputs.send(Input::Closed(conn)).await;
    });
    Handle { items, reader, _held: held }
}

async fn read_frames(
    conn: ConnId,
    mut read: OwnedReadHalf,
    inputs: &mpsc::Sender<Input>,
    buffers: &Buffers,
) {
    let mut framer = Framer::new();
    let mut intake = Intake::new();
    let mut brings_blocks = false;
    loop {
        if brings_blocks {
            buffers.room().await;
        }
        intake.make_room(framer.wanted(&intake.buffer), buffers);
        let room = intake.buffer.capacity() - intake.buffer.len();
        let Ok(len) = read.read_buf(&mut intake.buffer).await else { return };
        if len == 0 {
            return;
        }
        brings_blocks = false;
        // A flood of tiny messages is handed on in bounded parts, each waiting for the loop.
        loop {
            let mut frames = Vec::new();
            let split = split(&mut framer, &mut intake.buffer, &mut frames);
            brings_blocks |= frames.iter().any(|frame| frame.len() >= BULKY);
            if !frames.is_empty() && inputs.send(Input::Frames(conn, frames)).await.is_err() {
                return;
            }
            match split {
                Split::More => {}
                Split::Drained => break,
                Split::Broken => return,
            }
        }
        intake.adapt(len, room, buffers);
    }
}

// What was read of a connection and is no whole frame yet, and how much is read at once.
struct Intake {
    buffer: BytesMut,
    chunk: usize,
    // The buffer comes from those that are used again.
    is_ours: bool,
    // Reads in a row that brought little and left nothing over.
    small: u32,
}

impl Intake {
    fn new() -> Self {
        Self { buffer: BytesMut::new(), chunk: CHUNK_MIN, is_ours: false, small: 0 }
    }

    // For a chunk, or for the frame that has begun.
    fn make_room(&mut self, wanted: usize, buffers: &Buffers) {
        let (len, chunk) = (self.buffer.len(), self.chunk);
        if self.buffer.capacity() - len >= chunk / 4 {
            return;
        }
        // Not for the rest of what is nearly as long: it would be copied for each byte of it.
        let needed = len + wanted.max(chunk / 4);
        self.is_ours = if chunk == BUFFER_LEN && needed <= BUFFER_LEN {
            self.buffer = buffers.exchange(std::mem::take(&mut self.buffer), self.is_ours);
            true
        } else {
            self.buffer.reserve(chunk.max(wanted));
            false
        };
    }

    // A full read means that more waits: more is read at once. One that says little stays small, or after
    // a while gives back what it has.
    fn adapt(&mut self, len: usize, room: usize, buffers: &Buffers) {
        let is_small = len < CHUNK_MIN && self.buffer.is_empty();
        self.small = if is_small { self.small + 1 } else { 0 };
        if len == room {
            self.chunk = (self.chunk * 2).min(BUFFER_LEN);
        } else if self.small >= SMALL_READS && self.chunk > CHUNK_MIN {
            let buffer = std::mem::take(&mut self.buffer);
            if self.is_ours {
                buffers.put(buffer);
            }
            *self = Self::new();
        }
    }
}

// How splitting a buffer ended.
enum Split {
    More,
    Drained,
    Broken,
}

fn split(framer: &mut Framer, buffer: &mut BytesMut, frames: &mut Vec<Bytes>) -> Split {
    while frames.len() < FRAMES_PER_INPUT_MAX {
        match framer.next_frame(buffer) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return Split::Drained,
            Err(_) => return Split::Broken,
        }
    }
    Split::More
}

// While the loop owns the connection there is no hurry; once it has let go of it, what is queued
// gets a moment and no more, also if the peer was about to take it for ever.
async fn write(items: impl Future<Output = ()>, let_go: oneshot::Receiver<()>) {
    tokio::pin!(items);
    tokio::select! {
        () = &mut items => {}
        _ = let_go => {
            // What is cut off is what the peer did not want.
            let _ = tokio::time::timeout(LAST_WORDS, items).await;
        }
    }
}

async fn write_items(
    conn: ConnId,
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Item>,
    inputs: mpsc::Sender<Input>,
) {
    let mut items = Vec::new();
    let mut parts: Vec<Bytes> = Vec::new();
    while queue.recv_many(&mut items, ITEMS_PER_WRITE_MAX).await > 0 {
        for item in items.drain(..) {
            match item {
                Item::Bytes(bytes) => parts.push(bytes),
                Item::Block(head, block) => {
                    parts.push(Bytes::copy_from_slice(&head));
                    parts.push(block);
                }
            }
        }
        let mut first = 0;
        while first < parts.len() {
            let some = write_some(&mut write, &mut parts, &mut first);
            // Every step is told: a slow peer that takes its time is no peer that takes nothing.
            let told = match tokio::time::timeout(WRITE_STALL_MAX, some).await {
                Ok(Ok(written)) => Input::Sent(conn, written),
                Ok(Err(_)) | Err(_) => Input::Closed(conn),
            };
            let is_over = matches!(told, Input::Closed(_));
            // The loop may be gone already.
            let _ = inputs.send(told).await;
            if is_over {
                return;
            }
        }
        parts.clear();
    }
    let _ = write.shutdown().await;
}

// Writes what one call takes of the parts from `first` on, which moves. Returns how many bytes.
async fn write_some(
    write: &mut OwnedWriteHalf,
    parts: &mut [Bytes],
    first: &mut usize,
) -> io::Result<usize> {
    let slices: Vec<IoSlice<'_>> =
        parts[*first..].iter().take(IOVECS_MAX).map(|p| IoSlice::new(p)).collect();
    let total = write.write_vectored(&slices).await?;
    if total == 0 && slices.iter().any(|s| !s.is_empty()) {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut written = total;
    while *first < parts.len() && written >= parts[*first].len() {
        written -= parts[*first].len();
        *first += 1;
    }
    if written > 0 {
        parts[*first].advance(written);
    }
    Ok(total)
}

/// Dials from the address we listen on, so that one bind rule holds for all that we send.
pub(super) async fn dial(
    conn: ConnId,
    addr: SocketAddr,
    from: Option<SocketAddr>,
    inputs: mpsc::Sender<Input>,
) {
    let result = match tokio::time::timeout(DIAL_TIMEOUT, connect(addr, from)).await {
        Ok(Ok(stream)) => Input::Connected(conn, stream),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
            Input::ConnectFailed(conn, DialError::Refused)
        }
        Ok(Err(e)) if e.kind() == io::ErrorKind::TimedOut => {
            Input::ConnectFailed(conn, DialError::Timeout)
        }
        Ok(Err(_)) => Input::ConnectFailed(conn, DialError::Unreachable),
        Err(_) => Input::ConnectFailed(conn, DialError::Timeout),
    };
    // The loop may be gone already.
    let _ = inputs.send(result).await;
}

async fn connect(addr: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from.ip(), 0))?;
    }
    socket.connect(addr).await
}

/// Accepts for ever, a few ahead of the loop: those that wait for it have descriptors already, and
/// whoever has to leave for them still has one too. When the system is out of descriptors it waits
/// rather than spin.
pub(super) async fn accept(listener: TcpListener, inputs: mpsc::Sender<Input>) {
    let ahead = Arc::new(Semaphore::new(ACCEPTED_AHEAD_MAX));
    loop {
        let Ok(permit) = ahead.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, addr)) => {
                let addr = crate::base::addr::canonical(addr);
                if inputs.send(Input::Accepted(stream, addr, permit)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Binds a listening socket.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restarted node takes its port back at once, old connections in TIME_WAIT or not.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// As many connections as this process has descriptors for: one half of all, less those that are
/// accepted ahead and those that are leaving for them; files take a quarter. Beyond them nobody could
/// be accepted, not even to make room.
pub(super) fn connections_possible() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = limit.and_then(|n| usize::try_from(n / 2).ok()).unwrap_or(usize::MAX);
    half.saturating_sub(2 * ACCEPTED_AHEAD_MAX).max(1)
}

/// Closes at once, without a word: there is no room for this stranger.
pub(super) fn refuse(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that takes no byte for this long is gone.
const WRITE_STALL_MAX: Duration = Duration::from_secs(120);
const LAST_WORDS: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that were accepted and wait for the loop, of each listening socket.
const ACCEPTED_AHEAD_MAX: usize = 4;
const BACKLOG: i32 = 1024;
/// Bytes read at once from a connection that says little; a fast one fills [`BUFFER_LEN`].
const CHUNK_MIN: usize = 8 * 1024;
/// So many reads of less make a fast connection one that says little.
const SMALL_READS: u32 = 8;
/// A frame of so many bytes brings a block, or nothing that is in a hurry.
const BULKY: usize = 4 * 1024;
/// Frames handed to the loop at once. A read full of requests holds 15,000, of blocks 16.
const FRAMES_PER_INPUT_MAX: usize = 1024;
/// Messages queued for one writer. The core stops at about 1 MiB of blocks, which is 64 of them.
const ITEMS_QUEUED_MAX: usize = 8 * 1024;
const ITEMS_PER_WRITE_MAX: usize = 256;
/// Buffers in one system call; Linux takes 1024.
const IOVECS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::buffers::HELD_MAX;
    use crate::wire::handshake::{HANDSHAKE_LEN, PROTOCOL};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(connect(to, None), listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    fn hello() -> Vec<u8> {
        let mut hello = vec![7; HANDSHAKE_LEN];
        hello[..PROTOCOL.len()].copy_from_slice(PROTOCOL);
        hello
    }

    async fn frames(inputs: &mut mpsc::Receiver<Input>, count: usize) -> Vec<Bytes> {
        let mut all = Vec::new();
        while all.len() < count {
            match inputs.recv().await {
                Some(Input::Frames(_, frames)) => all.extend(frames),
                other => panic!("expected frames, got {other:?}"),
            }
        }
        all
    }

    #[tokio::test]
    async fn frames_arrive_whole_however_the_stream_is_cut() {
        let (mut theirs, ours) = pair().await;
        let (inputs_in, mut inputs) = mpsc::channel(8);
        let _handle = start(ConnId(1), ours, inputs_in, Arc::default());
        let big = vec![9u8; 200_000];
        let sent =
            [&hello()[..], &[0, 0, 0, 1, 2], &[0; 4], &200_000u32.to_be_bytes(), &big].concat();
        let write = tokio::spawn(async move {
            for part in sent.chunks(997) {
                theirs.write_all(part).await.unwrap();
            }
            theirs
        });
        let got = frames(&mut inputs, 4).await;
        assert_eq!(got[0], hello());
        assert_eq!((&got[1][..], got[2].len()), (&[2u8][..], 0));
        assert_eq!(got[3], big);
        drop(write.await.unwrap());
        assert!(matches!(inputs.recv().await, Some(Input::Closed(ConnId(1)))));
    }

    #[tokio::test]
    async fn who_brings_blocks_is_read_from_when_the_disk_has_room_and_others_always() {
        let buffers = Arc::new(Buffers::default());
        let (mut giver, one) = pair().await;
        let (mut talker, two) = pair().await;
        let (inputs_in, mut inputs) = mpsc::channel(8);
        let (_first, _second) = (
            start(ConnId(1), one, inputs_in.clone(), buffers.clone()),
            start(ConnId(2), two, inputs_in, buffers.clone()),
        );
        let block = [&16_384u32.to_be_bytes()[..], &[7; 16_384]].concat();
        for stream in [&mut giver, &mut talker] {
            stream.write_all(&hello()).await.unwrap();
        }
        frames(&mut inputs, 2).await;
        let held = buffers.hold(Bytes::from(vec![0; HELD_MAX]));
        giver.write_all(&block).await.unwrap();
        assert_eq!(frames(&mut inputs, 1).await[0].len(), 16_384, "nobody knew that it would come");
        giver.write_all(&block).await.unwrap();
        for _ in 0..3 {
            talker.write_all(&[0, 0, 0, 1, 2]).await.unwrap();
            assert_eq!(frames(&mut inputs, 1).await[0].len(), 1, "the block waits");
        }
        drop(held);
        assert_eq!(frames(&mut inputs, 1).await[0].len(), 16_384);
    }

    #[test]
    fn intake_grows_with_what_comes_and_is_given_back() {
        let (buffers, mut intake) = (Buffers::default(), Intake::new());
        for n in 0..10 {
            intake.make_room(0, &buffers);
            let room = intake.buffer.capacity() - intake.buffer.len();
            assert!((CHUNK_MIN..=BUFFER_LEN).contains(&room), "{n}: {room}");
            intake.buffer.resize(intake.buffer.capacity(), 1);
            // Whole frames, which are handed on.
            let _frames = intake.buffer.split();
            intake.adapt(room, room, &buffers);
        }
        intake.make_room(0, &buffers);
        assert!(intake.is_ours && intake.chunk == BUFFER_LEN);
        intake.buffer.extend_from_slice(&[1, 2, 3]);
        intake.adapt(3, BUFFER_LEN, &buffers);
        assert_eq!(intake.buffer.len(), 3, "a frame has begun");
        intake.buffer.clear();
        (1..SMALL_READS).for_each(|_| intake.adapt(3, BUFFER_LEN, &buffers));
        assert!(intake.is_ours, "it may go on");
        intake.adapt(3, BUFFER_LEN, &buffers);
        assert_eq!((intake.buffer.capacity(), intake.chunk), (0, CHUNK_MIN));
        let fresh = buffers.exchange(BytesMut::new(), false);
        assert_eq!(fresh.capacity(), BUFFER_LEN, "somebody else has it now");
    }

    #[tokio::test]
    async fn stream_of_another_protocol_is_closed_at_once() {
        let (mut theirs, ours) = pair().await;
        let (inputs_in, mut inputs) = mpsc::channel(8);
        let handle = start(ConnId(1), ours, inputs_in, Arc::default());
        theirs.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert!(matches!(inputs.recv().await, Some(Input::Closed(_))));
        handle.close();
        assert_eq!(theirs.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn last_words_are_written_before_the_connection_closes() {
        let (mut theirs, ours) = pair().await;
        let (inputs_in, mut inputs) = mpsc::channel(64);
        let handle = start(ConnId(1), ours, inputs_in, Arc::default());
        let block = Bytes::from(vec![5u8; 16_384]);
        for _ in 0..20 {
            assert!(handle.send(Item::Block([1; 13], block.clone())));
        }
        assert!(handle.send(Item::Bytes(Bytes::from_static(b"bye"))));
        handle.close();
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 20 * (13 + 16_384) + 3);
        assert!(got.ends_with(b"bye") && got[..13] == [1; 13] && got[13] == 5);
        let mut written = 0;
        while let Some(Input::Sent(_, bytes)) = inputs.recv().await {
            written += bytes;
        }
        assert_eq!(written, got.len());
    }

    #[tokio::test]
    async fn dial_to_a_closed_port_is_refused() {
        let free = listen("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
        let (inputs_in, mut inputs) = mpsc::channel(1);
        dial(ConnId(1), free, None, inputs_in).await;
        let got = inputs.recv().await;
        assert!(matches!(got, Some(Input::ConnectFailed(_, DialError::Refused))), "{got:?}");
    }
}
