//! The canonical peer priority (BEP 40): a number that both ends of a pair compute alike, so that
//! when everybody keeps the connections with the highest, the swarm is a random graph that nobody
//! can steer.

use std::net::{IpAddr, SocketAddr};

/// The priority of the pair. Higher is better. Symmetric. For addresses of two families it is a
/// fixed number without meaning.
pub fn canonical_priority(a: SocketAddr, b: SocketAddr) -> u32 {
    if a.ip() == b.ip() {
        return hash(&a.port().to_be_bytes(), &b.port().to_be_bytes());
    }
    match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let (a, b) = (a.octets(), b.octets());
            let full = whole_bytes(&a, &b, 2, 3);
            hash(&masked(a, full), &masked(b, full))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let (a, b) = (a.octets(), b.octets());
            let full = whole_bytes(&a, &b, 6, 15);
            hash(&masked(a, full), &masked(b, full))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    }
}

// How many leading bytes count whole: `at_least`, and one more than the two have in common.
fn whole_bytes(a: &[u8], b: &[u8], at_least: usize, last: usize) -> usize {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    if common < at_least { at_least } else { common.min(last) + 1 }
}

fn masked<const N: usize>(mut ip: [u8; N], full: usize) -> [u8; N] {
    for byte in ip.iter_mut().skip(full) {
        *byte &= 0x55;
    }
    ip
}

fn hash(a: &[u8], b: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(a.min(b)), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(a: &str, b: &str) -> u32 {
        let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(canonical_priority(a, b), canonical_priority(b, a));
        canonical_priority(a, b)
    }

    #[test]
    fn vectors_of_bep_40() {
        assert_eq!(priority("123.213.32.10:1", "98.76.54.32:2"), 0xec2d_7224);
        assert_eq!(priority("123.213.32.10:1", "123.213.32.234:2"), 0x9956_8189);
    }

    #[test]
    fn mask_grows_with_what_is_common() {
        // The last bytes differ in bits outside 0x55 only: seen only where the byte counts whole.
        assert_eq!(priority("1.2.3.4:1", "9.9.8.8:1"), priority("1.2.3.4:1", "9.9.10.8:1"));
        assert_ne!(priority("1.2.3.4:1", "1.2.8.8:1"), priority("1.2.3.4:1", "1.2.10.8:1"));
        assert_eq!(priority("1.2.3.4:1", "1.2.8.8:1"), priority("1.2.3.4:1", "1.2.8.10:1"));
        assert_ne!(priority("1.2.3.4:1", "1.2.3.8:1"), priority("1.2.3.4:1", "1.2.3.10:1"));
        let a = "[2001:db8:1::1]:1";
        assert_eq!(priority(a, "[2001:db9:1:8::1]:1"), priority(a, "[2001:db9:1:a::1]:1"));
        assert_ne!(priority(a, "[2001:db8:1:800::1]:1"), priority(a, "[2001:db8:1:a00::1]:1"));
        assert_eq!(priority(a, "[2001:db8:1:108::1]:1"), priority(a, "[2001:db8:1:10a::1]:1"));
    }

    #[test]
    fn same_address_is_told_apart_by_port() {
        assert_ne!(priority("1.2.3.4:1", "1.2.3.4:2"), priority("1.2.3.4:1", "1.2.3.4:3"));
    }
}
