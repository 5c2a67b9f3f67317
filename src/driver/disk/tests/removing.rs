//! A torrent is removed: with its data, all that it wrote goes and nothing else.

use std::path::{Path, PathBuf};

use super::*;
use crate::driver::disk::Erased;

impl Bench {
    fn erase(&self) -> Result<Erased, DiskError> {
        let (reply, erased) = mpsc::channel();
        let reply = move |outcome| reply.send(outcome).unwrap();
        self.pool.remove(1, Removal::Erase(Box::new(reply)));
        erased.recv_timeout(Duration::from_secs(20)).expect("an answer in time")
    }

    fn wait_until_closed(&self) {
        while !locked(&self.pool.shared.queues).torrents.is_empty() {
            std::thread::yield_now();
        }
    }

    fn write_all(&mut self, fixture: &Fixture) {
        for piece in fixture.layout.all_pieces() {
            (0..fixture.layout.block_count(piece)).for_each(|b| self.write(fixture, piece, b));
            self.submit(DiskRequest::Commit { piece });
        }
    }
}

// Everything below a folder, without what the tests themselves made.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(below(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn data_that_was_downloaded_goes_and_what_was_remembered_of_it() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    bench.write_all(&fixture);
    bench.flush();
    bench.submit(DiskRequest::Close);
    let erased = bench.erase().unwrap();
    assert_eq!((erased.files, erased.bytes, erased.kept.len()), (5, 237_778, 0));
    assert_eq!(below(&dir.path().join("out")), [] as [PathBuf; 0]);
    assert_eq!(below(&dir.path().join("state/resume")), [] as [PathBuf; 0]);
    assert!(locked(&bench.pool.shared.queues).torrents.is_empty());
}

#[test]
fn half_a_download_goes_while_it_is_open() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    bench.write(&fixture, fixture.layout.piece(0).unwrap(), 1);
    bench.wait(|e| matches!(e, DiskEvent::Written { .. }).then_some(()));
    let erased = bench.erase().unwrap();
    assert_eq!(erased.kept, [] as [PathBuf; 0]);
    assert_eq!(below(&dir.path().join("out")), [] as [PathBuf; 0]);
}

#[test]
fn files_of_others_stay_and_so_do_their_folders() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let out = dir.path().join("out");
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    bench.write_all(&fixture);
    bench.flush();
    // One beside ours, one in the place of ours, a link in the place of ours.
    fs::write(out.join("top/b/mine"), "mine").unwrap();
    fs::remove_file(out.join("top/d")).unwrap();
    fs::write(out.join("top/held"), "another inode").unwrap();
    fs::write(out.join("top/d"), "replaced").unwrap();
    fs::write(dir.path().join("far"), "far away").unwrap();
    fs::remove_file(out.join("top/f")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("far"), out.join("top/f")).unwrap();
    let erased = bench.erase().unwrap();
    assert_eq!(erased.files, 3);
    let in_top = |name: &str| out.join("top").join(name);
    let mut kept = erased.kept;
    kept.sort();
    assert_eq!(kept, [in_top("d"), in_top("f")]);
    assert_eq!(fs::read(dir.path().join("far")).unwrap(), b"far away");
    let left = [in_top("b"), in_top("b/mine"), in_top("d"), in_top("f"), in_top("held")];
    assert_eq!(below(&out.join("top")), left);
}

#[test]
fn folder_that_became_a_link_is_not_followed() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let out = dir.path().join("out");
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    bench.write_all(&fixture);
    bench.flush();
    let far = dir.path().join("far");
    fs::rename(out.join("top/b"), &far).unwrap();
    std::os::unix::fs::symlink(&far, out.join("top/b")).unwrap();
    assert_eq!(bench.erase().unwrap().files, 4);
    assert_eq!(below(&far), [far.join("c")]);
    assert_eq!(below(&out), [out.join("top"), out.join("top/b")], "a link is not ours");
}

#[test]
fn data_that_was_only_shared_or_refused_is_not_touched() {
    let fixture = odd_files();
    for mode in [StorageMode::Seed, StorageMode::SeedChecked] {
        let dir = tempfile::tempdir().unwrap();
        fixture.lay_down(&dir.path().join("out"));
        let mut bench = Bench::new(2, StorageConfig { mode, ..config(dir.path()) });
        assert!(bench.open(&fixture).is_all());
        assert_eq!(bench.erase().unwrap(), Erased::default());
        fixture.assert_complete(&dir.path().join("out"));
    }
    // A file that is longer than ours and has nothing of it is somebody else's: refused.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("out/top")).unwrap();
    fs::write(dir.path().join("out/top/d"), "much longer than one byte").unwrap();
    let mut bench = Bench::new(2, config(dir.path()));
    bench.submit(DiskRequest::Open { info: fixture.info.clone(), wanted: None, afresh: false });
    assert_eq!(bench.failure().kind, DiskErrorKind::Occupied);
    assert_eq!(bench.erase().unwrap(), Erased::default());
    assert_eq!(below(&dir.path().join("out")).len(), 2);
}

#[test]
fn short_file_of_somebody_else_stays_as_long_as_nothing_was_written_to_it() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    fs::create_dir_all(dir.path().join("out/top")).unwrap();
    fs::write(dir.path().join("out/top/f"), "short").unwrap();
    let mut bench = Bench::new(2, StorageConfig { overwrite: true, ..config(dir.path()) });
    bench.open(&fixture);
    let erased = bench.erase().unwrap();
    assert_eq!(erased.kept, [dir.path().join("out/top/f")]);
    // The empty file that was made at the start is gone.
    assert_eq!(erased.files, 1);
}

#[test]
fn download_that_failed_and_closed_by_itself_can_still_be_deleted() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    bench.write_all(&fixture);
    bench.flush();
    bench.submit(DiskRequest::Close);
    bench.wait_until_closed();
    assert_eq!(bench.erase().unwrap().files, 5);
    assert!(locked(&bench.pool.shared.queues).closed.is_empty());
}

#[test]
fn closed_torrent_is_opened_again_and_what_it_wrote_before_is_still_its_own() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    let piece = fixture.layout.piece(0).unwrap();
    (0..4).for_each(|block| bench.write(&fixture, piece, block));
    bench.submit(DiskRequest::Commit { piece });
    // Half of another piece: nothing of file "f" is good.
    bench.write(&fixture, fixture.layout.piece(3).unwrap(), 0);
    bench.submit(DiskRequest::Close);
    // At once, while it is closing; and once more when it is closed.
    let have = bench.open(&fixture);
    assert_eq!(have.iter().collect::<Vec<_>>(), [0]);
    bench.submit(DiskRequest::Close);
    bench.wait_until_closed();
    assert_eq!(bench.open(&fixture).iter().collect::<Vec<_>>(), [0]);
    bench.write_all(&fixture);
    bench.flush();
    let erased = bench.erase().unwrap();
    assert_eq!((erased.files, erased.kept.len()), (5, 0));
}

#[test]
fn whoever_removes_a_torrent_hears_when_nothing_of_it_is_open() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let mut bench = Bench::new(2, config(dir.path()));
    bench.open(&fixture);
    bench.write_all(&fixture);
    let (reply, closed) = mpsc::channel();
    let again = reply.clone();
    bench.pool.remove(1, Removal::Close(Box::new(move || reply.send(()).unwrap())));
    bench.pool.remove(1, Removal::Close(Box::new(move || again.send(()).unwrap())));
    for _ in 0..2 {
        closed.recv_timeout(Duration::from_secs(20)).expect("an answer in time");
    }
    // The folder is free for another download at once, which finds everything recorded.
    bench.pool.add(2, config(dir.path()));
    bench
        .pool
        .submit(2, DiskRequest::Open { info: fixture.info.clone(), wanted: None, afresh: false });
    assert!(bench.opened().is_all());
}

#[test]
fn what_was_never_opened_is_forgotten_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(1, config(dir.path()));
    bench.pool.remove(1, Removal::Close(Box::new(|| {})));
    assert_eq!(bench.erase().unwrap(), Erased::default());
    bench.wait_until_closed();
}

#[test]
fn unwanted_parts_and_the_record_of_another_folder_are_told_apart() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), odd_files());
    let elsewhere = StorageConfig { root: dir.path().join("elsewhere"), ..config(dir.path()) };
    let mut other = Bench::new(1, elsewhere);
    other.open(&fixture);
    other.pool.shutdown();
    let mut bench = Bench::new(2, config(dir.path()));
    // Only "b/c" is wanted; its pieces reach into "a" and "d".
    let wanted = Some(vec![false, false, true, false, false]);
    bench.submit(DiskRequest::Open { info: fixture.info.clone(), wanted, afresh: false });
    bench.wait(|e| matches!(e, DiskEvent::Opened { .. }).then_some(()));
    for piece in fixture.layout.pieces_of_file(2).filter_map(|p| fixture.layout.piece(p)) {
        (0..fixture.layout.block_count(piece)).for_each(|b| bench.write(&fixture, piece, b));
        bench.submit(DiskRequest::Commit { piece });
    }
    bench.flush();
    let parts = |dir: &Path| {
        let state = below(&dir.join("state/resume"));
        state.iter().filter(|p| p.extension().is_some_and(|e| e == "parts")).count()
    };
    assert_eq!(parts(dir.path()), 1, "the unwanted parts are kept aside");
    assert_eq!(below(&dir.path().join("out/top")).len(), 2, "and not as files");
    assert_eq!(bench.erase().unwrap().files, 1);
    assert_eq!(parts(dir.path()), 0);
    assert_eq!(below(&dir.path().join("out")), [] as [PathBuf; 0]);
    let left = below(&dir.path().join("state/resume"));
    assert_eq!(left.len(), 2, "the other folder's record and the info dictionary: {left:?}");
}
