//! Publishes a signed value in the DHT, replaces it, and follows it by its public key (BEP 44).
//!
//! ```text
//! cargo run --example mutable_items                a private network on loopback
//! cargo run --example mutable_items -- public      the Mainline DHT
//! cargo run --example mutable_items -- HOST:PORT   the network that this node is in
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what comes")]

mod network;

use std::error::Error;

use network::Network;
use trackless::dht::{Item, ItemKey, SecretKey, string_value};
use trackless::driver::{Dht, entropy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let network = Network::enter(args.first().map(String::as_str)).await?;
    let publisher = network.node().await?;
    let reader = network.node().await?;

    // A key of ours. Whoever has these 32 bytes can replace the value: a real publisher keeps them.
    let key = SecretKey::from_seed(&entropy::seed()?);
    let salt = b"news";
    let first = key.sign(salt, 1, string_value(b"first edition"))?;
    let stored = publisher.put_item(first.clone(), None).await.finish().await?;
    println!("stored by {} nodes", stored.announced());

    // What readers know: the public key, and the salt.
    let name = ItemKey::Mutable { public_key: key.public_key(), salt: salt.to_vec() };
    show(newest(&reader, &name).await?.as_ref());

    // The next version replaces the first, and only that: of two who write, one would hear of it.
    let second = key.sign(salt, 2, string_value(b"second edition"))?;
    publisher.put_item(second, Some(1)).await.finish().await?;
    let newest = newest(&reader, &name).await?;
    show(newest.as_ref());

    // An old version is refused: 302 says that what is stored is newer.
    let outdated = publisher.put_item(first, None).await.finish().await?;
    println!("the old version was refused with {:?}", outdated.refused().collect::<Vec<_>>());

    // A reader may help to keep it alive: no secret is needed for that.
    if let Some(item) = newest.filter(|item| item.seq() == Some(2)) {
        println!("kept alive from here on: {}", reader.keep_item(item).await?);
        return Ok(());
    }
    Err("the second edition was not found".into())
}

// Each that comes has a valid signature; the last is the newest.
async fn newest(dht: &Dht, name: &ItemKey) -> Result<Option<Item>, Box<dyn Error>> {
    let mut items = dht.get_item(name.clone()).await;
    let mut newest: Option<Item> = None;
    while let Some(item) = items.next().await {
        newest = newest.filter(|known| known.seq() >= item.seq()).or(Some(item));
    }
    items.finish().await?;
    Ok(newest)
}

fn show(item: Option<&Item>) {
    match item {
        Some(item) => {
            let text = String::from_utf8_lossy(item.content().unwrap_or(item.value()));
            println!("version {}: {text}", item.seq().unwrap_or_default());
        }
        None => println!("not found"),
    }
}
