use std::fs;
use std::sync::mpsc;

use super::*;
use crate::base::{Rng, hash};
use crate::driver::storage::fixture::{Fixture, config};
use crate::peer::ConnId;
use crate::swarm::PieceIndex;
use crate::wire::bitfield::Bitfield;
use bytes::Bytes;
use proptest::prelude::*;

mod removing;

/// A pool with one torrent, and the events it gave.
struct Bench {
    pool: DiskPool,
    woken: mpsc::Receiver<()>,
    events: VecDeque<DiskEvent>,
}

impl Bench {
    fn new(workers: usize, config: StorageConfig) -> Bench {
        Self::counting(workers, config, Arc::default())
    }

    fn counting(workers: usize, config: StorageConfig, buffers: Arc<Buffers>) -> Bench {
        let (wake, woken) = mpsc::channel();
        let pool = DiskPool::counting(workers, buffers, move || {
            let _ = wake.send(());
        });
        pool.add(1, config);
        Bench { pool, woken, events: VecDeque::new() }
    }

    fn submit(&self, request: DiskRequest) {
        self.pool.submit(1, request);
    }

    fn next(&mut self) -> DiskEvent {
        while self.events.is_empty() {
            self.woken.recv_timeout(Duration::from_secs(20)).expect("an event comes in time");
            let mut drained = Vec::new();
            self.pool.drain(&mut drained);
            self.events.extend(drained.into_iter().map(|(_, event)| event));
        }
        self.events.pop_front().unwrap()
    }

    // The next event that `pick` takes; those before it are dropped.
    fn wait<T>(&mut self, mut pick: impl FnMut(DiskEvent) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next()) {
                return found;
            }
        }
    }

    fn open(&mut self, fixture: &Fixture) -> Bitfield {
        self.submit(DiskRequest::Open { info: fixture.info.clone(), wanted: None, afresh: false });
        self.opened()
    }

    fn opened(&mut self) -> Bitfield {
        self.wait(|event| match event {
            DiskEvent::Opened { have } => Some(have),
            DiskEvent::Failed(e) => panic!("{e}"),
            _ => None,
        })
    }

    fn write(&self, fixture: &Fixture, piece: PieceIndex, block: u32) {
        let begin = block * 16384;
        self.submit(DiskRequest::Write { piece, begin, block: fixture.block(piece, begin) });
    }

    fn digest(&mut self) -> (PieceIndex, crate::base::Digest) {
        self.wait(|event| match event {
            DiskEvent::Hashed { piece, digest } => Some((piece, digest)),
            DiskEvent::Failed(e) => panic!("{e}"),
            _ => None,
        })
    }

    fn flush(&mut self) {
        self.submit(DiskRequest::Flush);
        self.wait(|event| match event {
            DiskEvent::Flushed => Some(()),
            DiskEvent::Failed(e) => panic!("{e}"),
            _ => None,
        });
    }

    fn failure(&mut self) -> DiskError {
        self.wait(|event| if let DiskEvent::Failed(e) = event { Some(e) } else { None })
    }
}

fn odd_files() -> Fixture {
    Fixture::new(&[("a", 100_000), ("e", 0), ("b/c", 77_777), ("d", 1), ("f", 60_000)], 65536)
}

#[test]
fn blocks_in_any_order_become_files_and_digests() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    assert!(bench.open(&fixture).is_none());
    let mut blocks: Vec<_> = fixture
        .layout
        .all_pieces()
        .flat_map(|p| (0..fixture.layout.block_count(p)).map(move |b| (p, b)))
        .collect();
    Rng::from_seed([5; 32]).shuffle(&mut blocks);
    for (piece, block) in &blocks {
        bench.write(&fixture, *piece, *block);
    }
    let (mut written, mut hashed) = (0, 0);
    while hashed < fixture.layout.piece_count() {
        match bench.next() {
            DiskEvent::Written { .. } => written += 1,
            DiskEvent::Hashed { piece, digest } => {
                assert_eq!(digest, hash::sha1(fixture.piece_data(piece)));
                bench.submit(DiskRequest::Commit { piece });
                hashed += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(written, blocks.len());
    bench.flush();
    fixture.assert_complete(&dir.path().join("out"));
    bench.submit(DiskRequest::Close);
    bench.pool.shutdown();
    let mut again = Bench::new(2, config(dir.path()));
    assert!(again.open(&fixture).is_all());
}

#[test]
fn shutdown_without_close_finishes_and_records() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    for piece in fixture.layout.all_pieces() {
        (0..fixture.layout.block_count(piece)).for_each(|b| bench.write(&fixture, piece, b));
        bench.submit(DiskRequest::Commit { piece });
    }
    bench.pool.shutdown();
    fixture.assert_complete(&dir.path().join("out"));
    let mut again = Bench::new(1, config(dir.path()));
    again.submit(DiskRequest::Open { info: fixture.info.clone(), wanted: None, afresh: false });
    let DiskEvent::Opened { have } = again.next() else { panic!("data was checked") };
    assert!(have.is_all());
}

#[test]
fn discarded_piece_is_written_and_hashed_anew() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    let piece = fixture.layout.piece(1).unwrap();
    let bad = Bytes::from(vec![1; 16384]);
    bench.submit(DiskRequest::Write { piece, begin: 16384, block: bad.clone() });
    for block in [0, 2, 3] {
        bench.write(&fixture, piece, block);
    }
    assert_ne!(bench.digest().1, hash::sha1(fixture.piece_data(piece)));
    bench.submit(DiskRequest::HashBlocks { piece });
    let digests = bench.wait(|e| {
        if let DiskEvent::BlocksHashed { digests, .. } = e { Some(digests) } else { None }
    });
    let wanted: Vec<_> = (0..4).map(|b| hash::sha1(&fixture.block(piece, b * 16384))).collect();
    assert_eq!(
        digests.iter().zip(&wanted).map(|(a, b)| a == b).collect::<Vec<_>>(),
        [true, false, true, true]
    );
    assert_eq!(digests[1], hash::sha1(&bad));
    bench.write(&fixture, piece, 3);
    bench.submit(DiskRequest::Discard { piece });
    for block in [3, 1, 0, 2] {
        bench.write(&fixture, piece, block);
    }
    assert_eq!(bench.digest(), (piece, hash::sha1(fixture.piece_data(piece))));
}

#[test]
fn block_written_twice_counts_as_it_was_written_last() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(1, config(dir.path()));
    bench.open(&fixture);
    let piece = fixture.layout.piece(0).unwrap();
    for block in [0u32, 2, 1] {
        let begin = block * 16384;
        bench.submit(DiskRequest::Write { piece, begin, block: Bytes::from(vec![1; 16384]) });
        bench.wait(|e| matches!(e, DiskEvent::Written { .. }).then_some(()));
        bench.write(&fixture, piece, block);
        bench.wait(|e| matches!(e, DiskEvent::Written { .. }).then_some(()));
    }
    bench.write(&fixture, piece, 3);
    assert_eq!(bench.digest(), (piece, hash::sha1(fixture.piece_data(piece))));
}

#[test]
fn blocks_beyond_the_budget_are_read_back() {
    let (dir, fixture) =
        (tempfile::tempdir().unwrap(), Fixture::new(&[("top", 2_000_000)], 1 << 20));
    let mut bench = Bench::new(1, config(dir.path()));
    bench.open(&fixture);
    // As if other pieces had taken all of it but for three blocks.
    bench.pool.shared.waiting_bytes.store((16 << 20) - 3 * 16384, Ordering::Relaxed);
    let piece = fixture.layout.piece(0).unwrap();
    for block in (0..64).rev() {
        bench.write(&fixture, piece, block);
        bench.wait(|e| matches!(e, DiskEvent::Written { .. }).then_some(()));
    }
    assert_eq!(bench.digest(), (piece, hash::sha1(fixture.piece_data(piece))));
    assert_eq!(bench.pool.shared.waiting_bytes.load(Ordering::Relaxed), (16 << 20) - 3 * 16384);
    let piece = fixture.layout.piece(1).unwrap();
    bench.write(&fixture, piece, 1);
    bench.submit(DiskRequest::Close);
    bench.pool.shutdown();
}

#[test]
fn closed_torrent_leaves_no_block_behind() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    bench.write(&fixture, fixture.layout.piece(0).unwrap(), 2);
    bench.submit(DiskRequest::Close);
    let shared = bench.pool.shared.clone();
    bench.pool.shutdown();
    assert_eq!(shared.waiting_bytes.load(Ordering::Relaxed), 0);
    assert_eq!(locked(&shared.queues).unfinished, 0);
}

#[test]
fn reads_serve_any_part_and_fail_alone() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    fixture.lay_down(&dir.path().join("out"));
    let mut bench =
        Bench::new(2, StorageConfig { mode: StorageMode::SeedChecked, ..config(dir.path()) });
    assert!(bench.open(&fixture).is_all());
    let conn = ConnId(4);
    let read = |bench: &mut Bench, piece: PieceIndex, begin, len| {
        bench.submit(DiskRequest::Read { conn, piece, begin, len });
        bench.next()
    };
    for piece in fixture.layout.all_pieces() {
        let len = fixture.layout.piece_len(piece);
        for (begin, len) in [(0, 16384.min(len)), (16384.min(len - 1), 1), (5, len - 5), (0, len)] {
            let DiskEvent::Read { block, .. } = read(&mut bench, piece, begin, len) else {
                panic!()
            };
            assert_eq!(block, fixture.piece_data(piece)[begin as usize..(begin + len) as usize]);
        }
    }
    fs::remove_file(dir.path().join("out/top/f")).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("out/top/a"))
        .unwrap()
        .set_len(3)
        .unwrap();
    bench.submit(DiskRequest::Close);
    bench.pool.add(2, StorageConfig { mode: StorageMode::SeedChecked, ..config(dir.path()) });
    bench
        .pool
        .submit(2, DiskRequest::Open { info: fixture.info.clone(), wanted: None, afresh: false });
    let changed = bench
        .wait(|e| if let DiskEvent::Opened { have } = e { Some(!have.is_all()) } else { None });
    assert!(changed);
    let piece = fixture.layout.piece(0).unwrap();
    bench.pool.submit(2, DiskRequest::Read { conn, piece, begin: 0, len: 16384 });
    assert_eq!(
        bench.next(),
        DiskEvent::ReadFailed { conn, piece, begin: 0, len: 16384, is_lost: true }
    );
}

#[test]
fn nothing_hangs_without_or_after_opening() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    let piece = fixture.layout.piece(0).unwrap();
    bench.write(&fixture, piece, 0);
    bench.submit(DiskRequest::Commit { piece });
    bench.submit(DiskRequest::Read { conn: ConnId(1), piece, begin: 0, len: 1 });
    assert!(matches!(bench.next(), DiskEvent::ReadFailed { .. }));
    bench.submit(DiskRequest::Open { info: Bytes::from_static(b"x"), wanted: None, afresh: false });
    assert_eq!(bench.failure().kind, DiskErrorKind::Layout);
    bench.submit(DiskRequest::Flush);
    bench.submit(DiskRequest::Close);
    bench.pool.submit(99, DiskRequest::Flush);
    bench.pool.shutdown();
}

#[test]
fn failure_is_told_once_and_a_new_open_starts_again() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    // A folder where a file has to be, whoever runs this.
    fs::create_dir(dir.path().join("out/top/a")).unwrap();
    let piece = fixture.layout.piece(0).unwrap();
    (0..4).for_each(|block| bench.write(&fixture, piece, block));
    let error = bench.failure();
    assert_eq!(error.kind, DiskErrorKind::Conflict);
    assert!(error.context.contains("out/top/a"), "{error}");
    (0..4).for_each(|block| bench.write(&fixture, piece, block));
    bench.submit(DiskRequest::HashBlocks { piece });
    fs::remove_dir(dir.path().join("out/top/a")).unwrap();
    assert!(bench.open(&fixture).is_none());
    (0..4).for_each(|block| bench.write(&fixture, piece, block));
    assert_eq!(bench.digest(), (piece, hash::sha1(fixture.piece_data(piece))));
}

#[test]
fn selecting_waits_for_writes_and_reads_go_on() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(3, config(dir.path()));
    let wanted = Some(vec![true, false, false, false, false]);
    bench.submit(DiskRequest::Open { info: fixture.info.clone(), wanted, afresh: false });
    for piece in [0, 1].map(|p| fixture.layout.piece(p).unwrap()) {
        (0..fixture.layout.block_count(piece)).for_each(|b| bench.write(&fixture, piece, b));
        bench.submit(DiskRequest::Commit { piece });
    }
    bench.submit(DiskRequest::Select { wanted: vec![true; 5] });
    for piece in fixture.layout.all_pieces().skip(2) {
        (0..fixture.layout.block_count(piece)).for_each(|b| bench.write(&fixture, piece, b));
        bench.submit(DiskRequest::Commit { piece });
    }
    bench.flush();
    fixture.assert_complete(&dir.path().join("out"));
}

// Both threads for what takes long are taken, as two checks of large torrents would take them.
#[test]
fn what_waits_for_a_long_check_of_others_holds_up_nobody_else() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let buffers = Arc::new(Buffers::default());
    let mut bench = Bench::counting(2, config(dir.path()), buffers.clone());
    let (end, ends) = mpsc::channel::<()>();
    let ends = Arc::new(Mutex::new(ends));
    for other in [2, 3] {
        let ends = ends.clone();
        let reply = move |_| _ = locked(&ends).recv();
        bench.pool.add(other, config(dir.path()));
        bench.pool.remove(other, Removal::Erase(Box::new(reply)));
    }
    bench.submit(DiskRequest::Open { info: fixture.info.clone(), wanted: None, afresh: false });
    let piece = fixture.layout.piece(0).unwrap();
    (0..fixture.layout.block_count(piece)).for_each(|block| bench.write(&fixture, piece, block));
    let is_held = |bench: &Bench| !locked(&bench.pool.shared.queues).torrents[&1].held.is_empty();
    assert_eq!((buffers.held(), is_held(&bench)), (0, true));
    drop(end);
    bench.digest();
    while buffers.held() > 0 {
        std::thread::yield_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_torrent_written_in_any_order_is_whole(
        sizes in prop::collection::vec(prop_oneof![Just(0usize), 1..100usize, 1..60_000usize], 2..9),
        piece_length in prop_oneof![1..40_000u32, Just(16384), Just(32768)],
        seed in any::<[u8; 32]>(),
        workers in 1..4usize,
    ) {
        let total: usize = sizes.iter().sum();
        prop_assume!(total > 0);
        let piece_length = piece_length.max(u32::try_from(total / 200).unwrap() + 1);
        let names: Vec<_> = (0..sizes.len()).map(|i| format!("d{}/{i}", i % 2)).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(sizes).collect();
        let (dir, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(&files, piece_length));
        let mut bench = Bench::new(workers, config(dir.path()));
        bench.open(&fixture);
        let mut blocks: Vec<_> = fixture.layout.all_pieces()
            .flat_map(|p| (0..fixture.layout.block_count(p)).map(|b| (p, b)).collect::<Vec<_>>())
            .collect();
        Rng::from_seed(seed).shuffle(&mut blocks);
        for (piece, block) in blocks {
            bench.write(&fixture, piece, block);
        }
        for _ in fixture.layout.all_pieces() {
            let (piece, digest) = bench.digest();
            prop_assert_eq!(digest, hash::sha1(fixture.piece_data(piece)));
            bench.submit(DiskRequest::Commit { piece });
        }
        bench.flush();
        fixture.assert_complete(&dir.path().join("out"));
    }
}

// The victim of the test below: downloads into the directory it is given, and says what it has.
#[test]
#[ignore = "run by `kill_at_any_moment_loses_nothing_that_was_verified` as a process of its own"]
fn victim() {
    let Some(dir) = std::env::var_os("TRACKLESS_TEST_VICTIM") else { return };
    let (dir, fixture) = (std::path::PathBuf::from(dir), victims_torrent());
    let mut bench = Bench::new(2, config(&dir));
    let have = bench.open(&fixture);
    println!("\nopened {:?}", have.iter().collect::<Vec<_>>());
    for piece in fixture.layout.all_pieces().filter(|p| !have.has(p.get())) {
        for block in (0..fixture.layout.block_count(piece)).rev() {
            bench.write(&fixture, piece, block);
        }
        let (piece, digest) = bench.digest();
        assert_eq!(digest, hash::sha1(fixture.piece_data(piece)));
        bench.submit(DiskRequest::Commit { piece });
        println!("\nverified {}", piece.get());
        if piece.get() % 16 == 3 {
            bench.flush();
        }
    }
    println!("\ncomplete");
}

fn victims_torrent() -> Fixture {
    Fixture::new(&[("a", 900_000), ("b", 3_000_001), ("c", 50_000), ("d", 2_000_000)], 65536)
}

#[test]
fn kill_at_any_moment_loses_nothing_that_was_verified() {
    use std::io::{BufRead as _, BufReader};
    let (dir, fixture) = (tempfile::tempdir().unwrap(), victims_torrent());
    let pieces = fixture.layout.piece_count();
    let mut rng = Rng::from_seed([9; 32]);
    let (mut verified, mut fetched, mut complete) = (std::collections::BTreeSet::new(), 0, false);
    for round in 0.. {
        assert!(round < 100, "it ends");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "driver::disk::tests::victim"])
            .env("TRACKLESS_TEST_VICTIM", dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let kill_after = rng.below(24);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = 0;
        for line in lines.by_ref() {
            if let Some(piece) = line.strip_prefix("verified ") {
                verified.insert(piece.parse::<u32>().unwrap());
                (fetched, seen) = (fetched + 1, seen + 1);
            } else if let Some(have) = line.strip_prefix("opened ") {
                let have: std::collections::BTreeSet<u32> = have
                    .split(|c: char| !c.is_ascii_digit())
                    .filter_map(|n| n.parse().ok())
                    .collect();
                assert!(have.is_superset(&verified), "round {round}: {verified:?} became {have:?}");
                // A piece may have become whole in the moment before the kill.
                fetched += u32::try_from(have.len() - verified.len()).unwrap();
                verified = have;
            }
            complete |= line == "complete";
            if seen >= kill_after && !complete {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        if complete {
            break;
        }
    }
    assert_eq!(fetched, pieces, "no verified piece is fetched twice");
    fixture.assert_complete(&dir.path().join("out"));
}
