//! Torrents at the ends of what there can be: no byte, a tebibyte, a hundred thousand files, the
//! smallest pieces and large ones.

use trackless::base::hash::sha1;

use crate::world::content::torrent_of;
use crate::world::sharing::Shared;
use crate::world::{B, Content, Script, Seeder, Sharing, World, secs};

#[test]
fn pieces_of_16_kib_and_of_64_mib_are_shared_and_fetched() {
    for (seed, len, piece_len) in [(31, 1_000_001, 16 << 10), (32, (64 << 20) + 12_345, 64 << 20)] {
        let mut shared = Shared::of(Content::single(seed, len, piece_len));
        shared.expect_served(&format!("pieces of {piece_len} bytes"));
    }
}

#[test]
fn torrents_without_a_byte_are_complete_at_once() {
    let world = World::new();
    for (name, files) in [("nothing", vec![]), ("nothings", vec!["a", "deep/er/b"])] {
        let files: Vec<(Vec<String>, Vec<u8>)> = match files.as_slice() {
            [] => vec![(Vec::new(), Vec::new())],
            some => {
                some.iter().map(|f| (f.split('/').map(str::to_owned).collect(), vec![])).collect()
            }
        };
        let content =
            Content { name: name.to_owned(), files, piece_len: 16 << 10, info_padding: 0 };
        let torrent = world.dir().join(format!("{name}.torrent"));
        std::fs::write(&torrent, content.torrent()).unwrap();
        let out = world.folder("out");
        let get =
            world.trackless_at(world.addr(), ["get", "--no-dht", "-o"]).arg(&out).arg(&torrent);
        get.run(secs(30)).expect(0, name);
        content.assert_in(&out);
        let verify = world.trackless(["verify"]).arg(&torrent).arg(&out);
        verify.run(secs(30)).expect(0, name);
    }
}

#[test]
fn what_has_no_byte_is_created_shared_and_fetched_by_its_magnet() {
    let world = World::new();
    let cases: [(&str, &[(&str, usize)]); 3] = [
        ("nothing.txt", &[("", 0)]),
        ("nothings", &[("a", 0), ("deep/b", 0)]),
        ("among", &[("a", 0), ("b", 40_000), ("c", 0), ("d", 5)]),
    ];
    for (name, files) in cases {
        let at = |dir: &std::path::Path, file: &str| match file {
            "" => dir.join(name),
            file => dir.join(name).join(file),
        };
        let there = world.folder("there");
        for (file, len) in files {
            std::fs::create_dir_all(at(&there, file).parent().unwrap()).unwrap();
            std::fs::write(at(&there, file), vec![7; *len]).unwrap();
        }
        let torrent = world.dir().join(format!("{name}.torrent"));
        let create = world.trackless(["create"]).arg(there.join(name)).arg("-o").arg(&torrent);
        let magnet = create.run(secs(30)).expect(0, name).stdout;
        let sharing = world.share(&there.join(name));
        assert_eq!(sharing.magnet.trim(), magnet.trim(), "{name}");
        let out = world.folder(&format!("out-{name}"));
        let get = world.get(&sharing.magnet, &out, &[sharing.addr]);
        get.run(secs(60)).expect(0, name);
        for (file, len) in files {
            assert_eq!(std::fs::read(at(&out, file)).unwrap(), vec![7; *len], "{name}/{file}");
        }
        let verify = world.trackless(["verify"]).arg(&torrent).arg(&out);
        verify.run(secs(30)).expect(0, name);
    }
}

#[test]
fn one_file_of_a_hundred_thousand_is_fetched_alone() {
    let world = World::new();
    let content = Content::many(33, 100_000, 3, 16 << 10);
    let seeder = Seeder::start(world.addr(), &content, Script::honest());
    let out = world.folder("out");
    let get = world.get(&content.magnet(), &out, &[seeder.addr]).args(["--files", "7"]);
    let ended = get.run(secs(240)).expect(0, "one file of 100 000");
    ended.expect_memory_below(250, "100 000 files");
    let only = std::fs::read(out.join(content.path(7))).unwrap();
    assert_eq!(only, content.files[7].1);
    let folders = std::fs::read_dir(out.join(&content.name)).unwrap().count();
    assert_eq!(folders, 1, "nobody asked for the others");
}

#[test]
fn hundred_thousand_files_are_shared_and_fetched() {
    let mut shared = Shared::of(Content::many(35, 100_000, 3, 16 << 10));
    shared.expect_served("100 000 files");
}

// The whole of it is a hole; what is wanted is a small file behind it.
#[test]
fn small_file_of_a_tebibyte_is_fetched_alone() {
    use std::os::unix::fs::MetadataExt;
    let (world, small) = (World::new(), crate::world::content::bytes(34, 0, 30_000));
    let (tebibyte, piece_len) = (1_i64 << 40, 256_i64 << 20);
    let pieces = usize::try_from(tebibyte / piece_len).unwrap();
    let file = |name: &str, len: i64| {
        B::dict([("length", B::Int(len)), ("path", B::List(vec![B::str(name)]))])
    };
    let info = B::dict([
        ("files", B::List(vec![file("huge", tebibyte), file("small", 30_000)])),
        ("name", B::str("tebibyte")),
        ("piece length", B::Int(piece_len)),
        ("pieces", B::Str([vec![7; pieces * 20], sha1(&small).to_vec()].concat())),
    ]);
    let torrent = world.dir().join("it.torrent");
    std::fs::write(&torrent, torrent_of(&info.encode())).unwrap();
    let there = world.folder("there/tebibyte");
    std::fs::write(there.join("small"), &small).unwrap();
    // Sparse: it takes no space.
    std::fs::File::create(there.join("huge")).unwrap().set_len(1 << 40).unwrap();
    let addr = world.addr();
    let share = world.trackless_at(addr, ["share", "--no-dht", "--data"]);
    let program = share.arg(world.dir().join("there")).arg(&torrent).start();
    let sharing = Sharing::new(program, addr);
    let out = world.folder("out");
    let get = world.get(&sharing.magnet, &out, &[addr]).args(["--files", "small"]);
    get.run(secs(60))
        .expect(0, "a small file of a tebibyte")
        .expect_memory_below(100, "a tebibyte");
    assert_eq!(std::fs::read(out.join("tebibyte/small")).unwrap(), small);
    let huge = out.join("tebibyte/huge").metadata().map_or(0, |m| m.blocks());
    assert_eq!(huge, 0, "nobody asked for it");
}
