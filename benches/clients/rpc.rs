//! How the clients that are daemons are spoken to, and the tracker that tells those without a flag
//! for it of one peer.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// A port of 127.0.0.1 that nobody has.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Head and body of an answer. HTTP/1.0, so that the body ends with the connection.
pub fn http(to: SocketAddr, request: &str, head: &str, body: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(120))).ok()?;
    let len = body.len();
    write!(stream, "{request} HTTP/1.0\r\nHost: {to}\r\nContent-Length: {len}\r\n{head}\r\n")
        .ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let body = answer.split_off(end + 4);
    Some((String::from_utf8_lossy(&answer).into_owned(), body))
}

/// The body of a good answer, as JSON.
pub fn json(to: SocketAddr, request: &str, body: &[u8]) -> Option<Value> {
    let (head, body) = http(to, request, "Content-Type: application/json\r\n", body)?;
    let is_good = head.split(' ').nth(1)?.starts_with('2');
    is_good.then(|| serde_json::from_slice(&body).ok())?
}

/// One call to Transmission; the arguments of its answer.
pub fn transmission(to: SocketAddr, method: &str, arguments: &Value) -> Option<Value> {
    let body = json!({ "method": method, "arguments": arguments }).to_string();
    let (refused, _) = http(to, "POST /transmission/rpc", "", body.as_bytes())?;
    let key = "x-transmission-session-id:";
    let session = refused.lines().find(|line| line.to_ascii_lowercase().starts_with(key))?;
    let (_, answer) =
        http(to, "POST /transmission/rpc", &format!("{session}\r\n"), body.as_bytes())?;
    let answer: Value = serde_json::from_slice(&answer).ok()?;
    (answer["result"] == "success").then(|| answer["arguments"].clone())
}

/// A torrent file or a link handed to qBittorrent.
pub fn qbittorrent_add(to: SocketAddr, dir: &Path, name: &str, value: &[u8]) -> Option<()> {
    let mark = "boundary-of-the-parts";
    let file = if name == "torrents" { "; filename=\"it.torrent\"" } else { "" };
    let mut body = format!(
        "--{mark}\r\nContent-Disposition: form-data; name=\"savepath\"\r\n\r\n{}\r\n\
         --{mark}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n",
        dir.display()
    )
    .into_bytes();
    body.extend_from_slice(value);
    body.extend_from_slice(format!("\r\n--{mark}--\r\n").as_bytes());
    let head = format!("Content-Type: multipart/form-data; boundary={mark}\r\n");
    http(to, "POST /api/v2/torrents/add", &head, &body).map(drop)
}

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
