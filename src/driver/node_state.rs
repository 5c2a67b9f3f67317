//! What a DHT node remembers across restarts: its id and its contacts, one file for each family.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::NodeId;
use crate::base::addr::Family;
use crate::dht::SavedContact;
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

    /// Fills in what was saved. A damaged file is set aside with a warning; the node starts afresh.
    pub(super) fn load(&self, node: &mut NodeConfig) {
        match state_file::load::<NodeState>(&path(&self.dir, node.dht.family), VERSION) {
            Ok(Some(state)) => {
                node.id = self.lock.is_some().then_some(state.id);
                node.contacts = state.contacts;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "DHT state not read: starting without it"),
        }
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

/// The state of the first node of each family.
pub(super) fn collect(engine: &Engine) -> Vec<(Family, NodeState)> {
    let mut states: Vec<(Family, NodeState)> = Vec::new();
    for (_, node) in engine.nodes() {
        let family = node.family();
        if states.iter().all(|(f, _)| *f != family) {
            states.push((family, NodeState { id: node.id(), contacts: node.saved() }));
        }
    }
    states
}

/// Writes the states. A node that knows nobody leaves the file of a better day alone.
pub(super) fn save(dir: &Path, states: &[(Family, NodeState)]) {
    for (family, state) in states.iter().filter(|(_, s)| !s.contacts.is_empty()) {
        if let Err(error) = state_file::save(&path(dir, *family), VERSION, state) {
            tracing::warn!(%error, dir = %dir.display(), "DHT state not saved");
        }
    }
}

fn path(dir: &Path, family: Family) -> PathBuf {
    dir.join(match family {
        Family::V4 => "dht-v4.state",
        Family::V6 => "dht-v6.state",
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
