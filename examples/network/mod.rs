//! What the examples run on: the network whose nodes are named on the command line, or a private one
//! of a few nodes in this process.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use trackless::base::InfoHash;
use trackless::driver::create::{CreateOptions, create};
use trackless::driver::{
    AddTorrent, Dht, DhtConfig, Output, Session, SessionConfig, TorrentEvent, public_bootstrap,
};

/// Where nodes start from, and what has to live as long.
pub struct Network {
    bootstrap: Vec<String>,
    listen: Vec<SocketAddr>,
    _nodes: Vec<Dht>,
}

impl Network {
    /// `public` is the Mainline DHT; `HOST:PORT` is the network that this node is in; nothing is five
    /// nodes on loopback.
    pub async fn enter(name: Option<&str>) -> Result<Self, Box<dyn Error>> {
        match name {
            Some("public") => {
                let bootstrap = public_bootstrap().map(str::to_owned).collect();
                Ok(Self { bootstrap, listen: Vec::new(), _nodes: Vec::new() })
            }
            Some(node) => Ok(Self {
                bootstrap: vec![node.to_owned()],
                listen: Vec::new(),
                _nodes: Vec::new(),
            }),
            None => Self::private().await,
        }
    }

    async fn private() -> Result<Self, Box<dyn Error>> {
        let listen = vec!["127.0.0.1:0".parse()?];
        let mut network = Self { bootstrap: Vec::new(), listen, _nodes: Vec::new() };
        for _ in 0..5 {
            let node = network.node().await?;
            // Found by the others from now on: each knows whoever has answered it. The first one has
            // nobody to ask, and would wait for somebody to come.
            if !network.bootstrap.is_empty() {
                node.find_node(node.status().await?[0].id).await.finish().await?;
            }
            network.bootstrap.extend(node.local_addrs().iter().map(ToString::to_string));
            network._nodes.push(node);
        }
        Ok(network)
    }

    /// A session in that network: a DHT node, and torrents.
    #[allow(dead_code, reason = "not every example is about torrents")]
    pub async fn session(&self) -> Result<Session, Box<dyn Error>> {
        let config = SessionConfig {
            listen: self.listen.clone(),
            bootstrap: self.bootstrap.clone(),
            ..SessionConfig::default()
        };
        Ok(Session::start(config).await?)
    }

    /// A session that shares a file which it makes in this folder, and the magnet link of that.
    #[allow(dead_code, reason = "not every example is about torrents")]
    pub async fn share(&self, dir: &Path) -> Result<(Session, String), Box<dyn Error>> {
        let path = dir.join("numbers.txt");
        let numbers: String = (0..500_000).map(|n| format!("{n}\n")).collect();
        std::fs::write(&path, numbers)?;
        let made = create(&path, CreateOptions::default(), &|_, _| {})?;
        let session = self.session().await?;
        let add = AddTorrent {
            info: Some(made.info_bytes),
            output: Output::Seed(made.root),
            ..AddTorrent::new(made.info_hash)
        };
        let mut torrent = session.add(add).await?;
        // It can be found as soon as a node has heard that it is here.
        while let Some(event) = torrent.next_event().await {
            if matches!(event, TorrentEvent::LookupDone(report) if report.announced > 0) {
                break;
            }
        }
        Ok((session, format!("magnet:?xt=urn:btih:{}", made.info_hash)))
    }

    /// A node of that network, which ends when it is dropped.
    #[allow(dead_code, reason = "not every example is about the DHT alone")]
    pub async fn node(&self) -> Result<Dht, Box<dyn Error>> {
        let config = DhtConfig {
            listen: self.listen.clone(),
            bootstrap: self.bootstrap.clone(),
            ..DhtConfig::default()
        };
        Ok(Dht::start(config).await?)
    }
}

/// The info-hash that was given, or some.
#[allow(dead_code, reason = "not every example is about a torrent")]
pub fn info_hash(text: Option<&str>) -> Result<InfoHash, Box<dyn Error>> {
    Ok(text.unwrap_or("0123456789abcdef0123456789abcdef01234567").parse()?)
}
