//! `kill -9` at any moment, twenty times in one download: what was verified is never fetched again,
//! and what is reported as complete is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use trackless::base::Rng;

use crate::world::seeder::Block;
use crate::world::{Content, Program, Script, Seeder, World, secs};

/// A download that is killed again and again.
struct Crashing {
    world: World,
    content: Content,
    seeders: Vec<Seeder>,
    addr: std::net::SocketAddr,
    out: PathBuf,
    fetched_twice: Vec<Block>,
}

impl Crashing {
    fn new(content: Content, seeders: usize, pace_ms: u64) -> Self {
        let world = World::new();
        // Slow enough that a kill always lands in the middle: the pace is what is simulated.
        let slow = Script::honest().paced(Duration::from_millis(pace_ms));
        let start = |_| Seeder::start(world.addr(), &content, slow.clone());
        let seeders = (0..seeders).map(start).collect();
        let (addr, out) = (world.addr(), world.folder("out"));
        Self { world, content, seeders, addr, out, fetched_twice: Vec::new() }
    }

    fn start(&self) -> Program {
        let peers: Vec<_> = self.seeders.iter().map(|s| s.addr).collect();
        self.world.get_at(self.addr, &self.content.magnet(), &self.out, &peers).start()
    }

    /// Runs until the seeders have sent this many blocks more, then kills; checks that nothing was
    /// asked for that was good when the run began. False if the download was complete before.
    fn run_and_kill(&mut self, blocks: usize) -> bool {
        let good = self.content.good_pieces(&self.out);
        self.seeders.iter().for_each(Seeder::forget);
        let mut download = self.start();
        let share = blocks.div_ceil(self.seeders.len());
        let mut complete = false;
        crate::world::eventually("blocks were sent, or it ended", secs(60), || {
            complete = download.poll().is_some();
            let sent: usize = self.seeders.iter().map(|s| s.log().blocks_sent).sum();
            (complete || sent >= share * self.seeders.len()).then_some(())
        });
        if complete {
            download.wait(secs(5)).expect(0, "a download that was killed before");
        } else {
            download.kill();
        }
        self.note_refetched(&good);
        !complete
    }

    fn note_refetched(&mut self, good: &[bool]) {
        for seeder in &self.seeders {
            for block in seeder.log().blocks {
                if good.get(block.piece as usize) == Some(&true) {
                    self.fetched_twice.push(block);
                }
            }
        }
    }

    fn finish(&mut self) {
        let good = self.content.good_pieces(&self.out);
        self.seeders.iter().for_each(Seeder::forget);
        self.start().wait(secs(120)).expect(0, "the last run");
        self.note_refetched(&good);
        self.content.assert_in(&self.out);
        assert_eq!(self.fetched_twice, [], "blocks of verified pieces were asked for again");
    }
}

fn twenty_kills(mut crashing: Crashing, seed: u8, blocks_max: usize) {
    let mut rng = Rng::from_seed([seed; 32]);
    for kill in 0..20 {
        let blocks = 1 + rng.below(blocks_max);
        let killed = crashing.run_and_kill(blocks);
        assert!(killed, "seed {seed}: complete before kill {kill}: nothing was tested");
    }
    crashing.finish();
}

#[test]
fn twenty_kills_lose_no_verified_piece() {
    twenty_kills(Crashing::new(Content::tree(41, 10_000_000, 65_536), 1, 2), 41, 40);
}

#[test]
fn twenty_kills_with_several_peers_lose_no_verified_piece() {
    twenty_kills(Crashing::new(Content::single(42, 12_000_000, 131_072), 3, 4), 42, 45);
}

#[test]
fn hundred_kills_at_any_moment_lose_nothing_and_leave_nothing_lying_about() {
    // Starting, checking, recording, fetching: a run is killed wherever it is by then.
    let seed = 45;
    let mut rng = Rng::from_seed([seed; 32]);
    let mut crashing = Crashing::new(Content::tree(seed, 12_000_000, 65_536), 1, 12);
    let resume = crashing.world.dir().join(format!("state-{}/resume", crashing.addr.ip()));
    let mut while_recording = 0;
    for kill in 0..100 {
        let good = crashing.content.good_pieces(&crashing.out);
        crashing.seeders.iter().for_each(Seeder::forget);
        // What the last kill left is not what this run writes; some runs find it there.
        if kill % 4 == 0 {
            half_written(&resume).iter().for_each(|path| std::fs::remove_file(path).unwrap());
        }
        let mut download = crashing.start();
        let end = Instant::now() + Duration::from_millis(rng.below(250) as u64);
        // Every fourth as soon as a record is half written.
        while Instant::now() < end {
            if kill % 4 == 0 && !half_written(&resume).is_empty() {
                while_recording += 1;
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        assert!(download.poll().is_none(), "seed {seed}: it ended by itself before kill {kill}");
        download.kill();
        crashing.note_refetched(&good);
    }
    assert!(while_recording > 3, "seed {seed}: {while_recording} kills while a record was written");
    crashing.finish();
    let left: Vec<_> =
        std::fs::read_dir(&resume).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.len() <= 4, "{left:?}");
}

// Records that are being written, or were when a process was killed.
fn half_written(resume: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(resume).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.to_string_lossy().ends_with(".state.tmp")).collect()
}

#[test]
fn kills_before_the_first_piece_leave_nothing_broken() {
    let mut crashing = Crashing::new(Content::tree(43, 400_000, 65_536), 1, 1);
    for _ in 0..5 {
        assert!(crashing.run_and_kill(1));
    }
    crashing.finish();
}

#[test]
fn magnet_is_not_resolved_again_after_a_kill() {
    let content = Content::single(44, 3_000_000, 65_536).with_info_padding(40_000);
    let mut crashing = Crashing::new(content, 1, 2);
    assert!(crashing.run_and_kill(20));
    crashing.finish();
    let asked = crashing.seeders[0].log().metadata_requests;
    assert_eq!(asked, 0, "the info dictionary was fetched twice");
}
