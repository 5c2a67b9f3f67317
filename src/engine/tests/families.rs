//! Two families of addresses in one engine, of which one may be lost without the other.

use super::*;

const OTHERS: u8 = 12;

/// Engines that hear each other at once, each at an address of both families.
struct Pairs {
    engines: Vec<Engine>,
    lost: Option<Family>,
    now: Instant,
    heard: Vec<NodeEvent>,
}

fn home(n: usize, family: Family) -> SocketAddr {
    match family {
        Family::V4 => format!("10.0.{n}.1:1").parse().unwrap(),
        Family::V6 => format!("[fd00:{n:x}::1]:1").parse().unwrap(),
    }
}

fn both(n: u8) -> Engine {
    let own = |(socket, family)| node(socket, family, &home(n.into(), family).to_string());
    let nodes = [(0, Family::V4), (1, Family::V6)].map(own).into();
    Engine::new(Config { nodes, ..Config::new(PeerId::new([n; 20])) }, [n; 32], Instant::ZERO)
}

impl Pairs {
    fn new() -> Self {
        let engines = (0..=OTHERS).map(both).collect();
        let mut pairs = Self { engines, lost: None, now: Instant::ZERO, heard: Vec::new() };
        let known = [home(1, Family::V4), home(1, Family::V6)];
        pairs.engines.iter_mut().for_each(|e| e.bootstrap(Instant::ZERO, &known));
        pairs
    }

    // Everything that is sent arrives within the step.
    fn deliver(&mut self) {
        let mut is_quiet = false;
        while !is_quiet {
            is_quiet = true;
            for n in 0..self.engines.len() {
                for output in outputs(&mut self.engines[n]) {
                    is_quiet = false;
                    match output {
                        Output::Transmit { to, socket, datagram } => {
                            self.carry(n, to, socket, &datagram);
                        }
                        Output::Event(Event::Command { event, .. }) if n == 0 => {
                            self.heard.push(event);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn carry(&mut self, from: usize, to: SocketAddr, socket: SocketId, datagram: &[u8]) {
        let family = if socket == SocketId(0) { Family::V4 } else { Family::V6 };
        let other = (0..self.engines.len()).find(|n| home(*n, family) == to);
        // The cable of the first one alone is pulled.
        let is_lost = self.lost == Some(family) && (from == 0 || other == Some(0));
        if let Some(other) = other.filter(|_| !is_lost) {
            let (now, from) = (self.now, home(from, family));
            self.engines[other].handle_datagram(now, socket, from, datagram);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(500);
            let now = self.now;
            self.engines.iter_mut().for_each(|e| e.handle_timeout(now));
            self.deliver();
        }
    }

    fn contacts(&self, socket: SocketId) -> usize {
        let mut nodes = self.engines[0].nodes();
        nodes.find(|(s, _)| *s == socket).map_or(0, |(_, node)| node.contact_count())
    }

    // How many answered each of the two lookups of a hash: in the order in which they ended.
    fn look_up(&mut self, within: Duration) -> Vec<usize> {
        self.heard.clear();
        self.engines[0].get_peers(self.now, InfoHash::new([5; 20]));
        self.run(within);
        let done = self.heard.iter().filter_map(|event| match event {
            NodeEvent::Done { report, .. } => Some(report.answered),
            _ => None,
        });
        done.collect()
    }
}

#[test]
fn family_that_is_lost_holds_nothing_up_keeps_its_table_and_is_back_at_once() {
    let mut pairs = Pairs::new();
    pairs.run(Duration::from_secs(120));
    let (v4, v6) = (SocketId(0), SocketId(1));
    let before = pairs.contacts(v6);
    assert!(before >= 8, "{before}");
    pairs.lost = Some(Family::V6);
    // At once, when nothing is known of it yet, and when it has been so for an hour.
    for time in [0, 3_600] {
        pairs.run(Duration::from_secs(time));
        let answered = pairs.look_up(Duration::from_secs(20));
        assert_eq!(answered.len(), 2, "one never ends");
        assert!(answered.contains(&0) && answered.iter().any(|n| *n >= 8), "{answered:?}");
        assert!(pairs.contacts(v6) + 2 >= before && pairs.contacts(v4) >= 8);
    }
    pairs.lost = None;
    pairs.run(Duration::from_secs(8));
    let answered = pairs.look_up(Duration::from_secs(2));
    assert!(answered.len() == 2 && answered.iter().all(|n| *n >= 8), "{answered:?}");
}
