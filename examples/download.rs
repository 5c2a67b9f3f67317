//! Downloads what a magnet link names, and tells how far it is.
//!
//! ```text
//! cargo run --example download                          a private network on loopback
//! cargo run --example download -- MAGNET DIR public     the Mainline DHT
//! cargo run --example download -- MAGNET DIR HOST:PORT  the network that this node is in
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what comes")]

mod network;

use std::error::Error;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use network::Network;
use trackless::driver::{AddTorrent, RateLimits, SessionEvent, TorrentEvent};
use trackless::swarm::Event;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let network = Network::enter(args.get(2).map(String::as_str)).await?;
    let place = tempfile::tempdir()?;
    // Somebody has to have it.
    let shared = if args.is_empty() { Some(network.share(place.path()).await?) } else { None };
    let link = match &shared {
        Some((_, link)) => link,
        None => args.first().ok_or("name a magnet link")?,
    };
    let dir = args.get(1).map_or(place.path().join("downloads"), PathBuf::from);

    // One session is one DHT node, one port, one pool of disk threads and one set of limits for any
    // number of torrents.
    let session = network.session().await?;
    session.set_limits(RateLimits { down: NonZeroU64::new(64 << 20), up: None }).await;
    let mut events = session.events().await;
    let torrent = session.add(AddTorrent::magnet(link)?.into_dir(&dir)).await?;
    // Not at once: in the first moment everybody lacks everything.
    let second = Duration::from_secs(1);
    let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + second, second);
    loop {
        let event = tokio::select! {
            event = events.next() => event.ok_or("the session has ended")?,
            _ = looks.tick() => {
                // A link that hangs says where, and why.
                let status = torrent.status().await.ok_or("the session has ended")?;
                match status.obstacle() {
                    Some(obstacle) => println!("{}: {obstacle}", obstacle.stage()),
                    None => println!("{}: {} bytes to go", status.stage(), status.swarm.missing_bytes()),
                }
                continue;
            }
        };
        let SessionEvent::Torrent { event: TorrentEvent::Swarm(event), .. } = event else {
            continue;
        };
        match event {
            Event::MetadataReady { .. } => {
                for file in torrent.files().await {
                    println!("{:>10} bytes  {}", file.len, file.path.display());
                }
            }
            Event::Finished => break,
            Event::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }

    let status = torrent.status().await.ok_or("the session has ended")?.swarm;
    println!(
        "{} of {} bytes are verified, from {} peers, in {}",
        status.verified_bytes,
        status.wanted_bytes,
        status.peers_reached,
        dir.display()
    );
    session.shutdown().await;
    if let Some((seeder, _)) = shared {
        seeder.shutdown().await;
    }
    Ok(())
}
