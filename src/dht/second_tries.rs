//! Is it worth asking a silent node once more? Silence means a dead node or a lost datagram, and which of
//! the two is common depends on the network: counted is how often a second try is answered where
//! the first was not.
//!
//! Where nothing is lost second tries cost a lookup a tenth of its queries and the time of a stall; where
//! a tenth is lost, it would miss nodes without them.

/// What second tries have brought so far.
#[derive(Debug, Clone)]
pub(super) struct SecondTries {
    sent: f32,
    answered: f32,
    refused: u32,
}

impl SecondTries {
    /// At first they are believed in, until some forty in a row were in vain.
    pub fn new() -> Self {
        Self { sent: 10.0, answered: 2.0, refused: 0 }
    }

    /// A second try went out.
    pub fn on_sent(&mut self) {
        self.sent += 1.0;
        if self.sent > MEMORY {
            self.sent /= 2.0;
            self.answered /= 2.0;
        }
    }

    /// A second try was answered, and the first was not.
    pub fn on_answered(&mut self) {
        self.answered += 1.0;
    }

    /// Is another one worth it? Now and then yes in any case, or we would never learn that the network
    /// has changed.
    pub fn pay(&mut self) -> bool {
        if self.answered >= WORTH * self.sent {
            return true;
        }
        self.refused = (self.refused + 1) % PROBE_EVERY;
        self.refused == 0
    }
}

// One node gained for 25 queries. A lookup has some four silent nodes near its end.
const WORTH: f32 = 0.04;
const PROBE_EVERY: u32 = 8;
const MEMORY: f32 = 64.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn share_sent(tries: &mut SecondTries, silent: u32, lost: impl Fn(u32) -> bool) -> u32 {
        let mut sent = 0;
        for n in 0..silent {
            if tries.pay() {
                sent += 1;
                tries.on_sent();
                if lost(n) {
                    tries.on_answered();
                }
            }
        }
        sent
    }

    #[test]
    fn second_tries_end_where_nothing_is_lost_and_come_back_when_datagrams_are() {
        let mut tries = SecondTries::new();
        assert!(share_sent(&mut tries, 100, |_| false) < 60);
        assert!(share_sent(&mut tries, 800, |_| false) <= 100, "only probes");
        // One silent node in four is alive.
        share_sent(&mut tries, 60, |n| n % 4 == 0);
        assert!(share_sent(&mut tries, 100, |n| n % 4 == 0) > 80);
    }

    #[test]
    fn they_go_on_where_one_in_ten_is_answered() {
        let mut tries = SecondTries::new();
        assert_eq!(share_sent(&mut tries, 2_000, |n| n % 10 == 0), 2_000);
    }
}
