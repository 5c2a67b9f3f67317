//! Finds the peers of a torrent, and shows how: every node that was asked, and what came.
//!
//! ```text
//! cargo run --example lookup                            a private network on loopback
//! cargo run --example lookup -- INFOHASH public         the Mainline DHT
//! cargo run --example lookup -- INFOHASH HOST:PORT      the network that this node is in
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what comes")]

mod network;

use std::error::Error;

use network::Network;
use trackless::dht::StepKind;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let info_hash = network::info_hash(args.first().map(String::as_str))?;
    let network = Network::enter(args.get(1).map(String::as_str)).await?;
    if args.is_empty() {
        // Somebody has to be there to be found.
        network.node().await?.announce(info_hash, Some(6881)).await.finish().await?;
    }

    let dht = network.node().await?;
    // A lookup is a stream: peers come as nodes name them.
    let mut peers = dht.get_peers(info_hash).await;
    while let Some(peer) = peers.next().await {
        println!("peer {peer}");
    }
    // It has an end, and says what it did.
    let outcome = peers.finish().await?;
    println!(
        "asked {} nodes, {} answered, {} peers, {:?}",
        outcome.asked(),
        outcome.answered(),
        outcome.peers(),
        outcome.took()
    );

    // The same search again, step by step.
    let mut steps = dht.trace_peers(info_hash).await;
    while let Some(step) = steps.next().await {
        if let StepKind::Answered { rtt, contacts, peers, .. } = step.kind {
            println!("{} answered in {rtt:?}: {contacts} nodes, {} peers", step.to, peers.len());
        }
    }
    if outcome.peers() == 0 { Err("nobody has this torrent".into()) } else { Ok(()) }
}
