//! One test for each bug that was found by driving the whole program, with its story above it.

use crate::world::{Content, Script, Seeder, World, secs};

/// The info dictionary was kept beside the resume record, and nobody looked for it: after a restart
/// a magnet link had to find its metadata again before a byte of what was there was checked, and a
/// complete download could not be recognised without a peer.
#[test]
fn complete_download_is_recognised_by_its_link_without_a_peer() {
    let world = World::new();
    let content = Content::tree(91, 200_000, 32_768);
    let seeder = Seeder::start(world.addr(), &content, Script::honest());
    let (out, addr) = (world.folder("out"), world.addr());
    world
        .get_at(addr, &content.magnet(), &out, &[seeder.addr])
        .run(secs(60))
        .expect(0, "the first run");
    drop(seeder);
    let nobody = world.addr();
    let again = world.get_at(addr, &content.magnet(), &out, &[nobody]).args(["--timeout", "20s"]);
    let ended = again.run(secs(40)).expect(0, "the second run, without a peer");
    assert!(ended.stdout.contains(&content.name), "the path is not printed: {}", ended.stdout);
    content.assert_in(&out);
}
