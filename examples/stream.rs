//! Reads a file of a torrent while it is being downloaded, the end of it first.
//!
//! ```text
//! cargo run --example stream                          a private network on loopback
//! cargo run --example stream -- MAGNET DIR public     the Mainline DHT
//! cargo run --example stream -- MAGNET DIR HOST:PORT  the network that this node is in
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what comes")]

mod network;

use std::error::Error;
use std::io::SeekFrom;
use std::path::PathBuf;

use network::Network;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use trackless::driver::{AddTorrent, TorrentEvent};
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

    let session = network.session().await?;
    let mut torrent = session.add(AddTorrent::magnet(link)?.into_dir(dir)).await?;
    // The files are known as soon as the info dictionary is here.
    loop {
        match torrent.next_event().await.ok_or("the session has ended")? {
            TorrentEvent::Swarm(Event::MetadataReady { .. }) => break,
            TorrentEvent::Swarm(Event::Failed(error)) => return Err(error.into()),
            _ => {}
        }
    }
    let file = torrent.files().await.into_iter().next().ok_or("a torrent without files")?;
    let mut reader = torrent.reader(file.index).await?;

    // Film containers keep their index at the end. It comes before all else.
    let mut tail = vec![0; 1000.min(usize::try_from(file.len)?)];
    reader.seek(SeekFrom::End(-i64::try_from(tail.len())?)).await?;
    reader.read_exact(&mut tail).await?;
    println!("the last {} bytes of {} are here", tail.len(), file.path.display());

    // Then the whole of it in order. What is not here yet is waited for.
    reader.rewind().await?;
    let mut buffer = vec![0; 64 << 10];
    let mut read = 0;
    loop {
        match reader.read(&mut buffer).await? {
            0 => break,
            some => read += some,
        }
    }
    println!("{read} bytes were read while they came");
    session.shutdown().await;
    if let Some((seeder, _)) = shared {
        seeder.shutdown().await;
    }
    if read as u64 == file.len { Ok(()) } else { Err("the file ended early".into()) }
}
