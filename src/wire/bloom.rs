//! The bloom filters of BEP 33: how many addresses announced a torrent, counted over many nodes
//! without naming them. A union of filters is the filter of the union.

use std::fmt;
use std::net::IpAddr;

use crate::base::hash;

/// Bytes of a filter.
pub const FILTER_LEN: usize = 256;

/// A set of addresses, in 2048 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct Filter([u8; FILTER_LEN]);

impl Filter {
    /// The empty set.
    pub const fn new() -> Self {
        Self([0; FILTER_LEN])
    }

    /// The filter that another node sent.
    pub const fn from_bytes(bytes: &[u8; FILTER_LEN]) -> Self {
        Self(*bytes)
    }

    /// What is sent.
    pub const fn as_bytes(&self) -> &[u8; FILTER_LEN] {
        &self.0
    }

    /// Adds an address.
    pub fn insert(&mut self, ip: IpAddr) {
        for bit in bits(ip) {
            self.0[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// False if `ip` is not in the set; true if it is, or seems so.
    pub fn contains(&self, ip: IpAddr) -> bool {
        bits(ip).iter().all(|bit| self.0[bit / 8] & (1 << (bit % 8)) != 0)
    }

    /// Adds what is in `other`.
    pub fn union(&mut self, other: &Filter) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own |= other);
    }

    /// True if nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// How many addresses were added, by the share of bits that are still zero.
    pub fn estimate(&self) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        let zeros: u32 = self.0.iter().map(|byte| byte.count_zeros()).sum();
        // A filter without a zero says no more than "thousands".
        let zeros = f64::from(zeros.clamp(1, BITS - 1));
        let bits = f64::from(BITS);
        (zeros / bits).ln() / (BITS_PER_ADDRESS * (1.0 - 1.0 / bits).ln())
    }

    /// True if it holds more than it can count (BEP 33: 6000): a mistake, or a lie.
    pub fn is_overfull(&self) -> bool {
        self.estimate() > ESTIMATE_MAX
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Filter {
    /// The estimate; 256 bytes tell nobody anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter(about {:.0})", self.estimate())
    }
}

fn bits(ip: IpAddr) -> [usize; 2] {
    let digest = match ip {
        IpAddr::V4(ip) => hash::sha1(&ip.octets()),
        IpAddr::V6(ip) => hash::sha1(&ip.octets()),
    };
    let [a, b, c, d, ..] = digest;
    [[a, b], [c, d]].map(|pair| usize::from(u16::from_le_bytes(pair)) % (8 * FILTER_LEN))
}

const BITS: u32 = 2_048;
const BITS_PER_ADDRESS: f64 = 2.0;
const ESTIMATE_MAX: f64 = 6_000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The test vector of BEP 33.
    const VECTOR: &str = "\
        F6C3F5EAA07FFD91BDE89F777F26FB2BFF37BDB8FB2BBAA2FD3DDDE7BACFFF75EE7CCBAE\
        FE5EEDB1FBFAFF67F6ABFF5E43DDBCA3FD9B9FFDF4FFD3E9DFF12D1BDF59DB53DBE9FA5B\
        7FF3B8FDFCDE1AFB8BEDD7BE2F3EE71EBBBFE93BCDEEFE148246C2BC5DBFF7E7EFDCF24F\
        D8DC7ADFFD8FFFDFDDFFF7A4BBEEDF5CB95CE81FC7FCFF1FF4FFFFDFE5F7FDCBB7FD79B3\
        FA1FC77BFE07FFF905B7B7FFC7FEFEFFE0B8370BB0CD3F5B7F2BD93FEB4386CFDD6F7FD5\
        BFAF2E9EBFFFFEECD67ADBF7C67F17EFD5D75EBA6FFEBA7FFF47A91EB1BFBB53E8ABFB57\
        62ABE8FF237279BFEFBFEEF5FFC5FEBFDFE5ADFFADFEE1FB737FFFFBFD9F6AEFFEEE76B6\
        FD8F72EF";

    #[test]
    fn test_vector_of_the_specification_holds() {
        let mut filter = Filter::new();
        (0..=255).for_each(|n| filter.insert(IpAddr::from([192, 0, 2, n])));
        (0..=0x3e7).for_each(|n| filter.insert(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n])));
        let hex: String = filter.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(hex, VECTOR);
        assert!((filter.estimate() - 1224.9308).abs() < 0.0001, "{}", filter.estimate());
    }

    #[test]
    fn estimate_of_a_few_is_right_and_of_a_full_filter_finite() {
        let mut filter = Filter::new();
        assert_eq!(filter.estimate(), 0.0);
        for n in 1..=50 {
            filter.insert(IpAddr::from([9, 9, 9, n]));
            assert!((filter.estimate() - f64::from(n)).abs() < 2.0);
        }
        assert!(!filter.is_overfull());
        let full = Filter::from_bytes(&[0xff; FILTER_LEN]);
        assert!(full.is_overfull() && full.estimate() < 8_000.0);
    }

    proptest! {
        #[test]
        fn union_holds_what_either_held(
            a in prop::collection::vec(any::<IpAddr>(), 0..50),
            b in prop::collection::vec(any::<IpAddr>(), 0..50),
        ) {
            let filter = |ips: &[IpAddr]| {
                let mut filter = Filter::new();
                ips.iter().for_each(|ip| filter.insert(*ip));
                filter
            };
            let mut union = filter(&a);
            union.union(&filter(&b));
            prop_assert_eq!(&union, &filter(&[a.clone(), b.clone()].concat()));
            prop_assert!(a.iter().chain(&b).all(|ip| union.contains(*ip)));
        }
    }
}
