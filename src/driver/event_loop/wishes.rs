//! What callers want of the loop: each wish is carried out at once, and answered.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::EventLoop;
use crate::base::{InfoHash, Instant};
use crate::driver::command::{Added, Command, DhtCommand};
use crate::driver::disk::{DiskPool, Removal, StorageConfig, StorageMode};
use crate::driver::news::{self, News, Teller};
use crate::driver::{
    AddTorrent, DhtStage, Erased, NodeStatus, Output, SessionEvent, SessionStatus, TorrentEvent,
    TorrentStatus,
};
use crate::engine::{self, AddError, NodeEvent, TorrentId};

/// Who wants to hear of a torrent.
pub(super) struct Listeners {
    pub(super) info_hash: InfoHash,
    /// Its data has a place.
    pub(super) has_storage: bool,
    /// Its data is only offered, and never written to.
    offered: bool,
    tellers: Vec<Teller>,
}

impl Listeners {
    fn join(&mut self) -> News {
        let (teller, news) = news::channel();
        self.tellers.retain(|teller| !teller.is_closed());
        self.tellers.push(teller);
        news
    }

    pub(super) fn tell(&mut self, event: &TorrentEvent) {
        self.tellers.retain(|teller| !teller.is_closed());
        self.tellers.iter().for_each(|teller| teller.tell(event.clone()));
    }
}

impl EventLoop {
    // Returns whom to tell when the session has ended, if that is what is wanted.
    pub(super) fn on_wish(&mut self, wish: Command) -> Option<oneshot::Sender<()>> {
        // A caller that went away meanwhile gets no answer; nothing is lost.
        match wish {
            Command::Add(add, reply) => drop(reply.send(self.add(*add))),
            Command::Attach(info_hash, reply) => drop(reply.send(self.attach(info_hash))),
            Command::Remove(id, reply) => {
                self.remove(id);
                let reply = move || _ = reply.send(());
                match &self.disk {
                    Some(disk) => disk.remove(id.0, Removal::Close(Box::new(reply))),
                    None => reply(),
                }
            }
            Command::Erase(id, reply) => {
                self.remove(id);
                let reply = move |erased| drop(reply.send(erased));
                match &self.disk {
                    Some(disk) => disk.remove(id.0, Removal::Erase(Box::new(reply))),
                    None => reply(Ok(Erased::default())),
                }
            }
            Command::Pause(id) => {
                if self.engine.pause(self.clock.now(), id) {
                    self.announce_of(id, SessionEvent::Paused);
                }
            }
            Command::Resume(id) => {
                if self.engine.resume(self.clock.now(), id) {
                    self.announce_of(id, SessionEvent::Resumed);
                }
            }
            Command::Recheck(id, reply) => drop(reply.send(self.recheck(id))),
            Command::SetSequential(id, sequential) => {
                self.engine.set_sequential(self.clock.now(), id, sequential);
            }
            Command::SetLimits(None, limits) => self.engine.set_limits(self.clock.now(), limits),
            Command::SetLimits(Some(id), limits) => {
                self.engine.set_torrent_limits(self.clock.now(), id, limits);
            }
            Command::Statuses(reply) => {
                let all = self.torrents.keys().filter_map(|id| self.torrent_status(*id));
                drop(reply.send(all.collect()));
            }
            Command::Subscribe(reply) => drop(reply.send(self.news.subscribe())),
            Command::AddPeers(id, peers) => self.engine.add_peers(self.clock.now(), id, &peers),
            Command::Select(id, wanted) => {
                self.engine.select(self.clock.now(), id, wanted);
                self.serve_waiting(id, None);
            }
            Command::Status(id, reply) => drop(reply.send(self.torrent_status(id))),
            Command::Peers(id, reply) => {
                drop(reply.send(self.engine.torrent(id).map(|t| t.peers()).unwrap_or_default()));
            }
            Command::Files(id, reply) => {
                drop(reply.send(self.engine.torrent(id).map(|t| t.files()).unwrap_or_default()));
            }
            Command::OpenReader(id, file, token, reply) => {
                drop(reply.send(self.open_reader(id, file, token)));
            }
            Command::Read(reader, read, reply) => self.read(reader, read, reply),
            Command::Dht(command, news) => self.start_dht_command(command, news),
            Command::KeepAnnounced(info_hash, port, reply) => {
                let kept = self.engine.keep_announced(self.clock.now(), info_hash, port);
                let _ = reply.send(kept);
            }
            Command::DropAnnounced(info_hash, reply) => {
                let _ = reply.send(self.engine.drop_announced(info_hash));
            }
            Command::KeepItem(item, reply) => {
                let _ = reply.send(self.engine.keep_item(self.clock.now(), &item));
            }
            Command::DropItem(target, reply) => {
                let _ = reply.send(self.engine.drop_item(target));
            }
            Command::Sweep => {
                self.sweep_dht_commands();
                self.sweep_readers();
            }
            Command::SessionStatus(reply) => drop(reply.send(self.session_status())),
            Command::Shutdown(reply) => return Some(reply),
        }
        None
    }

    fn add(&mut self, add: AddTorrent) -> Result<Added, AddError> {
        let mut request = engine::AddTorrent::new(add.info_hash);
        request.metadata_only = add.output == Output::None;
        request.info = add.info;
        request.peers = add.peers;
        // What is only offered is never written to: what is missing of it stays missing.
        let may_lack = matches!(add.output, Output::SeedChecked(_));
        request.wanted = if may_lack { Some(Vec::new()) } else { add.wanted };
        let offered = may_lack || matches!(add.output, Output::Seed(_));
        request.sequential = add.sequential;
        request.super_seeding = add.super_seeding;
        request.limits = add.limits;
        request.connections_max = add.connections_max;
        request.paused = add.paused;
        request.discover = self.config.dht;
        let id = self.engine.add_torrent(self.clock.now(), request)?;
        let storage = match add.output {
            Output::None => None,
            Output::Download(root) => Some((root, StorageMode::Download)),
            Output::Seed(root) => Some((root, StorageMode::Seed)),
            Output::SeedChecked(root) => Some((root, StorageMode::SeedChecked)),
        };
        let has_storage = storage.is_some();
        if let Some((root, mode)) = storage {
            let overwrite = add.overwrite;
            let state_dir = self.config.state_dir.clone().filter(|_| add.remembered);
            self.disk().add(id.0, StorageConfig { root, state_dir, mode, overwrite });
        }
        let tellers = Vec::new();
        let mut listeners = Listeners { info_hash: add.info_hash, has_storage, offered, tellers };
        let news = listeners.join();
        self.torrents.insert(id, listeners);
        self.announce(|| SessionEvent::Added(add.info_hash));
        Ok((id, news))
    }

    fn recheck(&mut self, id: TorrentId) -> bool {
        let now = self.clock.now();
        let begun = self.engine.recheck(now, id);
        if begun && self.torrents.get(&id).is_some_and(|listeners| listeners.offered) {
            // What turns out to be missing stays missing.
            self.engine.select(now, id, Some(Vec::new()));
        }
        begun
    }

    fn remove(&mut self, id: TorrentId) {
        self.engine.remove_torrent(self.clock.now(), id);
        self.forget_readers(id);
        if let Some(listeners) = self.torrents.remove(&id) {
            self.announce(|| SessionEvent::Removed(listeners.info_hash));
        }
        // What was still to be written and recorded comes before the end.
        self.carry_out();
    }

    fn attach(&mut self, info_hash: InfoHash) -> Option<Added> {
        let id = self.engine.torrent_of(info_hash)?;
        Some((id, self.torrents.get_mut(&id)?.join()))
    }

    fn announce_of(&self, id: TorrentId, event: impl FnOnce(InfoHash) -> SessionEvent) {
        if let Some(listeners) = self.torrents.get(&id) {
            self.announce(|| event(listeners.info_hash));
        }
    }

    // The workers start with the first torrent that stores something.
    fn disk(&mut self) -> &DiskPool {
        let (wake, buffers) = (&self.disk_wake, &self.buffers);
        self.disk.get_or_insert_with(|| {
            let (wake, buffers) = (Arc::clone(wake), Arc::clone(buffers));
            let workers = std::thread::available_parallelism().map_or(2, |n| n.get());
            DiskPool::counting(workers.min(DISK_WORKERS_MAX), buffers, move || wake.notify_one())
        })
    }

    fn start_dht_command(&mut self, command: DhtCommand, news: mpsc::Sender<NodeEvent>) {
        let now = self.clock.now();
        let id = match command {
            DhtCommand::GetPeers(info_hash) => self.engine.get_peers(now, info_hash),
            DhtCommand::GetPeersInBulk(info_hash) => self.engine.get_peers_in_bulk(now, info_hash),
            DhtCommand::TracePeers(info_hash) => {
                let id = self.engine.get_peers(now, info_hash);
                self.engine.trace(now, id);
                id
            }
            DhtCommand::Announce(info_hash, port) => self.engine.announce(now, info_hash, port),
            DhtCommand::Scrape(info_hash) => self.engine.scrape(now, info_hash),
            DhtCommand::Sample(target) => self.engine.sample(now, target),
            DhtCommand::GetItem(key) => self.engine.get_item(now, key),
            DhtCommand::PutItem(item, cas) => self.engine.put_item(now, item, cas),
            DhtCommand::FindNode(target) => self.engine.find_node(now, target),
            DhtCommand::Ping(addr) => self.engine.ping(now, addr),
        };
        self.dht_commands.insert(id, news);
    }

    fn torrent_status(&self, id: TorrentId) -> Option<TorrentStatus> {
        let swarm = self.engine.torrent(id)?.status(self.clock.now());
        let dht = self.engine.discovery(id).map(|d| DhtStage {
            bootstrap_names: self.config.bootstrap.len(),
            bootstrap_addrs: self.bootstrap_addrs.len(),
            replies: self.engine.nodes().map(|(_, n)| n.stats().replies_in).sum(),
            nodes: self.engine.nodes().map(|(_, n)| n.contact_count()).sum(),
            asked: d.asked,
            answered: d.answered,
            peers_found: d.peers_found,
            lookups_done: d.lookups_done,
            lookups_running: d.running,
            announced: d.announced,
        });
        Some(TorrentStatus { swarm, dht })
    }

    pub(super) fn session_status(&self) -> SessionStatus {
        let now = self.clock.now();
        let nodes = self.engine.nodes().zip(&self.local_addrs);
        let nodes = nodes.map(|((_, node), addr)| NodeStatus::of(node, *addr, now));
        SessionStatus {
            uptime: now.since(Instant::ZERO),
            nodes: nodes.collect(),
            torrents: self.torrents.len(),
            connections: self.handles.len(),
            send_failures: self.udp.send_failures,
        }
    }
}

const DISK_WORKERS_MAX: usize = 8;
