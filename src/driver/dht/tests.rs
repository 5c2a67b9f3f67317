//! The handle on loopback: what its streams give, and what ends them.

use std::pin::pin;

use super::*;
use crate::engine::Refused;

async fn node(bootstrap: &[SocketAddr]) -> Dht {
    let config = DhtConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        bootstrap: bootstrap.iter().map(SocketAddr::to_string).collect(),
        ..DhtConfig::default()
    };
    Dht::start(config).await.unwrap()
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
