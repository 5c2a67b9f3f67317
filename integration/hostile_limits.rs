//! Every limit at once: more connections than are taken, in all states of politeness, while an
//! honest peer wants something. Memory stays what is written here.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::world::peer::{EXTENSIONS_AND_FAST, Wire, frame, handshake, id, numbers};
use crate::world::sharing::Shared;
use crate::world::{Content, Script, Seeder, World, have, installed, secs};

// Connects again and again, each time from the next address, and keeps the last few open.
fn flood(to: SocketAddr, from: &[IpAddr], connects: usize, kept: usize) -> usize {
    let mut open = VecDeque::new();
    let mut made = 0;
    for ip in from.iter().cycle().take(connects) {
        // Some are refused: that is one way to bound them.
        let Ok(wire) = Wire::dial_from(to, *ip) else { continue };
        made += 1;
        open.push_back(wire);
        if open.len() > kept {
            open.pop_front();
        }
    }
    made
}

#[test]
fn ten_thousand_connects_do_not_keep_an_honest_peer_out() {
    let mut shared = Shared::new();
    let before = shared.sharing.program.resident_kib();
    let to = shared.sharing.addr;
    let from: Vec<IpAddr> = (0..100).map(|_| shared.world.ip().into()).collect();
    let flood = std::thread::spawn(move || flood(to, &from, 10_000, 400));
    shared.expect_served("amid 10 000 connects");
    let made = flood.join().unwrap();
    shared.expect_served("after 10 000 connects");
    assert!(made > 5_000, "only {made} connections were made");
    let grown = shared.sharing.program.peak_kib().saturating_sub(before) / 1024;
    assert!(grown < 50, "10 000 connects made it grow by {grown} MiB");
}

// The worst that a connection may hold: unread answers, and a message that is never completed.
fn fill(shared: &Shared) -> Option<Wire> {
    let from = shared.world.ip().into();
    let mut wire = Wire::greet(shared.sharing.addr, from, &shared.content.info_hash()).ok()?;
    wire.limit_writes(secs(2));
    let requests: Vec<u8> = (0..2_000_u32)
        .flat_map(|n| frame(id::REQUEST, &numbers(&[n % shared.pieces(), 0, 16_384])))
        .collect();
    let added = [[20, 1, 2, 3, 0x1a, 0xe1].as_slice(); 9_000].concat();
    let pex = [b"\x02d5:added54000:".as_slice(), &added, b"e"].concat();
    let endless = [(200_u32 << 10).to_be_bytes().as_slice(), &vec![77; 199 << 10]].concat();
    let _ = wire.send(id::INTERESTED, &[]);
    for bytes in [requests, frame(id::EXTENDED, &pex), endless] {
        // It may stop reading, or hang up: both are right.
        let _ = wire.send_raw(&bytes);
    }
    Some(wire)
}

#[test]
fn all_limits_at_once_leave_memory_bounded_and_an_honest_peer_served() {
    let mut shared = Shared::new();
    let before = shared.sharing.program.resident_kib();
    // Every place that a torrent has, and more.
    let wires: Vec<_> = (0..110).filter_map(|_| fill(&shared)).collect();
    assert!(wires.len() >= 90, "only {} got in", wires.len());
    let whole =
        handshake(&shared.content.info_hash(), EXTENSIONS_AND_FAST, b"-XX0001-half-of-it--");
    let mut half = Vec::new();
    for n in 0..300 {
        let from = IpAddr::from(std::net::Ipv4Addr::LOCALHOST);
        let Ok(mut wire) = Wire::dial_from(shared.sharing.addr, from) else { continue };
        let _ = wire.send_raw(&whole[..n % 68]);
        half.push(wire);
    }
    // Whoever takes nothing leaves its place to who comes.
    let addr = shared.world.addr();
    let out = shared.world.folder("patient");
    shared
        .world
        .get_at(addr, &shared.sharing.magnet, &out, &[shared.sharing.addr])
        .args(["--timeout", "80s"])
        .run(secs(90))
        .expect(0, "a peer that comes when every place is taken");
    shared.content.assert_in(&out);
    shared.sharing.program.expect_alive("a seed at all its limits");
    let grown = shared.sharing.program.peak_kib().saturating_sub(before) / 1024;
    let allowed = if cfg!(debug_assertions) { 160 } else { 100 };
    assert!(grown < allowed, "all limits at once made it grow by {grown} MiB");
    drop((wires, half));
}

#[test]
fn few_descriptors_and_many_strangers_do_not_keep_an_honest_peer_out() {
    if !have(installed("prlimit")) {
        return;
    }
    let mut shared = Shared::behind("prlimit", &["--nofile=64", "--"]);
    let to = shared.sharing.addr;
    let from: Vec<IpAddr> = (0..50).map(|_| shared.world.ip().into()).collect();
    let mut open = Vec::new();
    for ip in from.iter().cycle().take(300) {
        open.extend(Wire::dial_from(to, *ip));
    }
    assert!(open.len() > 100, "only {} connections were possible", open.len());
    shared.expect_served("with 64 descriptors and 300 strangers");
}

#[test]
fn network_that_comes_back_is_used_again() {
    let world = World::new();
    let content = Content::single(23, 2_000_000, 65_536);
    let script = Script::honest().paced(std::time::Duration::from_millis(10));
    let addr = world.addr();
    let before = Seeder::start(addr, &content, script);
    let out = world.folder("out");
    let mut get = world.get(&content.magnet(), &out, &[addr]).start();
    assert!(before.wait(secs(30), |log| log.blocks_sent > 20), "{}", get.last_words());
    drop(before);
    // The pause is what is tested: everything is refused meanwhile.
    std::thread::sleep(secs(8));
    get.expect_alive("a download without a network");
    let after = Seeder::start(addr, &content, Script::honest());
    get.wait(secs(90)).expect(0, "a download whose network came back");
    content.assert_in(&out);
    assert!(after.log().blocks_sent <= 2_000_000 / 16_384 - 10, "it began anew");
}
