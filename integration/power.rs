//! Power cuts: the file system that a download is written to lies in an image, and a copy of the
//! image made at any moment holds what had reached the disk by then and nothing else. A run on the
//! copy must come to the same files, whatever was lost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use trackless::base::Rng;

use crate::world::{Content, Launch, Script, Seeder, World, have, installed, root, secs};

/// A file system in an image, mounted as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    fn new(world: &World, image: &Path, name: &str, options: &str) -> Self {
        let at = world.folder(name);
        let options = format!("loop,{options}");
        let mount = Launch::new("mount").args(["-t", "ext4", "-o", &options]).arg(image).arg(&at);
        mount.run(secs(30)).expect(0, "mounting an image");
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn permitted(image: &Path) -> Result<(), String> {
    root()?;
    installed("mkfs.ext4")?;
    std::fs::File::create(image).and_then(|file| file.set_len(IMAGE_LEN)).unwrap();
    let made = Launch::new("mkfs.ext4").args(["-q", "-F"]).arg(image).run(secs(60));
    let found = Launch::new("losetup").arg("--find").run(secs(20));
    match (made.code, found.code) {
        (0, 0) => Ok(()),
        _ => Err("loop devices are not permitted here".to_owned()),
    }
}

fn get(world: &World, disk: &Path, seeder: &Seeder, content: &Content) -> Launch {
    world
        .trackless(["get", &content.magnet(), "--no-dht", "--timeout", "100s", "--peer"])
        .args([&seeder.addr.to_string(), "--listen", &world.addr().to_string(), "--state-dir"])
        .arg(disk.join("state"))
        .arg("-o")
        .arg(disk.join("out"))
}

// `options` of the mount: what may reach the disk before what.
fn cut_at_random_moments(options: &str, seed: u8) {
    let world = World::new();
    let image = world.dir().join("disk.img");
    if !have(permitted(&image)) {
        return;
    }
    let content = Content::tree(seed, 4_000_000, 65_536);
    // What is good is recorded every five seconds: several times before the end.
    let slow = Script::honest().paced(Duration::from_millis(90));
    let seeder = Seeder::start(world.addr(), &content, slow);
    let disk = Mounted::new(&world, &image, "disk", options);
    let mut download = get(&world, &disk.0, &seeder, &content).start();
    let mut rng = Rng::from_seed([seed; 32]);
    let (mut copies, mut sent) = (Vec::new(), 0);
    while copies.len() < CUTS {
        sent += 1 + rng.below(2 * BLOCKS_BETWEEN);
        assert!(seeder.wait(secs(60), |log| log.blocks_sent >= sent), "{}", download.last_words());
        download.signal(Signal::STOP);
        let copy = world.dir().join(format!("copy-{}.img", copies.len()));
        std::fs::copy(&image, &copy).unwrap();
        download.signal(Signal::CONT);
        copies.push(copy);
    }
    download.wait(secs(100)).expect(0, "the download that saw no power cut");
    content.assert_in(&disk.0.join("out"));
    drop(disk);

    let honest = Seeder::start(world.addr(), &content, Script::honest());
    let mut kept = 0;
    for (cut, copy) in copies.iter().enumerate() {
        // At the same place: what was recorded is of files there.
        let disk = Mounted::new(&world, copy, "disk", options);
        let what = format!("seed {seed}: the run after power cut {cut}");
        honest.forget();
        get(&world, &disk.0, &honest, &content).run(secs(100)).expect(0, &what);
        content.assert_in(&disk.0.join("out"));
        kept += content.len() - honest.log().blocks_sent.min(content.len() / 16_384) * 16_384;
        drop(disk);
        std::fs::remove_file(copy).unwrap();
    }
    assert!(kept > content.len(), "seed {seed}: {kept} bytes outlived {CUTS} power cuts");
}

#[test]
fn power_cuts_lose_no_byte_that_was_promised() {
    cut_at_random_moments("data=ordered", 81);
}

#[test]
fn power_cuts_that_keep_lengths_before_data_make_no_bad_piece_good() {
    // A file may be as long as it should be and hold zeros where data had not arrived.
    cut_at_random_moments("data=writeback,commit=1", 82);
}

const IMAGE_LEN: u64 = 48 << 20;
const CUTS: usize = 10;
const BLOCKS_BETWEEN: usize = 12;
