//! `trackless open`: what the desktop calls for a clicked magnet link. `get`, into the user's
//! download folder.

use std::sync::Arc;

use directories::UserDirs;

use super::args::OpenArgs;
use super::config::Network;
use super::exit::{Code, Failure};
use super::get::{self, Job, Ledger, Order};
use super::input::Source;
use super::output::Console;
use super::selection::Selection;

/// Runs the verb.
pub fn run(args: &OpenArgs, console: &Arc<Console>) -> Result<(), Failure> {
    let source = Source::read(&args.link)?;
    let dir = args.output.clone().or_else(|| {
        let dirs = UserDirs::new()?;
        Some(dirs.download_dir().unwrap_or(dirs.home_dir()).to_owned())
    });
    let dir = dir.ok_or_else(|| {
        Failure::new(Code::Other, "this user has no home directory").advise("name a folder with -o")
    })?;
    console.note(&format!("saving into {}", Console::path_text(&dir)));
    let order = Order {
        dir,
        stream: None,
        selection: Selection::default(),
        list: false,
        sequential: false,
        overwrite: false,
        seed: None,
        network: Network::new(&args.network)?,
    };
    get::fetch(order, vec![Job { text: args.link.clone(), source }], Ledger::default(), console)
}
