//! Disks that are full, forbidden, changed behind our back, or used by two at once: a clear word,
//! the exit code that scripts know, and a download that can go on.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::world::peer::{Wire, id};
use crate::world::sharing::Shared;
use crate::world::{
    B, Content, Launch, Script, Seeder, Sharing, World, have, installed, root, secs,
};

fn honest(world: &World, content: &Content) -> Seeder {
    Seeder::start(world.addr(), content, Script::honest())
}

/// Honest at this pace: there is time to do something in the middle.
fn slow(world: &World, content: &Content, pace: Duration) -> Seeder {
    let script = Script::honest().paced(pace);
    Seeder::start(world.addr(), content, script)
}

/// A small file system in memory, unmounted with the test.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(dir: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mount = Launch::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir);
        (mount.run(secs(10)).code == 0).then(|| Self(dir.to_owned()))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        Launch::new("mount").args(["-o", &options]).arg(&self.0).run(secs(10)).expect(0, "remount");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn full_disk_ends_with_8_and_goes_on_when_there_is_space() {
    if !have(root()) {
        return;
    }
    let world = World::new();
    let out = world.folder("out");
    let Some(disk) = Tmpfs::mount(&out, "4m") else {
        have(Err("mounting a tmpfs is not permitted".to_owned()));
        return;
    };
    let content = Content::tree(51, 9_000_000, 65_536);
    let seeder = honest(&world, &content);
    let addr = world.addr();
    let get = || world.get_at(addr, &content.magnet(), &out, &[seeder.addr]);
    let ended = get().run(secs(60)).expect(8, "a download onto a full disk");
    assert!(ended.stderr.contains("out"), "the path is not named: {}", ended.stderr);
    let lines = ended.stderr.lines().count();
    assert!(lines < 50, "{lines} lines for one full disk");
    // Again without space: the same, and no loop.
    get().run(secs(60)).expect(8, "a second try onto a full disk");
    let good = content.good_pieces(&out);
    disk.resize("64m");
    seeder.forget();
    get().run(secs(60)).expect(0, "with space");
    content.assert_in(&out);
    let again = seeder.log().blocks.iter().filter(|b| good[b.piece as usize]).count();
    assert_eq!(again, 0, "blocks of good pieces were fetched again");
}

fn permit(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// `get` as somebody whom permissions bind: root may write anywhere. None if that cannot be.
fn get_as_nobody(
    world: &World,
    addr: SocketAddr,
    out: &Path,
    from: &Seeder,
    link: &str,
) -> Option<Launch> {
    let get = world.get_at(addr, link, out, &[from.addr]);
    permit(&world.dir().join(format!("state-{}", addr.ip())), 0o777);
    as_nobody(world, get)
}

fn as_nobody(world: &World, launch: Launch) -> Option<Launch> {
    if root().is_err() {
        return Some(launch);
    }
    if !have(installed("setpriv")) {
        return None;
    }
    permit(world.dir(), 0o755);
    permit(&world.dir().join("home"), 0o777);
    // Nobody cannot go where it was built.
    let program = world.dir().join("trackless");
    std::fs::copy(crate::world::TRACKLESS, &program).unwrap();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    Some(launch.with_program(&program).behind("setpriv", nobody))
}

#[test]
fn forbidden_folder_ends_with_9() {
    let world = World::new();
    let content = Content::single(52, 100_000, 32_768);
    let seeder = honest(&world, &content);
    let out = world.folder("out");
    permit(&out, 0o555);
    let link = content.magnet();
    let Some(get) = get_as_nobody(&world, world.addr(), &out, &seeder, &link) else { return };
    let ended = get.run(secs(60)).expect(9, "a download into a read-only folder");
    assert!(ended.stderr.contains("out"), "the path is not named: {}", ended.stderr);
    assert!(seeder.log().blocks.len() < 1000, "{} requests", seeder.log().blocks.len());
    permit(&out, 0o755);
}

#[test]
fn permission_lost_in_the_middle_ends_with_9_and_the_download_can_go_on() {
    // Many small files: they are opened as they come.
    let content = Content::many(57, 120, 20_000, 16_384);
    let world = World::new();
    let seeder = slow(&world, &content, Duration::from_millis(5));
    let (out, addr, link) = (world.folder("out"), world.addr(), content.magnet());
    permit(&out, 0o777);
    let Some(get) = get_as_nobody(&world, addr, &out, &seeder, &link) else { return };
    let get = get.start();
    assert!(seeder.wait(secs(30), |log| log.blocks_sent > 40), "{}", get.last_words());
    let folder = out.join(&content.name);
    permit(&folder, 0o000);
    let ended = get.wait(secs(60)).expect(9, "a download whose folder was taken away");
    assert!(ended.stderr.contains(&content.name), "the path is not named: {}", ended.stderr);
    assert!(ended.stderr.lines().count() < 50, "{}", ended.stderr);
    permit(&folder, 0o777);
    let good = content.good_pieces(&out);
    assert!(good.contains(&true) && good.contains(&false), "it was in the middle");
    seeder.forget();
    let again = get_as_nobody(&world, addr, &out, &seeder, &link).unwrap();
    again.run(secs(60)).expect(0, "with permission again");
    content.assert_in(&out);
    let again = seeder.log().blocks.iter().filter(|b| good[b.piece as usize]).count();
    assert_eq!(again, 0, "blocks of good pieces were fetched again");
}

#[test]
fn second_process_on_one_download_ends_with_10() {
    let world = World::new();
    let content = Content::single(53, 4_000_000, 65_536);
    let seeder = slow(&world, &content, Duration::from_millis(10));
    let (out, first_addr) = (world.folder("out"), world.addr());
    let first = world.get_at(first_addr, &content.magnet(), &out, &[seeder.addr]).start();
    assert!(seeder.wait(secs(30), |log| log.blocks_sent > 10), "{}", first.last_words());
    // Another state folder, and the same one.
    let second = world.get(&content.magnet(), &out, &[seeder.addr]);
    let ended = second.run(secs(60)).expect(10, "a second process");
    assert!(!ended.stderr.is_empty(), "it does not say why");
    let third = world
        .trackless(["get", &content.magnet(), "--no-dht", "--state-dir"])
        .arg(world.dir().join(format!("state-{}", first_addr.ip())))
        .args(["--listen", &world.addr().to_string(), "--peer", &seeder.addr.to_string(), "-o"])
        .arg(&out);
    third.run(secs(60)).expect(10, "a third process with the state of the first");
    first.wait(secs(120)).expect(0, "the first process");
    content.assert_in(&out);
    // The lock is gone with its holder, also when that was killed.
    let killed = world.get_at(first_addr, &content.magnet(), &out, &[seeder.addr]).start();
    killed.kill();
    let again = world.get_at(first_addr, &content.magnet(), &out, &[seeder.addr]);
    again.run(secs(60)).expect(0, "after a process that was killed");
}

#[test]
fn file_of_somebody_else_ends_with_10_and_is_whole_afterwards() {
    let world = World::new();
    let content = Content::single(65, 300_000, 65_536);
    let seeder = honest(&world, &content);
    for len in [9, 299_999, 300_000, 300_001] {
        let out = world.folder(&format!("out-{len}"));
        let (path, mine) = (out.join(&content.name), vec![b'm'; len]);
        std::fs::write(&path, &mine).unwrap();
        let addr = world.addr();
        let get = || world.get_at(addr, &content.magnet(), &out, &[seeder.addr]);
        for _ in 0..2 {
            let ended = get().run(secs(60)).expect(10, "a download over somebody else's file");
            assert!(ended.stderr.contains(&*path.to_string_lossy()), "{}", ended.stderr);
            assert!(ended.stderr.contains("--overwrite"), "{}", ended.stderr);
            assert!(std::fs::read(&path).unwrap() == mine, "{len} bytes of somebody else");
        }
        get().args(["--overwrite"]).run(secs(60)).expect(0, "what is to be replaced");
        content.assert_in(&out);
    }
}

#[test]
fn folder_removed_in_the_middle_is_never_reported_complete() {
    let world = World::new();
    let content = Content::tree(54, 1_500_000, 65_536);
    let seeder = slow(&world, &content, Duration::from_millis(5));
    let out = world.folder("out");
    let download = world.get(&content.magnet(), &out, &[seeder.addr]).start();
    assert!(seeder.wait(secs(30), |log| log.blocks_sent > 40), "{}", download.last_words());
    std::fs::remove_dir_all(out.join(&content.name)).unwrap();
    let ended = download.wait(secs(120));
    if ended.code == 0 {
        content.assert_in(&out);
    } else {
        assert!(!ended.stderr.is_empty(), "it ended with {} and no word", ended.code);
    }
    // Either way the next run makes it whole.
    let addr = world.addr();
    world
        .get_at(addr, &content.magnet(), &out, &[seeder.addr])
        .run(secs(120))
        .expect(0, "after the folder was removed");
    content.assert_in(&out);
}

#[test]
fn few_descriptors_are_enough_for_many_files_and_peers() {
    if !have(installed("prlimit")) {
        return;
    }
    let world = World::new();
    let content = Content::many(55, 500, 2000, 32_768);
    let seeders: Vec<_> = (0..20).map(|_| honest(&world, &content)).collect();
    let peers: Vec<_> = seeders.iter().map(|s| s.addr).collect();
    let out = world.folder("out");
    world
        .get(&content.magnet(), &out, &peers)
        .behind("prlimit", ["--nofile=64", "--"])
        .run(secs(120))
        .expect(0, "500 files with 64 descriptors");
    content.assert_in(&out);
}

#[test]
fn file_changed_after_the_download_is_noticed_and_mended() {
    let world = World::new();
    let content = Content::tree(56, 700_000, 65_536);
    let seeder = honest(&world, &content);
    let (out, addr) = (world.folder("out"), world.addr());
    let get = || world.get_at(addr, &content.magnet(), &out, &[seeder.addr]);
    get().run(secs(60)).expect(0, "the first download");
    let big = out.join(content.path(5));
    let whole = std::fs::read(&big).unwrap();
    type Damage<'a> = (&'a str, Box<dyn Fn()>);
    let (path, data) = (big.clone(), whole.clone());
    let cut: Box<dyn Fn()> =
        Box::new(move || std::fs::write(&path, &data[..data.len() - 1]).unwrap());
    let (path, data) = (big.clone(), whole.clone());
    let replaced: Box<dyn Fn()> = Box::new(move || {
        let mut other = data.clone();
        other[300_000] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, other).unwrap();
    });
    let path = big.clone();
    let emptied: Box<dyn Fn()> = Box::new(move || std::fs::write(&path, b"").unwrap());
    let path = big.clone();
    let removed: Box<dyn Fn()> = Box::new(move || std::fs::remove_file(&path).unwrap());
    let (path, data) = (big.clone(), whole.clone());
    let longer: Box<dyn Fn()> =
        Box::new(move || std::fs::write(&path, [&data[..], b"more"].concat()).unwrap());
    let cases: Vec<Damage> = vec![
        ("cut by one byte", cut),
        ("replaced by one of equal size", replaced),
        ("emptied", emptied),
        ("removed", removed),
        ("made longer", longer),
    ];
    for (what, damage) in cases {
        damage();
        seeder.forget();
        get().run(secs(60)).expect(0, what);
        content.assert_in(&out);
        if what.starts_with("cut") || what.starts_with("replaced") {
            let pieces: std::collections::BTreeSet<_> =
                seeder.log().blocks.iter().map(|b| b.piece).collect();
            assert!(pieces.len() <= 2, "{what}: {} pieces were fetched for one", pieces.len());
        }
    }
}

// A peer that may ask: it comes to a seed that has looked at its files.
fn let_in(shared: &Shared) -> Wire {
    let mut wire = shared.greet();
    // BEP 54, under a number of ours.
    let hello = B::dict([("m", B::dict([("lt_donthave", B::Int(9))]))]).encode();
    wire.send_extended(0, &hello).unwrap();
    wire.send(id::INTERESTED, &[]).unwrap();
    wire.read_until(secs(30), |message, _| message == id::UNCHOKE).expect("an unchoke");
    wire
}

#[test]
fn file_cut_while_it_is_shared_is_taken_back_and_the_rest_served() {
    let shared = Shared::new();
    let mut wire = let_in(&shared);
    let path = shared.world.dir().join("there").join(&shared.content.name);
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(300_000).unwrap();
    wire.request(8, 16_384, 16_384).unwrap();
    let (_, taken_back) = wire
        .read_until(secs(10), |m, p| m == id::EXTENDED && p.first() == Some(&9))
        .expect("the piece is taken back");
    assert_eq!(taken_back, [9, 0, 0, 0, 8]);
    wire.request(1, 0, 16_384).unwrap();
    let (_, block) = wire.read_until(secs(10), |m, _| m == id::PIECE).expect("a block of the rest");
    assert_eq!(block[8..], shared.content.bytes()[65_536..65_536 + 16_384]);
    let ended = shared.sharing.program.terminate(secs(10));
    assert_eq!(ended.code, 143, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("a file has changed").count(), 1, "{}", ended.stderr);
}

#[test]
fn file_replaced_or_gone_while_it_is_shared_never_becomes_somebody_elses_bad_byte() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 4] = [
        ("replaced", |file| {
            let other = file.with_extension("new");
            std::fs::write(&other, vec![0; 777_777]).unwrap();
            std::fs::rename(other, file).unwrap();
        }),
        ("overwritten", |file| {
            use std::os::unix::fs::FileExt as _;
            let there = std::fs::OpenOptions::new().write(true).open(file).unwrap();
            there.write_all_at(&[0; 300_000], 100_000).unwrap();
        }),
        ("removed with its folder", |file| {
            std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
        }),
        ("forbidden", |file| permit(file, 0o000)),
    ];
    for (what, damage) in cases {
        let mut shared = Shared::new();
        drop(let_in(&shared));
        damage(&shared.world.dir().join("there").join(&shared.content.name));
        let out = shared.world.folder("out");
        let ended = shared
            .world
            .get(&shared.sharing.magnet, &out, &[shared.sharing.addr])
            .args(["--timeout", "5s"])
            .run(secs(30));
        // What is open is still there, whatever stands at its place.
        match ended.code {
            0 => shared.content.assert_in(&out),
            code => assert!([4, 7].contains(&code), "{what}: {code}: {}", ended.stderr),
        }
        shared.sharing.program.expect_alive(what);
        let ended = shared.sharing.program.terminate(secs(10));
        let is_named = ended.stderr.contains("was changed while it is shared");
        assert_eq!(is_named, what == "overwritten", "{what}: {}", ended.stderr);
        assert_eq!(ended.code, 143, "{what}: {}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{what}: {}", ended.stderr);
    }
}

#[test]
fn file_overwritten_while_it_is_shared_is_named_and_only_what_is_left_of_it_is_served() {
    use std::os::unix::fs::FileExt as _;
    let shared = Shared::new();
    let mut wire = let_in(&shared);
    let path = shared.world.dir().join("there").join(&shared.content.name);
    let there = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    there.write_all_at(&[0; 100], 2 * 65_536).unwrap();
    // Neither the block that was hit nor another of its piece.
    for begin in [0, 32_768] {
        wire.request(2, begin, 16_384).unwrap();
    }
    let is_answer = |m, p: &[u8]| m == id::PIECE || (m == id::EXTENDED && p.first() == Some(&9));
    let (answer, taken_back) = wire.read_until(secs(10), is_answer).expect("an answer");
    assert_eq!((answer, &taken_back[..]), (id::EXTENDED, &[9, 0, 0, 0, 2][..]));
    wire.request(3, 0, 16_384).unwrap();
    let (_, block) = wire.read_until(secs(10), |m, _| m == id::PIECE).expect("a block of the rest");
    assert_eq!(block[..8], [0, 0, 0, 3, 0, 0, 0, 0]);
    assert!(block[8..] == shared.content.bytes()[3 * 65_536..][..16_384]);
    let ended = shared.sharing.program.terminate(secs(10));
    assert_eq!(ended.code, 143, "{}", ended.stderr);
    let named = format!("{} was changed while it is shared", shared.content.name);
    assert_eq!(ended.stderr.matches(&named).count(), 1, "{}", ended.stderr);
    let is_plain =
        ended.stderr.lines().any(|line| line.starts_with(&format!("trackless: {named}")));
    assert!(is_plain, "a line like the others: {}", ended.stderr);
}

#[test]
fn download_that_nobody_has_the_rest_of_says_so() {
    let (world, content) = (World::new(), Content::single(34, 900_000, 65_536));
    let there = world.folder("there");
    let path = content.write_to(&there);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(500_000).unwrap();
    let torrent = world.dir().join("it.torrent");
    std::fs::write(&torrent, content.torrent()).unwrap();
    let addr = world.addr();
    let share = world.trackless_at(addr, ["share", "--no-dht"]);
    let _sharing = Sharing::new(share.arg(&torrent).arg("--data").arg(&there).start(), addr);
    let out = world.folder("out");
    let get = world.get(torrent.to_str().unwrap(), &out, &[addr]).args(["--timeout", "6s"]);
    let ended = get.run(secs(40)).expect(7, "half of it is nowhere");
    assert!(ended.stderr.contains("; 1 peer connected, none has the rest\n"), "{}", ended.stderr);
}

#[test]
fn verify_names_what_is_bad_and_missing() {
    let world = World::new();
    let content = Content::tree(57, 300_000, 32_768);
    let there = world.folder("there");
    content.write_to(&there);
    let torrent = world.dir().join("it.torrent");
    std::fs::write(&torrent, content.torrent()).unwrap();
    let verify = || world.trackless(["verify"]).arg(&torrent).arg(&there).run(secs(60));
    verify().expect(0, "verify of what is whole");
    // Another file of equal size, and none at all.
    let big = there.join(content.path(5));
    let mut data = std::fs::read(&big).unwrap();
    data[123_456] ^= 1;
    std::fs::remove_file(&big).unwrap();
    std::fs::write(&big, data).unwrap();
    std::fs::remove_file(there.join(content.path(6))).unwrap();
    let ended = verify().expect(5, "verify of what is damaged");
    let line = |name: &str| ended.stdout.lines().find(|l| l.contains(name)).unwrap_or_default();
    assert!(line("big.bin").contains("bad"), "{}", ended.stdout);
    assert!(line("x.txt").contains("missing"), "{}", ended.stdout);
    assert!(line("one-byte").contains("ok"), "{}", ended.stdout);
}

#[test]
fn verify_of_what_may_not_be_read_ends_with_9_and_calls_nothing_bad() {
    let world = World::new();
    let content = Content::tree(57, 300_000, 32_768);
    let there = world.folder("there");
    content.write_to(&there);
    let torrent = world.dir().join("it.torrent");
    std::fs::write(&torrent, content.torrent()).unwrap();
    permit(&there.join(content.path(5)), 0o000);
    let verify = world.trackless(["verify"]).arg(&torrent).arg(&there);
    let Some(verify) = as_nobody(&world, verify) else { return };
    let ended = verify.run(secs(60)).expect(9, "verify of what may not be read");
    let line = |name: &str| ended.stdout.lines().find(|l| l.contains(name)).unwrap_or_default();
    assert!(line("big.bin").starts_with("unreadable "), "{}", ended.stdout);
    assert!(!ended.stdout.contains("bad"), "{}", ended.stdout);
    assert!(ended.stderr.contains("big.bin: permission denied"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("fetches"), "{}", ended.stderr);
}

#[test]
fn damaged_resume_state_costs_a_recheck_and_no_byte() {
    let world = World::new();
    let content = Content::tree(58, 1_000_000, 65_536);
    let seeder = honest(&world, &content);
    let (out, addr) = (world.folder("out"), world.addr());
    let get = || world.get_at(addr, &content.magnet(), &out, &[seeder.addr]);
    get().run(secs(60)).expect(0, "the first download");
    let state = world.dir().join(format!("state-{}", addr.ip()));
    let files = files_below(&state);
    assert!(!files.is_empty(), "no state was kept in {}", state.display());
    let wholes: Vec<_> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [(&str, Damage); 6] = [
        ("emptied", |_| Vec::new()),
        ("cut to one byte", |b| b[..1.min(b.len())].to_vec()),
        ("cut in the middle", |b| b[..b.len() / 2].to_vec()),
        ("zeroed", |b| vec![0; b.len()]),
        ("garbage", |b| crate::world::content::bytes(1, 1, b.len().max(64))),
        ("one bit wrong", |b| {
            let mut b = b.to_vec();
            if let Some(byte) = b.last_mut() {
                *byte ^= 1;
            }
            b
        }),
    ];
    for (what, damage) in damages {
        for (file, whole) in files.iter().zip(&wholes) {
            let _ = std::fs::create_dir_all(file.parent().unwrap());
            std::fs::write(file, damage(whole)).unwrap();
        }
        seeder.forget();
        get().run(secs(60)).expect(0, what);
        content.assert_in(&out);
        let fetched = seeder.log().blocks.len();
        assert_eq!(fetched, 0, "{what}: {fetched} blocks were fetched though all data is there");
    }
}

#[test]
fn damaged_node_state_is_set_aside_with_a_warning() {
    let world = World::new();
    let addr = world.addr();
    let dht = world.dht(3);
    let node = || {
        let node = world.trackless_at(addr, ["node", "--status-interval", "1s"]);
        node.args(dht.bootstrap_flags()).start()
    };
    let probe = crate::world::krpc::Probe::at(world.ip());
    let up = || crate::world::eventually("a node", secs(30), || probe.ping(addr).then_some(()));
    let first = node();
    up();
    first.terminate(secs(10));
    let state = world.dir().join(format!("state-{}", addr.ip()));
    let files = files_below(&state);
    assert!(!files.is_empty(), "no state was kept in {}", state.display());
    for file in &files {
        std::fs::write(file, b"not what it was").unwrap();
    }
    let second = node();
    up();
    let ended = second.terminate(secs(10));
    assert_eq!(ended.code, 143, "{}", ended.stderr);
    let named =
        files.iter().any(|f| ended.stderr.contains(&*f.file_name().unwrap().to_string_lossy()));
    assert!(named, "the damaged file is not named: {}", ended.stderr);
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            // A lock is no state: it may be empty, and somebody may hold it.
            Ok(_) if entry.metadata().is_ok_and(|m| m.len() > 0) => found.push(entry.path()),
            _ => {}
        }
    }
    found.sort();
    found
}

#[test]
fn links_out_of_the_folder_are_not_followed() {
    let world = World::new();
    let content = Content::tree(59, 200_000, 32_768);
    let seeder = honest(&world, &content);
    let (out, outside) = (world.folder("out"), world.folder("outside"));
    std::fs::create_dir(out.join(&content.name)).unwrap();
    std::os::unix::fs::symlink(&outside, out.join(&content.name).join("a")).unwrap();
    std::os::unix::fs::symlink(outside.join("file"), out.join(&content.name).join("big.bin"))
        .unwrap();
    let ended = world.get(&content.magnet(), &out, &[seeder.addr]).run(secs(60));
    let strays: Vec<_> = std::fs::read_dir(&outside).unwrap().flatten().collect();
    assert!(strays.is_empty(), "written outside (exit {}): {strays:?}", ended.code);
    if ended.code == 0 {
        content.assert_in(&out);
    }
}

#[test]
fn tebibyte_is_not_allocated_before_data_comes() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    let info = crate::world::B::dict([
        ("length", crate::world::B::Int(1 << 40)),
        ("name", crate::world::B::str("huge.bin")),
        ("piece length", crate::world::B::Int(256 << 20)),
        ("pieces", crate::world::B::Str(vec![7; 4096 * 20])),
    ]);
    let torrent = world.dir().join("huge.torrent");
    std::fs::write(&torrent, crate::world::content::torrent_of(&info.encode())).unwrap();
    let (out, nobody) = (world.folder("out"), world.addr().to_string());
    world
        .trackless_at(world.addr(), ["get", "--no-dht", "--timeout", "3s", "--peer", &nobody, "-o"])
        .arg(&out)
        .arg(&torrent)
        .run(secs(60));
    let blocks: u64 = files_below(&out).iter().map(|f| f.metadata().unwrap().blocks()).sum();
    assert!(blocks * 512 < 1 << 20, "{} KiB on disk before the first block", blocks / 2);
}
