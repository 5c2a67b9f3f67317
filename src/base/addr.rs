//! Rules about addresses: where nothing is ever sent, what counts as private, and which prefix
//! stands for "one network" when votes, contacts or stored peers are counted.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// IPv4 or IPv6: each has its own DHT (BEP 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an endpoint.
    pub fn of(addr: &SocketAddr) -> Family {
        if addr.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// True if a datagram or connection may be sent there at all: a unicast address and a port.
///
/// Loopback and private addresses pass, for private networks; see [`is_private`].
pub fn is_sendable(addr: &SocketAddr) -> bool {
    if addr.port() == 0 {
        return false;
    }
    match addr.ip() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.octets()[0] == 0
                || ip.octets()[0] >= 240)
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || is_v4_in_v6(ip)),
    }
}

// An IPv4 address in IPv6 clothing would pass every rule made for the other family.
fn is_v4_in_v6(ip: Ipv6Addr) -> bool {
    ip.to_ipv4_mapped().is_some() || (ip.segments()[..6] == [0; 6] && !ip.is_loopback())
}

/// Loopback, private, link-local, shared (RFC 6598) and unique-local addresses: exempt from the
/// public network's rules, and believed only when told by somebody inside such a range.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// May `informant` be believed when it names `addr`? It must be sendable, and a private address
/// only means something to somebody who lives in such a range; a link-local one only on that link.
pub fn is_believable(addr: &SocketAddr, informant: IpAddr) -> bool {
    is_sendable(addr)
        && (!is_private(addr.ip()) || is_private(informant))
        && (!is_link_local(addr.ip()) || is_link_local(informant))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The network that one operator can fill with addresses at no cost: /24 or /64.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4(mask_v4(ip, 24)),
        IpAddr::V6(ip) => IpAddr::V6(mask_v6(ip, 64)),
    }
}

/// The wide network for which two votes are one: /16 or /32.
pub fn wide_network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4(mask_v4(ip, 16)),
        IpAddr::V6(ip) => IpAddr::V6(mask_v6(ip, 32)),
    }
}

fn mask_v4(ip: Ipv4Addr, bits: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << (32 - bits)))
}

fn mask_v6(ip: Ipv6Addr, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - bits)))
}

/// An IPv4-mapped IPv6 address as the IPv4 address it is; every other one unchanged.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// An endpoint in 18 bytes, where a `SocketAddr` takes 32: for what is remembered by the hundred. An
/// IPv6 flow label or scope is not kept, as with [`canonical`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PackedAddr {
    // IPv4 as it is mapped into IPv6.
    ip: [u8; 16],
    port: [u8; 2],
}

impl PackedAddr {
    /// The endpoint as the rest of the world has it.
    pub fn get(self) -> SocketAddr {
        SocketAddr::new(self.ip(), u16::from_be_bytes(self.port))
    }

    /// Its address.
    pub fn ip(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.ip)).to_canonical()
    }

    /// Are both in one [`network`]?
    pub fn shares_network(self, other: PackedAddr) -> bool {
        let [ours, theirs] = [self.ip, other.ip].map(u128::from_be_bytes);
        // One /24, or one /64 that is not the one into which all of IPv4 is mapped.
        let is_v4 = |ip: u128| ip >> 32 == 0xffff;
        let bits = if is_v4(ours) || is_v4(theirs) { 8 } else { 64 };
        (ours ^ theirs) >> bits == 0
    }
}

// As numbers, like the order of the bytes and quicker.
impl Ord for PackedAddr {
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |addr: &Self| (u128::from_be_bytes(addr.ip), u16::from_be_bytes(addr.port));
        number(self).cmp(&number(other))
    }
}

impl PartialOrd for PackedAddr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<SocketAddr> for PackedAddr {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: addr.port().to_be_bytes() }
    }
}

impl From<(IpAddr, u16)> for PackedAddr {
    fn from(addr: (IpAddr, u16)) -> Self {
        SocketAddr::from(addr).into()
    }
}

impl Hash for PackedAddr {
    // As numbers: the bytes of an array would be counted first.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.ip));
        state.write_u16(u16::from_ne_bytes(self.port));
    }
}

impl fmt::Debug for PackedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    #[test]
    fn nothing_is_sent_to_nowhere_or_everybody() {
        for bad in [
            "1.2.3.4:0",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "240.0.0.1:1",
            "[::]:1",
            "[ff02::1]:1",
            "[::ffff:1.2.3.4]:1",
            "[::1.2.3.4]:1",
            "[2001:db8::1]:0",
        ] {
            assert!(!is_sendable(&at(bad)), "{bad}");
        }
        for good in ["1.2.3.4:1", "127.0.0.1:1", "10.0.0.1:65535", "[2001:db8::1]:1", "[::1]:1"] {
            assert!(is_sendable(&at(good)), "{good}");
        }
    }

    #[test]
    fn private_address_is_believed_only_from_a_private_informant() {
        let (inside, outside) = (at("10.1.2.3:1"), at("8.8.8.8:1"));
        assert!(is_believable(&inside, at("192.168.1.1:1").ip()));
        assert!(!is_believable(&inside, outside.ip()));
        assert!(is_believable(&outside, inside.ip()));
        assert!(!is_believable(&at("169.254.1.1:1"), inside.ip()));
        assert!(is_believable(&at("169.254.1.1:1"), at("169.254.1.2:1").ip()));
    }

    #[test]
    fn networks_mask_their_hosts() {
        assert_eq!(network(at("1.2.3.4:1").ip()), at("1.2.3.0:1").ip());
        assert_eq!(wide_network(at("1.2.3.4:1").ip()), at("1.2.0.0:1").ip());
        assert_eq!(network(at("[2001:db8:1:2:3::4]:1").ip()), at("[2001:db8:1:2::]:1").ip());
        assert_eq!(canonical(at("[::ffff:1.2.3.4]:5")), at("1.2.3.4:5"));
    }

    #[test]
    fn packed_endpoint_is_the_same_endpoint() {
        for addr in ["1.2.3.4:5", "[2001:db8::1]:6881", "[::1]:1", "[::ffff:9.9.9.9]:7"].map(at) {
            let packed = PackedAddr::from(addr);
            assert_eq!((packed.get(), packed.ip()), (canonical(addr), canonical(addr).ip()));
        }
        let networks = ["1.2.3.4:5", "1.2.3.9:6", "1.2.4.9:6", "[::1]:1", "[::2]:1", "[1::1]:1"];
        for (a, b) in networks.iter().flat_map(|a| networks.iter().map(move |b| (at(a), at(b)))) {
            let shared = PackedAddr::from(a).shares_network(b.into());
            assert_eq!(shared, network(a.ip()) == network(b.ip()), "{a} {b}");
        }
        assert!(PackedAddr::from(at("1.2.3.4:256")) > PackedAddr::from(at("1.2.3.4:255")));
        assert_eq!(size_of::<PackedAddr>(), 18);
    }
}
