//! What a DHT node remembers across restarts: its id and its contacts, in a file of its own. Where
//! several addresses of one family are listened on there are as many nodes (BEP 45), and each has one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::NodeId;
use crate::base::addr::Family;
use crate::dht::{Node, SavedContact};
use crate::driver::state_file;
use crate::engine::{Engine, NodeConfig};

/// The state of one node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeState {
    id: NodeId,
    contacts: Vec<SavedContact>,
}

/// Where nodes remember, and whether it is ours: of several programs that share a directory, the
/// first keeps the id and writes; the others borrow the contacts and live under an id of their own,
/// for one id at two addresses would look like a liar to everybody.
#[derive(Debug)]
pub(super) struct Memory {
    dir: PathBuf,
    lock: Option<File>,
}

impl Memory {
    /// Opens the directory, making it if need be. One that cannot be written is only read.
    pub(super) fn open(dir: &Path) -> Memory {
        let lock = lock(dir);
        if let Err(error) = &lock {
            tracing::debug!(%error, dir = %dir.display(), "DHT state is read only");
        }
        Memory { dir: dir.to_owned(), lock: lock.ok() }
    }

    /// Fills in what was saved of the next node of its family, `earlier` being those before it. A
    /// damaged file is set aside with a warning; the node starts afresh. One that never was here
    /// begins with the contacts of the first.
    pub(super) fn load(&self, node: &mut NodeConfig, earlier: &[NodeConfig]) {
        let family = node.dht.family;
        let place = earlier.iter().filter(|n| n.dht.family == family).count();
        if let Some(state) = self.read(family, place) {
            node.id = self.lock.is_some().then_some(state.id);
            node.contacts = state.contacts;
        } else if let Some(first) = earlier.iter().find(|n| n.dht.family == family) {
            node.contacts = first.contacts.clone();
        }
    }

    fn read(&self, family: Family, place: usize) -> Option<NodeState> {
        state_file::load(&path(&self.dir, family, place), VERSION).unwrap_or_else(|error| {
            tracing::warn!(%error, "DHT state not read: starting without it");
            None
        })
    }

    /// Takes the directory over if whoever had it has ended.
    pub(super) fn take_over(&mut self) {
        if self.lock.is_none() {
            self.lock = lock(&self.dir).ok();
        }
    }

    /// The directory to save to, if it is ours.
    pub(super) fn dir(&self) -> Option<PathBuf> {
        self.lock.is_some().then(|| self.dir.clone())
    }
}

// The lock lives as long as the file is open, and dies with the process however it ends.
fn lock(dir: &Path) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("dht.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.try_lock()?;
    Ok(file)
}

/// The states of all nodes, in the order of their sockets.
pub(super) fn collect(engine: &Engine) -> Vec<(Family, NodeState)> {
    let state = |node: &Node| NodeState { id: node.id(), contacts: node.saved() };
    engine.nodes().map(|(_, node)| (node.family(), state(node))).collect()
}

/// Writes the states. A node that knows nobody leaves the file of a better day alone.
pub(super) fn save(dir: &Path, states: &[(Family, NodeState)]) {
    for (at, (family, state)) in states.iter().enumerate() {
        let place = states[..at].iter().filter(|(f, _)| f == family).count();
        if state.contacts.is_empty() {
            continue;
        }
        if let Err(error) = state_file::save(&path(dir, *family, place), VERSION, state) {
            tracing::warn!(%error, dir = %dir.display(), "DHT state not saved");
        }
    }
}

// The first node of a family, the second, ...
fn path(dir: &Path, family: Family, place: usize) -> PathBuf {
    let family = match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    };
    dir.join(match place {
        0 => format!("dht-{family}.state"),
        n => format!("dht-{family}-{}.state", n + 1),
    })
}

const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_that_stays_takes_the_directory_over_from_one_that_ended() {
        let dir = tempfile::tempdir().unwrap();
        let first = Memory::open(dir.path());
        let mut second = Memory::open(dir.path());
        second.take_over();
        assert_eq!((first.dir().as_deref(), second.dir()), (Some(dir.path()), None));
        drop(first);
        second.take_over();
        assert_eq!(second.dir().as_deref(), Some(dir.path()));
    }
}
