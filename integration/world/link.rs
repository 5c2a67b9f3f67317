//! A link that loses and delays packets, between this network namespace and another. The kernel
//! need not know how (netem is not everywhere): the link is two TUN devices and the test itself.
//! TCP, UDP and everything else cross it as packets do.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::ioctl;
use trackless::base::Rng;

use super::{Launch, have, netns, root, secs};

/// What happens to packets, in each direction.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// The share that is lost.
    pub loss: f64,
    /// How long the others take.
    pub delay: Duration,
}

/// A link to another namespace; both are gone with the test's own process.
#[derive(Debug)]
pub struct Link {
    counts: Arc<Counts>,
}

/// What it carried and lost, in both directions.
#[derive(Debug, Default)]
pub struct Counts {
    pub carried: AtomicUsize,
    pub lost: AtomicUsize,
}

impl Link {
    /// Our end.
    pub const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1));
    /// The other end.
    pub const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2));

    /// Lays the link. Only inside [`netns::inside`]. None if the machine does not permit it.
    pub fn lay(weather: Weather, seed: u8) -> Option<Self> {
        assert!(netns::is_inside(), "the link is laid in a namespace of the test's own");
        let tun = if Path::new(TUN).exists() { Ok(()) } else { Err("no TUN devices".to_owned()) };
        if !have(root().and(tun)) {
            return None;
        }
        // Named namespaces are files below /run, which is the machine's own.
        ip("mount -t tmpfs tmpfs /run");
        let (near, far) = (open("near"), open("far"));
        for command in [
            "ip netns add far",
            "ip link set far netns far",
            "ip addr add 10.78.0.1/24 dev near",
            "ip link set near up",
            "ip -n far addr add 10.78.0.2/24 dev far",
            "ip -n far link set far up",
            "ip -n far link set lo up",
        ] {
            ip(command);
        }
        let counts = Arc::new(Counts::default());
        let (near_again, far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        carry(near_again, far_again, weather, Rng::from_seed([seed; 32]), counts.clone());
        carry(far, near, weather, Rng::from_seed([!seed; 32]), counts.clone());
        Some(Self { counts })
    }

    /// The share of packets that were lost.
    pub fn lost(&self) -> f64 {
        let lost = self.counts.lost.load(Ordering::Relaxed);
        lost as f64 / (lost + self.counts.carried.load(Ordering::Relaxed)) as f64
    }

    /// The same program at the other end.
    pub fn far(&self, launch: Launch) -> Launch {
        launch.behind("ip", ["netns", "exec", "far"])
    }
}

fn ip(command: &str) {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    Launch::new(program).args(words).run(secs(20)).expect(0, command);
}

// A TUN device of this name, in our namespace; it may be moved to another one afterwards.
fn open(name: &str) -> File {
    let file = File::options().read(true).write(true).open(TUN).unwrap();
    let mut request = Request { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads one `struct ifreq` of 40 bytes, which `Request` is.
    let made = unsafe { ioctl::ioctl(&file, ioctl::Setter::<TUNSETIFF, Request>::new(request)) };
    made.unwrap_or_else(|e| panic!("{TUN}: {e}"));
    file
}

#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

// Carries packets one way until the process ends.
fn carry(mut from: File, to: File, weather: Weather, mut rng: Rng, counts: Arc<Counts>) {
    let (send, receive) = sync_channel(QUEUE_MAX);
    std::thread::spawn(move || deliver(&receive, to));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(len) = from.read(&mut buffer) {
            let is_lost = rng.chance(weather.loss);
            let count = if is_lost { &counts.lost } else { &counts.carried };
            count.fetch_add(1, Ordering::Relaxed);
            if !is_lost {
                enqueue(&send, Instant::now() + weather.delay, buffer[..len].to_vec());
            }
        }
    });
}

// A full queue drops what comes, as every router does.
fn enqueue(queue: &SyncSender<(Instant, Vec<u8>)>, due: Instant, packet: Vec<u8>) {
    let _ = queue.try_send((due, packet));
}

fn deliver(queue: &Receiver<(Instant, Vec<u8>)>, mut to: File) {
    for (due, packet) in queue {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Nobody there yet, or no more: the packet is lost.
        let _ = to.write(&packet);
    }
}

const TUN: &str = "/dev/net/tun";
const TUNSETIFF: ioctl::Opcode = 0x4004_54ca;
const IFF_TUN: u16 = 1;
const IFF_NO_PI: u16 = 0x1000;
/// Packets under way in one direction.
const QUEUE_MAX: usize = 1000;
