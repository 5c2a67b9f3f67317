//! Raw KRPC (BEP 5): a probe that asks real nodes anything, and fake nodes that answer anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::B;

/// A UDP socket that asks questions.
#[derive(Debug)]
pub struct Probe {
    /// The socket.
    pub socket: UdpSocket,
    id: [u8; 20],
    transaction: AtomicU32,
}

/// A reply to `get_peers`.
#[derive(Debug, Clone, Default)]
pub struct PeersReply {
    /// Its `values`.
    pub peers: Vec<SocketAddr>,
    /// Its `token`.
    pub token: Vec<u8>,
}

impl Probe {
    /// Binds any port of this address.
    pub fn at(ip: Ipv4Addr) -> Self {
        Self::bind(SocketAddr::new(IpAddr::V4(ip), 0))
    }

    /// Binds exactly this.
    pub fn bind(addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind(addr).unwrap_or_else(|e| panic!("{addr}: {e}"));
        let mut id = [0x5a; 20];
        if let SocketAddr::V4(addr) = socket.local_addr().unwrap() {
            id[..4].copy_from_slice(&addr.ip().octets());
            id[4..6].copy_from_slice(&addr.port().to_be_bytes());
        }
        Self { socket, id, transaction: AtomicU32::new(0) }
    }

    /// Its own endpoint.
    pub fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// A query as a value, with our id; read-only, so that no table takes the probe.
    pub fn query(&self, method: &str, args: B) -> B {
        let number = self.transaction.fetch_add(1, Ordering::Relaxed);
        let args = if args.get("id").is_some() { args } else { args.with("id", B::str(self.id)) };
        B::dict([
            ("t", B::Str(number.to_be_bytes().to_vec())),
            ("y", B::str("q")),
            ("q", B::str(method)),
            ("a", args),
            ("ro", B::Int(1)),
        ])
    }

    /// Sends bytes as they are.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let _ = self.socket.send_to(datagram, to);
    }

    /// The next datagram, if one comes in time.
    pub fn receive(&self, limit: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 65_536];
        self.socket.set_read_timeout(Some(limit.max(Duration::from_millis(1)))).unwrap();
        let (len, from) = self.socket.recv_from(&mut buffer).ok()?;
        buffer.truncate(len);
        Some((buffer, from))
    }

    /// Throws away what is waiting.
    pub fn drain(&self) {
        while self.receive(Duration::from_millis(1)).is_some() {}
    }

    /// Sends a query value and waits for the message with its transaction id; sends it again once
    /// in case the first was lost to a full buffer.
    pub fn exchange(&self, to: SocketAddr, query: &B, limit: Duration) -> Option<B> {
        let wanted = query.get("t").cloned();
        let datagram = query.encode();
        for _ in 0..2 {
            let end = Instant::now() + limit / 2;
            self.send(to, &datagram);
            loop {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let Some((bytes, from)) = self.receive(left) else { break };
                let reply = B::decode(&bytes);
                if from == to && reply.as_ref().and_then(|r| r.get("t")) == wanted.as_ref() {
                    return reply;
                }
            }
        }
        None
    }

    /// Asks and waits for a reply or an error.
    pub fn ask(&self, to: SocketAddr, method: &str, args: B) -> Option<B> {
        self.exchange(to, &self.query(method, args), Duration::from_secs(2))
    }

    /// Does it answer a ping?
    pub fn ping(&self, to: SocketAddr) -> bool {
        self.ask(to, "ping", B::dict([])).is_some_and(|reply| reply.get("r").is_some())
    }

    /// Asks for the peers of a torrent.
    pub fn get_peers(&self, to: SocketAddr, info_hash: &[u8; 20]) -> Option<PeersReply> {
        let reply = self.ask(to, "get_peers", B::dict([("info_hash", B::str(info_hash))]))?;
        let r = reply.get("r")?;
        let values = r.get("values").and_then(B::items).unwrap_or_default();
        Some(PeersReply {
            peers: values.iter().filter_map(|v| endpoint(v.bytes()?)).collect(),
            token: r.get("token").and_then(B::bytes).unwrap_or_default().to_vec(),
        })
    }

    /// Announces; returns the reply or error.
    pub fn announce(&self, to: SocketAddr, info_hash: &[u8; 20], port: B, token: B) -> Option<B> {
        let args = B::dict([("info_hash", B::str(info_hash)), ("port", port), ("token", token)]);
        self.ask(to, "announce_peer", args)
    }

    /// The endpoints that a node names as closest to `target`.
    pub fn find_node(&self, to: SocketAddr, target: &[u8; 20]) -> Option<Vec<SocketAddr>> {
        let reply = self.ask(to, "find_node", B::dict([("target", B::str(target))]))?;
        reply.get("r")?;
        Some(nodes_of(&reply))
    }
}

/// The number of an error message.
pub fn error_code(reply: &B) -> Option<i64> {
    reply.get("e")?.items()?.first()?.int()
}

/// The endpoints in the `nodes` of a reply.
pub fn nodes_of(reply: &B) -> Vec<SocketAddr> {
    let nodes = reply.get("r").and_then(|r| r.get("nodes")).and_then(B::bytes).unwrap_or_default();
    nodes.chunks_exact(26).filter_map(|node| endpoint(&node[20..])).collect()
}

/// Six bytes as an endpoint.
pub fn endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let [a, b, c, d, high, low] = *bytes else { return None };
    let port = u16::from_be_bytes([high, low]);
    Some(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port).into())
}

/// An endpoint as six bytes.
pub fn compact(addr: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(addr) = addr else { panic!("IPv4 only: {addr}") };
    [addr.ip().octets().as_slice(), &addr.port().to_be_bytes()].concat()
}

/// A node as 26 bytes.
pub fn compact_node(id: &[u8; 20], addr: SocketAddr) -> Vec<u8> {
    [id.as_slice(), &compact(addr)].concat()
}

/// A query that a fake node got.
#[derive(Debug, Clone)]
pub struct Query {
    /// Transaction id.
    pub t: Vec<u8>,
    /// Method.
    pub method: String,
    /// Arguments.
    pub args: B,
    /// Who asked.
    pub from: SocketAddr,
}

impl Query {
    /// A reply with these values.
    pub fn reply(&self, r: B) -> Vec<u8> {
        B::dict([("t", B::str(&self.t)), ("y", B::str("r")), ("r", r)]).encode()
    }

    /// An error.
    pub fn error(&self, code: i64) -> Vec<u8> {
        let e = B::List(vec![B::Int(code), B::str("no")]);
        B::dict([("t", B::str(&self.t)), ("y", B::str("e")), ("e", e)]).encode()
    }
}

/// A node that answers as a test wants, and remembers who asked what.
#[derive(Debug)]
pub struct FakeNode {
    /// Where it is.
    pub addr: SocketAddr,
    /// Its id.
    pub id: [u8; 20],
    socket: UdpSocket,
    queries: Arc<Mutex<Vec<Query>>>,
    stop: Arc<AtomicBool>,
}

impl FakeNode {
    /// Starts it; the closure gives the datagrams that answer a query.
    pub fn start(
        addr: SocketAddr,
        id: [u8; 20],
        answer: impl Fn(&Query) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind(addr).unwrap_or_else(|e| panic!("{addr}: {e}"));
        let addr = socket.local_addr().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let queries = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let speaker = socket.try_clone().unwrap();
        let node = Self { addr, id, socket: speaker, queries: queries.clone(), stop: stop.clone() };
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                let Some(query) = parse(&buffer[..len], from) else { continue };
                let answers = answer(&query);
                queries.lock().unwrap().push(query);
                for datagram in answers {
                    let _ = socket.send_to(&datagram, from);
                }
            }
        });
        node
    }

    /// Says something of its own accord.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let _ = self.socket.send_to(datagram, to);
    }

    /// The queries so far.
    pub fn queries(&self) -> Vec<Query> {
        self.queries.lock().unwrap().clone()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What an honest node says: itself to a ping, these nodes to all else, these peers to `get_peers`.
pub fn honest_answer(
    id: [u8; 20],
    nodes: Vec<u8>,
    values: Vec<SocketAddr>,
) -> impl Fn(&Query) -> Vec<Vec<u8>> + Send + 'static {
    move |query| {
        let r = B::dict([("id", B::str(id))]);
        let r = match query.method.as_str() {
            "find_node" => r.with("nodes", B::str(&nodes)),
            "get_peers" => {
                let r = r.with("nodes", B::str(&nodes)).with("token", B::str("token"));
                let values = values.iter().map(|v| B::Str(compact(*v))).collect::<Vec<_>>();
                if values.is_empty() { r } else { r.with("values", B::List(values)) }
            }
            _ => r,
        };
        vec![query.reply(r)]
    }
}

fn parse(datagram: &[u8], from: SocketAddr) -> Option<Query> {
    let message = B::decode(datagram)?;
    Some(Query {
        t: message.get("t")?.bytes()?.to_vec(),
        method: String::from_utf8(message.get("q")?.bytes()?.to_vec()).ok()?,
        args: message.get("a")?.clone(),
        from,
    })
}
