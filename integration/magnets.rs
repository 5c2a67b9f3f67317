//! Magnet links good and bad (BEP 9, 53): the hash in every spelling, bounds on everything that
//! can be repeated, and the fault named where there is one.

use std::collections::BTreeSet;
use std::net::UdpSocket;

use crate::world::{Content, Launch, Script, Seeder, World, have, netns, root, secs};

const HEX: &str = "0123456789abcdef0123456789abcdef01234567";
const BASE32: &str = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH";

#[test]
fn hash_is_read_in_every_spelling() {
    let world = World::new();
    for link in [
        format!("magnet:?xt=urn:btih:{HEX}"),
        format!("magnet:?xt=urn:btih:{}", HEX.to_uppercase()),
        format!("magnet:?xt=urn:btih:{BASE32}"),
        format!("magnet:?xt=urn:btih:{}", BASE32.to_lowercase()),
        format!("MAGNET:?xt=urn:btih:{HEX}"),
        format!("magnet:?dn=x&xt=urn:btih:{HEX}"),
        format!("magnet:?dn=x&amp;xt=urn:btih:{HEX}"),
        format!("magnet:?xt=urn%3Abtih%3A{HEX}"),
        format!("magnet:?xt.1=urn:sha1:{BASE32}&xt.2=urn:btih:{HEX}"),
        format!("magnet:?xt=urn:btmh:1220{HEX}{}&xt=urn:btih:{HEX}", &HEX[..24]),
        format!("  magnet:?xt=urn:btih:{HEX}  "),
        HEX.to_owned(),
        HEX.to_uppercase(),
        BASE32.to_owned(),
    ] {
        let ended = world.trackless(["info", "--json", &link]).run(secs(20)).expect(0, &link);
        let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(json["info_hash"], HEX, "{link}");
    }
}

#[test]
fn bad_links_end_with_3_and_their_fault() {
    let world = World::new();
    for link in [
        "magnet:".to_owned(),
        "magnet:?".to_owned(),
        "magnet:?dn=only+a+name".to_owned(),
        "magnet:?xt=".to_owned(),
        "magnet:?xt=urn:btih:".to_owned(),
        format!("magnet:?xt=urn:btih:{}", &HEX[..39]),
        format!("magnet:?xt=urn:btih:{HEX}0"),
        format!("magnet:?xt=urn:btih:{}g", &HEX[..39]),
        "magnet:?xt=urn:btih:11111111111111111111111111111111".to_owned(),
        format!("magnet:?xt=urn:ed2k:{}", &HEX[..32]),
        format!("magnet:?xt=urn:btmh:1220{HEX}{}", &HEX[..24]),
        "http://example.invalid/a".to_owned(),
        HEX[..20].to_owned(),
        "no-such-file.torrent".to_owned(),
    ] {
        for verb in ["info", "get", "resolve"] {
            if verb == "resolve" && link.ends_with(".torrent") {
                continue;
            }
            let net = ["--no-dht", "--listen", "127.0.0.1:0", "--timeout", "1s"];
            let launch = world.trackless([verb, &link]);
            let launch = if verb == "info" { launch } else { launch.args(net) };
            let ended = launch.run(secs(20));
            let fault = if link.ends_with(".torrent") { [3, 8] } else { [3, 3] };
            assert!(fault.contains(&ended.code), "{verb} {link}: {}\n{}", ended.code, ended.stderr);
            assert!(!ended.stderr.trim().is_empty(), "{verb} {link}: no reason given");
            assert!(ended.took < secs(10), "{verb} {link}: {:?}", ended.took);
        }
    }
}

#[test]
fn what_can_be_repeated_is_bounded() {
    let world = World::new();
    let trackers = "&tr=udp%3A%2F%2Ft.example%3A1".repeat(3000);
    let peers = "&x.pe=10.0.0.1:6881".repeat(3000);
    for (what, tail) in [
        ("3000 trackers", trackers),
        ("3000 peers", peers),
        ("so up to 2^32", "&so=0-4294967295".to_owned()),
        ("so past 2^64", "&so=0-99999999999999999999999".to_owned()),
        ("so backwards", "&so=9-3".to_owned()),
        ("so of nothing", "&so=,,,-".to_owned()),
        ("a name of 100 KB", format!("&dn={}", "n".repeat(100_000))),
        ("bad escapes", "&dn=%zz%f&x.pe=%00:1&x.pe=::::".to_owned()),
        ("impossible peers", "&x.pe=0.0.0.0:1&x.pe=1.2.3.4:0&x.pe=224.0.0.1:5".to_owned()),
    ] {
        let link = format!("magnet:?xt=urn:btih:{HEX}{tail}");
        let ended = world.trackless(["info", "--json", &link]).run(secs(20));
        assert!(ended.code == 0 || ended.code == 3, "{what}: {}\n{}", ended.code, ended.stderr);
        assert!(ended.peak_kib < 100 * 1024 && ended.took < secs(10), "{what}: too much");
        let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        if ended.code == 0 {
            assert_eq!(json["info_hash"], HEX, "{what}");
        } else {
            assert!(json["error"].is_string(), "{what}: no reason given: {json}");
        }
    }
}

#[test]
fn escape_sequences_in_a_name_never_reach_the_terminal() {
    let world = World::new();
    let link = format!("magnet:?xt=urn:btih:{HEX}&dn=%1b%5b31mred%07%0d%0a%e2%80%aetxt");
    for args in [vec!["info", &link], vec!["info", "--json", &link]] {
        let ended = world.trackless(&args).run(secs(20)).expect(0, "info");
        for (stream, text) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
            let foul = text.chars().any(|c| c.is_control() && c != '\n');
            assert!(!foul, "{args:?}: control characters on {stream}: {text:?}");
        }
    }
}

// Inside a private network: the machine's own names are those of the test.
fn name_peers(world: &World, hosts: &str, resolver: &str) {
    for (name, content) in [("hosts", hosts), ("resolv.conf", resolver)] {
        let (file, target) = (world.dir().join(name), format!("/etc/{name}"));
        std::fs::write(&file, content).unwrap();
        let mount = Launch::new("mount").arg("--bind").arg(file).arg(target).run(secs(20));
        mount.expect(0, "a name service of the test's own");
    }
}

#[test]
fn peers_by_name_are_looked_up_all_at_once_and_hold_nothing_up() {
    if !have(root()) {
        return;
    }
    let test = "magnets::peers_by_name_are_looked_up_all_at_once_and_hold_nothing_up";
    netns::inside(test, || {
        let world = World::new();
        let content = Content::single(71, 200_000, 32_768);
        let seeder = Seeder::start(world.addr(), &content, Script::honest());
        let silent = UdpSocket::bind((world.ip(), 53)).unwrap();
        silent.set_nonblocking(true).unwrap();
        let hosts = format!("{} here.example\n", seeder.addr.ip());
        name_peers(&world, &hosts, &format!("nameserver {}\n", silent.local_addr().unwrap().ip()));

        // More names than anybody needs, and a resolver that never answers.
        let lost: String = (0..40).map(|n| format!("&x.pe=lost{n}.example:6881")).collect();
        let link = content.magnet() + &lost;
        let ended =
            world.get(&link, &world.folder("a"), &[]).args(["--timeout", "1s"]).run(secs(40));
        assert_eq!(ended.code, 4, "{}", ended.stderr);
        assert!(ended.took < secs(15), "names overran the time limit: {:?}", ended.took);
        let (mut names, mut query) = (BTreeSet::new(), [0; 512]);
        while let Ok(len) = silent.recv(&mut query) {
            names.insert(String::from_utf8_lossy(&query[13..len.min(20)]).into_owned());
        }
        assert!((2..=8).contains(&names.len()), "asked at once: {names:?}");

        // One name of many is known, and nobody else is.
        let link = format!("{}&x.pe=here.example:{}{lost}", content.magnet(), seeder.addr.port());
        for (args, out) in [(&[][..], "b"), (&["--files", "0"], "c")] {
            let out = world.folder(out);
            world.get(&link, &out, &[]).args(args).run(secs(60)).expect(0, "a peer by its name");
            content.assert_in(&out);
        }
        // Nobody can be found any more: that is said, not waited for.
        let link = format!("{}&x.pe=lost.example:1", content.magnet());
        for verb in ["get", "resolve"] {
            let alone = world.trackless([verb, &link, "--no-dht"]).run(secs(60));
            assert_eq!(alone.code, 4, "{verb}: {}", alone.stderr);
        }
    });
}
