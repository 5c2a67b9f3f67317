use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;
use crate::driver::verify::{FileVerdict, verify};
use crate::wire::metainfo::{Metainfo, TorrentExtras, torrent_file};
use proptest::prelude::*;

const NO_PROGRESS: &(dyn Fn(u64, u64) + Sync) = &|_, _| {};

fn lay_down(dir: &Path, files: &[(&str, usize)]) {
    for (path, len) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes: Vec<u8> =
            (0..*len).map(|i| (i * 7 + i / 251 + path.as_os_str().len()) as u8).collect();
        fs::write(path, bytes).unwrap();
    }
}

const FILES: &[(&str, usize)] = &[
    ("d/sub/x y.bin", 100_000),
    ("d/sub.txt", 1000),
    ("d/sub-1", 10),
    ("d/b", 50_000),
    ("d/empty", 0),
    ("d/.hidden", 77),
    ("d/Sub/z", 5),
    ("d/\u{e9}.txt", 9),
    ("d/zero", 0),
];

fn make(path: &Path, piece_length: u32) -> Created {
    let options = CreateOptions { piece_length: Some(piece_length), ..CreateOptions::default() };
    create(path, options, NO_PROGRESS).unwrap()
}

fn metainfo(created: &Created) -> Metainfo {
    let file = torrent_file(&created.info_bytes, &TorrentExtras::default());
    Metainfo::decode(&Bytes::from(file)).unwrap()
}

#[test]
fn folder_is_described_in_a_stable_order() {
    let dir = tempfile::tempdir().unwrap();
    lay_down(dir.path(), FILES);
    let created = make(&dir.path().join("d"), 32768);
    let meta = metainfo(&created);
    let paths: Vec<_> =
        meta.info.files.iter().map(|f| String::from_utf8(f.path.join(&b'/')).unwrap()).collect();
    assert_eq!(
        paths,
        [".hidden", "Sub/z", "b", "empty", "sub-1", "sub.txt", "sub/x y.bin", "zero", "\u{e9}.txt"]
    );
    assert_eq!(
        (created.total, created.files, created.root),
        (151_101, 9, dir.path().canonicalize().unwrap())
    );
    assert_eq!((meta.info_hash, meta.info.name), (created.info_hash, b"d".to_vec()));
    assert!(
        verify(&metainfo(&make(&dir.path().join("d"), 32768)), dir.path(), NO_PROGRESS)
            .unwrap()
            .is_ok()
    );
}

#[test]
fn mktorrent_makes_the_same_info_dictionary() {
    let dir = tempfile::tempdir().unwrap();
    lay_down(dir.path(), FILES);
    symlink("b", dir.path().join("d/link")).unwrap();
    symlink("sub", dir.path().join("d/sub-link")).unwrap();
    for (name, bits) in [("d", 15), ("d/b", 15), ("d/sub/x y.bin", 16), ("d/empty", 15)] {
        let torrent = dir.path().join("m.torrent");
        let run = Command::new("mktorrent")
            .args(["-l", &bits.to_string(), "-o"])
            .arg(&torrent)
            .arg(dir.path().join(name))
            .output();
        let Ok(run) = run else {
            eprintln!("skipped: mktorrent is not installed");
            return;
        };
        assert!(run.status.success(), "{run:?}");
        let theirs = Metainfo::decode(&Bytes::from(fs::read(&torrent).unwrap())).unwrap();
        let ours = make(&dir.path().join(name), 1 << bits);
        assert_eq!(theirs.info_bytes, ours.info_bytes);
        fs::remove_file(torrent).unwrap();
    }
}

#[test]
fn links_are_followed_and_named() {
    let dir = tempfile::tempdir().unwrap();
    lay_down(dir.path(), &[("d/a", 40_000), ("out/there/b", 30_000)]);
    symlink("../out/there/b", dir.path().join("d/file")).unwrap();
    symlink("../out", dir.path().join("d/folder")).unwrap();
    // Twice the same folder is no circle.
    symlink("../out", dir.path().join("d/again")).unwrap();
    let created = make(&dir.path().join("d"), 16384);
    let top = created.root.join("d");
    assert_eq!(created.links, [top.join("again"), top.join("file"), top.join("folder")]);
    assert_eq!((created.files, created.total), (4, 130_000));
    assert!(verify(&metainfo(&created), dir.path(), NO_PROGRESS).unwrap().is_ok());
}

#[test]
fn what_has_no_byte_is_a_torrent_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    lay_down(dir.path(), &[("alone", 0), ("d/a", 0), ("d/deep/b", 0)]);
    for (path, files) in [("alone", 1), ("d", 2)] {
        let created = make(&dir.path().join(path), 16384);
        let meta = metainfo(&created);
        assert_eq!((created.files, created.total, meta.info.piece_count()), (files, 0, 0));
        assert!(verify(&meta, dir.path(), NO_PROGRESS).unwrap().is_ok(), "{path}");
    }
}

#[test]
fn what_cannot_be_shared_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &str| {
        create(&dir.path().join(path), CreateOptions::default(), NO_PROGRESS).unwrap_err()
    };
    assert!(matches!(error("absent"), CreateError::Io { .. }));
    fs::create_dir_all(dir.path().join("empty/deep")).unwrap();
    assert!(matches!(error("empty"), CreateError::Empty { .. }));
    lay_down(dir.path(), &[("l/a", 5), ("l/sub/b", 5)]);
    for (link, to, why) in [
        ("l/link", "absent", "l/link is a symbolic link to nothing"),
        ("l/link", "link", "l/link is a symbolic link to itself"),
        ("l/link", ".", "l/link is a symbolic link to a folder that it is in"),
        ("l/link", "..", "l/link is a symbolic link to a folder that it is in"),
        ("l/sub/link", "../../l", "l/sub/link is a symbolic link to a folder that it is in"),
    ] {
        symlink(to, dir.path().join(link)).unwrap();
        assert!(error("l").to_string().contains(why), "{}", error("l"));
        fs::remove_file(dir.path().join(link)).unwrap();
    }
    fs::create_dir(dir.path().join("l/circle")).unwrap();
    symlink("../sub", dir.path().join("l/circle/in")).unwrap();
    symlink("../circle", dir.path().join("l/sub/in")).unwrap();
    assert!(matches!(error("l"), CreateError::Link { .. }));
    fs::remove_file(dir.path().join("l/sub/in")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("l/pipe"), mode).unwrap();
    assert!(matches!(error("l"), CreateError::Kind { .. }));
    let with = |options| create(&dir.path().join("l/a"), options, NO_PROGRESS).unwrap_err();
    let piece_length = |n| CreateOptions { piece_length: Some(n), ..CreateOptions::default() };
    assert!(matches!(with(piece_length(0)), CreateError::PieceLength(0)));
    assert!(matches!(with(piece_length(u32::MAX)), CreateError::PieceLength(_)));
    let named = |name: &str| CreateOptions { name: Some(name.into()), ..CreateOptions::default() };
    assert!(matches!(with(named("a/b")), CreateError::Name(_)));
    assert!(matches!(
        create(Path::new("/"), CreateOptions::default(), NO_PROGRESS),
        Err(CreateError::Name(_))
    ));
    let created =
        create(&dir.path().join("l/a"), CreateOptions { private: true, ..named("x") }, NO_PROGRESS)
            .unwrap();
    let info = metainfo(&created).info;
    assert_eq!((info.name, info.private, info.single_file), (b"x".to_vec(), true, true));
}

#[test]
fn file_that_changes_while_it_is_read_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    lay_down(dir.path(), &[("d/a", 200_000), ("d/b", 200_000)]);
    let path = dir.path().join("d/b");
    for change in [&(|| fs::write(&path, vec![1; 200_000]).unwrap()) as &(dyn Fn() + Sync), &|| {
        fs::write(&path, b"").unwrap()
    }] {
        let options = CreateOptions { piece_length: Some(16384), ..CreateOptions::default() };
        let error = create(&dir.path().join("d"), options, &|_, _| change()).unwrap_err();
        assert!(
            matches!(&error, CreateError::Changed { path: p } if p.ends_with("d/b")),
            "{error}"
        );
        lay_down(dir.path(), &[("d/b", 200_000)]);
    }
}

#[test]
fn pieces_are_sized_for_one_to_two_thousand() {
    for (total, want) in [
        (1, 16 << 10),
        (32_768_000, 16 << 10),
        (32_768_001, 32 << 10),
        (1 << 30, 1 << 20),
        (4 << 30, 4 << 20),
        (1 << 44, 16 << 20),
    ] {
        assert_eq!(auto_piece_length(total), want, "{total}");
    }
    for total in [1u64 << 26, 700_000_000, 5_000_000_000, 1 << 34] {
        assert!((1000..=2000).contains(&total.div_ceil(auto_piece_length(total).into())));
    }
}

#[test]
fn wrong_and_missing_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    lay_down(dir.path(), FILES);
    let meta = metainfo(&make(&dir.path().join("d"), 32768));
    let check = |at: &Path| {
        let report = verify(&meta, at, NO_PROGRESS).unwrap();
        assert_eq!(report.is_ok(), report.files.iter().all(|f| f.status == FileVerdict::Ok));
        report
    };
    let status = |name: &str| {
        let report = check(dir.path());
        let file = report.files.into_iter().find(|f| f.path == Path::new("d").join(name)).unwrap();
        (file.status, file.bad_pieces)
    };
    assert!(check(dir.path()).is_ok() && check(&dir.path().join("d")).is_ok());
    let path = dir.path().join("d/sub/x y.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[90_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(status("sub/x y.bin"), (FileVerdict::Bad, vec![4]));
    assert_eq!(
        (status("b"), status("zero")),
        ((FileVerdict::Ok, vec![]), (FileVerdict::Ok, vec![]))
    );
    bytes[90_000] ^= 1;
    bytes.push(0);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(status("sub/x y.bin"), (FileVerdict::Bad, vec![]));
    fs::remove_file(path).unwrap();
    fs::write(dir.path().join("d/empty"), b"x").unwrap();
    fs::remove_file(dir.path().join("d/zero")).unwrap();
    assert_eq!(status("sub/x y.bin"), (FileVerdict::Missing, vec![1, 2, 3, 4]));
    assert_eq!((status("empty").0, status("zero").0), (FileVerdict::Bad, FileVerdict::Missing));
    assert_eq!(status("Sub/z"), (FileVerdict::Ok, vec![]));
    fs::remove_dir_all(dir.path().join("d")).unwrap();
    let report = check(dir.path());
    assert!(
        report.files.iter().all(|f| f.status == FileVerdict::Missing) && report.good_pieces == 0
    );
}

#[test]
fn odd_names_are_shared_and_verified_as_they_are() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().unwrap();
    lay_down(
        dir.path(),
        &[("d/Makefile", 10), ("d/makefile", 20), ("d/a\\b:c\n", 30), ("d/con.", 5)],
    );
    fs::write(dir.path().join("d").join(OsStr::from_bytes(b"caf\xe9")), b"latin-1").unwrap();
    let meta = metainfo(&make(&dir.path().join("d"), 16384));
    assert!(verify(&meta, dir.path(), NO_PROGRESS).unwrap().is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_created_verifies(
        sizes in prop::collection::vec(prop_oneof![Just(0usize), 1..50_000usize], 1..8),
        piece_length in 1000..70_000u32,
        single in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..sizes.len()).map(|i| format!("d/{}/{i}", i % 3)).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(sizes).collect();
        lay_down(dir.path(), &files);
        let (path, at) = if single { ("d/0/0", "d/0") } else { ("d", "") };
        let meta = metainfo(&make(&dir.path().join(path), piece_length));
        let report = verify(&meta, &dir.path().join(at), NO_PROGRESS).unwrap();
        prop_assert!(report.is_ok(), "{:?}", report);
        prop_assert_eq!(report.good_pieces, report.pieces);
    }
}

#[test]
fn file_beside_a_guilty_one_is_unproven_and_one_that_cannot_be_read_is_not_bad() {
    let dir = tempfile::tempdir().unwrap();
    // The pieces are a, a+b, b+c, c.
    let files = [("d/a", 50_000), ("d/b", 30_000), ("d/sub/c", 40_000)];
    lay_down(dir.path(), &files);
    let meta = metainfo(&make(&dir.path().join("d"), 32768));
    let status = || {
        let report = verify(&meta, dir.path(), NO_PROGRESS).unwrap();
        let told =
            report.files.iter().all(|f| f.error.is_some() == (f.status == FileVerdict::Unreadable));
        assert!(told, "{report:?}");
        report.files.iter().map(|f| f.status).collect::<Vec<_>>()
    };
    use FileVerdict::{Bad, Missing, Ok, Unproven, Unreadable};
    let (a, b) = (dir.path().join("d/a"), dir.path().join("d/b"));
    let whole = fs::read(&a).unwrap();
    // In a piece of its own, and in the one that it shares.
    let mut bytes = whole.clone();
    (bytes[5], bytes[49_999]) = (!bytes[5], !bytes[49_999]);
    fs::write(&a, &bytes).unwrap();
    assert_eq!(status(), [Bad, Unproven, Ok]);
    // In the shared one alone: it may be either.
    bytes[5] = !bytes[5];
    fs::write(&a, &bytes).unwrap();
    assert_eq!(status(), [Bad, Bad, Ok]);
    fs::remove_file(&a).unwrap();
    assert_eq!(status(), [Missing, Unproven, Ok]);
    fs::write(&a, whole).unwrap();
    fs::remove_file(&b).unwrap();
    assert_eq!(status(), [Unproven, Missing, Unproven]);
    // Links are followed, but not in circles, whoever runs this.
    fs::rename(dir.path().join("d/sub"), dir.path().join("d/elsewhere")).unwrap();
    symlink("elsewhere", dir.path().join("d/sub")).unwrap();
    assert_eq!(status(), [Unproven, Missing, Unproven]);
    fs::remove_file(dir.path().join("d/sub")).unwrap();
    symlink("sub", dir.path().join("d/sub")).unwrap();
    assert_eq!(status(), [Unproven, Missing, Unreadable]);
}
