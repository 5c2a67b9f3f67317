use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::fixture::{Fixture, config};
use super::*;

mod strangers;

const NO_PROGRESS: &(dyn Fn(u64, u64) + Sync) = &|_, _| {};

fn three_files() -> Fixture {
    Fixture::new(&[("a", 50_000), ("empty", 0), ("d/b", 70_001), ("c", 9)], 32768)
}

fn storage(config: StorageConfig) -> Storage {
    Storage::new(config, Handles::new())
}

fn open(storage: &Storage, fixture: &Fixture) -> Result<Vec<u32>, DiskError> {
    storage.open(&fixture.info, None, false, NO_PROGRESS).map(|have| have.iter().collect())
}

fn checked_bytes(storage: &Storage, fixture: &Fixture) -> (Vec<u32>, u64) {
    let checked = Mutex::new(0);
    let have =
        storage.open(&fixture.info, None, false, &|done, _| *locked(&checked) = done).unwrap();
    (have.iter().collect(), checked.into_inner().unwrap())
}

fn write(storage: &Storage, fixture: &Fixture, pieces: &[u32]) {
    let opened = storage.opened().unwrap();
    for piece in pieces.iter().map(|p| fixture.layout.piece(*p).unwrap()) {
        let data = Bytes::copy_from_slice(fixture.piece_data(piece));
        opened.files.write(piece, 0, &[data]).unwrap();
        opened.commit(piece);
    }
}

fn error_of(config: StorageConfig, fixture: &Fixture) -> DiskError {
    open(&storage(config), fixture).unwrap_err()
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

// As a kill does: nothing is saved, the descriptors close.
fn kill(storage: Storage) {
    drop(storage);
}

#[test]
fn nothing_but_empty_files_is_made_before_data_comes() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = storage(config(dir.path()));
    assert_eq!(open(&s, &fixture).unwrap(), [0u32; 0]);
    assert_eq!(names(&dir.path().join("out/top")), BTreeSet::from(["empty".to_owned()]));
    write(&s, &fixture, &[0, 1, 2, 3]);
    s.opened().unwrap().flush().unwrap();
    fixture.assert_complete(&dir.path().join("out"));
}

#[test]
fn finished_download_is_trusted_without_reading_it() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    write(&s, &fixture, &[0, 1, 2, 3]);
    s.opened().unwrap().flush().unwrap();
    kill(s);
    assert_eq!(checked_bytes(&storage(config(dir.path())), &fixture), (vec![0, 1, 2, 3], 0));
}

#[test]
fn kill_loses_no_piece_whose_data_is_there() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    write(&s, &fixture, &[1]);
    s.opened().unwrap().save().unwrap();
    write(&s, &fixture, &[0, 3]);
    kill(s);
    let s = storage(config(dir.path()));
    assert_eq!(open(&s, &fixture).unwrap(), [0, 1, 3]);
    write(&s, &fixture, &[2]);
    s.close().unwrap();
    assert_eq!(checked_bytes(&storage(config(dir.path())), &fixture), (vec![0, 1, 2, 3], 0));
}

#[test]
fn half_written_piece_is_never_counted_even_if_it_was_committed_wrongly() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    write(&s, &fixture, &[0, 2]);
    let opened = s.opened().unwrap();
    let piece = fixture.layout.piece(1).unwrap();
    opened.files.write(piece, 0, &[fixture.block(piece, 0)]).unwrap();
    drop(opened);
    kill(s);
    assert_eq!(open(&storage(config(dir.path())), &fixture).unwrap(), [0, 2]);
}

#[test]
fn record_damaged_at_any_length_costs_a_check_and_nothing_else() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    write(&s, &fixture, &[0, 1, 3]);
    s.close().unwrap();
    let state = dir.path().join("state/resume");
    let path = fs::read_dir(&state)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "state"))
        .unwrap();
    let good = fs::read(&path).unwrap();
    for len in 0..good.len() {
        fs::write(&path, &good[..len]).unwrap();
        assert_eq!(
            open(&storage(config(dir.path())), &fixture).unwrap(),
            [0, 1, 3],
            "cut at {len}"
        );
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(checked_bytes(&storage(config(dir.path())), &fixture).0, [0, 1, 3]);
}

#[test]
fn data_without_a_record_is_checked() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    fixture.lay_down(&dir.path().join("out"));
    let no_state = StorageConfig { state_dir: None, ..config(dir.path()) };
    assert_eq!(checked_bytes(&storage(no_state), &fixture), (vec![0, 1, 2, 3], 120_010));
}

#[test]
fn change_behind_our_back_is_noticed() {
    let fixture = three_files();
    type Change<'a> = (&'a str, &'a dyn Fn(&Path), &'a [u32]);
    let changes: [Change<'_>; 5] = [
        (
            "same size",
            &|top| {
                let mut a = fs::read(top.join("a")).unwrap();
                a[40_000] ^= 1;
                fs::write(top.join("a"), a).unwrap();
            },
            &[0, 2, 3],
        ),
        (
            "shorter",
            &|top| {
                fs::OpenOptions::new()
                    .write(true)
                    .open(top.join("a"))
                    .unwrap()
                    .set_len(40_000)
                    .unwrap()
            },
            &[0, 2, 3],
        ),
        (
            "longer",
            &|top| {
                fs::OpenOptions::new().write(true).open(top.join("c")).unwrap().set_len(40).unwrap()
            },
            &[0, 1, 2, 3],
        ),
        ("removed", &|top| fs::remove_file(top.join("d/b")).unwrap(), &[0]),
        (
            "replaced",
            &|top| {
                fs::write(top.join("new"), vec![7; 70_001]).unwrap();
                let time = fs::metadata(top.join("d/b")).unwrap().modified().unwrap();
                fs::rename(top.join("new"), top.join("d/b")).unwrap();
                fs::File::open(top.join("d/b")).unwrap().set_modified(time).unwrap();
            },
            &[0],
        ),
    ];
    for (what, change, left) in changes {
        let dir = tempfile::tempdir().unwrap();
        let s = storage(config(dir.path()));
        open(&s, &fixture).unwrap();
        write(&s, &fixture, &[0, 1, 2, 3]);
        s.opened().unwrap().flush().unwrap();
        s.close().unwrap();
        change(&dir.path().join("out/top"));
        let s = storage(config(dir.path()));
        assert_eq!(open(&s, &fixture).unwrap(), left, "{what}");
        write(&s, &fixture, &[0, 1, 2, 3]);
        s.opened().unwrap().flush().unwrap();
        fixture.assert_complete(&dir.path().join("out"));
    }
}

#[test]
fn file_that_vanishes_or_is_swapped_is_never_called_complete() {
    let fixture = three_files();
    let tricks: [&dyn Fn(&Path); 4] = [
        &|top| fs::remove_file(top.join("a")).unwrap(),
        &|top| fs::rename(top, top.with_file_name("moved")).unwrap(),
        &|top| {
            fs::write(top.join("x"), vec![0; 50_000]).unwrap();
            fs::rename(top.join("x"), top.join("a")).unwrap();
        },
        &|top| fs::OpenOptions::new().write(true).open(top.join("a")).unwrap().set_len(1).unwrap(),
    ];
    for trick in tricks {
        let dir = tempfile::tempdir().unwrap();
        let s = storage(config(dir.path()));
        open(&s, &fixture).unwrap();
        write(&s, &fixture, &[0, 1, 2, 3]);
        trick(&dir.path().join("out/top"));
        let error = s.opened().unwrap().flush().unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Io);
        assert!(
            error.context.ends_with("out/top/a") && error.message.contains("behind our back"),
            "{error}"
        );
        s.close().unwrap();
        let s = storage(config(dir.path()));
        let have = open(&s, &fixture).unwrap();
        assert!(!have.contains(&0), "{have:?}");
        write(&s, &fixture, &[0, 1, 2, 3]);
        s.opened().unwrap().flush().unwrap();
        fixture.assert_complete(&dir.path().join("out"));
    }
}

#[test]
fn file_made_anew_behind_our_back_is_not_filled_up() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = Storage::new(config(dir.path()), Handles::with_limit(1));
    open(&s, &fixture).unwrap();
    write(&s, &fixture, &[0, 2]);
    // Keeps the inode number from being used again at once.
    fs::rename(dir.path().join("out/top/a"), dir.path().join("kept")).unwrap();
    let piece = fixture.layout.piece(1).unwrap();
    let data = Bytes::copy_from_slice(fixture.piece_data(piece));
    let error = s.opened().unwrap().files.write(piece, 0, &[data]).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Conflict, "{error}");
}

#[test]
fn two_downloads_of_one_path_are_refused() {
    for fixture in [three_files(), Fixture::new(&[("top", 40_000)], 16384)] {
        let dir = tempfile::tempdir().unwrap();
        let first = storage(config(dir.path()));
        open(&first, &fixture).unwrap();
        let error = error_of(config(dir.path()), &fixture);
        assert_eq!(error.kind, DiskErrorKind::Conflict, "{error}");
        assert!(error.message.contains("already"), "{error}");
        first.close().unwrap();
        open(&storage(config(dir.path())), &fixture).unwrap();
    }
}

#[test]
fn symbolic_links_are_not_followed() {
    let fixture = three_files();
    for link in ["top", "top/d", "top/a", "top/empty"] {
        let dir = tempfile::tempdir().unwrap();
        let (outside, path) = (dir.path().join("outside"), dir.path().join("out").join(link));
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(
            if link.ends_with(['a', 'y']) { outside.join("file") } else { outside.clone() },
            &path,
        )
        .unwrap();
        let s = storage(config(dir.path()));
        let result = open(&s, &fixture).and_then(|_| {
            let piece = fixture.layout.piece(1).unwrap();
            s.opened().unwrap().files.write(
                piece,
                0,
                &[Bytes::copy_from_slice(fixture.piece_data(piece))],
            )
        });
        let error = result.unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Conflict, "{link}: {error}");
        assert_eq!(names(&outside).len(), 0, "{link}");
    }
}

#[test]
fn what_is_no_file_is_refused_and_a_pipe_does_not_hang() {
    let fixture = three_files();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("out/top/a")).unwrap();
    assert_eq!(error_of(config(dir.path()), &fixture).kind, DiskErrorKind::Conflict);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("out/top")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("out/top/a"), mode).unwrap();
    assert_eq!(error_of(config(dir.path()), &fixture).kind, DiskErrorKind::Conflict);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/top"), b"x").unwrap();
    assert_eq!(error_of(config(dir.path()), &fixture).kind, DiskErrorKind::Conflict);
}

#[test]
fn hard_links_do_not_make_two_files_one() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let top = dir.path().join("out/top");
    fs::create_dir_all(&top).unwrap();
    fs::write(top.join("a"), b"").unwrap();
    fs::hard_link(top.join("a"), top.join("c")).unwrap();
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    write(&s, &fixture, &[0]);
    let piece = fixture.layout.piece(3).unwrap();
    let data = Bytes::copy_from_slice(fixture.piece_data(piece));
    let error = s.opened().unwrap().files.write(piece, 0, &[data]).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Conflict, "{error}");
}

#[test]
fn longer_file_of_somebody_else_is_left_alone() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let path = dir.path().join("out/top/a");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, vec![5; 60_000]).unwrap();
    let error = error_of(config(dir.path()), &fixture);
    assert_eq!(error.kind, DiskErrorKind::Occupied, "{error}");
    assert_eq!(fs::read(&path).unwrap(), vec![5; 60_000]);
}

#[test]
fn unwanted_files_do_not_appear_and_come_when_they_are_wanted() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let (top, wanted) = (dir.path().join("out/top"), [false, false, true, false]);
    let s = storage(config(dir.path()));
    s.open(&fixture.info, Some(&wanted), false, NO_PROGRESS).unwrap();
    write(&s, &fixture, &[1, 2, 3]);
    s.opened().unwrap().flush().unwrap();
    assert_eq!(names(&top), BTreeSet::from(["d".to_owned()]));
    assert_eq!(fs::read(top.join("d/b")).unwrap(), fixture.file_data(2));
    s.close().unwrap();

    let s = storage(config(dir.path()));
    let have = s.open(&fixture.info, Some(&wanted), false, NO_PROGRESS).unwrap();
    assert_eq!(have.iter().collect::<Vec<_>>(), [1, 2, 3]);
    let opened = s.opened().unwrap();
    for piece in [1, 3].map(|p| fixture.layout.piece(p).unwrap()) {
        let len = fixture.layout.piece_len(piece);
        assert_eq!(opened.files.read_new(piece, 0, len).unwrap(), fixture.piece_data(piece));
    }
    opened.select(&[true; 4]).unwrap();
    write(&s, &fixture, &[0]);
    opened.flush().unwrap();
    fixture.assert_complete(&dir.path().join("out"));
    assert!(!names(&dir.path().join("state/resume")).iter().any(|n| n.ends_with(".parts")));
    s.close().unwrap();
    assert_eq!(checked_bytes(&storage(config(dir.path())), &fixture), (vec![0, 1, 2, 3], 0));
}

#[test]
fn without_a_state_directory_the_side_file_is_hidden() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let no_state = StorageConfig { state_dir: None, ..config(dir.path()) };
    let s = storage(no_state);
    s.open(&fixture.info, Some(&[true, true, false, false]), false, NO_PROGRESS).unwrap();
    write(&s, &fixture, &[0, 1]);
    s.opened().unwrap().flush().unwrap();
    let parts = format!(".trackless-{}.parts", fixture.info_hash);
    assert_eq!(names(&dir.path().join("out")), BTreeSet::from(["top".to_owned(), parts]));
    assert_eq!(
        names(&dir.path().join("out/top")),
        BTreeSet::from(["a".to_owned(), "empty".to_owned()])
    );
}

#[test]
fn padding_is_never_written_and_reads_as_zeros() {
    let files = [("a", 20_000), (".pad/1", 12_768), ("b", 5)];
    let (dir, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(&files, 32768));
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    write(&s, &fixture, &[0, 1]);
    s.opened().unwrap().flush().unwrap();
    let read = s.opened().unwrap().files.read_new(fixture.layout.piece(0).unwrap(), 0, 32768);
    assert_eq!(read.unwrap(), &fixture.data[..32768]);
    s.close().unwrap();
    assert_eq!(
        names(&dir.path().join("out/top")),
        BTreeSet::from(["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(checked_bytes(&storage(config(dir.path())), &fixture), (vec![0, 1], 0));
}

#[test]
fn holes_are_not_read_but_zeros_that_belong_there_count() {
    let mut data = vec![0; 8 * 65536];
    data[5 * 65536..].fill(9);
    let (dir, fixture) =
        (tempfile::tempdir().unwrap(), Fixture::with_data(&[("top", data.len())], 65536, data));
    let out = dir.path().join("out");
    fs::create_dir_all(&out).unwrap();
    let file = fs::File::create(out.join("top")).unwrap();
    file.set_len(8 * 65536).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[9; 65536], 6 * 65536).unwrap();
    assert_eq!(open(&storage(config(dir.path())), &fixture).unwrap(), [0, 1, 2, 3, 4, 6]);
}

#[test]
fn five_hundred_files_need_few_descriptors() {
    let names: Vec<String> = (0..500).map(|i| format!("{}/{i}", i % 7)).collect();
    let files: Vec<_> = names.iter().map(|n| (n.as_str(), 1000)).collect();
    let (dir, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(&files, 16384));
    let s = Storage::new(config(dir.path()), Handles::with_limit(8));
    open(&s, &fixture).unwrap();
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    write(&s, &fixture, &(0..fixture.layout.piece_count()).collect::<Vec<_>>());
    s.opened().unwrap().flush().unwrap();
    // Other tests of this process open files too.
    assert!(fs::read_dir("/proc/self/fd").unwrap().count() < before + 200);
    fixture.assert_complete(&dir.path().join("out"));
}

#[test]
fn seeding_takes_names_and_sizes_as_they_are_and_writes_nothing() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let seed = |mode| StorageConfig { mode, ..config(dir.path()) };
    assert_eq!(error_of(seed(StorageMode::Seed), &fixture).kind, DiskErrorKind::Io);
    fixture.lay_down(&dir.path().join("out"));
    assert_eq!(open(&storage(seed(StorageMode::Seed)), &fixture).unwrap(), [0, 1, 2, 3]);
    fs::write(dir.path().join("out/top/c"), b"x").unwrap();
    let error = error_of(seed(StorageMode::Seed), &fixture);
    assert!(error.message.contains("1 bytes instead of 9"), "{error}");
    let checked = storage(seed(StorageMode::SeedChecked));
    assert_eq!(open(&checked, &fixture).unwrap(), [0, 1, 2]);
    let piece = fixture.layout.piece(3).unwrap();
    assert!(checked.opened().unwrap().files.write(piece, 0, &[fixture.block(piece, 0)]).is_err());
    assert_eq!(fs::read(dir.path().join("out/top/c")).unwrap(), b"x");
}

#[test]
fn read_only_directory_is_a_matter_of_permission() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o555)).unwrap();
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write to read-only directories");
        return;
    }
    assert_eq!(error_of(config(dir.path()), &fixture).kind, DiskErrorKind::Permission);
}

#[test]
fn info_that_cannot_be_laid_out_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let s = storage(config(dir.path()));
    let error = s.open(&Bytes::from_static(b"de"), None, false, NO_PROGRESS).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Layout);
    assert!(!dir.path().join("out").exists());
}

#[test]
fn stop_breaks_a_check_off_and_keeps_the_old_record() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    write(&s, &fixture, &[0, 1, 2, 3]);
    s.close().unwrap();
    let a = fs::OpenOptions::new().write(true).open(dir.path().join("out/top/a")).unwrap();
    a.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(5)).unwrap();
    let s = storage(config(dir.path()));
    s.stop();
    assert_eq!(open(&s, &fixture).unwrap(), [2, 3]);
    s.close().unwrap();
    let (have, checked) = checked_bytes(&storage(config(dir.path())), &fixture);
    assert_eq!((have, checked), (vec![0, 1, 2, 3], 65536));
}

// Writes at an offset, at a time that no other change has.
fn change(path: &Path, at: u64, bytes: &[u8], time: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(time)).unwrap();
}

fn read_good(storage: &Storage, fixture: &Fixture, piece: u32) -> Result<(), DiskError> {
    let piece = fixture.layout.piece(piece).unwrap();
    let opened = storage.opened().unwrap();
    let bytes = opened.read_good(piece, 0, fixture.layout.piece_len(piece))?;
    assert!(bytes == fixture.piece_data(piece), "bytes that were never checked");
    Ok(())
}

#[test]
fn what_is_changed_while_it_is_shared_is_hashed_before_it_is_given_away() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let (out, mode) = (dir.path().join("out"), StorageMode::SeedChecked);
    fixture.lay_down(&out);
    let s = storage(StorageConfig { mode, ..config(dir.path()) });
    assert_eq!(open(&s, &fixture).unwrap(), [0, 1, 2, 3]);
    (0..4).for_each(|piece| read_good(&s, &fixture, piece).unwrap());

    // Of equal length, and only the first piece is another.
    change(&out.join("top/a"), 5, &[!fixture.data[5]], 100);
    let error = read_good(&s, &fixture, 0).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Io, "{error}");
    assert!(error.context.ends_with("top/a"), "{error}");
    (1..4).for_each(|piece| read_good(&s, &fixture, piece).unwrap());
    assert_eq!(s.opened().unwrap().take_changed(), [0]);
    assert_eq!(s.opened().unwrap().take_changed(), [0usize; 0], "once");
    // What was found good again is not so for ever.
    change(&out.join("top/a"), 40_000, &[!fixture.data[40_000]], 90);
    read_good(&s, &fixture, 1).unwrap_err();
    // Another time alone is no other content, and what was put right is right.
    change(&out.join("top/d/b"), 0, &[], 80);
    change(&out.join("top/a"), 0, fixture.file_data(0), 70);
    (0..4).for_each(|piece| read_good(&s, &fixture, piece).unwrap());
}

#[test]
fn what_a_download_writes_itself_is_no_change_and_what_comes_later_is() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    let is_changed = |file| s.opened().unwrap().files.watch().is_changed(file);
    for piece in 0..4 {
        write(&s, &fixture, &[piece]);
        (0..=piece).for_each(|piece| read_good(&s, &fixture, piece).unwrap());
    }
    s.opened().unwrap().flush().unwrap();
    (0..4).for_each(|piece| read_good(&s, &fixture, piece).unwrap());
    assert!((0..4).all(|file| !is_changed(file)));
    change(&dir.path().join("out/top/a"), 5, &[!fixture.data[5]], 100);
    read_good(&s, &fixture, 0).unwrap_err();
    assert!(is_changed(0));
    // The piece is fetched again; the others of that file are still not taken at their word.
    write(&s, &fixture, &[0]);
    change(&dir.path().join("out/top/a"), 40_000, &[!fixture.data[40_000]], 90);
    read_good(&s, &fixture, 0).unwrap();
    read_good(&s, &fixture, 1).unwrap_err();
}
