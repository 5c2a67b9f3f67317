//! The handle on loopback: what its streams give, and what ends them.

use std::pin::pin;

use super::*;
use crate::dht::{SecretKey, string_value};
use crate::engine::Refused;

async fn node(bootstrap: &[SocketAddr]) -> Dht {
    Dht::start(config(bootstrap)).await.unwrap()
}

fn config(bootstrap: &[SocketAddr]) -> DhtConfig {
    DhtConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        bootstrap: bootstrap.iter().map(SocketAddr::to_string).collect(),
        ..DhtConfig::default()
    }
}

async fn lookups_running(dht: &Dht) -> usize {
    dht.status().await.unwrap().iter().map(|n| n.lookups_running).sum()
}

const HASH: InfoHash = InfoHash::new([9; 20]);

#[tokio::test]
async fn announced_peer_is_streamed_to_another_node() {
    let first = node(&[]).await;
    let second = node(first.local_addrs()).await;
    let outcome = second.announce(HASH, Some(4711)).await.finish().await.unwrap();
    assert_eq!((outcome.answered(), outcome.announced()), (1, 1));
    let third = node(first.local_addrs()).await;
    let mut peers = third.get_peers(HASH).await;
    // By the trait, as other crates take it.
    let peer = std::future::poll_fn(|cx| {
        use futures_core::Stream;
        pin!(&mut peers).poll_next(cx)
    });
    assert_eq!(peer.await, Some("127.0.0.1:4711".parse().unwrap()));
    assert_eq!(peers.next().await, None);
    assert_eq!(peers.finish().await.unwrap().peers(), 1);
    let id = first.status().await.unwrap()[0].id;
    let nodes = third.find_node(id).await.finish().await.unwrap();
    assert_eq!(nodes.nodes().next(), Some((id, first.local_addrs()[0])));
}

#[tokio::test]
async fn hundreds_of_torrents_are_kept_announced_and_looked_up_in_bulk() {
    let patient = |bootstrap: &[SocketAddr]| DhtConfig { per_ip_rate: None, ..config(bootstrap) };
    let first = Dht::start(patient(&[])).await.unwrap();
    let second = Dht::start(patient(first.local_addrs())).await.unwrap();
    let hashes: Vec<_> = (0..=255).map(|n| InfoHash::new([n; 20])).collect();
    for hash in &hashes {
        assert_eq!(second.keep_announced(*hash, Some(4711)).await, Ok(true));
    }
    let announcing = async || second.status().await.unwrap()[0].announcing;
    while announcing().await.held < hashes.len() {
        tokio::task::yield_now().await;
    }
    assert!(!announcing().await.is_behind);
    let third = node(first.local_addrs()).await;
    let mut lookups = Vec::new();
    for hash in &hashes {
        lookups.push(third.get_peers_in_bulk(*hash).await);
    }
    for mut lookup in lookups {
        assert_eq!(lookup.next().await, Some("127.0.0.1:4711".parse().unwrap()));
        assert_eq!(lookup.finish().await.unwrap().peers(), 1);
    }
    assert_eq!(second.drop_announced(hashes[7]).await, Ok(true));
    assert_eq!(second.drop_announced(hashes[7]).await, Ok(false), "it is not kept any more");
    assert_eq!(announcing().await.torrents, hashes.len() - 1);
}

#[tokio::test]
async fn ping_tells_the_id_of_who_is_there() {
    let (first, second) = (node(&[]).await, node(&[]).await);
    let id = second.status().await.unwrap()[0].id;
    assert_eq!(first.ping(second.local_addrs()[0]).await.unwrap().id, id);
    let v6 = "[::1]:1".parse().unwrap();
    assert_eq!(first.ping(v6).await, Err(DhtError::Refused(Refused::NoNode)));
}

#[tokio::test]
async fn dropped_lookup_is_cancelled() {
    // Nobody to ask: it would wait for bootstrap names.
    let dht = node(&[]).await;
    let lookup = dht.get_peers(HASH).await;
    assert_eq!(lookups_running(&dht).await, 1);
    drop(lookup);
    assert_eq!(lookups_running(&dht).await, 0);
}

#[tokio::test]
async fn shutdown_ends_every_stream_and_every_clone() {
    let dht = node(&[]).await;
    let mut running = dht.get_peers(HASH).await;
    dht.clone().shutdown().await;
    assert_eq!(running.next().await, None);
    assert_eq!(running.finish().await, Err(DhtError::Ended));
    assert_eq!(dht.find_node(NodeId::new([1; 20])).await.finish().await, Err(DhtError::Ended));
    assert_eq!(dht.ping("127.0.0.1:1".parse().unwrap()).await, Err(DhtError::Ended));
    assert_eq!(dht.status().await.err(), Some(DhtError::Ended));
}

#[tokio::test]
async fn session_without_a_dht_refuses_every_operation() {
    let config = SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        dht: false,
        ..SessionConfig::default()
    };
    let dht = Session::start(config).await.unwrap().dht();
    let refused = DhtError::Refused(Refused::NoNode);
    assert_eq!(dht.get_peers(HASH).await.finish().await, Err(refused));
}

#[tokio::test]
async fn items_are_stored_found_kept_and_told_to_be_newer() {
    let first = node(&[]).await;
    let second = node(first.local_addrs()).await;
    let key = SecretKey::from_seed(&[5; 32]);
    let item = |seq, text: &str| key.sign(b"salt", seq, string_value(text.as_bytes())).unwrap();
    let stored = second.put_item(item(1, "one"), None).await.finish().await.unwrap();
    assert_eq!((stored.announced(), stored.refused().count()), (1, 0));

    let third = node(first.local_addrs()).await;
    let mut found = third.get_item(item(1, "one").key()).await;
    assert_eq!(found.next().await, Some(item(1, "one")));
    assert_eq!(found.next().await, None);

    assert_eq!(third.keep_item(item(3, "three")).await, Ok(true));
    assert_eq!(third.keep_item(item(2, "two")).await, Ok(false), "what is kept is newer");
    assert_eq!(third.drop_item(&item(3, "three").key()).await, Ok(true));
    assert_eq!(third.drop_item(&item(3, "three").key()).await, Ok(false));

    second.put_item(item(4, "four"), None).await.finish().await.unwrap();
    let mut outdated = third.put_item(item(2, "two"), None).await;
    assert_eq!(outdated.next().await, Some(item(4, "four")), "what is stored is told");
    let outdated = outdated.finish().await.unwrap();
    assert_eq!(outdated.announced(), 0);
    assert!(outdated.refused().all(|code| code == 302) && outdated.refused().count() > 0);
}

#[tokio::test]
async fn torrents_are_sampled_and_those_who_have_them_counted() {
    let first = node(&[]).await;
    let second = node(first.local_addrs()).await;
    second.announce(HASH, Some(4711)).await.finish().await.unwrap();
    let third = node(first.local_addrs()).await;
    let mut samples = third.sample(HASH.key()).await;
    let sample = samples.next().await.unwrap();
    assert_eq!((sample.from, sample.total), (first.local_addrs()[0], 1));
    assert_eq!(sample.info_hashes, [HASH]);
    let counted = third.scrape(HASH).await.finish().await.unwrap().scrape().unwrap();
    assert_eq!((counted.seeds, counted.peers), (0, 1));
}
