//! `info`, `create`, `verify` and `sim`: no network.

use std::fs;
use std::path::{Path, PathBuf};

use super::{arg, run};
use crate::rig;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

// A folder with odd sizes, an empty file and a unicode name, and its torrent.
struct Sample {
    dir: tempfile::TempDir,
    torrent: PathBuf,
    magnet: String,
}

impl Sample {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("sample");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("a.bin"), vec![1; 40_000]).unwrap();
        fs::write(data.join("empty"), b"").unwrap();
        fs::write(data.join("sub/größe.txt"), vec![2; 12_345]).unwrap();
        let torrent = dir.path().join("sample.torrent");
        let args = ["create", arg(&data), "-o", arg(&torrent), "--piece-length", "16KiB"];
        let done = rig::run(dir.path(), &args).expect(0);
        Self { magnet: done.stdout.trim_end().to_owned(), dir, torrent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("sample").join(name)
    }

    fn verify(&self, dir: &Path, code: i32) -> serde_json::Value {
        run(&["verify", "--json", arg(&self.torrent), arg(dir)]).expect(code).json()
    }
}

#[test]
fn info_shows_what_a_link_says() {
    let link = format!("magnet:?xt=urn:btih:{HASH}&dn=two%20words&x.pe=192.0.2.1:6881&so=0,3-5");
    let json = run(&["info", "--json", &link]).expect(0).json();
    assert_eq!(json["info_hash"], HASH);
    assert_eq!(json["name"], "two words");
    assert_eq!(json["peers"][0], "192.0.2.1:6881");
    assert_eq!(json["files"], "0,3-5");
    let table = run(&["info", &link]).expect(0).stdout;
    assert!(table.contains(HASH) && table.contains("two words"), "{table}");
}

#[test]
fn create_prints_the_magnet_link_and_info_agrees() {
    let sample = Sample::new();
    assert!(sample.magnet.starts_with("magnet:?xt=urn:btih:"), "{}", sample.magnet);
    let json = run(&["info", "--json", arg(&sample.torrent)]).expect(0).json();
    assert_eq!(json["magnet"], sample.magnet);
    assert_eq!(json["bytes"], 52_345);
    assert_eq!(json["piece_length"], 16_384);
    assert_eq!(json["pieces"], 4);
    let paths: Vec<_> =
        json["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["sample/a.bin", "sample/empty", "sample/sub/größe.txt"]);
    let table = run(&["info", arg(&sample.torrent)]).expect(0).stdout;
    assert!(table.contains("39.0 KiB  sample/a.bin"), "{table}");
}

#[test]
fn create_makes_the_same_torrent_twice_and_replaces_only_by_force() {
    let sample = Sample::new();
    let first = fs::read(&sample.torrent).unwrap();
    let data = sample.dir.path().join("sample");
    let again = ["create", arg(&data), "-o", arg(&sample.torrent), "--piece-length", "16384"];
    let refused = run(&again).expect(10);
    assert!(refused.stderr.contains("exists already"), "{refused:#?}");
    assert!(refused.stdout.is_empty(), "{refused:#?}");
    let forced = run(&[&again[..], &["--force"]].concat()).expect(0);
    assert_eq!(forced.stdout.trim_end(), sample.magnet);
    assert_eq!(fs::read(&sample.torrent).unwrap(), first);
}

#[test]
fn create_refuses_what_cannot_be_shared() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.torrent");
    let nowhere = dir.path().join("nowhere");
    run(&["create", arg(&nowhere), "-o", arg(&out)]).expect(2);
    run(&["create", arg(dir.path()), "-o", arg(&out)]).expect(2);
    run(&["create", "/dev/null", "-o", arg(&out)]).expect(2);
    run(&["create", arg(dir.path()), "-o", arg(&out), "--piece-length", "100000"]).expect(2);
    assert!(!out.exists());
}

#[test]
fn create_without_a_place_to_write_names_it() {
    let sample = Sample::new();
    let nowhere = sample.dir.path().join("no/such/folder/x.torrent");
    let done = run(&["create", arg(&sample.path("a.bin")), "-o", arg(&nowhere)]).expect(8);
    assert!(done.stderr.contains("no/such/folder"), "{done:#?}");
}

#[test]
fn verify_says_ok_for_each_file_when_all_match() {
    let sample = Sample::new();
    let done = run(&["verify", arg(&sample.torrent), arg(sample.dir.path())]).expect(0);
    assert_eq!(
        done.stdout,
        "ok      sample/a.bin\nok      sample/empty\nok      sample/sub/größe.txt\n"
    );
    let json = sample.verify(sample.dir.path(), 0);
    assert_eq!((&json["code"], &json["good_pieces"]), (&0.into(), &4.into()));
}

#[test]
fn verify_names_the_bad_piece_of_a_changed_file() {
    let sample = Sample::new();
    let path = sample.path("a.bin");
    let mut data = fs::read(&path).unwrap();
    data[20_000] ^= 1;
    fs::write(&path, data).unwrap();
    let json = sample.verify(sample.dir.path(), 5);
    assert_eq!(json["code"], 5);
    assert_eq!(json["files"][0]["status"], "bad");
    assert_eq!(json["files"][0]["bad_pieces"], serde_json::json!([1]));
    assert_eq!(json["files"][2]["status"], "ok");
    let done = run(&["verify", arg(&sample.torrent), arg(sample.dir.path())]).expect(5);
    assert!(done.stdout.starts_with("bad     sample/a.bin\n"), "{done:#?}");
    assert!(done.stderr.contains("pieces 1 do not match"), "{done:#?}");
}

#[test]
fn verify_tells_missing_from_bad() {
    let sample = Sample::new();
    fs::remove_file(sample.path("empty")).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(sample.path("sub/größe.txt"))
        .unwrap()
        .set_len(9)
        .unwrap();
    let json = sample.verify(sample.dir.path(), 5);
    let status: Vec<_> =
        json["files"].as_array().unwrap().iter().map(|f| f["status"].as_str().unwrap()).collect();
    assert_eq!(status[1..], ["missing", "bad"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let json = sample.verify(elsewhere.path(), 5);
    assert_eq!(json["good_pieces"], 0);
}

#[test]
fn damaged_torrent_ends_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.torrent");
    for content in
        [&b""[..], b"not bencode", b"d4:infoi1ee", b"d4:infod4:name1:xee", &[b'l'; 100_000]]
    {
        fs::write(&path, content).unwrap();
        for args in [&["info", arg(&path)][..], &["verify", arg(&path), "."], &["get", arg(&path)]]
        {
            let done = run(args).expect(3);
            assert!(done.stderr.contains("x.torrent"), "{args:?}: {done:#?}");
        }
    }
}

#[test]
fn simulation_is_the_same_each_time_and_its_plot_has_a_place_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("plot.svg");
    let small = ["sim", "storm", "--nodes", "20", "--hours", "0.03", "--seed", "7", "--json"];
    let [one, two] = [1, 2].map(|_| run(&[&small[..], &["--svg", arg(&plot)]].concat()).expect(0));
    assert_eq!(one.stdout, two.stdout);
    assert!(one.records().iter().any(|r| r["row"]["lookups"].as_u64() > Some(0)), "{one:#?}");
    assert!(fs::read_to_string(&plot).unwrap().starts_with("<svg"));
    // Days of virtual time: it does not even start.
    let plotted = ["sim", "big", "--hours", "100", "--svg", "/no/such/folder/plot.svg", "--json"];
    let tables = ["sim", "tables", "--only", "churn-24h", "--dir", "/no/such/folder", "--json"];
    for args in [&plotted[..], &tables[..]] {
        let refused = run(args).expect(8).json();
        assert_eq!(refused["advice"], "check the path", "{refused}");
    }
}

#[test]
fn links_are_followed_with_a_word_and_what_leads_nowhere_is_refused_with_advice() {
    let sample = Sample::new();
    let (data, torrent) = (sample.dir.path().join("sample"), sample.dir.path().join("l.torrent"));
    std::os::unix::fs::symlink("a.bin", data.join("link")).unwrap();
    let create = || run(&["create", arg(&data), "-o", arg(&torrent), "--force"]);
    let done = create().expect(0);
    assert!(done.stderr.contains("1 symbolic link followed: "), "{done:#?}");
    let json = run(&["info", "--json", arg(&torrent)]).expect(0).json();
    assert_eq!(json["files"][2]["path"], "sample/link");
    assert_eq!(json["bytes"], 92_345);
    run(&["verify", arg(&torrent), arg(sample.dir.path())]).expect(0);
    for (target, why) in [("absent", "to nothing"), (".", "to a folder that it is in")] {
        fs::remove_file(data.join("link")).unwrap();
        std::os::unix::fs::symlink(target, data.join("link")).unwrap();
        let refused = create().expect(2);
        assert!(refused.stderr.contains(&format!("sample/link is a symbolic link {why}")));
        assert!(refused.stderr.contains("remove the link"), "{refused:#?}");
    }
    let empty = sample.dir.path().join("empty folder");
    fs::create_dir(&empty).unwrap();
    let refused = run(&["create", arg(&empty), "-o", arg(&torrent), "--force"]).expect(2);
    assert!(refused.stderr.contains("put a file into it"), "{refused:#?}");
}

#[test]
fn torrent_with_space_behind_it_is_the_same_torrent() {
    let sample = Sample::new();
    let mut bytes = fs::read(&sample.torrent).unwrap();
    bytes.extend(b"\r\n\n");
    fs::write(&sample.torrent, bytes).unwrap();
    let json = run(&["info", "--json", arg(&sample.torrent)]).expect(0).json();
    assert_eq!(json["magnet"], sample.magnet);
}

#[test]
fn flags_that_mean_nothing_say_what_would() {
    let sample = Sample::new();
    let get = |args: &[&str]| run(&[&["get", arg(&sample.torrent), "--no-dht"], args].concat());
    for (args, told) in [
        (["--timeout", "0"], "leave it out"),
        (["--timeout", "0s"], "leave it out"),
        (["--timeout", "5"], "is it 5s, 5m or 5h?"),
        (["--files", "3"], "this torrent has 3 files, numbered 0 to 2"),
        (["--files", "1-9"], "this torrent has 3 files, numbered 0 to 2"),
        (["--limit-down", "1.5MB"], "use KiB, MiB, GiB or TiB"),
    ] {
        let refused = get(&args).expect(2);
        assert!(refused.stderr.contains(told), "{args:?}: {refused:#?}");
    }
    get(&["--limit-down", "1.5MiB", "--list"]).expect(0);
}
