//! How fast the disk threads store, hash and serve one torrent, in MB/s. Give a directory to
//! measure its file system (a tmpfs shows the cost of the code alone):
//!
//! `cargo bench --bench disk -- /dev/shm`

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "it measures time, and may end"
)]

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use bytes::Bytes;
use trackless::base::hash;
use trackless::driver::disk::{DiskPool, StorageConfig, StorageMode};
use trackless::peer::ConnId;
use trackless::swarm::layout::Layout;
use trackless::swarm::{DiskEvent, DiskRequest, PieceIndex};
use trackless::wire::bencode::Writer;
use trackless::wire::metainfo::Info;

const TOTAL: usize = 1 << 30;
const PIECE: usize = 1 << 20;
const BLOCK: usize = 16 << 10;

struct Rig {
    pool: DiskPool,
    woken: Receiver<()>,
    layout: Layout,
    info: Bytes,
    data: Bytes,
}

fn main() {
    let dir = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or("/tmp".into());
    let dir = Path::new(&dir).join(format!("trackless-bench-{}", std::process::id()));
    // Every piece holds the same bytes: the disk does not know, and the bench starts at once.
    let data: Vec<u8> =
        (0..PIECE as u32 / 4).flat_map(|i| hash::sha1(&i.to_le_bytes())[..4].to_vec()).collect();
    let data = Bytes::from(data);
    let start = Instant::now();
    for _ in 0..256 {
        std::hint::black_box(hash::sha1(&data));
    }
    report("SHA-1 alone, one core", 256 * PIECE, start);
    for workers in [1, 2] {
        for (name, spread) in [("one piece at a time", 1), ("8 pieces at once", 8)] {
            let rig = Rig::new(&dir, workers, data.clone());
            let start = Instant::now();
            rig.write(spread, false);
            report(&format!("write + hash, {workers} workers, {name}"), TOTAL, start);
            rig.close(&dir);
        }
    }
    let rig = Rig::new(&dir, 2, data.clone());
    let start = Instant::now();
    rig.write(8, true);
    report("write + hash, 2 workers, blocks backwards", TOTAL, start);
    let start = Instant::now();
    rig.read();
    report("read for peers, 2 workers", TOTAL, start);
    let files = dir.join("out");
    drop(rig);
    let rig = Rig::opened(&dir, 2, data, None);
    let start = Instant::now();
    rig.open();
    report("check at start, all cores", TOTAL, start);
    assert!(files.exists());
    rig.close(&dir);
}

fn report(what: &str, bytes: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:<50} {:>7.0} MB/s", bytes as f64 / seconds / 1e6);
}

impl Rig {
    fn new(dir: &Path, workers: usize, data: Bytes) -> Rig {
        let rig = Self::opened(dir, workers, data, Some(dir.join("state")));
        rig.open();
        rig
    }

    fn opened(
        dir: &Path,
        workers: usize,
        data: Bytes,
        state_dir: Option<std::path::PathBuf>,
    ) -> Rig {
        let (wake, woken) = mpsc::channel();
        let pool = DiskPool::new(workers, move || {
            let _ = wake.send(());
        });
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.dict().bytes(b"length").int(TOTAL as i64).bytes(b"name").bytes(b"data");
        w.bytes(b"piece length").int(PIECE as i64);
        w.bytes(b"pieces").bytes(&hash::sha1(&data).repeat(TOTAL / PIECE)).end();
        let info = Bytes::from(out);
        let layout = Layout::new(&Info::decode(&info).unwrap()).unwrap();
        let root = dir.join("out");
        pool.add(
            1,
            StorageConfig { root, state_dir, mode: StorageMode::Download, overwrite: false },
        );
        Rig { pool, woken, layout, info, data }
    }

    fn open(&self) {
        self.pool
            .submit(1, DiskRequest::Open { info: self.info.clone(), wanted: None, afresh: false });
        let mut done = false;
        while !done {
            self.drain(|event| done |= matches!(event, DiskEvent::Opened { .. }));
        }
    }

    fn drain(&self, mut each: impl FnMut(DiskEvent)) {
        let mut events = Vec::new();
        self.pool.drain(&mut events);
        if events.is_empty() {
            self.woken.recv().unwrap();
        }
        for (_, event) in events {
            if let DiskEvent::Failed(e) = &event {
                panic!("{e}");
            }
            each(event);
        }
    }

    fn write(&self, spread: u32, backwards: bool) {
        let pieces: Vec<PieceIndex> = self.layout.all_pieces().collect();
        let blocks = (PIECE / BLOCK) as u32;
        let mut order = pieces.chunks(spread as usize).flat_map(|group| {
            (0..blocks).flat_map(move |b| {
                let b = if backwards { blocks - 1 - b } else { b };
                group.iter().map(move |p| (*p, b))
            })
        });
        let (mut pending, mut hashed) = (0, 0);
        while hashed < pieces.len() {
            // As many as a client with fast peers has under way.
            for (piece, block) in order.by_ref().take(2048 - pending) {
                let at = block as usize * BLOCK;
                let (begin, block) = (at as u32, self.data.slice(at..at + BLOCK));
                self.pool.submit(1, DiskRequest::Write { piece, begin, block });
                pending += 1;
            }
            self.drain(|event| match event {
                DiskEvent::Written { .. } => pending -= 1,
                DiskEvent::Hashed { piece, digest } => {
                    assert_eq!(digest, hash_of(&self.info));
                    self.pool.submit(1, DiskRequest::Commit { piece });
                    hashed += 1;
                }
                _ => {}
            });
        }
    }

    fn read(&self) {
        let len = BLOCK as u32;
        let mut order = self
            .layout
            .all_pieces()
            .flat_map(|p| (0..PIECE as u32 / len).map(move |b| (p, b * len)));
        let (mut pending, mut read) = (0, 0);
        while read < TOTAL {
            for (piece, begin) in order.by_ref().take(256 - pending) {
                self.pool.submit(1, DiskRequest::Read { conn: ConnId(1), piece, begin, len });
                pending += 1;
            }
            self.drain(|event| {
                if let DiskEvent::Read { block, .. } = event {
                    read += block.len();
                    pending -= 1;
                }
            });
        }
    }

    fn close(self, dir: &Path) {
        self.pool.shutdown();
        let _ = std::fs::remove_dir_all(dir);
    }
}

// All pieces are the same.
fn hash_of(info: &Bytes) -> [u8; 20] {
    info[info.len() - 21..info.len() - 1].try_into().unwrap()
}
