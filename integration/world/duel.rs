//! A download beside peers that misbehave. The honest peer keeps silent until the others have done
//! what they are there for, so that no test passes by luck of order.

use std::path::PathBuf;

use super::{Content, Ended, Gate, Script, Seeder, World, secs};

/// What becomes of a peer that misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its connection is closed, before the honest peer has said a word.
    Dropped,
    /// It may stay or be dropped: what it does changes nothing.
    Endured,
}

/// One download, some bad peers and a good one.
pub struct Duel {
    /// Where it happens.
    pub world: World,
    /// What is downloaded.
    pub content: Content,
    /// Where to.
    pub out: PathBuf,
}

impl Duel {
    /// Two pieces' worth of content and metadata of three pieces.
    pub fn new() -> Self {
        Self::of(Content::single(7, 100_000, 65_536).with_info_padding(40_000))
    }

    /// The same with other content.
    pub fn of(content: Content) -> Self {
        let world = World::new();
        let out = world.folder("out");
        Self { world, content, out }
    }

    /// Downloads from one bad peer and the good one; gives back the bad peer and how it ended.
    #[track_caller]
    pub fn fight(&self, what: &str, fate: Fate, liar: Script) -> (Seeder, Ended) {
        let (mut liars, ended) = self.fight_all(what, fate, vec![liar]);
        (liars.remove(0), ended)
    }

    /// Downloads from many bad peers and the good one.
    #[track_caller]
    pub fn fight_all(&self, what: &str, fate: Fate, liars: Vec<Script>) -> (Vec<Seeder>, Ended) {
        let gate = Gate::default();
        let start = |script| Seeder::start(self.world.addr(), &self.content, script);
        let liars: Vec<_> = liars.into_iter().map(start).collect();
        let honest = start(Script::honest().behind(&gate));
        let mut peers: Vec<_> = liars.iter().map(|liar| liar.addr).collect();
        peers.push(honest.addr);
        let mut download = self.world.get(&self.content.magnet(), &self.out, &peers).start();
        for (n, liar) in liars.iter().enumerate() {
            let done = liar.wait(secs(30), |log| match fate {
                Fate::Dropped => log.closed > 0,
                Fate::Endured => log.deeds > 0 || log.closed > 0,
            });
            download.expect_alive(what);
            assert!(
                done,
                "{what}: bad peer {n} was not {} within 30 s: {:?}\n{}",
                if fate == Fate::Dropped { "dropped" } else { "asked" },
                liar.log(),
                download.last_words()
            );
        }
        gate.open();
        let ended = download.wait(secs(60)).expect(0, what).expect_memory_below(MEMORY_MIB, what);
        self.content.assert_in(&self.out);
        // Dropped in the middle, not at the end of a download that it has served after all.
        let served = honest.log().blocks_sent > 0;
        assert!(served || fate == Fate::Endured, "{what}: the honest peer was not needed");
        (liars, ended)
    }

    /// Downloads from bad peers alone: what they send must not be enough.
    pub fn without_honest(&self, liars: Vec<Script>) -> (Vec<Seeder>, Ended) {
        let start = |script| Seeder::start(self.world.addr(), &self.content, script);
        let liars: Vec<_> = liars.into_iter().map(start).collect();
        let peers: Vec<_> = liars.iter().map(|liar| liar.addr).collect();
        let download = self.world.get(&self.content.magnet(), &self.out, &peers);
        let ended = download.args(["--timeout", "5s"]).run(secs(40));
        (liars, ended)
    }
}

/// What no peer may make a download take, in MiB.
pub const MEMORY_MIB: u64 = 200;
