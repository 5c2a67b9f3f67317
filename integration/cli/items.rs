//! `dht get`, `put`, `sample` and `scrape` on a private network of two nodes on loopback.

use std::fs;

use serde_json::{Value, json};

use super::arg;
use super::network::Lab;
use crate::rig::{self, Done};

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";
// The seed of the first test vector of RFC 8032, and its public key.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn put_stdin(lab: &Lab, args: &[&str], input: &[u8]) -> Done {
    rig::finish(&mut lab.command(&[&["dht", "put"], args].concat()), Some(input))
}

#[test]
fn immutable_item_is_got_by_what_put_printed() {
    let lab = Lab::new();
    // The example of BEP 44.
    let put = lab.run(&["dht", "put", "Hello World!"]).expect(0);
    assert_eq!(put.stdout, "e5f96f6f38320f0f33959cb4d3d656452117aadb\n", "{put:#?}");
    assert!(put.stderr.contains("stored by 2 nodes"), "{put:#?}");
    let target = put.stdout.trim();
    let got = lab.run(&["dht", "get", target]).expect(0);
    assert_eq!(got.stdout, "Hello World!\n", "{got:#?}");
    let json = lab.run(&["dht", "get", target, "--json"]).expect(0).json();
    assert_eq!((&json["code"], &json["text"]), (&0.into(), &"Hello World!".into()), "{json}");
    assert_eq!((&json["target"], &json["key"]), (&target.into(), &Value::Null), "{json}");
}

#[test]
fn value_comes_from_a_file_or_stdin_and_goes_out_as_it_came() {
    let lab = Lab::new();
    let (input, output) = (lab.path("in"), lab.path("out"));
    let bytes: Vec<u8> = (0..=255).chain(*b"\n\x1b[2J").collect();
    fs::write(&input, &bytes).unwrap();
    let target = lab.run(&["dht", "put", "--file", arg(&input)]).expect(0).stdout;
    for args in [&[][..], &["-"], &["--file", "-"]] {
        assert_eq!(put_stdin(&lab, args, &bytes).expect(0).stdout, target, "{args:?}");
    }
    let get = ["dht", "get", target.trim()];
    let done = lab.run(&[&get[..], &["-o", arg(&output)]].concat()).expect(0);
    assert_eq!((fs::read(&output).unwrap(), done.stdout.as_str()), (bytes.clone(), ""));
    // Bytes are shown in hex.
    let shown = lab.run(&get).expect(0);
    assert!(shown.stdout.starts_with("000102") && shown.stderr.contains("in hex"), "{shown:#?}");
    let text = put_stdin(&lab, &[], b"two\nlines\n").expect(0).stdout;
    let raw = lab.run(&["dht", "get", text.trim(), "-o", "-"]).expect(0);
    assert_eq!(raw.stdout, "two\nlines\n");
    // Bencode goes in as it is, and comes out so.
    let list = lab.run(&["dht", "put", "--bencode", "l1:a1:be"]).expect(0).stdout;
    assert_eq!(lab.run(&["dht", "get", list.trim()]).expect(0).stdout, "l1:a1:be\n");
}

#[test]
fn signed_item_is_replaced_by_newer_versions_alone() {
    let lab = Lab::new();
    let key = lab.path("key");
    fs::write(&key, format!("{SEED}\n")).unwrap();
    let put = |args: &[&str]| {
        let all = [&["dht", "put", "--key", arg(&key), "--salt", "news"], args].concat();
        lab.run(&all)
    };
    let get = || {
        let args = ["dht", "get", PUBLIC, "--salt", "news", "--json"];
        let json = lab.run(&args).expect(0).json();
        (json["seq"].as_i64().unwrap(), json["text"].as_str().unwrap().to_owned())
    };
    assert_eq!(put(&["first"]).expect(0).stdout, format!("{PUBLIC}\n"));
    assert_eq!(get(), (1, "first".to_owned()));
    let second = put(&["second", "--json"]).expect(0).json();
    assert_eq!((&second["seq"], &second["stored"]), (&2.into(), &2.into()), "{second}");
    assert_eq!(get(), (2, "second".to_owned()));

    // The same version with another value, an older one, and one that somebody else replaced.
    for refused in
        [&["x", "--seq", "2"][..], &["x", "--seq", "1"], &["x", "--seq", "3", "--cas", "1"]]
    {
        let json = put(&[refused, &["--json"]].concat()).expect(12).json();
        assert_eq!((&json["code"], &json["stage"]), (&12.into(), &"nodes".into()), "{json}");
        assert_eq!(get(), (2, "second".to_owned()), "{refused:?}");
    }
    put(&["third", "--seq", "7", "--cas", "2"]).expect(0);
    assert_eq!(get(), (7, "third".to_owned()));
    // Another salt is another item, and the seed may be given itself.
    let other = lab.run(&["dht", "put", "--key", SEED, "other"]).expect(0);
    assert_eq!(other.stdout, format!("{PUBLIC}\n"));
    assert_eq!(lab.run(&["dht", "get", PUBLIC]).expect(0).stdout, "other\n");
    assert_eq!(get(), (7, "third".to_owned()));
}

#[cfg(unix)]
#[test]
fn new_key_is_secret_and_is_never_written_over() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    let key = lab.path("key");
    let flags = ["dht", "put", "--new-key", arg(&key)];
    let put = lab.run(&[&flags[..], &["one"]].concat()).expect(0);
    let mode = fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let seed = fs::read_to_string(&key).unwrap();
    assert!(seed.trim().len() == 64 && !format!("{put:?}").contains(seed.trim()), "{put:#?}");
    assert_eq!(lab.run(&["dht", "get", put.stdout.trim()]).expect(0).stdout, "one\n");

    let again = lab.run(&[&flags[..], &["two"]].concat()).expect(10);
    assert!(again.stderr.contains(arg(&key)) && again.stderr.contains("--key"), "{again:#?}");
    assert_eq!(fs::read_to_string(&key).unwrap(), seed);
    let update = ["dht", "put", "--key", arg(&key), "two"];
    assert_eq!(lab.run(&update).expect(0).stdout, put.stdout);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let careless = lab.run(&update).expect(0);
    assert!(careless.stderr.contains("others may read this key"), "{careless:#?}");
}

#[test]
fn what_is_no_item_is_said_before_anything_is_done() {
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join("key");
    let new_key = ["--new-key", arg(&key)];
    let (long, salt) = ("x".repeat(997), "s".repeat(65));
    for (args, words) in [
        (&["put", &long][..], "longer than 1000 bytes"),
        (&["put", &long, new_key[0], new_key[1]], "longer than 1000 bytes"),
        (&["put", "x", "--salt", &salt, new_key[0], new_key[1]], "salt is longer"),
        (&["put", "--bencode", "3:ab"], "not canonical bencode"),
        (&["put", "x", "--seq", "4"], "--seq is for signed items"),
        (&["put", "x", "--salt", "a"], "--salt is for signed items"),
        (&["put", "x", "--seq=-1", "--key", SEED], "--seq"),
        (&["put", "x", "--key", &SEED[1..]], "no such file"),
        (&["get", "123"], "40 hex digits"),
        (&["get", HASH, "--salt", "a"], "give the public key"),
        (&["get", SEED, "--salt", &salt], "salt is longer"),
        (&["ping", "224.0.0.1:6881"], "nothing is ever sent"),
        (&["sample", "nonsense"], "expected HOST:PORT"),
        (&["scrape", "nonsense"], "info-hash"),
    ] {
        let done = rig::run(home.path(), &[&["dht"], args].concat());
        assert!([2, 3, 8].contains(&done.code()), "{args:?}: {done:#?}");
        assert!(done.stderr.contains(words), "{args:?}: {done:#?}");
        assert!(!key.exists(), "{args:?} made a key for nothing");
    }
    fs::write(&key, "not a key").unwrap();
    let done = rig::run(home.path(), &["dht", "put", "x", "--key", arg(&key)]).expect(2);
    assert!(done.stderr.contains("expected an ed25519 seed"), "{done:#?}");
}

#[test]
fn item_that_nobody_has_is_told_from_a_dead_network() {
    let lab = Lab::new();
    let none = lab.run(&["dht", "get", HASH, "--json"]).expect(4).json();
    assert!(none["error"].as_str().unwrap().contains("none has this item"), "{none}");
    let home = tempfile::tempdir().unwrap();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let boot = silent.local_addr().unwrap().to_string();
    let flags = ["--listen", "127.0.0.1:0", "--bootstrap", &boot, "--timeout", "2s"];
    for verb in [&["get", HASH][..], &["put", "x"], &["scrape", HASH], &["sample"]] {
        let done = rig::run(home.path(), &[&["dht"], verb, &flags].concat()).expect(6);
        assert!(done.stderr.contains("no node has answered yet"), "{done:#?}");
    }
}

#[test]
fn nodes_are_sampled_on_the_way_and_one_by_one() {
    let lab = Lab::new();
    let boot = lab.boot.to_string();
    // A node gives one address two samples in ten minutes: each asks from an address of its own.
    let sample = |host: u8, args: &[&str]| {
        let listen = format!("127.0.0.{host}:0");
        let flags = ["--listen", &listen, "--bootstrap", &boot];
        rig::run(lab.path("home").as_path(), &[&["dht", "sample"], args, &flags].concat())
    };
    let none = sample(2, &[]).expect(4);
    assert!(none.stderr.contains("none has torrents"), "{none:#?}");
    lab.run(&["dht", "announce", HASH, "--port", "4717"]).expect(0);
    assert_eq!(sample(3, &[HASH]).expect(0).stdout, format!("{HASH}\n"));
    sample(3, &[HASH]).expect(0);
    let again = sample(3, &[HASH]).expect(4);
    assert!(again.stderr.contains("so soon again") && again.stderr.contains("min"), "{again:#?}");
    let all = sample(4, &["--json"]).expect(0).records();
    let (end, samples) = all.split_last().unwrap();
    let figures = (&end["code"], &end["nodes"], &end["info_hashes"]);
    assert_eq!(figures, (&0.into(), &2.into(), &1.into()), "{end}");
    for sample in samples {
        assert_eq!((&sample["info_hashes"], &sample["total"]), (&json!([HASH]), &1.into()));
    }
    let one = sample(5, &[&boot, "--json"]).expect(0).records();
    assert_eq!((one.len(), &one[0]["addr"]), (2, &boot.as_str().into()), "{one:?}");
    assert_eq!(sample(6, &[&boot]).expect(0).stdout, format!("{HASH}\n"));
}

#[test]
fn those_who_have_a_torrent_are_counted() {
    let lab = Lab::new();
    lab.run(&["dht", "scrape", HASH]).expect(4);
    lab.run(&["dht", "announce", HASH, "--port", "4718"]).expect(0);
    let counted = lab.run(&["dht", "scrape", HASH]).expect(0);
    assert_eq!(counted.stdout, "0\t1\n", "{counted:#?}");
    let json = lab.run(&["dht", "scrape", HASH, "--json"]).expect(0).json();
    let figures = (&json["code"], &json["seeds"], &json["peers"], &json["nodes"]);
    assert_eq!(figures, (&0.into(), &0.into(), &1.into(), &2.into()), "{json}");
}

#[test]
fn shell_stores_fetches_samples_and_counts() {
    let lab = Lab::new();
    lab.run(&["dht", "announce", HASH, "--port", "4719"]).expect(0);
    let shell = |lines: String| {
        let mut command = lab.command(&["dht", "shell", "--json"]);
        rig::finish(&mut command, Some(lines.as_bytes())).expect(0).records()
    };
    let target = "e5f96f6f38320f0f33959cb4d3d656452117aadb";
    let put = shell("put Hello World!\n".to_owned());
    let done = put.iter().find(|e| e["ev"] == "done").unwrap();
    assert_eq!((&done["h"], &done["announced"]), (&target.into(), &2.into()), "{put:?}");
    let events = shell(format!("get {target}\nsample {HASH}\nscrape {HASH}\nget x\n"));
    let of = |kind: &str, subject: &str| {
        let of = events.iter().filter(|e| e["ev"] == kind && e["h"] == subject);
        of.cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("item", target)[0]["text"], "Hello World!", "{events:?}");
    assert_eq!(of("done", target).len(), 1);
    assert_eq!(of("samples", HASH)[0]["info_hashes"], json!([HASH]));
    let counted = of("done", HASH).into_iter().find(|e| !e["seeds"].is_null()).unwrap();
    assert_eq!((&counted["seeds"], &counted["downloaders"]), (&0.into(), &1.into()));
    assert_eq!(events.iter().filter(|e| e["ev"] == "error").count(), 1, "{events:?}");
}
