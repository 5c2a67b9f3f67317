//! Clocks that jump while the program runs: the wall clock set by a day, by hand or by the network,
//! and a monotonic clock that leaps as on a machine that was asleep. The leap is one of the runtime's
//! timers: the clock of the cores is read from the kernel directly, where nothing comes in between.
//! What a node makes of hours that are missing is shown where time is virtual, in `src/dht/tests/away.rs`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::world::krpc::Probe;
use crate::world::{B, Content, Launch, Script, Seeder, World, eventually, have, installed, secs};

/// Seconds that the clocks of a program are off; another number takes effect at once.
struct Clocks {
    library: PathBuf,
    file: PathBuf,
}

impl Clocks {
    /// None if there is no C compiler: the dynamic linker takes nothing else in between.
    fn new(world: &World) -> Option<Self> {
        if !have(installed("cc")) {
            return None;
        }
        let (source, library) = (world.dir().join("clocks.c"), world.dir().join("clocks.so"));
        std::fs::write(&source, SHIM).unwrap();
        let cc = Launch::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library);
        cc.arg(&source).arg("-ldl").run(secs(60)).expect(0, "a library that bends clocks");
        let clocks = Self { library, file: world.dir().join("clocks") };
        clocks.set(0, 0);
        Some(clocks)
    }

    fn set(&self, wall: i64, monotonic: i64) {
        // In one write of one length: never seen half.
        std::fs::write(&self.file, format!("{wall:+021} {monotonic:+021}")).unwrap();
    }

    fn under(&self, launch: Launch) -> Launch {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        launch.env("LD_PRELOAD", text(&self.library)).env("BENT_CLOCKS", text(&self.file))
    }
}

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, at);
    const char *path = getenv("BENT_CLOCKS");
    if (failed || !path) return failed;
    char text[64] = {0};
    long long wall = 0, monotonic = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    if (read(file, text, 63) > 0) sscanf(text, "%lld %lld", &wall, &monotonic);
    close(file);
    at->tv_sec += id == CLOCK_REALTIME ? wall : monotonic;
    if (at->tv_sec < 0) at->tv_sec = 0;
    return 0;
}
"#;

const DAY: i64 = 86_400;

#[test]
fn wall_clock_that_is_set_changes_nothing() {
    let world = World::new();
    let Some(clocks) = Clocks::new(&world) else { return };
    let node = world.addr();
    let _node =
        clocks.under(world.trackless_at(node, ["node", "--bootstrap", "127.0.0.1:9"])).start();
    let probe = Probe::at(world.ip());
    let hash = [0x77; 20];
    let token = eventually("a token", secs(30), || {
        probe.get_peers(node, &hash).map(|reply| reply.token).filter(|token| !token.is_empty())
    });
    let content = Content::single(101, 1_500_000, 65_536);
    let slow = Script::honest().paced(Duration::from_millis(20));
    let seeder = Seeder::start(world.addr(), &content, slow);
    let out = world.folder("out");
    let get = clocks.under(world.get(&content.magnet(), &out, &[seeder.addr])).start();
    for (n, wall) in [DAY, -DAY, -4_000_000_000, 0].into_iter().enumerate() {
        let sent = 15 * (n + 1);
        assert!(seeder.wait(secs(30), |log| log.blocks_sent >= sent), "{}", get.last_words());
        clocks.set(wall, 0);
        let announced = probe.announce(node, &hash, B::Int(1000 + n as i64), B::str(&token));
        let taken = announced.is_some_and(|reply| reply.get("r").is_some());
        assert!(taken, "a token was no good when the clock was off by {wall} s");
    }
    let ended = get.wait(secs(60)).expect(0, "a download while the clock was set");
    content.assert_in(&out);
    let told = ended.stderr.replace(&content.name, "").replace("->", "");
    assert!(!told.contains('-'), "a negative figure: {}", ended.stderr);
    assert_eq!(seeder.log().dials.len(), 1, "it was connected again");
    let peers = probe.get_peers(node, &hash).expect("the node answers").peers;
    assert_eq!(peers.len(), 4, "what was announced before the clock was set back");
}

#[test]
fn machine_that_slept_a_day_goes_on_within_a_minute() {
    let world = World::new();
    let Some(clocks) = Clocks::new(&world) else { return };
    let content = Content::single(102, 1_500_000, 65_536);
    let slow = Script::honest().paced(Duration::from_millis(20));
    let seeder = Seeder::start(world.addr(), &content, slow);
    let out = world.folder("out");
    let get = clocks.under(world.get(&content.magnet(), &out, &[seeder.addr])).start();
    for (n, days) in [1, 2, 30].into_iter().enumerate() {
        let sent = 20 * (n + 1);
        assert!(seeder.wait(secs(60), |log| log.blocks_sent >= sent), "{}", get.last_words());
        clocks.set(days * DAY, days * DAY);
    }
    let ended = get.wait(secs(60)).expect(0, "a download on a machine that slept");
    content.assert_in(&out);
    assert!(ended.peak_kib < 200 * 1024);
}
