//! Where the contacts of a table are, and in which bucket each one is: a sorted list, because a table
//! has a few hundred of them at most and a tree takes four times the memory.

use std::net::IpAddr;

use crate::base::addr::PackedAddr;
use crate::base::bounded::push_snugly;

/// The endpoints of all contacts.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Vec<(PackedAddr, u8)>);

impl Endpoints {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The bucket of the contact that is there.
    pub fn bucket_of(&self, addr: PackedAddr) -> Option<usize> {
        self.place(addr).ok().map(|at| usize::from(self.0[at].1))
    }

    /// A contact with this address, at whatever port, and its bucket.
    pub fn with_ip(&self, ip: IpAddr) -> Option<(PackedAddr, usize)> {
        let at = self.place((ip, 0).into()).unwrap_or_else(|at| at);
        let (addr, bucket) = self.0.get(at).copied().filter(|(addr, _)| addr.ip() == ip)?;
        Some((addr, usize::from(bucket)))
    }

    pub fn insert(&mut self, addr: PackedAddr, bucket: usize) {
        let bucket = u8::try_from(bucket).expect("there are 160 buckets");
        match self.place(addr) {
            Ok(at) => self.0[at].1 = bucket,
            Err(at) => {
                // Room first: that it grows by little is what `insert` would not see to.
                push_snugly(&mut self.0, (addr, bucket));
                self.0[at..].rotate_right(1);
            }
        }
    }

    /// Takes it out; the bucket in which it was.
    pub fn remove(&mut self, addr: PackedAddr) -> Option<usize> {
        let at = self.place(addr).ok()?;
        Some(usize::from(self.0.remove(at).1))
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn place(&self, addr: PackedAddr) -> Result<usize, usize> {
        self.0.binary_search_by_key(&addr, |(addr, _)| *addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ip: u8, port: u16) -> PackedAddr {
        (IpAddr::from([1, 2, 3, ip]), port).into()
    }

    #[test]
    fn endpoints_are_found_by_themselves_and_by_their_address() {
        let mut endpoints = Endpoints::default();
        let all = [(7, 700, 3), (5, 1, 0), (9, 65_535, 159), (6, 256, 4)];
        all.iter().for_each(|(ip, port, bucket)| endpoints.insert(at(*ip, *port), *bucket));
        for (ip, port, bucket) in all {
            assert_eq!(endpoints.bucket_of(at(ip, port)), Some(bucket));
            assert_eq!(endpoints.bucket_of(at(ip, port ^ 2)), None);
            assert_eq!(endpoints.with_ip(at(ip, 1).ip()), Some((at(ip, port), bucket)));
        }
        assert_eq!(endpoints.with_ip(at(8, 1).ip()), None);
        endpoints.insert(at(5, 1), 2);
        assert_eq!((endpoints.len(), endpoints.bucket_of(at(5, 1))), (4, Some(2)));
        assert_eq!((endpoints.remove(at(5, 1)), endpoints.remove(at(5, 1))), (Some(2), None));
        assert_eq!((endpoints.len(), endpoints.bucket_of(at(6, 256))), (3, Some(4)));
    }
}
