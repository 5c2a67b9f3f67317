//! Node ids that follow from the address (BEP 42): nobody can choose where in the key space to sit.
//!
//! Private and loopback addresses are exempt. Judges ids and makes them; who agrees on our own
//! address is counted in `vote`.

use std::net::IpAddr;

use crate::base::addr::is_private;
use crate::base::{NodeId, Rng};

/// True if `id` may live at `ip`: it carries the prefix that BEP 42 demands, or the address is exempt.
pub fn is_valid_id(id: NodeId, ip: IpAddr) -> bool {
    if is_private(ip) {
        return true;
    }
    let bytes = id.as_bytes();
    let want = prefix(ip, bytes[19]);
    bytes[0] == want[0] && bytes[1] == want[1] && bytes[2] & 0xf8 == want[2] & 0xf8
}

/// A random id that is valid at `ip`.
pub fn make_id(ip: IpAddr, rng: &mut Rng) -> NodeId {
    let mut id: [u8; 20] = rng.array();
    if !is_private(ip) {
        let want = prefix(ip, id[19]);
        id[0] = want[0];
        id[1] = want[1];
        id[2] = (want[2] & 0xf8) | (id[2] & 0x07);
    }
    NodeId::new(id)
}

// The first 21 bits of the CRC32C of the masked address, into which three bits of the id's last
// byte are mixed: each address has eight places in the key space.
fn prefix(ip: IpAddr, last_byte: u8) -> [u8; 3] {
    let top = (last_byte & 0x07) << 5;
    let crc = match ip {
        IpAddr::V4(ip) => {
            let mut masked = ip.octets();
            masked.iter_mut().zip(MASK_V4).for_each(|(byte, mask)| *byte &= mask);
            masked[0] |= top;
            crc32c::crc32c(&masked)
        }
        IpAddr::V6(ip) => {
            let mut masked: [u8; 8] = std::array::from_fn(|i| ip.octets()[i] & MASK_V6[i]);
            masked[0] |= top;
            crc32c::crc32c(&masked)
        }
    };
    let [a, b, c, _] = crc.to_be_bytes();
    [a, b, c]
}

const MASK_V4: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];
const MASK_V6: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_specification_hold() {
        for (ip, id) in [
            ("124.31.75.21", "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
            ("21.75.31.124", "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
            ("65.23.51.170", "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
            ("84.124.73.14", "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
            ("43.213.53.83", "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
        ] {
            let (ip, id): (IpAddr, NodeId) = (ip.parse().unwrap(), id.parse().unwrap());
            assert!(is_valid_id(id, ip), "{ip}");
            assert!(!is_valid_id(id, "8.8.8.8".parse().unwrap()));
        }
    }

    #[test]
    fn made_ids_are_valid_and_differ() {
        let mut rng = Rng::from_seed([3; 32]);
        for ip in ["1.2.3.4", "2001:db8:1:2:3::4"] {
            let ip: IpAddr = ip.parse().unwrap();
            let (a, b) = (make_id(ip, &mut rng), make_id(ip, &mut rng));
            assert!(is_valid_id(a, ip) && is_valid_id(b, ip) && a != b);
            let (x, y) = (a.as_bytes(), b.as_bytes());
            assert_ne!(x[4..18], y[4..18]);
        }
    }

    #[test]
    fn private_addresses_are_exempt() {
        let id = NodeId::new([7; 20]);
        for ip in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.1.1", "::1", "fd00::1"] {
            assert!(is_valid_id(id, ip.parse().unwrap()), "{ip}");
        }
        assert!(!is_valid_id(id, "1.2.3.4".parse().unwrap()));
    }
}
