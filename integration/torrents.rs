//! Torrent files and info dictionaries made to hurt (BEP 3, 47, 52): refused with a reason, or laid
//! out under safe names; nothing outside the folder, whether they come as a file or by a magnet.

use std::path::{Path, PathBuf};

use trackless::base::hash::sha1;

use crate::world::bencode::nested_lists;
use crate::world::content::{magnet, torrent_of};
use crate::world::peer::extension_handshake;
use crate::world::{B, Content, Ended, Script, Seeder, World, secs};

/// Enough of an info dictionary for one piece of content.
fn info() -> B {
    B::dict([
        ("length", B::Int(16_384)),
        ("name", B::str("name")),
        ("piece length", B::Int(16_384)),
        ("pieces", B::Str(vec![7; 20])),
    ])
}

/// One with these files of one byte each.
fn files(paths: &[&[&[u8]]]) -> B {
    let files = paths.iter().map(|path| {
        let path = B::List(path.iter().map(B::str).collect());
        B::dict([("length", B::Int(1)), ("path", path)])
    });
    info().without("length").with("files", B::List(files.collect()))
}

/// The three verbs that read a torrent file.
fn try_all(world: &World, what: &str, file: &[u8]) -> [Ended; 3] {
    let torrent = world.dir().join("case.torrent");
    std::fs::write(&torrent, file).unwrap();
    let out = world.folder("out");
    let limits = |launch: crate::world::Launch| {
        let ended = launch.run(secs(30));
        assert!(ended.peak_kib < 200 * 1024, "{what}: {} KiB", ended.peak_kib);
        ended
    };
    let get = ["get", "--no-dht", "--timeout", "1s", "--listen", "127.0.0.1:0", "-o"];
    [
        limits(world.trackless(["info"]).arg(&torrent)),
        limits(world.trackless(["verify"]).arg(&torrent).arg(&out)),
        limits(world.trackless(get).arg(&out).arg(&torrent)),
    ]
}

#[track_caller]
fn refused(world: &World, what: &str, file: &[u8]) {
    for (verb, ended) in ["info", "verify", "get"].into_iter().zip(try_all(world, what, file)) {
        assert_eq!(
            ended.code, 3,
            "{what}: {verb} ended with {}\n{}\n{}",
            ended.code, ended.stdout, ended.stderr
        );
        assert!(!ended.stderr.trim().is_empty(), "{what}: {verb} gives no reason");
    }
}

#[test]
fn malformed_files_are_refused_with_a_reason() {
    let world = World::new();
    let whole = torrent_of(&info().encode());
    let cut: Vec<_> =
        [1, 5, 20, whole.len() / 2, whole.len() - 1].map(|n| whole[..n].to_vec()).into();
    let cases: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"not a torrent".to_vec(),
        b"<html><body>404</body></html>".to_vec(),
        b"i5e".to_vec(),
        b"le".to_vec(),
        b"de".to_vec(),
        b"d4:info".to_vec(),
        b"d4:infoi1ee".to_vec(),
        b"d4:infolee".to_vec(),
        b"d4:infodee".to_vec(),
        b"d2222222222:l".to_vec(),
        b"d4:info99999999999999999999:xe".to_vec(),
        b"d4:info-5:xe".to_vec(),
        b"d4:infoi99999999999999999999999ee".to_vec(),
        vec![b'l'; 1_000_000],
        vec![b'd'; 1_000_000],
        b"d1:a".repeat(200_000),
        nested_lists(500_000),
        [b"d4:info".as_slice(), &nested_lists(100_000), b"e"].concat(),
        vec![0; 1_000_000],
        vec![0xff; 1_000_000],
    ];
    for (n, file) in cases.iter().chain(&cut).enumerate() {
        refused(&world, &format!("malformed file {n}"), file);
    }
}

#[test]
fn info_dictionaries_that_cannot_be_are_refused() {
    let world = World::new();
    let length = |n: i64| info().with("length", B::Int(n));
    let multi = |lengths: &[i64]| {
        let files = lengths.iter().enumerate().map(|(n, len)| {
            let path = B::List(vec![B::str(format!("f{n}"))]);
            B::dict([("length", B::Int(*len)), ("path", path)])
        });
        info().without("length").with("files", B::List(files.collect()))
    };
    let cases: Vec<(&str, B)> = vec![
        ("no name", info().without("name")),
        ("a name that is a number", info().with("name", B::Int(1))),
        ("no piece length", info().without("piece length")),
        ("piece length 0", info().with("piece length", B::Int(0))),
        ("piece length -1", info().with("piece length", B::Int(-1))),
        ("piece length 2^31", info().with("piece length", B::Int(1 << 31))),
        ("piece length 2^50", info().with("piece length", B::Int(1 << 50))),
        ("piece length 2^63-1", info().with("piece length", B::Int(i64::MAX))),
        ("piece length in words", info().with("piece length", B::str("16384"))),
        ("no pieces", info().without("pieces")),
        ("pieces of 19 bytes", info().with("pieces", B::Str(vec![1; 19]))),
        ("no piece at all", info().with("pieces", B::Str(vec![]))),
        ("a piece too many", info().with("pieces", B::Str(vec![1; 40]))),
        ("pieces that are a list", info().with("pieces", B::List(vec![]))),
        ("neither length nor files", info().without("length")),
        ("both length and files", multi(&[16_384]).with("length", B::Int(16_384))),
        ("length -1", length(-1)),
        ("length -2^63", length(i64::MIN)),
        ("length 2^63-1", length(i64::MAX)),
        ("an exbibyte in one piece", length(1 << 60)),
        ("sums past 2^63", multi(&[i64::MAX, i64::MAX])),
        ("sums that wrap to fit", multi(&[i64::MAX, i64::MAX, 16_384 + 2])),
        ("a negative file among others", multi(&[-5, 16_389])),
        ("files that is a number", info().without("length").with("files", B::Int(4))),
        ("no files", info().without("length").with("files", B::List(vec![]))),
        ("files that are numbers", multi(&[]).with("files", B::List(vec![B::Int(1)]))),
        (
            "a file without a path",
            multi(&[]).with("files", B::List(vec![B::dict([("length", B::Int(16_384))])])),
        ),
        (
            "a path that is a number",
            multi(&[]).with(
                "files",
                B::List(vec![B::dict([("length", B::Int(16_384)), ("path", B::Int(1))])]),
            ),
        ),
        (
            "an exbibyte of padding",
            multi(&[]).with(
                "files",
                B::List(vec![B::dict([
                    ("attr", B::str("p")),
                    ("length", B::Int(1 << 60)),
                    ("path", B::List(vec![B::str(".pad"), B::str("0")])),
                ])]),
            ),
        ),
    ];
    for (what, info) in cases {
        refused(&world, what, &torrent_of(&info.encode()));
    }
}

#[test]
fn version_two_alone_is_not_supported_and_said_so() {
    let world = World::new();
    let tree = B::dict([("", B::dict([("length", B::Int(16_384))]))]);
    let v2 = B::dict([
        ("file tree", B::dict([("name", tree)])),
        ("meta version", B::Int(2)),
        ("name", B::str("name")),
        ("piece length", B::Int(16_384)),
    ]);
    let file = torrent_of(&v2.encode());
    refused(&world, "a v2 torrent", &file);
    let ended = &try_all(&world, "a v2 torrent", &file)[0];
    let says = ended.stderr.to_lowercase();
    assert!(says.contains("v2") || says.contains("version 2"), "{}", ended.stderr);
    refused(&world, "meta version 3", &torrent_of(&v2.with("meta version", B::Int(3)).encode()));
}

#[test]
fn large_tokens_and_counts_are_read_or_refused_in_no_time() {
    let world = World::new();
    let million = B::List(vec![B::Int(0); 1_000_000]);
    let comment = B::dict([("comment", B::Str(vec![b'c'; 5_000_000])), ("info", info())]).encode();
    for (what, file) in [
        ("a million tokens", B::dict([("info", info()), ("x", million)]).encode()),
        ("a comment of 5 MB", comment),
    ] {
        for ended in try_all(&world, what, &file) {
            assert!(ended.took < secs(20), "{what}: {:?}", ended.took);
        }
    }
    let paths: Vec<Vec<String>> =
        (0..50_000).map(|n| vec![format!("{}", n % 300), format!("{n}")]).collect();
    let files = paths.iter().map(|path| {
        let path = B::List(path.iter().map(B::str).collect());
        B::dict([("length", B::Int(1)), ("path", path)])
    });
    let many = info()
        .without("length")
        .with("files", B::List(files.collect()))
        .with("pieces", B::Str(vec![1; 80]));
    let torrent = world.dir().join("many.torrent");
    std::fs::write(&torrent, torrent_of(&many.encode())).unwrap();
    let ended = world.trackless(["info", "--json"]).arg(&torrent).run(secs(30)).expect(0, "info");
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["files"].as_array().map(Vec::len), Some(50_000));
    assert!(ended.took < secs(15), "50 000 files took {:?}", ended.took);
}

/// Names that try to leave, and names that cannot be written.
fn evil_names() -> Vec<(&'static str, B)> {
    let named = |name: &[u8]| info().with("name", B::str(name));
    let long = vec![b'n'; 300];
    let longer = vec![b'n'; 5000];
    let deep: Vec<&[u8]> = vec![b"d"; 1000];
    vec![
        ("name ..", named(b"..")),
        ("name .", named(b".")),
        ("an empty name", named(b"")),
        ("name ../../evil", named(b"../../evil")),
        ("name /tmp/evil", named(b"/tmp/trackless-evil")),
        ("name a/../../evil", named(b"a/../../evil")),
        ("name with backslashes", named(b"..\\..\\evil")),
        ("name of one NUL", named(b"\0")),
        ("name with NUL", named(b"evil\0.txt")),
        ("name with control characters", named(b"\x1b[31mred\r\n\x07")),
        ("name that is Latin-1", named(b"caf\xe9")),
        ("overlong UTF-8 slash", named(b"..\xc0\xaf..\xc0\xafevil")),
        ("a surrogate", named(b"\xed\xa0\x80")),
        ("right-to-left override", named("evil\u{202e}txt.exe".as_bytes())),
        ("name of 300 bytes", named(&long)),
        ("name of 5000 bytes", named(&longer)),
        ("path ..", files(&[&[b"..", b"..", b"evil"]])),
        ("path with an empty part", files(&[&[b"", b"", b"evil"]])),
        ("path that is empty", files(&[&[]])),
        ("path part with slashes", files(&[&[b"../../../evil"]])),
        ("path part that is absolute", files(&[&[b"/tmp/trackless-evil"]])),
        ("path of .", files(&[&[b".", b"."]])),
        ("path.utf-8 that climbs", {
            let climbing = B::List(vec![B::str(".."), B::str("..")]);
            let file = B::dict([
                ("length", B::Int(1)),
                ("path", B::List(vec![B::str("good")])),
                ("path.utf-8", climbing),
            ]);
            files(&[]).with("files", B::List(vec![file]))
        }),
        ("name.utf-8 that climbs", named(b"good").with("name.utf-8", B::str("../../evil"))),
        ("the same path twice", files(&[&[b"a"], &[b"a"]])),
        ("paths that differ in case", files(&[&[b"A"], &[b"a"]])),
        ("NFC and NFD", files(&[&["é".as_bytes()], &["e\u{301}".as_bytes()]])),
        ("a file that is also a folder", files(&[&[b"a"], &[b"a", b"b"]])),
        ("a folder that is also a file", files(&[&[b"a", b"b"], &[b"a"]])),
        ("a path 1000 deep", files(&[&deep])),
        ("reserved names", files(&[&[b"CON"], &[b"nul.txt"], &[b"LPT1"]])),
        ("dots and spaces at the end", files(&[&[b"a. ."], &[b"b "]])),
        ("a link out (BEP 47)", {
            let file = B::dict([
                ("attr", B::str("l")),
                ("length", B::Int(0)),
                ("path", B::List(vec![B::str("link")])),
                ("symlink path", B::List(vec![B::str(".."), B::str(".."), B::str("etc")])),
            ]);
            let plain = B::dict([
                ("length", B::Int(1)),
                ("path", B::List(vec![B::str("link"), B::str("evil")])),
            ]);
            files(&[]).with("files", B::List(vec![file, plain]))
        }),
    ]
}

/// The content of such a torrent: as many zero bytes as its files are long.
fn fill(info: B) -> (B, usize) {
    let len = match info.get("files").and_then(B::items) {
        Some(files) => {
            files.iter().filter_map(|f| f.get("length")?.int()).sum::<i64>().try_into().unwrap()
        }
        None => 16_384,
    };
    (info.with("pieces", B::str(sha1(&vec![0; len]))), len)
}

/// Everything below a folder, without following links.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn no_name_leads_out_of_the_folder_by_file_or_magnet() {
    for (n, (what, case)) in evil_names().into_iter().enumerate() {
        let (case, len) = fill(case);
        let info = case.encode();
        let world = World::new();
        let out = world.folder("a/b/c/out");
        let link = magnet(&sha1(&info));
        // A peer that has it: one piece of zeros.
        let content = Content {
            name: String::new(),
            files: vec![(Vec::new(), vec![0; len])],
            piece_len: 16_384,
            info_padding: 0,
        };
        let script = Script::honest().with_info(info.clone()).on_greet(|talk| {
            let size = B::Int(i64::try_from(talk.info_len()).unwrap());
            talk.wire.send_extended(0, &extension_handshake(Some(size)).encode())?;
            talk.wire.send(4, &[0; 4])?;
            talk.wire.send(1, &[])
        });
        let seeder = Seeder::start(world.addr(), &content, script);
        let torrent = world.dir().join("case.torrent");
        std::fs::write(&torrent, torrent_of(&info)).unwrap();
        let before = walk(world.dir());
        let by_magnet = n % 2 == 0;
        let link = if by_magnet { link } else { torrent.display().to_string() };
        let get = world.get(&link, &out, &[seeder.addr]).args(["--timeout", "20s"]).start();
        let state = walk(world.dir());
        let ended = get.wait(secs(40));
        assert!(
            ended.code == 0 || ended.code == 3,
            "{what}: neither refused nor complete: {}\n{}",
            ended.code,
            ended.stderr
        );
        assert!(!ended.stderr.contains('\x1b'), "{what}: a stranger's escape reached stderr");
        let strays: Vec<_> = walk(world.dir())
            .into_iter()
            .filter(|p| !before.contains(p) && !state.contains(p))
            .filter(|p| !p.starts_with(&out) && !p.to_string_lossy().contains("/state-"))
            .filter(|p| !p.starts_with(world.dir().join("home")))
            .collect();
        assert!(strays.is_empty(), "{what}: written outside: {strays:?}");
        assert!(!Path::new("/tmp/trackless-evil").exists(), "{what}: written to /tmp");
        for path in walk(&out) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let clean = !name.chars().any(char::is_control) && name.len() <= 255;
            assert!(clean, "{what}: {name:?} was made");
            assert!(!path.is_symlink(), "{what}: {name:?} is a link");
        }
        if ended.code == 0 {
            // Two files never share one place.
            let bytes: u64 = walk(&out)
                .iter()
                .filter_map(|p| p.metadata().ok().filter(|m| m.is_file()))
                .map(|m| m.len())
                .sum();
            assert_eq!(bytes, len as u64, "{what}: {:?}", walk(&out));
        } else {
            let written = walk(&out).into_iter().filter(|p| p.is_file()).count();
            assert_eq!(written, 0, "{what}: refused, but something was written");
        }
    }
}

#[test]
fn refused_metadata_from_a_peer_ends_the_download_with_its_reason() {
    let world = World::new();
    let out = world.folder("out");
    for (what, info) in [
        ("piece length 0", info().with("piece length", B::Int(0))),
        ("piece length 2^50", info().with("piece length", B::Int(1 << 50))),
        ("length past 2^62", info().with("length", B::Int(1 << 62))),
        ("a list", B::List(vec![])),
        ("nested lists", B::Raw(nested_lists(5000))),
    ] {
        let info = info.encode();
        let seeder = Seeder::start(
            world.addr(),
            &Content::single(1, 16_384, 16_384),
            Script::honest().with_info(info.clone()),
        );
        let link = magnet(&sha1(&info));
        let ended = world.get(&link, &out, &[seeder.addr]).args(["--timeout", "20s"]).run(secs(40));
        let ended = ended.expect(3, what);
        assert!(!ended.stderr.trim().is_empty(), "{what}: no reason given");
    }
}

#[test]
fn unusual_but_valid_torrents_are_accepted_with_the_right_hash() {
    let world = World::new();
    let unsorted =
        b"d4:name1:n6:lengthi16384e6:pieces20:AAAAAAAAAAAAAAAAAAAA12:piece lengthi16384ee";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("dots in a name", info().with("name", B::str("foo... bar")).encode()),
        ("three dots", info().with("name", B::str("...")).encode()),
        ("an odd piece length", { info().with("piece length", B::Int(20_000)).encode() }),
        ("private", info().with("private", B::Int(1)).encode()),
        ("unknown keys", info().with("x-source", B::List(vec![B::Int(-7), B::dict([])])).encode()),
        ("an info dictionary that is not sorted", unsorted.to_vec()),
        ("an empty file", {
            let file = |name: &str, len: i64| {
                let path = B::List(vec![B::str(name)]);
                B::dict([("length", B::Int(len)), ("path", path)])
            };
            let list = vec![file("empty", 0), file("full", 16_384), file("end", 0)];
            info().without("length").with("files", B::List(list)).encode()
        }),
    ];
    for (what, info) in cases {
        let torrent = world.dir().join("case.torrent");
        std::fs::write(&torrent, torrent_of(&info)).unwrap();
        let ended = world.trackless(["info", "--json"]).arg(&torrent).run(secs(30)).expect(0, what);
        let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(json["info_hash"], crate::world::hex(&sha1(&info)), "{what}: the wrong hash");
    }
}
