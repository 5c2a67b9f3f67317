//! Every kind of disk call fails once, the n-th of its kind (strace injects it): the error is named
//! or survived, nothing is reported that is not there, and the next run makes it whole.

use trackless::base::InfoHash;
use trackless::driver::resume::Place;

use crate::world::{Content, Launch, Script, Seeder, Sharing, World, have, installed, secs};

fn each_call_fails_once(calls: &str, error: &str, times: &[usize]) {
    if !have(tracing()) {
        return;
    }
    let content = Content::tree(95, 300_000, 32_768);
    for n in times {
        let world = World::new();
        let seeder = Seeder::start(world.addr(), &content, Script::honest());
        let (out, addr) = (world.folder("out"), world.addr());
        let get = || world.get_at(addr, &content.magnet(), &out, &[seeder.addr]);
        let what = format!("{error} in call {n} of {calls}");
        let inject = format!("inject={calls}:error={error}:when={n}");
        let trace = format!("trace={calls}");
        let strace = ["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let ended = get().args(["--timeout", "20s"]).behind("strace", strace).run(secs(60));
        if ended.code == 0 {
            content.assert_in(&out);
        } else {
            let known = [7, 8, 9].contains(&ended.code);
            assert!(known, "{what}: exit code {}\n{}", ended.code, ended.stderr);
            assert!(!ended.stderr.trim().is_empty(), "{what}: no word");
        }
        get().run(secs(60)).expect(0, &format!("the run after {what}"));
        content.assert_in(&out);
    }
}

/// May the calls of a process be looked at, and changed?
pub fn tracing() -> Result<(), String> {
    installed("strace")?;
    match Launch::new("strace").args(["-f", "-o", "/dev/null", "true"]).run(secs(20)).code {
        0 => Ok(()),
        _ => Err("tracing processes is not permitted here".to_owned()),
    }
}

#[test]
fn failed_writes_are_named_or_survived() {
    // Not `write`: that one also wakes the runtime, which nobody's disk fails.
    each_call_fails_once("pwrite64,pwritev,pwritev2", "EIO", &[1, 2, 3, 5, 8, 13]);
    each_call_fails_once("pwrite64,pwritev,pwritev2", "ENOSPC", &[1, 2, 4, 9]);
}

#[test]
fn failed_syncs_renames_and_truncates_are_named_or_survived() {
    each_call_fails_once("fsync,fdatasync,sync_file_range", "EIO", &[1, 2, 3, 5, 8]);
    each_call_fails_once("rename,renameat,renameat2", "EIO", &[1, 2, 3]);
    each_call_fails_once("ftruncate,fallocate", "ENOSPC", &[1, 2]);
}

#[test]
fn failed_opens_and_folders_are_named_or_survived() {
    each_call_fails_once("mkdir,mkdirat", "EACCES", &[1, 2, 3, 4]);
    // The first few are the dynamic linker's.
    each_call_fails_once("pread64,preadv,preadv2", "EIO", &[6, 7, 9]);
}

// A crowd may hold all descriptors in the moment in which a seed records what it has checked. Once it
// ended then, and its port was closed to the honest.
#[test]
fn seed_that_finds_no_descriptor_for_its_record_goes_on() {
    if !have(tracing()) {
        return;
    }
    let (world, content) = (World::new(), Content::single(96, 300_000, 32_768));
    let there = world.folder("there");
    content.write_to(&there);
    let torrent = world.dir().join("it.torrent");
    std::fs::write(&torrent, content.torrent()).unwrap();
    // Three times, and for ever.
    for when in ["1..3", "1+"] {
        let addr = world.addr();
        let state = world.folder(&format!("state-{}", addr.ip()));
        let info_hash = InfoHash::new(content.info_hash());
        let place = Place::new(&state, info_hash, &there.canonicalize().unwrap());
        let record = place.parts().with_extension("state.tmp");
        let inject = format!("inject=openat:error=EMFILE:when={when}");
        // -D: the program is our child, and ends when it is ended.
        let strace = ["-D", "-f", "-qq", "-o", "/dev/null", "-P", record.to_str().unwrap()];
        let share = world.trackless_at(addr, ["share", "--no-dht"]).arg(&torrent).arg("--data");
        let strace = strace.into_iter().chain(["-e", "trace=openat", "-e", &inject]);
        let program = share.arg(&there).behind("strace", strace).start();
        let sharing = Sharing::new(program, addr);
        let out = world.folder(&format!("out-{when}"));
        let ended = world.get(&sharing.magnet, &out, &[addr]).run(secs(60));
        ended.expect(0, &format!("no descriptor for the record, {when}"));
        content.assert_in(&out);
    }
}
