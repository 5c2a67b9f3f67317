//! Announces that this machine has a torrent, then looks for it as a stranger would.
//!
//! ```text
//! cargo run --example announce                          a private network on loopback
//! cargo run --example announce -- INFOHASH public       the Mainline DHT
//! cargo run --example announce -- INFOHASH HOST:PORT    the network that this node is in
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what comes")]

mod network;

use std::error::Error;

use network::Network;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let info_hash = network::info_hash(args.first().map(String::as_str))?;
    let network = Network::enter(args.get(1).map(String::as_str)).await?;

    let dht = network.node().await?;
    // No port: peers are to come to where our datagrams come from. Nodes forget it after half an
    // hour or so: who wants to stay known announces every 15 minutes.
    let announced = dht.announce(info_hash, None).await.finish().await?;
    println!("{} of {} nodes took it", announced.announced(), announced.asked());
    for node in dht.status().await? {
        println!("our node {} is reached at {:?}", node.id, node.reached_at);
    }

    // Another node: it knows nothing of the first one.
    let stranger = network.node().await?;
    let mut peers = stranger.get_peers(info_hash).await;
    let mut found = 0;
    while let Some(peer) = peers.next().await {
        println!("a stranger finds {peer}");
        found += 1;
    }
    // Dropping them would do as well; this waits until they have ended.
    stranger.shutdown().await;
    dht.shutdown().await;
    if found == 0 { Err("nobody finds the announce".into()) } else { Ok(()) }
}
