//! One host of the network: a whole DHT node, and how it behaves towards others. Honest ones are
//! nothing but the node; the others are the node with its answers rewritten on the way out.

use std::net::SocketAddr;

use crate::base::limits::DATAGRAM_SEND_MAX;
use crate::base::{Instant, Key, NodeId, Rng};
use crate::dht::{Event, Node, Output};
use crate::sim::{Effect, Host};
use crate::wire::krpc::{self, Answer, Body, Extra, Message, Method};

/// A host of the network.
#[derive(Debug)]
pub struct Citizen {
    // Boxed: most seats of a long run are empty.
    node: Box<Node>,
    traits: Traits,
    // The query that is being answered, for those that answer as they like.
    asked: Option<Asked>,
}

/// What distinguishes a host from an honest node.
#[derive(Debug, Clone, Default)]
pub struct Traits {
    /// It does not know that ids follow from addresses (BEP 42), and keeps the one that it has.
    pub keeps_id: bool,
    /// How it answers.
    pub manners: Manners,
}

/// How a host answers.
#[derive(Debug, Clone, Default)]
pub enum Manners {
    /// As a node does.
    #[default]
    Honest,
    /// It names nobody but dead nodes right beside the target, out of these.
    Lazy(Box<[SocketAddr]>),
    /// It names its allies, and no peers but forged ones.
    Sybil(Box<Conspiracy>),
}

/// What a Sybil knows.
#[derive(Debug, Clone, Default)]
pub struct Conspiracy {
    /// All of them.
    pub allies: Vec<(NodeId, SocketAddr)>,
    /// Peers that they name.
    pub forged: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Asked {
    from: SocketAddr,
    target: Option<Key>,
    wants_peers: bool,
}

impl Citizen {
    /// A host with its node.
    pub fn new(node: Node, traits: Traits) -> Self {
        Self { node: Box::new(node), traits, asked: None }
    }

    /// Its node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its node, for commands.
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// True if it answers as a node does.
    pub fn is_honest(&self) -> bool {
        matches!(self.traits.manners, Manners::Honest)
    }

    // A liar has to remember what it was asked until its node has answered.
    fn note_query(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.asked = None;
        let Ok(Message { body: Body::Query(query), .. }) = Message::decode(datagram) else {
            return;
        };
        let (target, wants_peers) = match query.method {
            Method::FindNode { target } | Method::Get { target, .. } => (Some(target), false),
            Method::GetPeers { info_hash, .. } => (Some(info_hash.key()), true),
            Method::SampleInfohashes { target } => (Some(target), false),
            Method::Unknown { target, .. } => (target, false),
            Method::Ping | Method::AnnouncePeer { .. } | Method::Put(_) => (None, false),
        };
        self.asked = Some(Asked { from, target, wants_peers });
    }

    // What the node wants to answer, as this host would rather have it.
    fn rewritten(&mut self, to: SocketAddr, datagram: Vec<u8>) -> Vec<u8> {
        let Some(Asked { from, target: Some(target), wants_peers }) = self.asked else {
            return datagram;
        };
        let Ok(Message { tid, body: Body::Reply(reply), .. }) = Message::decode(&datagram) else {
            return datagram;
        };
        if from != to {
            return datagram;
        }
        let nodes = match &self.traits.manners {
            Manners::Honest => return datagram,
            Manners::Lazy(dead) => dead_neighbours(dead, target),
            Manners::Sybil(conspiracy) => {
                let mut allies = conspiracy.allies.clone();
                allies.sort_unstable_by_key(|(id, _)| target.distance(id.key()));
                allies.truncate(NAMED);
                allies
            }
        };
        let values: &[SocketAddr] = match &self.traits.manners {
            Manners::Sybil(conspiracy) if wants_peers => &conspiracy.forged,
            Manners::Honest | Manners::Lazy(_) | Manners::Sybil(_) => &[],
        };
        let answer = Answer {
            tid,
            to,
            id: reply.id,
            nodes: Some(&nodes),
            nodes6: None,
            token: reply.token,
            values,
            extra: Extra::None,
            brief: false,
        };
        let mut rewritten = Vec::with_capacity(datagram.len());
        krpc::encode_answer(&mut rewritten, &answer, DATAGRAM_SEND_MAX);
        rewritten
    }
}

impl Host for Citizen {
    type Note = Event;

    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if !self.is_honest() {
            self.note_query(from, datagram);
        }
        // Who does not look at `ip` is like one that was sent something else by that place.
        if self.traits.keeps_id && datagram.starts_with(SEEN_AT) {
            let mut unheard = datagram.to_vec();
            unheard[SEEN_AT.len() - 1] = b'q';
            return self.node.handle_datagram(now, from, &unheard);
        }
        self.node.handle_datagram(now, from, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.node.handle_timeout(now);
    }

    fn poll_effect(&mut self, _now: Instant) -> Option<Effect<Event>> {
        loop {
            match self.node.poll_output()? {
                Output::Transmit { to, datagram } if self.is_honest() => {
                    return Some(Effect::Transmit { to, datagram });
                }
                Output::Transmit { to, datagram } => {
                    let datagram = self.rewritten(to, datagram);
                    return Some(Effect::Transmit { to, datagram });
                }
                Output::Event(event) if is_of_interest(&event) => return Some(Effect::Note(event)),
                Output::Event(_) => {}
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.node.poll_timeout()
    }
}

fn is_of_interest(event: &Event) -> bool {
    matches!(event, Event::PeersFound { .. } | Event::LookupDone { .. } | Event::NeedBootstrap)
}

// Eight of the dead, with ids that make each of them look like the target's next neighbour.
fn dead_neighbours(dead: &[SocketAddr], target: Key) -> Vec<(NodeId, SocketAddr)> {
    let bytes = target.as_bytes();
    let mut seed = [0; 32];
    seed[..20].copy_from_slice(bytes);
    let mut rng = Rng::from_seed(seed);
    let first = rng.below(dead.len());
    let named = dead.iter().cycle().skip(first).take(NAMED.min(dead.len()));
    named
        .map(|addr| {
            let mut id: [u8; 20] = rng.array();
            id[..3].copy_from_slice(&bytes[..3]);
            (NodeId::new(id), *addr)
        })
        .collect()
}

/// How an answer that says where we are seen begins: `ip` is the first key of all.
const SEEN_AT: &[u8] = b"d2:ip";
/// Contacts in an answer (BEP 5).
const NAMED: usize = 8;
