//! Compact endpoints and contacts (BEP 5, BEP 32): 6 or 18 bytes for a peer, 26 or 38 for a node.
//!
//! Does not judge addresses: where nothing may be sent is decided by `base::addr` and its callers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::NodeId;
use crate::base::addr::Family;
use crate::base::id::ID_LEN;

/// Bytes of an IPv4 peer.
pub const PEER_V4_LEN: usize = 6;
/// Bytes of an IPv6 peer.
pub const PEER_V6_LEN: usize = 18;
/// Bytes of an IPv4 node.
pub const NODE_V4_LEN: usize = ID_LEN + PEER_V4_LEN;
/// Bytes of an IPv6 node.
pub const NODE_V6_LEN: usize = ID_LEN + PEER_V6_LEN;

/// Bytes of a peer of this family.
pub const fn peer_len(family: Family) -> usize {
    match family {
        Family::V4 => PEER_V4_LEN,
        Family::V6 => PEER_V6_LEN,
    }
}

/// Bytes of a node of this family.
pub const fn node_len(family: Family) -> usize {
    ID_LEN + peer_len(family)
}

/// The endpoint that 6 or 18 bytes mean; `None` for any other length.
pub fn peer(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    Some(SocketAddr::new(ip_addr(ip)?, u16::from_be_bytes(*port)))
}

/// The address that 4 or 16 bytes mean; `None` for any other length.
pub fn ip_addr(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
}

/// The peers in a string of them. A ragged end is ignored: real nodes send such strings, and the
/// whole entries before it are good.
pub fn peers(bytes: &[u8], family: Family) -> impl Iterator<Item = SocketAddr> + '_ {
    bytes.chunks_exact(peer_len(family)).filter_map(peer)
}

/// The nodes in a string of them. A ragged end is ignored, as in [`peers`].
pub fn nodes(bytes: &[u8], family: Family) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
    bytes.chunks_exact(node_len(family)).filter_map(|entry| {
        let (id, addr) = entry.split_at_checked(ID_LEN)?;
        Some((NodeId::from_slice(id)?, peer(addr)?))
    })
}

/// Appends an endpoint: 6 or 18 bytes.
pub fn put_peer(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// Appends a node: 26 or 38 bytes.
pub fn put_node(out: &mut Vec<u8>, id: NodeId, addr: SocketAddr) {
    out.extend_from_slice(id.as_bytes());
    put_peer(out, addr);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ragged_end_is_ignored_and_whole_entries_are_kept() {
        let mut bytes = Vec::new();
        put_node(&mut bytes, NodeId::new([1; 20]), "1.2.3.4:5".parse().unwrap());
        put_node(&mut bytes, NodeId::new([2; 20]), "5.6.7.8:9".parse().unwrap());
        bytes.pop();
        let all: Vec<_> = nodes(&bytes, Family::V4).collect();
        assert_eq!(all, [(NodeId::new([1; 20]), "1.2.3.4:5".parse().unwrap())]);
        assert_eq!(nodes(&bytes[..25], Family::V4).count(), 0);
    }

    #[test]
    fn odd_lengths_are_no_peers() {
        for len in [0, 1, 2, 4, 5, 7, 16, 17, 19, 4000] {
            assert_eq!(peer(&vec![1; len]), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn peers_and_nodes_read_back(
            v4 in prop::collection::vec(any::<([u8; 20], [u8; 4], u16)>(), 0..20),
            v6 in prop::collection::vec(any::<([u8; 20], [u8; 16], u16)>(), 0..20),
        ) {
            let v4: Vec<_> = v4.into_iter()
                .map(|(id, ip, port)| (NodeId::new(id), SocketAddr::from((ip, port)))).collect();
            let v6: Vec<_> = v6.into_iter()
                .map(|(id, ip, port)| (NodeId::new(id), SocketAddr::from((ip, port)))).collect();
            for (list, family) in [(v4, Family::V4), (v6, Family::V6)] {
                let (mut as_nodes, mut as_peers) = (Vec::new(), Vec::new());
                for (id, addr) in &list {
                    put_node(&mut as_nodes, *id, *addr);
                    put_peer(&mut as_peers, *addr);
                }
                prop_assert_eq!(as_nodes.len(), list.len() * node_len(family));
                prop_assert_eq!(nodes(&as_nodes, family).collect::<Vec<_>>(), list.clone());
                let addrs: Vec<_> = list.iter().map(|(_, addr)| *addr).collect();
                prop_assert_eq!(peers(&as_peers, family).collect::<Vec<_>>(), addrs);
            }
        }
    }
}
