//! What the machine itself can do: no client can be faster.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use trackless::base::hash::sha1;

/// In MB/s, the best of five.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a file through a TCP connection of loopback into another file.
    pub copy: f64,
    /// SHA-1 on one core.
    pub sha1: f64,
}

impl Limits {
    /// Measures them with this file.
    pub fn measure(file: &Path) -> Self {
        let best = |measure: &dyn Fn() -> f64| (0..5).map(|_| measure()).fold(0.0, f64::max);
        Self { copy: best(&|| copy(file)), sha1: best(&hash) }
    }

    /// SHA-1 alone.
    pub fn measure_sha1() -> f64 {
        (0..5).map(|_| hash()).fold(0.0, f64::max)
    }
}

// The sender uses sendfile, the receiver 256 KiB at a time: two processors work, as with two clients.
fn copy(file: &Path) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let from = file.to_owned();
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        std::io::copy(&mut File::open(from).unwrap(), &mut stream).unwrap();
    });
    let (mut stream, _) = listener.accept().unwrap();
    let path = file.with_extension("copy");
    let mut to = File::create(&path).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let (start, mut total) = (Instant::now(), 0);
    loop {
        let read = stream.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        to.write_all(&buffer[..read]).unwrap();
        total += read;
    }
    let time = start.elapsed();
    sender.join().unwrap();
    std::fs::remove_file(path).unwrap();
    megabytes(total as u64, time)
}

fn hash() -> f64 {
    let block = vec![7; 16 << 10];
    let (start, mut total) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(500) {
        for _ in 0..64 {
            std::hint::black_box(sha1(&block));
        }
        total += 64 * block.len();
    }
    megabytes(total as u64, start.elapsed())
}

/// Millions of bytes a second.
pub fn megabytes(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e6
}

/// A file of random bytes.
pub fn random_file(path: &Path, bytes: u64) {
    let mut random = File::open("/dev/urandom").unwrap().take(bytes);
    std::io::copy(&mut random, &mut File::create(path).unwrap()).unwrap();
}
