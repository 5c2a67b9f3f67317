//! Write tokens (BEP 5): who announces must have asked from the same address before.
//!
//! A token is a keyed MAC (SipHash-2-4, 128 bits, cut to 8 bytes) over address and target, so
//! it serves no other address and no other torrent or item, and nothing is stored for it. The key changes
//! every five minutes and the one before it still counts: a token lives 5 to 10 minutes.

use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip128::SipHasher24;

use crate::base::{Instant, Key, Rng};

/// Bytes of a token: 2^64 guesses, and one datagram each.
pub const TOKEN_LEN: usize = 8;

/// Makes and checks write tokens.
#[derive(Debug)]
pub struct Tokens {
    current: [u8; 16],
    previous: [u8; 16],
    since: Instant,
}

impl Tokens {
    /// Fresh keys.
    pub fn new(now: Instant, rng: &mut Rng) -> Self {
        Self { current: rng.array(), previous: rng.array(), since: now }
    }

    /// The token with which `ip` may store something under `target`.
    pub fn make(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        ip: IpAddr,
        target: Key,
    ) -> [u8; TOKEN_LEN] {
        self.rotate(now, rng);
        mac(&self.current, ip, target)
    }

    /// Did we give `token` to `ip` for `target` in the last minutes?
    pub fn is_valid(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        ip: IpAddr,
        target: Key,
        token: &[u8],
    ) -> bool {
        self.rotate(now, rng);
        let Ok(token) = <&[u8; TOKEN_LEN]>::try_from(token) else { return false };
        // Both are computed and compared whatever the first says: time tells nothing.
        let current = differs(token, &mac(&self.current, ip, target));
        let previous = differs(token, &mac(&self.previous, ip, target));
        current == 0 || previous == 0
    }

    fn rotate(&mut self, now: Instant, rng: &mut Rng) {
        let age = now.since(self.since);
        if age < KEY_AGE_MAX {
            return;
        }
        // After a long silence both keys are older than they may be.
        self.previous = if age < 2 * KEY_AGE_MAX { self.current } else { rng.array() };
        self.current = rng.array();
        self.since = now;
    }
}

fn mac(key: &[u8; 16], ip: IpAddr, target: Key) -> [u8; TOKEN_LEN] {
    let mut input = [0u8; 16 + 20];
    match ip {
        IpAddr::V4(ip) => input[..16].copy_from_slice(&ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => input[..16].copy_from_slice(&ip.octets()),
    }
    input[16..].copy_from_slice(target.as_bytes());
    SipHasher24::new_with_key(key).hash(&input).h1.to_le_bytes()
}

// Zero if equal, by the same steps whatever differs. `black_box` keeps the compiler from seeing
// that it could stop early.
fn differs(a: &[u8; TOKEN_LEN], b: &[u8; TOKEN_LEN]) -> u8 {
    a.iter().zip(b).fold(0, |acc, (a, b)| std::hint::black_box(acc | (a ^ b)))
}

/// A key is used this long to make tokens, and as long again to check them.
const KEY_AGE_MAX: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: Key = Key::new([1; 20]);

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    #[test]
    fn token_serves_five_to_ten_minutes() {
        for start in [0, 100, 299] {
            let mut rng = Rng::from_seed([1; 32]);
            let mut tokens = Tokens::new(at(0), &mut rng);
            let ip: IpAddr = "1.2.3.4".parse().unwrap();
            let token = tokens.make(at(start), &mut rng, ip, HASH);
            // Others come and go meanwhile; each may turn the key.
            for now in (start..start + 300).step_by(30) {
                assert!(tokens.is_valid(at(now), &mut rng, ip, HASH, &token), "{start} {now}");
            }
            tokens.make(at(start + 300), &mut rng, ip, HASH);
            assert!(!tokens.is_valid(at(start + 601), &mut rng, ip, HASH, &token));
        }
    }

    #[test]
    fn silence_of_hours_does_not_keep_a_token_alive() {
        let mut rng = Rng::from_seed([1; 32]);
        let mut tokens = Tokens::new(at(0), &mut rng);
        let ip: IpAddr = "1.2.3.4".parse().unwrap();
        let token = tokens.make(at(0), &mut rng, ip, HASH);
        assert!(!tokens.is_valid(at(7200), &mut rng, ip, HASH, &token));
    }

    #[test]
    fn token_is_bound_to_address_and_torrent() {
        let mut rng = Rng::from_seed([1; 32]);
        let mut tokens = Tokens::new(at(0), &mut rng);
        let ip: IpAddr = "1.2.3.4".parse().unwrap();
        let token = tokens.make(at(0), &mut rng, ip, HASH);
        let other: IpAddr = "1.2.3.5".parse().unwrap();
        assert!(!tokens.is_valid(at(0), &mut rng, other, HASH, &token));
        assert!(!tokens.is_valid(at(0), &mut rng, ip, Key::new([2; 20]), &token));
        for bad in [&token[..7], &[][..], &[token.as_slice(), &[0]].concat(), &[0; 1024]] {
            assert!(!tokens.is_valid(at(0), &mut rng, ip, HASH, bad));
        }
    }

    #[test]
    fn own_token_does_not_yield_another_address_by_algebra() {
        // With a CRC, token(a) ^ token(b) ^ token(c) would be token(a ^ b ^ c).
        let mut rng = Rng::from_seed([1; 32]);
        let mut tokens = Tokens::new(at(0), &mut rng);
        let ips: [IpAddr; 4] =
            ["1.1.1.1", "1.1.1.2", "1.1.1.4", "1.1.1.7"].map(|s| s.parse().unwrap());
        let [a, b, c, d] = ips.map(|ip| tokens.make(at(0), &mut rng, ip, HASH));
        let forged: [u8; 8] = std::array::from_fn(|i| a[i] ^ b[i] ^ c[i]);
        assert_ne!(forged, d);
    }
}
