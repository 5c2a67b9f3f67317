//! What a DHT node remembers across restarts: its id and its contacts, one file for each family.

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

/// Fills in what was saved. A damaged file is set aside with a warning; the node starts afresh.
pub(super) fn load(dir: Option<&Path>, node: &mut NodeConfig) {
    let Some(dir) = dir else { return };
    match state_file::load::<NodeState>(&path(dir, node.dht.family), VERSION) {
        Ok(Some(state)) => {
            node.id = Some(state.id);
            node.contacts = state.contacts;
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "DHT state not read: starting without it"),
    }
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
