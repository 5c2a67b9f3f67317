//! An honest transfer between two programs while strangers besiege both: how fast it is beside what it
//! is alone, and what each siege costs in processor time and memory. The line is limited, so that
//! what is seen is what a siege takes from it and not that the besiegers run on the same machine.
//!
//! `cargo bench --bench siege -- /dev/shm` (the folder for the data; Linux)

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "it measures time, and may end"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

const TRACKLESS: &str = env!("CARGO_BIN_EXE_trackless");
const LEN: usize = 128 << 20;
const LINE: &str = "16MiB";
const BESIEGERS: usize = 2;

type Siege = fn(&Target);

/// Who is besieged.
#[derive(Clone)]
struct Target {
    at: SocketAddr,
    hash: [u8; 20],
    stop: Arc<AtomicBool>,
    number: u8,
}

fn main() {
    let dir = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or("/tmp".into());
    let dir = Path::new(&dir).join(format!("trackless-siege-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let data: Vec<u8> =
        (0..LEN as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(dir.join("data"), data).unwrap();
    let sieges: [(&str, Option<Siege>); 9] = [
        ("nobody", None),
        ("connects, one after the other", Some(connects)),
        ("300 that drip their handshake", Some(drips)),
        ("requests, answers unread", Some(requests)),
        ("requests beyond the end", Some(requests_beyond)),
        ("small messages", Some(small_messages)),
        ("peer exchange, 10^5 addresses", Some(exchange)),
        ("bitfields and handshakes", Some(giants)),
        ("all of these", Some(everything)),
    ];
    let mut alone = None;
    println!("{:32} {:>8} {:>8} {:>10} {:>10}", "", "MiB/s", "of alone", "CPU s", "MiB");
    for (number, (name, siege)) in (0u8..).zip(sieges) {
        let figures = transfer(&dir, number, siege);
        let rate = (LEN >> 20) as f64 / figures.took.as_secs_f64();
        let alone = *alone.get_or_insert(rate);
        let share = rate / alone * 100.0;
        println!(
            "{name:32} {rate:8.1} {share:7.0}% {:>10.1} {:>10}",
            figures.cpu, figures.peak_mib
        );
    }
    std::fs::remove_dir_all(dir).unwrap();
}

struct Figures {
    took: Duration,
    /// Of both programs.
    cpu: f64,
    /// Of the larger one.
    peak_mib: u64,
}

fn transfer(dir: &Path, number: u8, siege: Option<Siege>) -> Figures {
    let at = |host| SocketAddr::from((Ipv4Addr::new(127, 201, number, host), 6881));
    let (seed_at, leech_at) = (at(1), at(2));
    let state = |name: &str| dir.join(format!("{name}-{number}"));
    let mut seed = start(seed_at, &state("seed"), |share| {
        share.arg("share").arg(dir.join("data"));
    });
    let mut line = String::new();
    BufReader::new(seed.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let magnet = line.trim().to_owned();
    let hash = hash_of(&magnet);
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    let mut besiege = |at| {
        let Some(siege) = siege else { return };
        for _ in 0..BESIEGERS {
            let target = Target { at, hash, stop: stop.clone(), number };
            threads.push(std::thread::spawn(move || siege(&target)));
        }
    };
    besiege(seed_at);
    let start_at = Instant::now();
    let mut leech = start(leech_at, &state("leech"), |get| {
        get.arg("get").arg(&magnet).arg("-o").arg(state("out"));
        get.args(["--limit-down", LINE, "--peer", &seed_at.to_string()]);
    });
    besiege(leech_at);
    let (mut cpu, mut peak) = (0.0, 0);
    while leech.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
        let (c, p) = usage(leech.id());
        (cpu, peak) = (c, p.max(peak));
    }
    let took = start_at.elapsed();
    assert!(leech.wait().unwrap().success(), "the download did not complete");
    let (of_seed, peak_of_seed) = usage(seed.id());
    stop.store(true, Ordering::Relaxed);
    seed.kill().unwrap();
    seed.wait().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    std::fs::remove_dir_all(state("out")).unwrap();
    Figures { took, cpu: cpu + of_seed, peak_mib: peak.max(peak_of_seed) >> 10 }
}

fn start(at: SocketAddr, state: &Path, args: impl FnOnce(&mut Command)) -> Child {
    let mut command = Command::new(TRACKLESS);
    args(&mut command);
    command.args(["--no-dht", "-q", "--listen", &at.to_string(), "--state-dir"]).arg(state);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap()
}

// Processor seconds and the most memory in KiB of a process.
fn usage(pid: u32) -> (f64, u64) {
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    let status = read("status");
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    ((ticks(12) + ticks(13)) / 100.0, peak)
}

fn hash_of(magnet: &str) -> [u8; 20] {
    let hex = magnet.split("btih:").nth(1).and_then(|rest| rest.get(..40)).expect("a magnet link");
    std::array::from_fn(|n| u8::from_str_radix(&hex[n * 2..n * 2 + 2], 16).unwrap())
}

// --- the sieges ---------------------------------------------------------------------------------

impl Target {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    // From the n-th address; whoever waits for long is stuck, which ends with the siege.
    fn dial(&self, n: usize) -> Option<TcpStream> {
        let [host, net] = [n % 200 + 10, n / 200 % 50].map(|n| u8::try_from(n).unwrap());
        let from = IpAddr::from([127, 202, self.number * 5 + net % 5, host]);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        socket.bind(&SocketAddr::new(from, 0).into()).ok()?;
        socket.connect_timeout(&self.at.into(), Duration::from_secs(1)).ok()?;
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(Duration::from_millis(300))).ok()?;
        Some(stream)
    }

    fn greet(&self, n: usize) -> Option<TcpStream> {
        let mut stream = self.dial(n)?;
        let id = format!("-XX0001-{n:012}");
        let bits = [0, 0, 0, 0, 0, 0x10, 0, 0x04];
        let hello = [&b"\x13BitTorrent protocol"[..], &bits, &self.hash, id.as_bytes()].concat();
        stream.write_all(&hello).ok()?;
        Some(stream)
    }

    // Twenty connections, renewed when they end, each of which says this over and over and reads
    // nothing.
    fn say(&self, bytes: &[u8]) {
        let mut wires: Vec<Option<TcpStream>> = (0..20).map(|n| self.greet(n)).collect();
        let mut next = wires.len();
        while self.goes_on() {
            for wire in &mut wires {
                if wire.as_mut().is_none_or(|wire| wire.write_all(bytes).is_err()) {
                    *wire = self.greet(next);
                    next += 1;
                }
            }
        }
    }
}

fn frame(id: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len() + 1).unwrap();
    [&len.to_be_bytes()[..], &[id], payload].concat()
}

fn request(piece: u32) -> Vec<u8> {
    frame(6, &[piece, 0, 16_384].map(u32::to_be_bytes).concat())
}

fn connects(target: &Target) {
    let mut open = std::collections::VecDeque::new();
    for n in 0.. {
        open.extend(target.dial(n));
        if open.len() > 200 {
            open.pop_front();
        }
        if !target.goes_on() {
            return;
        }
    }
}

fn drips(target: &Target) {
    let mut wires: Vec<Option<TcpStream>> = (0..150).map(|n| target.dial(n)).collect();
    for at in 0.. {
        for (n, wire) in wires.iter_mut().enumerate() {
            let byte = b"\x13BitTorrent protocol"[at % 20];
            if wire.as_mut().is_none_or(|wire| wire.write_all(&[byte]).is_err()) {
                *wire = target.dial(n);
            }
        }
        if !target.goes_on() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn requests(target: &Target) {
    let ask: Vec<u8> = (0..1_000).flat_map(|n| request(n % 64)).collect();
    target.say(&[frame(2, &[]), ask].concat());
}

fn requests_beyond(target: &Target) {
    target.say(&[frame(2, &[]), request(u32::MAX).repeat(250)].concat());
}

fn small_messages(target: &Target) {
    let flaps = [frame(2, &[]), frame(3, &[])].concat().repeat(500);
    let haves: Vec<u8> = (0..64).flat_map(|n: u32| frame(4, &n.to_be_bytes())).collect();
    target.say(&[flaps, haves, vec![0; 4_000], frame(77, &[1; 500])].concat());
}

fn exchange(target: &Target) {
    // Public, private, and the target's own, ten thousand a message.
    let addrs: Vec<u8> = (0..10_000_u32)
        .flat_map(|n| {
            let ip = match n % 3 {
                0 => Ipv4Addr::from_bits((30 << 24) + n * 256),
                1 => Ipv4Addr::from_bits((10 << 24) + n),
                _ => Ipv4Addr::new(127, 201, target.number, 1),
            };
            [&ip.octets()[..], &6881_u16.to_be_bytes()].concat()
        })
        .collect();
    let pex = [b"\x02d5:added60000:".as_slice(), &addrs, b"e"].concat();
    target.say(&frame(20, &pex));
}

fn giants(target: &Target) {
    let hello = [b"\x00d1:v100000:".as_slice(), &[b'v'; 100_000], b"e"].concat();
    target.say(&[frame(20, &hello), frame(5, &vec![0xff; 200 << 10])].concat());
}

fn everything(target: &Target) {
    let all: [Siege; 7] =
        [connects, drips, requests, requests_beyond, small_messages, exchange, giants];
    std::thread::scope(|scope| {
        for siege in all {
            scope.spawn(move || siege(target));
        }
    });
}
