//! Which pieces a choked peer may have all the same (BEP 6, "allowed fast set generation"): a peer
//! with nothing has nothing to give, and nobody would ever serve it.
//!
//! The set follows from the peer's network, so that nobody gets a new one by coming again or with
//! his neighbour's address.

use std::net::IpAddr;

use crate::base::InfoHash;
use crate::base::addr::network;
use crate::base::hash::sha1;

/// The first `count` pieces, of `pieces`, that a peer at `ip` may ask for while it is choked.
///
/// IPv6: BEP 6 knows IPv4 alone, and takes the /24 of the address. We DEPART from it where it is
/// silent, and take the 16 bytes of the /64 in place of the four of the /24. Both sides need not
/// agree: the set is told, piece by piece.
pub fn allowed_fast(ip: IpAddr, info_hash: &InfoHash, pieces: u32, count: usize) -> Vec<u32> {
    if usize::try_from(pieces).is_ok_and(|pieces| pieces <= count) {
        return (0..pieces).collect();
    }
    let mut seed = match network(ip.to_canonical()) {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    seed.extend_from_slice(info_hash.as_bytes());
    let mut set: Vec<u32> = Vec::with_capacity(count);
    while set.len() < count {
        let digest = sha1(&seed);
        for word in digest.as_chunks().0 {
            let piece = u32::from_be_bytes(*word) % pieces;
            if set.len() < count && !set.contains(&piece) {
                set.push(piece);
            }
        }
        seed = digest.to_vec();
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    // The two examples that BEP 6 gives.
    #[test]
    fn set_is_the_canonical_one() {
        let hash = InfoHash::new([0xaa; 20]);
        let seven = [1059, 431, 808, 1217, 287, 376, 1188];
        assert_eq!(allowed_fast(ip("80.4.4.200"), &hash, 1313, 7), seven);
        let nine = [&seven[..], &[353, 508]].concat();
        assert_eq!(allowed_fast(ip("80.4.4.200"), &hash, 1313, 9), nine);
    }

    #[test]
    fn neighbours_share_a_set_and_others_do_not() {
        let hash = InfoHash::new([1; 20]);
        let set = |text: &str| allowed_fast(ip(text), &hash, 10_000, 10);
        assert_eq!(set("80.4.4.200"), set("80.4.4.7"));
        assert_eq!(
            set("80.4.4.200"),
            set("::ffff:80.4.4.200"),
            "as a socket of both families sees it"
        );
        assert_ne!(set("80.4.4.200"), set("80.4.5.200"));
        assert_eq!(set("2001:db8:1:2::1"), set("2001:db8:1:2:ffff::1"));
        assert_ne!(set("2001:db8:1:2::1"), set("2001:db8:1:3::1"));
        assert_ne!(
            set("80.4.4.200"),
            allowed_fast(ip("80.4.4.200"), &InfoHash::new([2; 20]), 10_000, 10)
        );
    }

    #[test]
    fn set_of_a_small_torrent_is_all_of_it() {
        let hash = InfoHash::new([1; 20]);
        for pieces in 0..30 {
            let mut set = allowed_fast(ip("10.0.0.1"), &hash, pieces, 10);
            assert_eq!(set.len(), 10.min(pieces as usize));
            set.sort_unstable();
            set.dedup();
            assert_eq!(set.len(), 10.min(pieces as usize), "no piece twice");
            assert!(set.iter().all(|piece| *piece < pieces));
        }
    }
}
