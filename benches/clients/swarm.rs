//! One seeder with a slow line and several downloaders at once: how near it comes to sending one copy.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::{Client, From, libtorrent_seed};
use crate::payload::Payload;
use crate::resolving::{NODES, share};
use crate::world::krpc::Probe;
use crate::world::{Ended, Launch, World, info_hash_of, installed, netns, secs};
use crate::{Plan, figure, head, median, row, say};

struct Run {
    slowest: Duration,
    /// Of the content, sent by the seeder, headers of packets included.
    copies: f64,
}

/// Several downloaders, of one kind and of many.
pub fn table(plan: &Plan) {
    if let Err(missing) = installed("tc").and_then(|()| private()) {
        return say(&format!("without the swarm: {missing}"));
    }
    println!(
        "**One seeder with a line of {} MB/s, several downloaders**, each of which ends when it has everything (libtorrent and rqbit, too); \
         over a private DHT of {NODES} nodes. The optimum is what the line takes for one copy. aria2 finds its first peer after ten \
         seconds, and rqbit looks for new pieces every five: with little content they are left over when the others have gone.\n",
        LINE / 1_000_000
    );
    head(&["seeder → downloaders", "MB", "slowest, s", "of the optimum", "copies sent"]);
    for (seeder, leechers, megabytes) in swarms(plan) {
        let name = format!("{} → {}", seeder.name(), names(&leechers));
        let payload = Payload::new(megabytes * 1_000_000, "256KiB");
        let times = if megabytes > 100 { 1 } else { plan.runs };
        let mut runs = Vec::new();
        for _ in 0..times {
            match hand_out(&payload, seeder, &leechers) {
                Ok(run) => runs.push(run),
                Err(error) => say(&format!("{name}: {error}")),
            }
        }
        let slowest = median(runs.iter().map(|run| run.slowest.as_secs_f64()));
        let optimum = (megabytes * 1_000_000) as f64 / LINE as f64;
        let cells = [
            name,
            megabytes.to_string(),
            figure(slowest, 1),
            figure(slowest.map(|slowest| slowest / optimum), 2),
            figure(median(runs.iter().map(|run| run.copies)), 2),
        ];
        row(&cells);
        say(&cells.join("  "));
    }
}

fn private() -> Result<(), String> {
    if netns::is_inside() { Ok(()) } else { Err("it shapes the network device".to_owned()) }
}

fn swarms(plan: &Plan) -> Vec<(Client, Vec<Client>, u64)> {
    use Client::{Aria2, Libtorrent, Rqbit, Trackless};
    let all = [
        (Libtorrent, vec![Libtorrent; 4], 100),
        (Trackless, vec![Trackless; 4], 100),
        (Trackless, vec![Libtorrent; 4], 100),
        (Trackless, vec![Trackless, Trackless, Libtorrent, Libtorrent], 100),
        (Trackless, vec![Trackless, Libtorrent, Libtorrent, Rqbit], 100),
        (Trackless, vec![Trackless, Libtorrent, Rqbit, Aria2], 1_000),
    ];
    let is_here = |client: &Client| *client == Trackless || plan.has(*client);
    let can_be = |(seeder, leechers, _): &(Client, Vec<Client>, u64)| {
        is_here(seeder) && leechers.iter().all(is_here)
    };
    all.into_iter().filter(can_be).collect()
}

// `4 trackless`, or `trackless, 2 libtorrent`.
fn names(clients: &[Client]) -> String {
    let groups = clients.chunk_by(|a, b| a == b).map(|group| match group {
        [one] => one.name().to_owned(),
        many => format!("{} {}", many.len(), many[0].name()),
    });
    groups.collect::<Vec<_>>().join(", ")
}

fn hand_out(payload: &Payload, seeder: Client, leechers: &[Client]) -> Result<Run, String> {
    let world = World::new();
    let dht = world.dht(NODES);
    let files = std::slice::from_ref(&payload.file);
    let (seeding, link) = if seeder == Client::Trackless {
        let (seeding, mut links) = share(&world, Some(&dht), files);
        (seeding, links.remove(0))
    } else {
        let torrents = std::slice::from_ref(&payload.torrent);
        (libtorrent_seed(&world, Some(&dht), payload.dir(), torrents), payload.link.clone())
    };
    dht.wait_for_peer(&Probe::at(world.ip()), &info_hash_of(&link), seeding.addr, 120);
    let line = Line::narrow(&seeding.addr.ip().to_string());
    let before = line.sent();
    // Each with a home of its own.
    let worlds: Vec<World> = leechers.iter().map(|_| World::new()).collect();
    let outs: Vec<PathBuf> = worlds.iter().map(|world| world.folder("out")).collect();
    let working: Vec<_> = (leechers.iter().zip(&worlds).zip(&outs))
        .map(|((client, world), out)| client.get(world, &link, out, From::Dht(&dht)))
        .collect();
    let bytes = std::fs::metadata(&payload.file).unwrap().len() as f64;
    let limit = secs(60) + Duration::from_secs_f64(5.0 * bytes / LINE as f64);
    let took = std::thread::scope(|scope| {
        let waiting = working.into_iter().map(|working| scope.spawn(move || working.wait(limit)));
        let waiting: Vec<_> = waiting.collect();
        waiting.into_iter().map(|one| one.join().unwrap()).collect::<Result<Vec<_>, _>>()
    })?;
    let copies = (line.sent() - before) as f64 / bytes;
    outs.iter().try_for_each(|out| payload.check(out))?;
    let slowest = took.iter().map(|took| took.time).max().unwrap_or_default();
    Ok(Run { slowest, copies })
}

// What one address sends, headers included, goes through a line of so many bytes a second.
struct Line;

impl Line {
    fn narrow(ip: &str) -> Self {
        let bits = LINE * 8;
        for command in [
            "qdisc add dev lo root handle 1: htb default 0".to_owned(),
            format!(
                "class add dev lo parent 1: classid 1:1 htb rate {bits}bit burst 128k cburst 128k"
            ),
            "qdisc add dev lo parent 1:1 handle 10: pfifo limit 200".to_owned(),
            format!("filter add dev lo parent 1: protocol ip u32 match ip src {ip}/32 flowid 1:1"),
        ] {
            tc(&command).expect(0, "tc");
        }
        Self
    }

    // Bytes so far.
    fn sent(&self) -> u64 {
        let said = tc("-s class show dev lo").expect(0, "tc").stdout;
        let mut words = said.split_whitespace().skip_while(|word| *word != "Sent");
        words.nth(1).and_then(|bytes| bytes.parse().ok()).unwrap()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        tc("qdisc del dev lo root");
    }
}

fn tc(command: &str) -> Ended {
    Launch::new("tc").args(command.split(' ')).run(secs(20))
}

const LINE: u64 = 10_000_000;
