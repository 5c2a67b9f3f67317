//! What the host decides about an engine and about each torrent.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::budget::RateLimits;
use crate::base::{InfoHash, NodeId, PeerId};
use crate::engine::SocketId;

/// Settings of an engine.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our id in handshakes (BEP 20).
    pub peer_id: PeerId,
    /// One DHT node for each UDP socket; none turns the DHT off.
    pub nodes: Vec<NodeConfig>,
    /// The TCP port that others reach us at; none if we do not listen.
    pub listen_port: Option<u16>,
    /// Connections of all torrents, dialled and accepted.
    pub connections_max: usize,
    /// Dials under way at once, over all torrents.
    pub half_open_max: usize,
    /// How fast payload of all torrents together may flow.
    pub limits: RateLimits,
}

impl Config {
    /// No DHT and no listening port.
    pub fn new(peer_id: PeerId) -> Self {
        Self {
            peer_id,
            nodes: Vec::new(),
            listen_port: None,
            connections_max: 500,
            half_open_max: 100,
            limits: RateLimits::default(),
        }
    }

    /// The addresses of this host.
    pub(super) fn listened_on(&self) -> impl Iterator<Item = SocketAddr> {
        let all = self.nodes.iter().flat_map(|n| n.own_addrs.iter().copied());
        all.filter(|addr| !addr.ip().is_unspecified())
    }
}

/// A DHT node to run.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Which socket is its own.
    pub socket: SocketId,
    /// The port that others see; told to peers (BEP 5).
    pub port: u16,
    /// Its settings.
    pub dht: crate::dht::Config,
    /// The id it had before, if any.
    pub id: Option<NodeId>,
    /// Contacts it had before.
    pub contacts: Vec<crate::dht::SavedContact>,
    /// Addresses of this host: never sent to.
    pub own_addrs: Vec<SocketAddr>,
}

/// A torrent to add.
#[derive(Debug, Clone)]
pub struct AddTorrent {
    /// Which one.
    pub info_hash: InfoHash,
    /// The info dictionary, if it is known already. Its hash must be `info_hash`.
    pub info: Option<Bytes>,
    /// Peers to try at once.
    pub peers: Vec<SocketAddr>,
    /// Only fetch the info dictionary.
    pub metadata_only: bool,
    /// Which files are wanted; `None` means all.
    pub wanted: Option<Vec<bool>>,
    /// Pieces in order rather than rarest first.
    pub sequential: bool,
    /// Hand each piece out once, if we have everything from the start and are alone (BEP 16).
    pub super_seeding: bool,
    /// Look for peers in the DHT, and announce ourselves if we listen and store data.
    pub discover: bool,
    /// Connections of this torrent, dialled and accepted.
    pub connections_max: usize,
    /// How fast its payload may flow.
    pub limits: RateLimits,
    /// Only look what is there; [`Engine::resume`](crate::engine::Engine::resume) starts it.
    pub paused: bool,
}

impl AddTorrent {
    /// A torrent known by its hash alone.
    pub fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            info: None,
            peers: Vec::new(),
            metadata_only: false,
            wanted: None,
            sequential: false,
            super_seeding: true,
            discover: true,
            connections_max: 100,
            limits: RateLimits::default(),
            paused: false,
        }
    }
}
