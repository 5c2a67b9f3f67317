//! The whole way over a link that loses packets: the DHT, the metadata and the data come through,
//! and the rate is told.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::world::link::{Link, Weather};
use crate::world::{Content, Sharing, World, netns, secs};

// Both a node and somebody who shares are at the far end; the near one has a magnet link and the
// address of that node.
fn magnet_over(test: &str, loss: f64, len: usize) {
    netns::inside(&format!("lossy::{test}"), || {
        let seed = 91;
        let weather = Weather { loss, delay: Duration::from_millis(10) };
        let Some(link) = Link::lay(weather, seed) else { return };
        let world = World::new();
        let content = Content::single(seed, len, 32_768);
        let path = content.write_to(&world.folder("there"));
        let at = |ip, port: u16| SocketAddr::new(ip, port);
        let (node, share) = (at(Link::FAR, 7001), at(Link::FAR, 7002));
        let state = |name: &str| world.folder(name);
        let _node = link
            .far(world.trackless(["node", "--listen", &node.to_string(), "--bootstrap"]))
            .args([&share.to_string(), "--state-dir"])
            .arg(state("node"))
            .start();
        let program = link
            .far(world.trackless(["share", "--listen", &share.to_string(), "--bootstrap"]))
            .args([&node.to_string(), "--state-dir"])
            .arg(state("share"))
            .arg(&path)
            .start();
        let sharing = Sharing::new(program, share);
        let out = world.folder("out");
        let ended = world
            .trackless(["get", &sharing.magnet, "--listen", &at(Link::NEAR, 7003).to_string()])
            .args(["--bootstrap", &node.to_string(), "--timeout", "230s", "--state-dir"])
            .arg(state("get"))
            .arg("-o")
            .arg(&out)
            .run(secs(250))
            .expect(0, &format!("{} % of the packets lost each way", loss * 100.0));
        content.assert_in(&out);
        let lost = link.lost();
        assert!(lost > loss / 2.0 && lost < loss * 2.0, "{lost} of the packets were lost");
        let took = ended.took.as_secs_f64();
        let (lost, rate) = (lost * 100.0, len as f64 / 1024.0 / took);
        let _ = writeln!(
            std::io::stderr(),
            "FIGURE: {lost:.1} % lost, 20 ms: {len} bytes from the magnet link in {took:.1} s, {rate:.0} KiB/s"
        );
    });
}

#[test]
fn magnet_comes_over_a_link_that_loses_one_percent() {
    magnet_over("magnet_comes_over_a_link_that_loses_one_percent", 0.01, 2_000_000);
}

#[test]
fn magnet_comes_over_a_link_that_loses_five_percent() {
    magnet_over("magnet_comes_over_a_link_that_loses_five_percent", 0.05, 1_000_000);
}

#[test]
fn magnet_comes_over_a_link_that_loses_ten_percent() {
    magnet_over("magnet_comes_over_a_link_that_loses_ten_percent", 0.1, 2_000_000);
}

#[test]
fn magnet_comes_over_a_link_that_loses_a_third() {
    magnet_over("magnet_comes_over_a_link_that_loses_a_third", 0.33, 200_000);
}
