//! L4: the `trackless` program: one file a verb. What several verbs share: the flags as typed
//! (`args`) and validated (`config`), the two streams (`output`), progress and its stages,
//! exit codes, signals.

mod args;
mod complete;
mod config;
mod create;
mod demo;
mod desktop;
mod dht;
mod exit;
mod files;
mod format;
mod get;
mod handler;
mod info;
mod input;
mod logging;
mod man;
mod metrics;
mod node;
mod online;
mod open;
mod output;
mod parse;
mod progress;
mod resolve;
mod selection;
mod share;
mod shell;
mod signals;
mod sim;
mod stage;
mod stream;
mod verify;
mod xdg_mime;

use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;

use args::{CommandLine, CommonArgs, Verb};
use exit::{Code, Failure};
use output::Console;

/// Runs the program.
pub fn main() -> ExitCode {
    let CommandLine { common, verb } = match CommandLine::read() {
        Ok(line) => line,
        Err(error) => return not_run(&error),
    };
    logging::start(&common);
    let console = Arc::new(Console::new(&common));
    let outcome = run(verb, &console);
    match console.outcome(outcome) {
        Ok(()) => Code::Ok.into(),
        Err(failure) => {
            console.fail(&failure);
            failure.code.into()
        }
    }
}

fn run(verb: Verb, console: &Arc<Console>) -> Result<(), Failure> {
    match verb {
        Verb::Get(args) => get::run(&args, console),
        Verb::Resolve(args) => resolve::run(&args, console),
        Verb::Share(args) => share::run(&args, console),
        Verb::Create(args) => create::run(&args, console),
        Verb::Verify(args) => verify::run(&args, console),
        Verb::Info(args) => info::run(&args, console),
        Verb::Node(args) => node::run(&args, console),
        Verb::Dht(args) => dht::run(&args, console),
        Verb::Open(args) => open::run(&args, console),
        Verb::Handler(args) => handler::run(&args, console),
        Verb::Demo(args) => demo::run(&args, console),
        Verb::Sim(args) => sim::run(&args, console),
        Verb::Completions(args) => complete::run(args, console),
        Verb::Man(args) => man::run(&args, console),
    }
}

// `--help` and `--version` are results; everything else is a wrong command line.
fn not_run(error: &clap::Error) -> ExitCode {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_help || !wants_json() {
        // Nobody may be reading: clap's own `exit` would not mind either.
        let _ = error.print();
        return if is_help { Code::Ok.into() } else { Code::Usage.into() };
    }
    let text = error.render().to_string();
    // What is missing stands on lines of its own; usage and tips follow an empty one.
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    let common = CommonArgs { json: true, quiet: false, verbose: 0 };
    Console::new(&common).fail(&config::usage(line.trim_start_matches("error: ")));
    Code::Usage.into()
}

// The flags could not be parsed, and still decide how to say so.
fn wants_json() -> bool {
    std::env::args_os().any(|arg| arg == "--json")
        || std::env::var_os("TRACKLESS_JSON").is_some_and(|v| !v.is_empty())
}
