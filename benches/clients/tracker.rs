//! The tracker that tells the clients without a flag for it of one peer.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A tracker that knows one peer of every torrent.
#[derive(Debug)]
pub struct Tracker {
    addr: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Tracker {
    /// Listens at `ip`.
    pub fn of(ip: IpAddr, peer: SocketAddr) -> Self {
        let IpAddr::V4(v4) = peer.ip() else { panic!("{peer}: IPv4 only") };
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut body = b"d8:intervali1800e5:peers6:".to_vec();
        body.extend(v4.octets());
        body.extend(peer.port().to_be_bytes());
        body.push(b'e');
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let mut asked = Vec::new();
                let mut part = [0; 4096];
                while !asked.windows(4).any(|four| four == b"\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(0) | Err(_) => break,
                        Ok(len) => asked.extend_from_slice(&part[..len]),
                    }
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(&[head.as_bytes(), body.as_slice()].concat());
            }
        });
        Self { addr, over }
    }

    /// The link with this tracker in it.
    pub fn in_link(&self, link: &str) -> String {
        format!("{link}&tr=http%3A%2F%2F{}%3A{}%2Fannounce", self.addr.ip(), self.addr.port())
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
    }
}
