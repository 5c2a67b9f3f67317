//! DHT operations that the host asks for. Each has a name, runs on every node that can do it, and
//! ends with exactly one event of which [`NodeEvent::is_last`] is true, unless it is cancelled.

use std::net::SocketAddr;

use crate::base::addr::Family;
use crate::base::limits::DHT_COMMANDS_MAX;
use crate::base::{InfoHash, Instant, Key, NodeId};
use crate::dht::{Announcement, Item, ItemKey, LookupId, Node, Priority};
use crate::engine::switchboard::{Asker, Engine};
use crate::engine::{CommandId, Event, NodeEvent, Output, Refused, SocketId};

impl Engine {
    /// Looks for the peers of `info_hash`.
    pub fn get_peers(&mut self, now: Instant, info_hash: InfoHash) -> CommandId {
        self.command(now, |node| node.get_peers(now, info_hash))
    }

    /// Looks for the peers of one of many torrents: it waits for its turn, behind whatever somebody waits
    /// for, in the order that makes all of them cheapest.
    pub fn get_peers_in_bulk(&mut self, now: Instant, info_hash: InfoHash) -> CommandId {
        self.command(now, |node| node.get_peers_at(now, info_hash, Priority::Bulk))
    }

    /// Looks for the peers of `info_hash` and announces `port` (`None`: our DHT port).
    pub fn announce(&mut self, now: Instant, info_hash: InfoHash, port: Option<u16>) -> CommandId {
        self.command(now, |node| node.announce(now, info_hash, port))
    }

    /// Looks for the nodes closest to `target`.
    pub fn find_node(&mut self, now: Instant, target: NodeId) -> CommandId {
        self.command(now, |node| node.find_node(now, target))
    }

    /// Looks for an item; [`NodeEvent::Item`] tells it, and newer versions as they turn up.
    pub fn get_item(&mut self, now: Instant, key: ItemKey) -> CommandId {
        self.command(now, |node| node.get_item(now, key.clone()))
    }

    /// Stores an item at the nodes closest to it; `cas` is the version that it may replace.
    pub fn put_item(&mut self, now: Instant, item: Item, cas: Option<i64>) -> CommandId {
        self.command(now, |node| node.put_item(now, item.clone(), cas))
    }

    /// Asks the nodes on the way to `target` which torrents they have peers of.
    pub fn sample(&mut self, now: Instant, target: Key) -> CommandId {
        self.command(now, |node| node.sample(now, target))
    }

    /// Counts who has a torrent.
    pub fn scrape(&mut self, now: Instant, info_hash: InfoHash) -> CommandId {
        self.command(now, |node| node.scrape(now, info_hash))
    }

    /// Announces `info_hash` at `port` (`None`: our DHT port) from now on, until
    /// [`Engine::drop_announced`]: first when its turn comes, then again before nodes forget it. The nodes'
    /// `announcing` tells how that goes. False if no node takes it: there is none, or too many are kept.
    pub fn keep_announced(&mut self, now: Instant, info_hash: InfoHash, port: Option<u16>) -> bool {
        let seed = false;
        let how = Announcement { port, seed, priority: Priority::Bulk, keep: true };
        let mut kept = false;
        self.each_node(|slot| {
            slot.node.announce_as(now, info_hash, how);
            kept |= slot.node.is_announcing(info_hash);
        });
        self.drain_nodes(now);
        kept
    }

    /// Announces it no more. False if it was not kept announced.
    pub fn drop_announced(&mut self, info_hash: InfoHash) -> bool {
        let mut dropped = false;
        self.each_node(|slot| dropped |= slot.node.stop_announcing(info_hash));
        dropped
    }

    /// Stores an item now and keeps it alive until [`Engine::drop_item`]; [`Event::ItemKept`] tells each
    /// time that it was looked after. False if no node takes it: it proves nothing, or is older than
    /// what is kept, or too many are.
    pub fn keep_item(&mut self, now: Instant, item: &Item) -> bool {
        let mut kept = false;
        self.each_node(|slot| kept |= slot.node.keep_item(now, item.clone()));
        self.drain_nodes(now);
        kept
    }

    /// Keeps an item no longer. False if it was not kept.
    pub fn drop_item(&mut self, target: Key) -> bool {
        let mut dropped = false;
        self.each_node(|slot| dropped |= slot.node.drop_item(target));
        dropped
    }

    /// Pings one node.
    pub fn ping(&mut self, now: Instant, addr: SocketAddr) -> CommandId {
        let command = self.name_command();
        let slot = self.nodes.iter_mut().find(|s| s.family == Family::of(&addr));
        match slot {
            None => self.tell(command, NodeEvent::Refused(Refused::NoNode)),
            Some(_) if self.pings.len() >= DHT_COMMANDS_MAX => {
                self.tell(command, NodeEvent::Refused(Refused::Busy));
            }
            Some(slot) => {
                let ping = slot.node.ping(now, addr);
                self.pings.insert((slot.socket, ping), command);
            }
        }
        self.drain_nodes(now);
        command
    }

    /// Tells each step of an operation's lookups, from their start if this is called in the same
    /// moment.
    pub fn trace(&mut self, now: Instant, command: CommandId) {
        for (socket, lookup) in self.lookups_of(command) {
            if let Some(slot) = self.nodes.iter_mut().find(|s| s.socket == socket) {
                slot.node.trace(now, lookup);
            }
        }
        self.drain_nodes(now);
    }

    /// Ends an operation without a word.
    pub fn cancel(&mut self, command: CommandId) {
        for (socket, lookup) in self.lookups_of(command) {
            self.lookups.remove(&(socket, lookup));
            if let Some(slot) = self.nodes.iter_mut().find(|s| s.socket == socket) {
                slot.node.cancel(lookup);
            }
        }
        // A ping is over soon; nobody is told.
        self.pings.retain(|_, pinging| *pinging != command);
    }

    fn command(&mut self, now: Instant, mut start: impl FnMut(&mut Node) -> LookupId) -> CommandId {
        let command = self.name_command();
        if self.nodes.is_empty() {
            self.tell(command, NodeEvent::Refused(Refused::NoNode));
        } else if self.lookups.len() >= DHT_COMMANDS_MAX {
            self.tell(command, NodeEvent::Refused(Refused::Busy));
        } else {
            let mut started = Vec::new();
            self.each_node(|slot| started.push((slot.socket, start(&mut slot.node))));
            let asker = Asker::Command(command);
            self.lookups.extend(started.into_iter().map(|lookup| (lookup, asker)));
        }
        self.drain_nodes(now);
        command
    }

    fn lookups_of(&self, command: CommandId) -> Vec<(SocketId, LookupId)> {
        let own = self.lookups.iter().filter(|(_, asker)| **asker == Asker::Command(command));
        own.map(|(name, _)| *name).collect()
    }

    fn name_command(&mut self) -> CommandId {
        let command = CommandId(self.next_command);
        self.next_command += 1;
        command
    }

    pub(super) fn tell(&mut self, command: CommandId, event: NodeEvent) {
        self.outputs.push_back(Output::Event(Event::Command { command, event }));
    }
}
