//! How the clients that are daemons are started and spoken to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::krpc::compact;
use super::{B, Dht, Launch, Program, World};

/// A port of 127.0.0.1 that nobody has.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Head and body of an answer that comes within `limit`. HTTP/1.0, so that the body ends with the
/// connection.
pub fn http(
    to: SocketAddr,
    request: &str,
    head: &str,
    body: &[u8],
    limit: Duration,
) -> Option<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_TIME).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
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
    let (head, body) = http(to, request, "Content-Type: application/json\r\n", body, ANSWER_TIME)?;
    let is_good = head.split(' ').nth(1)?.starts_with('2');
    is_good.then(|| serde_json::from_slice(&body).ok())?
}

/// One call to Transmission; the arguments of its answer.
pub fn transmission(to: SocketAddr, method: &str, arguments: &Value) -> Option<Value> {
    let body = json!({ "method": method, "arguments": arguments }).to_string();
    let ask = |head: &str| http(to, "POST /transmission/rpc", head, body.as_bytes(), ANSWER_TIME);
    let (refused, _) = ask("")?;
    let key = "x-transmission-session-id:";
    let session = refused.lines().find(|line| line.to_ascii_lowercase().starts_with(key))?;
    let (_, answer) = ask(&format!("{session}\r\n"))?;
    let answer: Value = serde_json::from_slice(&answer).ok()?;
    (answer["result"] == "success").then(|| answer["arguments"].clone())
}

/// The result of one call to aria2.
pub fn aria2(to: SocketAddr, method: &str, params: &Value) -> Option<Value> {
    let body = json!({ "jsonrpc": "2.0", "id": "1", "method": method, "params": params });
    json(to, "POST /jsonrpc", body.to_string().as_bytes())?.get("result").cloned()
}

/// Numbers that Transmission gives of its torrent, all as of one moment: nothing is left of a torrent
/// whose metadata comes a moment later.
pub fn transmission_torrent<const N: usize>(to: SocketAddr, fields: [&str; N]) -> Option<[i64; N]> {
    let answer = transmission(to, "torrent-get", &json!({ "fields": fields.to_vec() }))?;
    let number = |field: &&str| {
        let value = &answer["torrents"][0][field];
        value.as_i64().or_else(|| value.as_f64().map(|f| f as i64))
    };
    fields.iter().map(number).collect::<Option<Vec<i64>>>()?.try_into().ok()
}

/// Transmission's number for a torrent that is complete and shared.
pub const TRANSMISSION_SEEDS: i64 = 6;

/// Starts Transmission, and where it is spoken to; it may not answer yet. uTP is off: over it 3.00
/// connects on loopback and then hangs for a minute. Its DHT searches only with more than eight known
/// nodes and reads `dht.bootstrap` at one line in 15 seconds, so it gets the `dht.dat` that a used client
/// has. `encryption`: 0 if it is avoided, 1 if it is preferred, as it is unless told otherwise.
pub fn start_transmission(
    world: &World,
    addr: SocketAddr,
    dir: &Path,
    dht: Option<&Dht>,
    encryption: u8,
) -> (Program, SocketAddr) {
    let rpc = free_port();
    let conf = world.folder(&format!("transmission-{}", addr.ip()));
    let settings = json!({
        "bind-address-ipv4": addr.ip().to_string(), "bind-address-ipv6": "::1",
        "peer-port": addr.port(), "dht-enabled": dht.is_some(), "lpd-enabled": false,
        "pex-enabled": true, "utp-enabled": false,
        "encryption": encryption,
        "port-forwarding-enabled": false,
        "rpc-enabled": true, "rpc-bind-address": "127.0.0.1", "rpc-port": rpc.port(),
        "rpc-whitelist-enabled": false, "rpc-host-whitelist-enabled": false,
        "rpc-authentication-required": false, "download-dir": dir,
        "start-added-torrents": true, "download-queue-enabled": false,
        "seed-queue-enabled": false, "queue-stalled-enabled": false, "preallocation": 0,
        "rename-partial-files": false, "ratio-limit-enabled": false,
        "idle-seeding-limit-enabled": false, "message-level": 2,
    });
    std::fs::write(conf.join("settings.json"), settings.to_string()).unwrap();
    if let Some(dht) = dht {
        let nodes: Vec<u8> = dht.addrs.iter().flat_map(|addr| compact(*addr)).collect();
        let known = B::dict([("id", B::Str(vec![0x44; 20])), ("nodes", B::Str(nodes))]);
        std::fs::write(conf.join("dht.dat"), known.encode()).unwrap();
    }
    let program = Launch::new("transmission-daemon").args(["-f", "-g"]).arg(&conf).start();
    (program, rpc)
}

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// For a question about how things stand.
const ANSWER_TIME: Duration = Duration::from_secs(10);
