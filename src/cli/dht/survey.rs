//! `dht sample` and `dht scrape`: what others have, without asking for any of it (BEP 51, BEP 33).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{close, nobody, summary};
use crate::base::{InfoHash, Key, Rng};
use crate::cli::config::host_port;
use crate::cli::exit::{Code, Failure};
use crate::cli::format::rough_duration;
use crate::cli::output::Console;
use crate::cli::stage::plural;
use crate::driver::{Dht, Outcome, Sample, Stage, entropy};

/// Where `sample` looks.
#[derive(Debug)]
pub enum Place {
    /// On the way to this key.
    Key(Key),
    /// At one node.
    Node(String),
}

impl Place {
    /// Reads `TARGET|HOST:PORT`.
    pub fn read(text: Option<&str>) -> Result<Self, Failure> {
        let Some(text) = text else { return random_key().map(Self::Key) };
        match text.parse() {
            Ok(target) => Ok(Self::Key(target)),
            Err(_) => host_port("TARGET|HOST:PORT", text).map(Self::Node),
        }
    }
}

/// A place that nobody chose.
pub fn random_key() -> Result<Key, Failure> {
    let seed = entropy::seed().map_err(|e| Failure::io("randomness", &e))?;
    Ok(Key::new(Rng::from_seed(seed).array()))
}

/// `sample`.
pub async fn sample(dht: &Dht, place: Place, console: &Console) -> Result<(), Failure> {
    let mut survey = Survey::default();
    match place {
        Place::Key(target) => {
            let mut samples = dht.sample(target).await;
            while let Some(sample) = samples.next().await {
                survey.say(&sample, console);
                if console.is_closed() {
                    return Ok(());
                }
            }
            let outcome = samples.finish().await?;
            if survey.nodes == 0 {
                summary(&outcome, console);
                return Err(match outcome.answered() {
                    0 => nobody(&outcome),
                    _ => failure(
                        format!("asked {}", plural(outcome.asked(), "node")),
                        "gives samples",
                    ),
                });
            }
            survey.conclude(Some(&outcome), console)
        }
        Place::Node(name) => {
            let (addr, pong) = super::pong(dht, &name).await?;
            // It is the closest to its own id, so it is asked first.
            let mut samples = dht.sample(pong.id.key()).await;
            while let Some(sample) = samples.next().await {
                if sample.from == addr {
                    survey.say(&sample, console);
                    return survey.conclude(None, console);
                }
            }
            Err(failure(format!("asked {addr}"), "gives samples"))
        }
    }
}

// What the nodes gave.
#[derive(Debug, Default)]
struct Survey {
    seen: BTreeSet<InfoHash>,
    nodes: usize,
    total: u64,
    interval: Duration,
}

impl Survey {
    fn say(&mut self, sample: &Sample, console: &Console) {
        self.nodes += 1;
        self.total = self.total.saturating_add(sample.total);
        self.interval = self.interval.max(sample.interval);
        if console.is_json() {
            console.record(String::new, || sample_json(sample));
        }
        for info_hash in sample.info_hashes.iter().filter(|hash| self.seen.insert(**hash)) {
            if !console.is_json() {
                console.write(format!("{info_hash}\n").as_bytes());
            }
        }
    }

    fn conclude(&self, outcome: Option<&Outcome>, console: &Console) -> Result<(), Failure> {
        let nodes = plural(self.nodes, "node");
        if self.seen.is_empty() && self.total > 0 {
            let wait = rough_duration(self.interval);
            return Err(failure(
                format!("{nodes} answered"),
                "gives this address samples so soon again",
            )
            .advise(format!("try another place, or this one in {wait}")));
        }
        if self.seen.is_empty() {
            return Err(failure(format!("{nodes} answered"), "has torrents"));
        }
        let found = json!({"info_hashes": self.seen.len(), "nodes": self.nodes});
        // Of the lookup that asked one node only that matters.
        close(outcome.unwrap_or(&Outcome::default()), &found, console);
        Ok(())
    }
}

fn failure(asked: String, what: &str) -> Failure {
    let failure = Failure::new(Code::NoPeers, format!("{asked}, none {what}"));
    failure.at(Stage::Nodes).advise("try another place")
}

/// One node's sample for programs.
pub fn sample_json(sample: &Sample) -> Value {
    json!({
        "addr": sample.from.to_string(), "total": sample.total,
        "interval": sample.interval.as_secs(),
        "info_hashes": sample.info_hashes.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// `scrape`.
pub async fn scrape(dht: &Dht, hash: InfoHash, console: &Console) -> Result<(), Failure> {
    let outcome = dht.scrape(hash).await.finish().await?;
    summary(&outcome, console);
    if outcome.answered() == 0 {
        return Err(nobody(&outcome));
    }
    let scrape = outcome.scrape().unwrap_or_default();
    if scrape.seeds == 0 && scrape.peers == 0 {
        let asked = plural(outcome.asked(), "node");
        let error = match scrape.nodes {
            0 => format!("asked {asked}, none has counted anybody"),
            nodes => format!("{} counted, and found nobody", plural(nodes, "node")),
        };
        return Err(Failure::new(Code::NoPeers, error).at(Stage::Peers));
    }
    console.note(&format!("counted by {}", plural(scrape.nodes, "node")));
    console.record(
        || format!("{}\t{}", scrape.seeds, scrape.peers),
        || {
            json!({
                "code": 0, "seeds": scrape.seeds, "peers": scrape.peers, "nodes": scrape.nodes,
                "asked": outcome.asked(), "answered": outcome.answered(),
            })
        },
    );
    Ok(())
}
