//! Files that were there before, and are none of ours.

use super::*;

fn put(dir: &Path, name: &str, data: &[u8]) {
    let path = dir.join("out/top").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, data).unwrap();
}

fn without_state(dir: &Path) -> StorageConfig {
    StorageConfig { state_dir: None, ..config(dir) }
}

#[test]
fn file_of_somebody_else_is_left_alone_however_long_it_is() {
    let fixture = three_files();
    for len in [1, 20_000, 49_999, 50_000, 50_001] {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a", &vec![5; len]);
        let error = error_of(config(dir.path()), &fixture);
        assert_eq!(error.kind, DiskErrorKind::Occupied, "{len}: {error}");
        assert!(error.context.ends_with("top/a"), "{error}");
        assert_eq!(fs::read(dir.path().join("out/top/a")).unwrap(), vec![5; len]);
        // The refusal leaves no record that would call it ours the next time.
        assert_eq!(error_of(config(dir.path()), &fixture).kind, DiskErrorKind::Occupied);
        let s = storage(StorageConfig { overwrite: true, ..config(dir.path()) });
        open(&s, &fixture).unwrap();
        write(&s, &fixture, &[0, 1, 2, 3]);
        s.opened().unwrap().flush().unwrap();
        fixture.assert_complete(&dir.path().join("out"));
    }
}

#[test]
fn several_strange_files_are_counted() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    for name in ["a", "d/b", "c"] {
        put(dir.path(), name, b"mine");
    }
    let error = error_of(config(dir.path()), &fixture);
    assert!(error.message.ends_with("(and so are 2 more)"), "{error}");
}

#[test]
fn room_without_data_is_filled() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    put(dir.path(), "a", &[0; 50_000]);
    put(dir.path(), "c", b"");
    let sparse = fs::File::create(dir.path().join("out/top/b")).unwrap();
    sparse.set_len(70_001).unwrap();
    fs::create_dir(dir.path().join("out/top/d")).unwrap();
    fs::rename(dir.path().join("out/top/b"), dir.path().join("out/top/d/b")).unwrap();
    let s = storage(without_state(dir.path()));
    assert_eq!(open(&s, &fixture).unwrap(), [0u32; 0]);
    write(&s, &fixture, &[0, 1, 2, 3]);
    s.opened().unwrap().flush().unwrap();
    fixture.assert_complete(&dir.path().join("out"));
}

#[test]
fn download_of_another_client_is_gone_on_with() {
    let fixture = three_files();
    // One file has a good piece, one has no piece of its own: what is there of it proves nothing.
    let dir = tempfile::tempdir().unwrap();
    let mut a = fixture.file_data(0).to_vec();
    a[40_000..].fill(1);
    put(dir.path(), "a", &a);
    put(dir.path(), "c", &fixture.file_data(3)[..5]);
    // Half of a piece: begun as well, as the first shows.
    put(dir.path(), "d/b", &fixture.file_data(2)[..30_000]);
    let s = storage(without_state(dir.path()));
    assert_eq!(open(&s, &fixture).unwrap(), [0]);
    write(&s, &fixture, &[1, 2, 3]);
    s.opened().unwrap().flush().unwrap();
    fixture.assert_complete(&dir.path().join("out"));
}

#[test]
fn half_a_piece_of_a_killed_run_is_ours() {
    for clean_before in [false, true] {
        let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
        if clean_before {
            let s = storage(config(dir.path()));
            open(&s, &fixture).unwrap();
            s.close().unwrap();
        }
        let s = storage(config(dir.path()));
        open(&s, &fixture).unwrap();
        let (opened, piece) = (s.opened().unwrap(), fixture.layout.piece(0).unwrap());
        opened.files.write(piece, 0, &[fixture.block(piece, 0)]).unwrap();
        drop(opened);
        kill(s);
        let s = storage(config(dir.path()));
        assert_eq!(open(&s, &fixture).unwrap(), [0u32; 0]);
        // And it stays ours when the next run ends cleanly without a piece.
        s.close().unwrap();
        open(&storage(config(dir.path())), &fixture).unwrap();
    }
}

#[test]
fn file_put_there_after_a_run_that_ended_is_not_ours() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    s.close().unwrap();
    put(dir.path(), "d/b", b"mine");
    assert_eq!(error_of(config(dir.path()), &fixture).kind, DiskErrorKind::Occupied);
}

#[test]
fn file_put_there_while_we_wait_for_data_is_not_written_to() {
    let (dir, fixture) = (tempfile::tempdir().unwrap(), three_files());
    let s = storage(config(dir.path()));
    open(&s, &fixture).unwrap();
    put(dir.path(), "a", b"mine");
    let (opened, piece) = (s.opened().unwrap(), fixture.layout.piece(0).unwrap());
    let error = opened.files.write(piece, 0, &[fixture.block(piece, 0)]).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Occupied, "{error}");
    assert_eq!(fs::read(dir.path().join("out/top/a")).unwrap(), b"mine");
}

#[test]
fn strange_file_that_nobody_wants_is_in_nobodys_way_until_it_is_touched() {
    let files = [("a", 32768), ("b", 40_000), ("c", 32768)];
    let (dir, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(&files, 32768));
    put(dir.path(), "b", b"mine");
    let with = |s: &Storage, wanted: &[bool]| {
        s.open(&fixture.info, Some(wanted), false, NO_PROGRESS)
            .map(|have| have.iter().collect::<Vec<_>>())
    };
    let s = storage(config(dir.path()));
    assert_eq!(with(&s, &[true, false, false]).unwrap(), [0u32; 0]);
    write(&s, &fixture, &[0]);
    let refused = |error: DiskError| {
        assert_eq!(error.kind, DiskErrorKind::Occupied, "{error}");
        assert!(error.context.ends_with("top/b"), "{error}");
    };
    // The third begins in a piece of the second.
    for wanted in [[true, false, true], [true, true, false]] {
        refused(s.opened().unwrap().select(&wanted).unwrap_err());
    }
    s.close().unwrap();
    refused(with(&storage(config(dir.path())), &[true; 3]).unwrap_err());
    assert_eq!(fs::read(dir.path().join("out/top/b")).unwrap(), b"mine");
}
