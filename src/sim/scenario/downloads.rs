//! A swarm of whole clients: one has the data, the others have a magnet link and the address of
//! one DHT node. All must end with the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::hash::sha1;
use crate::base::{InfoHash, Instant, Rng};
use crate::engine::{AddTorrent, Event, TorrentId};
use crate::sim::client::Client;
use crate::sim::disk::{DiskFaults, Loss, MemoryDisk};
use crate::sim::link::{Line, Weather};
use crate::sim::report::Durations;
use crate::sim::world::Counts;
use crate::sim::{HostId, World};
use crate::swarm;

/// What the world is like and what is downloaded in it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// From which all chance follows.
    pub seed: u64,
    /// Clients that download.
    pub downloaders: u32,
    /// Clients that claim to have everything and send wrong blocks.
    pub liars: u32,
    /// How often a liar lies, of all blocks it sends.
    pub lie_rate: f64,
    /// Clients that claim to have everything and send nothing.
    pub mutes: u32,
    /// Downloaders that end without a word in the middle and come back later.
    pub crashes: u32,
    /// What they find then; nothing if `None`.
    pub crash: Option<Loss>,
    /// Downloaders whose disks fail; they start again on a disk that works.
    pub faulty: u32,
    /// How those disks fail.
    pub faults: DiskFaults,
    /// The network.
    pub weather: Weather,
    /// How each client is connected.
    pub line: Line,
    /// How the seeder is connected.
    pub seeder_line: Line,
    /// The seeder hands each piece out once (BEP 16).
    pub super_seeding: bool,
    /// Bytes of the one file.
    pub size: u32,
    /// Bytes of a piece.
    pub piece_len: u32,
    /// Within this time the downloaders start, evenly.
    pub start_time: Duration,
    /// Virtual time after which the scenario ends in any case.
    pub time_max: Duration,
}

impl Options {
    /// Home lines on a calm Internet: 20 Mbit/s up, 100 Mbit/s down.
    pub fn new(seed: u64, downloaders: u32) -> Self {
        Self {
            seed,
            downloaders,
            liars: 0,
            lie_rate: 0.0,
            mutes: 0,
            crashes: 0,
            crash: None,
            faulty: 0,
            faults: DiskFaults::default(),
            weather: Weather::internet(),
            line: HOME_LINE,
            seeder_line: HOME_LINE,
            super_seeding: true,
            size: 3 * 512 * 1024 + 12_345,
            piece_len: 64 * 1024,
            start_time: Duration::from_secs(5),
            time_max: Duration::from_secs(1_800),
        }
    }

    /// A swarm drawn by chance: small, on any kind of network, perhaps with liars and crashes.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::from_seed(super::seed(seed));
        let mut draw = |bound: usize| u32::try_from(rng.below(bound)).unwrap_or(0);
        let mut options = Self::new(seed, 2 + draw(8));
        options.liars = draw(3);
        options.mutes = draw(2);
        options.crashes = draw(2);
        options.size = 1 + draw(1 << 20);
        options.piece_len = (16 * 1024) << draw(5);
        let up = 50_000 + u64::from(draw(5_000_000));
        options.line = Line { up: Some(up), down: Some(up * 4) };
        options.seeder_line = options.line;
        options.lie_rate = 0.05 + 0.95 * rng.unit();
        options.weather.rtt_median = Duration::from_millis(1 + rng.below(300) as u64);
        options.weather.loss = 0.1 * rng.unit();
        options
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The options that it came from.
    pub options: Options,
    /// Downloaders that said they are done.
    pub finished: usize,
    /// Downloaders whose bytes are the right ones.
    pub verified: usize,
    /// From the start of a download to its info dictionary.
    pub metadata: Durations,
    /// From the start of a download to its end.
    pub took: Durations,
    /// Payload that the seeder sent.
    pub seeder_sent: u64,
    /// Payload that was received in vain, over all downloaders.
    pub wasted: u64,
    /// Pieces that failed their hash, over all downloaders.
    pub hash_failures: u32,
    /// Times that a disk failed.
    pub disk_failures: usize,
    /// Blocks fetched again though a record called their piece good.
    pub refetched: u64,
    /// Times that a liar was banned.
    pub liars_banned: usize,
    /// How many different ones that were.
    pub liars_convicted: usize,
    /// Times that an honest client was banned.
    pub honest_banned: usize,
    /// What the network did.
    pub counts: Counts,
    /// Virtual time.
    pub time: Instant,
    /// Events, as a number.
    pub trace: u64,
    /// How many.
    pub events: u64,
    /// The last events, in clear, and who did not finish.
    pub tail: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, finished, verified, .. } = self;
        writeln!(f, "{options:?}")?;
        writeln!(f, "  {finished} finished, {verified} verified")?;
        writeln!(f, "  metadata: {}", self.metadata)?;
        writeln!(f, "  download: {}", self.took)?;
        let copies = self.seeder_sent as f64 / f64::from(options.size);
        writeln!(f, "  the seeder sent {copies:.2} copies, {} bytes wasted", self.wasted)?;
        let Self { hash_failures, liars_banned, liars_convicted, honest_banned, .. } = self;
        writeln!(f, "  {hash_failures} bad pieces, {} failed disks", self.disk_failures)?;
        writeln!(f, "  {} blocks of recorded pieces fetched again", self.refetched)?;
        writeln!(
            f,
            "  banned {liars_convicted} liars {liars_banned} times, others {honest_banned} times"
        )?;
        writeln!(f, "  {:?}", self.counts)?;
        write!(f, "  {:?}, {} events, trace {:016x}", self.time, self.events, self.trace)
    }
}

/// Runs the scenario to its end.
pub fn run(options: Options) -> Report {
    let mut run = Run::new(options);
    let end = run.world.now() + options.time_max;
    while run.world.now() < end && run.is_going_on() {
        let next = run.plans.keys().next().map_or(end, |(at, _)| *at).min(end);
        run.world.run_until(next, World::has_notes);
        run.hear();
        run.carry_out_plans();
    }
    run.report()
}

struct Run {
    options: Options,
    world: World<Client>,
    rng: Rng,
    router: HostId,
    seeder: (HostId, Option<TorrentId>),
    liars: Vec<SocketAddr>,
    convicted: BTreeSet<IpAddr>,
    remains: BTreeMap<HostId, MemoryDisk>,
    info: Bytes,
    content: Bytes,
    downloads: BTreeMap<HostId, Download>,
    plans: BTreeMap<(Instant, u32), Plan>,
    report: Report,
}

/// One downloader.
#[derive(Debug)]
struct Download {
    torrent: Option<TorrentId>,
    began: Instant,
    finished: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Plan {
    Start,
    Crash,
    Return(HostId),
}

impl Run {
    fn new(options: Options) -> Self {
        let mut rng = Rng::from_seed(super::seed(options.seed));
        let mut content = vec![0; options.size as usize];
        rng.fill(&mut content);
        let content = Bytes::from(content);
        let info = info_dictionary(&content, options.piece_len);
        let mut world = World::new(options.weather, rng.fork());
        let router = world.add(Line::default(), new_client);
        let seeder = (world.add(options.seeder_line, new_client), None);
        let report = empty_report(options);
        let mut run = Self {
            options,
            world,
            rng,
            router,
            seeder,
            liars: Vec::new(),
            convicted: BTreeSet::new(),
            remains: BTreeMap::new(),
            info,
            content,
            downloads: BTreeMap::new(),
            plans: BTreeMap::new(),
            report,
        };
        run.seeder.1 = run.share(run.seeder.0, DiskFaults::default());
        for _ in 0..options.liars {
            let id = run.world.add(options.line, new_client);
            run.liars.push(run.world.addr(id));
            run.share(id, DiskFaults { read_lies: options.lie_rate, ..DiskFaults::default() });
        }
        for _ in 0..options.mutes {
            let id = run.world.add(options.line, new_client);
            run.share(id, DiskFaults { read_hangs: true, ..DiskFaults::default() });
        }
        run.plan_all();
        run
    }

    fn is_going_on(&self) -> bool {
        !self.plans.is_empty() || self.downloads.values().any(|d| d.finished.is_none())
    }

    fn plan_all(&mut self) {
        let start = self.world.now() + SHARE_TIME;
        let mut number = 0;
        let mut plan = |at, what| {
            number += 1;
            self.plans.insert((at, number), what);
        };
        for n in 0..self.options.downloaders {
            plan(start + self.options.start_time * n / self.options.downloaders, Plan::Start);
        }
        for n in 1..=self.options.crashes {
            plan(start + self.options.start_time + CRASH_TIME * n, Plan::Crash);
        }
    }

    fn carry_out_plans(&mut self) {
        while let Some((at, number)) = self.plans.keys().next().copied() {
            if at > self.world.now() {
                return;
            }
            let plan = self.plans.remove(&(at, number)).expect("it was there");
            match plan {
                Plan::Start => {
                    let id = self.world.add(self.options.line, new_client);
                    self.begin(id);
                }
                Plan::Crash => {
                    let busy = self.downloads.iter().filter(|(_, d)| d.torrent.is_some());
                    let busy: Vec<_> = busy.map(|(id, _)| *id).collect();
                    let Some(id) = self.rng.pick(&busy).copied() else { continue };
                    self.end(id, self.options.crash);
                    self.plans.insert((at + CRASH_TIME, number), Plan::Return(id));
                }
                Plan::Return(id) => {
                    self.world.revive(id, new_client);
                    self.begin(id);
                }
            }
        }
    }

    fn share(&mut self, id: HostId, faults: DiskFaults) -> Option<TorrentId> {
        let disk = MemoryDisk::with_content(self.content.clone(), faults, self.rng.fork());
        let mut add = AddTorrent::new(self.info_hash());
        add.info = Some(self.info.clone());
        add.super_seeding = self.options.super_seeding;
        self.add(id, add, disk)
    }

    // The process ends; of its disk is left what `loss` leaves.
    fn end(&mut self, id: HostId, loss: Option<Loss>) {
        let Some(download) = self.downloads.get_mut(&id) else { return };
        let torrent = download.torrent.take();
        download.finished = None;
        let disk = self.world.command(id, |client, _| torrent.and_then(|t| client.take_disk(t)));
        if let (Some(loss), Some(disk)) = (loss, disk.flatten()) {
            self.remains.insert(id, disk.after(loss));
        }
        self.world.kill(id);
    }

    fn begin(&mut self, id: HostId) {
        let is_new = !self.downloads.contains_key(&id);
        let is_faulty = is_new && self.downloads.len() < self.options.faulty as usize;
        let faults = if is_faulty { self.options.faults } else { DiskFaults::default() };
        let remains = self.remains.remove(&id);
        let disk = remains.unwrap_or_else(|| MemoryDisk::new(faults, self.rng.fork()));
        let disk = disk.expecting(self.content.clone());
        let torrent = self.add(id, AddTorrent::new(self.info_hash()), disk);
        let download = Download { torrent, began: self.world.now(), finished: None };
        self.downloads.insert(id, download);
    }

    fn add(&mut self, id: HostId, add: AddTorrent, disk: MemoryDisk) -> Option<TorrentId> {
        let routers = [self.world.addr(self.router)];
        let added = self.world.command(id, |client, now| {
            client.bootstrap(now, &routers);
            client.add(now, add, disk)
        });
        added.and_then(Result::ok)
    }

    fn info_hash(&self) -> InfoHash {
        InfoHash::new(sha1(&self.info))
    }

    // As a real host does: whoever needs it is told the bootstrap address again.
    fn hear(&mut self) {
        let routers = [self.world.addr(self.router)];
        for (at, host, note) in self.world.take_notes() {
            match note {
                Event::NeedBootstrap(_) if host != self.router => {
                    self.world.command(host, |client, now| client.bootstrap(now, &routers));
                }
                Event::Torrent { torrent: _, event } => self.on_event(at, host, &event),
                Event::NeedBootstrap(_)
                | Event::LookupDone { .. }
                | Event::Command { .. }
                | Event::ItemKept { .. }
                | Event::ExternalAddress(..)
                | Event::Reachability(..) => {}
            }
        }
    }

    fn on_event(&mut self, at: Instant, host: HostId, event: &swarm::Event) {
        if let swarm::Event::PeerBanned { addr } = event {
            let is_liar = self.liars.iter().any(|liar| liar.ip() == addr.ip());
            self.report.liars_banned += usize::from(is_liar);
            self.report.honest_banned += usize::from(!is_liar);
            if is_liar {
                self.convicted.insert(addr.ip());
            }
        }
        if matches!(event, swarm::Event::Failed(_)) && self.downloads.contains_key(&host) {
            // Whoever runs it is told, mends the disk, and runs it again.
            self.report.disk_failures += 1;
            self.end(host, Some(Loss::Kill));
            self.plans.insert((at + CRASH_TIME, u32::MAX - host.0), Plan::Return(host));
        }
        let Some(download) = self.downloads.get_mut(&host) else { return };
        if matches!(event, swarm::Event::MetadataReady { .. }) {
            self.report.metadata.push(at.since(download.began));
        }
        if *event == swarm::Event::Finished && download.finished.is_none() {
            download.finished = Some(at);
            self.report.took.push(at.since(download.began));
        }
    }

    fn report(mut self) -> Report {
        let now = self.world.now();
        let mut tail = self.world.trace().to_string();
        for (id, download) in &self.downloads {
            let client = self.world.core(*id);
            let (Some(client), Some(torrent)) = (client, download.torrent) else { continue };
            let disk = client.disk(torrent);
            self.report.refetched += disk.map_or(0, MemoryDisk::refetched);
            let content = disk.and_then(MemoryDisk::content);
            self.report.finished += usize::from(download.finished.is_some());
            let is_right = content.is_some_and(|content| content == self.content);
            self.report.verified += usize::from(is_right);
            let Some(torrent) = client.engine().torrent(torrent) else { continue };
            let status = torrent.status(now);
            self.report.wasted += status.wasted;
            self.report.hash_failures += status.hash_failures;
            if download.finished.is_none() {
                tail.push_str(&format!("\nhost {} did not finish: {status:#?}", id.0));
                tail.push_str(&format!("\n{:#?}", torrent.peers()));
            }
        }
        let seeder = self.world.core(self.seeder.0).zip(self.seeder.1);
        let seeder = seeder.and_then(|(client, torrent)| client.engine().torrent(torrent));
        self.report.seeder_sent = seeder.map_or(0, |torrent| torrent.status(now).uploaded);
        self.report.liars_convicted = self.convicted.len();
        self.report.counts = self.world.counts();
        self.report.time = now;
        self.report.trace = self.world.trace().hash();
        self.report.events = self.world.trace().events();
        self.report.tail = tail;
        self.report
    }
}

fn empty_report(options: Options) -> Report {
    Report {
        options,
        finished: 0,
        verified: 0,
        metadata: Durations::default(),
        took: Durations::default(),
        seeder_sent: 0,
        wasted: 0,
        hash_failures: 0,
        disk_failures: 0,
        refetched: 0,
        liars_banned: 0,
        liars_convicted: 0,
        honest_banned: 0,
        counts: Counts::default(),
        time: Instant::ZERO,
        trace: 0,
        events: 0,
        tail: String::new(),
    }
}

fn new_client(addr: SocketAddr, seed: crate::base::Seed, now: Instant) -> Client {
    Client::new(addr, seed, now, DISK_TIME)
}

/// The info dictionary of one file (BEP 3).
pub(super) fn info_dictionary(content: &[u8], piece_len: u32) -> Bytes {
    let hashes: Vec<u8> = content.chunks(piece_len as usize).flat_map(sha1).collect();
    let mut info = format!(
        "d6:lengthi{}e4:name9:trackless12:piece lengthi{piece_len}e6:pieces{}:",
        content.len(),
        hashes.len()
    )
    .into_bytes();
    info.extend_from_slice(&hashes);
    info.push(b'e');
    info.into()
}

/// 20 Mbit/s up, 100 Mbit/s down.
const HOME_LINE: Line = Line { up: Some(2_500_000), down: Some(12_500_000) };
/// How long a disk takes for one job.
const DISK_TIME: Duration = Duration::from_millis(2);
/// How long the seeder is alone: it joins the DHT and announces itself.
const SHARE_TIME: Duration = Duration::from_secs(20);
/// After the start the downloaders that crash do so one after the other, and return as late again.
const CRASH_TIME: Duration = Duration::from_secs(2);
