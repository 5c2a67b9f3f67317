//! A `share` for strangers to attack, and an honest download that proves it still serves.

use super::peer::Wire;
use super::{Content, Launch, Sharing, World, secs};

/// A program that shares something.
#[derive(Debug)]
pub struct Shared {
    /// Where it happens.
    pub world: World,
    /// What is shared.
    pub content: Content,
    /// The program under attack.
    pub sharing: Sharing,
}

impl Shared {
    /// Shares three quarters of a megabyte.
    pub fn new() -> Self {
        Self::of(Content::single(21, 777_777, 65_536))
    }

    /// Shares this.
    pub fn of(content: Content) -> Self {
        Self::start(content, |launch| launch)
    }

    /// The same as [`Shared::new`] with another program in front.
    pub fn behind(wrapper: &str, args: &[&str]) -> Self {
        Self::start(Content::single(21, 777_777, 65_536), |launch| launch.behind(wrapper, args))
    }

    fn start(content: Content, change: impl FnOnce(Launch) -> Launch) -> Self {
        let world = World::new();
        let there = world.folder("there");
        content.write_to(&there);
        let torrent = world.dir().join("it.torrent");
        std::fs::write(&torrent, content.torrent()).unwrap();
        let addr = world.addr();
        let share = world.trackless_at(addr, ["share", "--no-dht"]);
        let program = change(share.arg(&torrent).arg("--data").arg(&there)).start();
        let sharing = Sharing::new(program, addr);
        assert_eq!(sharing.info_hash(), content.info_hash());
        Self { world, content, sharing }
    }

    /// How many pieces.
    pub fn pieces(&self) -> u32 {
        u32::try_from(self.content.pieces()).unwrap()
    }

    /// A stranger at an address of its own, handshakes done.
    pub fn greet(&self) -> Wire {
        let from = self.world.ip().into();
        Wire::greet(self.sharing.addr, from, &self.content.info_hash())
            .unwrap_or_else(|e| panic!("no handshake: {e}\n{}", self.sharing.program.last_words()))
    }

    /// An honest download from it completes, and it lives.
    #[track_caller]
    pub fn expect_served(&mut self, what: &str) {
        let addr = self.world.addr();
        let out = self.world.folder(&format!("out-{}", addr.ip()));
        self.world
            .get_at(addr, &self.sharing.magnet, &out, &[self.sharing.addr])
            // A full seed lets a newcomer in when one of those that take nothing had its time.
            .run(secs(90))
            .expect(0, what);
        self.content.assert_in(&out);
        self.sharing.program.expect_alive(what);
    }
}
