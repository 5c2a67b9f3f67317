//! `trackless completions`: a completion script, made from the same flags that are parsed.

use clap::CommandFactory;

use super::args::{CommandLine, CompletionsArgs};
use super::exit::Failure;
use super::output::Console;

/// Runs the verb.
pub fn run(args: CompletionsArgs, console: &Console) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "trackless", &mut script);
    console.write(&script);
    Ok(())
}
