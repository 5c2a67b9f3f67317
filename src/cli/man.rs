//! `trackless man`: the manual, made from the same flags that are parsed.

use clap::CommandFactory;

use super::args::{CommandLine, ManArgs};
use super::exit::Failure;
use super::output::Console;

/// Runs the verb.
pub fn run(args: &ManArgs, console: &Console) -> Result<(), Failure> {
    let Some(dir) = &args.output else {
        let mut page = Vec::new();
        clap_mangen::Man::new(CommandLine::command())
            .render(&mut page)
            .map_err(|e| Failure::io("manual page", &e))?;
        console.write(&page);
        return Ok(());
    };
    std::fs::create_dir_all(dir).map_err(|e| Failure::io(dir.display(), &e))?;
    clap_mangen::generate_to(CommandLine::command(), dir)
        .map_err(|e| Failure::io(dir.display(), &e))
}
