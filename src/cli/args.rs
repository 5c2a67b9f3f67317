//! The flags as they are typed: clap's derive and nothing else. No file is opened and no default is
//! looked up here; [`config`](super::config) turns this into what the program works with.
//!
//! Every flag has an environment variable `TRACKLESS_<FLAG>`; a test below holds that.

mod dht;
mod network;

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Arg, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use super::parse;
use dht::DHT_EXAMPLES;
pub use dht::{DhtArgs, DhtOperation, PutArgs};
use network::{
    DEMO_EXAMPLES, GET_EXAMPLES, NODE_EXAMPLES, OPEN_EXAMPLES, RESOLVE_EXAMPLES, SHARE_EXAMPLES,
    SIM_EXAMPLES,
};
pub use network::{
    DemoArgs, GetArgs, NetworkArgs, NodeArgs, OpenArgs, ResolveArgs, ShareArgs, TransferArgs,
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "trackless",
    version,
    about = "Magnet links become verified files, over the Mainline DHT alone",
    long_about = "Magnet links become verified files, over the Mainline DHT alone: no tracker, no \
                  index, no server.\n\nThe result goes to stdout and nothing else does; progress \
                  and errors go to stderr. Every flag can be given as TRACKLESS_<FLAG> in the \
                  environment.",
    after_help = EXIT_CODES,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct CommandLine {
    /// Flags of every verb.
    #[command(flatten)]
    pub common: CommonArgs,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl CommandLine {
    /// Reads the command line and the environment. A variable that is set to nothing is not set.
    pub fn read() -> Result<Self, clap::Error> {
        let matches = without_empty_variables(Self::command()).try_get_matches()?;
        Self::from_arg_matches(&matches)
    }
}

fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(None::<&str>) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// Flags that stand before or after any verb.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Print JSON on stdout: one object, or one a line for what goes on
    #[arg(long, global = true, env = "TRACKLESS_JSON", value_parser = FalseyValueParser::new(), help_heading = "Output")]
    pub json: bool,
    /// No progress on stderr, only errors
    #[arg(short, long, global = true, env = "TRACKLESS_QUIET", value_parser = FalseyValueParser::new(), help_heading = "Output")]
    pub quiet: bool,
    /// Log to stderr: -v events, -vv packets too (or TRACKLESS_LOG=FILTER)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "TRACKLESS_VERBOSE", help_heading = "Output")]
    pub verbose: u8,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Download what magnet links, info-hashes or torrent files name
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Turn magnet links into .torrent files
    #[command(after_help = RESOLVE_EXAMPLES)]
    Resolve(ResolveArgs),
    /// Offer files or folders: prints the magnet link, then seeds
    #[command(after_help = SHARE_EXAMPLES)]
    Share(ShareArgs),
    /// Build a .torrent file
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// Check data against a .torrent file
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// Show what a .torrent file or a magnet link says
    #[command(after_help = INFO_EXAMPLES)]
    Info(InfoArgs),
    /// Run a DHT node in the foreground
    #[command(after_help = NODE_EXAMPLES)]
    Node(NodeArgs),
    /// Do one DHT operation
    #[command(after_help = DHT_EXAMPLES, arg_required_else_help = true)]
    Dht(DhtArgs),
    /// Download a magnet link into the download folder: what the desktop calls
    #[command(after_help = OPEN_EXAMPLES)]
    Open(OpenArgs),
    /// Register trackless for magnet links on this desktop
    #[command(after_help = HANDLER_EXAMPLES, arg_required_else_help = true)]
    Handler(HandlerArgs),
    /// Show the whole way on a private network inside this process
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Run a simulated DHT for hours of virtual time, and show how lookups fared
    #[command(after_help = SIM_EXAMPLES, arg_required_else_help = true)]
    Sim(SimArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one page a verb
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

/// `create`
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// File or folder
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Write the torrent here [default: <name>.torrent; - for stdout]
    #[arg(short, long, value_name = "FILE", env = "TRACKLESS_OUTPUT")]
    pub output: Option<PathBuf>,
    /// Bytes in a piece: a power of two [default: by size]
    #[arg(long, value_name = "BYTES|1MiB", env = "TRACKLESS_PIECE_LENGTH", value_parser = parse::size)]
    pub piece_length: Option<u64>,
    /// Name in the torrent [default: the file's or folder's own]
    #[arg(long, value_name = "TEXT", env = "TRACKLESS_NAME")]
    pub name: Option<String>,
    /// Comment in the torrent
    #[arg(long, value_name = "TEXT", env = "TRACKLESS_COMMENT")]
    pub comment: Option<String>,
    /// Mark it private (BEP 27): clients will not look for peers in the DHT
    #[arg(long, env = "TRACKLESS_PRIVATE", value_parser = FalseyValueParser::new())]
    pub private: bool,
    /// Replace an existing torrent file
    #[arg(long, env = "TRACKLESS_FORCE", value_parser = FalseyValueParser::new())]
    pub force: bool,
}

/// `verify`
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The torrent
    #[arg(value_name = "FILE.torrent")]
    pub torrent: PathBuf,
    /// Folder that the data was saved into
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
}

/// `info`
#[derive(Debug, Clone, Args)]
pub struct InfoArgs {
    /// .torrent file, magnet link or info-hash
    #[arg(value_name = "FILE|LINK")]
    pub item: String,
}

/// `handler`
#[derive(Debug, Clone, Args)]
pub struct HandlerArgs {
    /// What to do with the registration.
    #[command(subcommand)]
    pub action: HandlerAction,
}

/// The actions of `handler`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum HandlerAction {
    /// Make trackless the program for magnet links
    #[command(after_help = "Example:\n  trackless handler install --dry-run")]
    Install {
        /// Say what would be written and run; do neither
        #[arg(long, env = "TRACKLESS_DRY_RUN", value_parser = FalseyValueParser::new())]
        dry_run: bool,
    },
    /// Undo `install`: the program that had magnet links before gets them back
    #[command(after_help = "Example:\n  trackless handler remove")]
    Remove {
        /// Say what would be written and run; do neither
        #[arg(long, env = "TRACKLESS_DRY_RUN", value_parser = FalseyValueParser::new())]
        dry_run: bool,
    },
    /// Which program has magnet links now
    #[command(after_help = "Example:\n  trackless handler status")]
    Status,
}

/// `sim`
#[derive(Debug, Clone, Args)]
pub struct SimArgs {
    /// Which scenario; `list` names them, `tables` writes the committed results of all in small worlds
    #[arg(value_name = "SCENARIO|list|tables")]
    pub scenario: String,
    /// From which all chance follows
    #[arg(long, value_name = "N", env = "TRACKLESS_SEED", default_value_t = 1)]
    pub seed: u64,
    /// Whole nodes [default: the scenario's own]
    #[arg(long, value_name = "N", env = "TRACKLESS_NODES")]
    pub nodes: Option<u32>,
    /// Simulated hours that are measured [default: the scenario's own]
    #[arg(long, value_name = "H", env = "TRACKLESS_HOURS")]
    pub hours: Option<f64>,
    /// Write a plot of the table here
    #[arg(long, value_name = "FILE", env = "TRACKLESS_SVG")]
    pub svg: Option<PathBuf>,
    /// With `tables`: where they are
    #[arg(long, value_name = "DIR", env = "TRACKLESS_DIR", default_value = "src/sim/tables")]
    pub dir: PathBuf,
    /// With `tables`: those of full size as well, which takes hours
    #[arg(long, env = "TRACKLESS_ALL", value_parser = FalseyValueParser::new())]
    pub all: bool,
    /// With `tables`: this one at its full size, or `miniatures`; several make several
    #[arg(long, value_name = "SCENARIO", env = "TRACKLESS_ONLY", conflicts_with = "all")]
    pub only: Vec<String>,
}

/// `completions`
#[derive(Debug, Clone, Copy, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// `man`
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Write trackless.1 and one page for each verb into this folder
    #[arg(short, long, value_name = "DIR", env = "TRACKLESS_OUTPUT")]
    pub output: Option<PathBuf>,
}

const EXIT_CODES: &str = "\
Exit codes:
  0 ok   1 other   2 usage   3 bad link or torrent   4 nobody has it   5 data does not match
  6 no network or no bootstrap node answered   7 timed out, progress can be resumed
  8 disk full or I/O error   9 permission   10 exists or conflicts   12 signature or sequence refused
  130 SIGINT   143 SIGTERM

Example:
  trackless get 'magnet:?xt=urn:btih:...' -o ~/Downloads";

const CREATE_EXAMPLES: &str = "\
Prints the magnet link.

Example:
  trackless create ~/Videos/holiday -o holiday.torrent --piece-length 1MiB";

const VERIFY_EXAMPLES: &str = "\
Prints `ok`, `bad` or `missing` for each file; exit code 5 unless all are ok. `unproven` is a
file whose own pieces are right, and that shares one with a file that is not. `unreadable` is one
that is there and cannot be read: exit code 9 if that is not allowed, 8 if the disk fails.

Example:
  trackless verify holiday.torrent ~/Downloads";

const INFO_EXAMPLES: &str = "\
Examples:
  trackless info holiday.torrent
  trackless info 'magnet:?xt=urn:btih:...' --json";

const HANDLER_EXAMPLES: &str = "\
Needs no root: writes a .desktop file in this user's own folder, and gives it the links with xdg-mime, or in
mimeapps.list where there is no xdg-mime.

Example:
  trackless handler install";

const COMPLETIONS_EXAMPLES: &str = "\
Example:
  trackless completions bash > ~/.local/share/bash-completion/completions/trackless";

const MAN_EXAMPLES: &str = "\
Examples:
  trackless man | man -l -
  trackless man -o ~/.local/share/man/man1";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use crate::cli::config::SeedGoal;

    use super::*;

    fn each_command(
        command: &clap::Command,
        path: &str,
        visit: &mut dyn FnMut(&str, &clap::Command),
    ) {
        visit(path, command);
        for sub in command.get_subcommands() {
            each_command(sub, &format!("{path} {}", sub.get_name()), visit);
        }
    }

    #[test]
    fn grammar_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        let mut command = CommandLine::command();
        command.build();
        let mut seen = 0;
        each_command(&command, "trackless", &mut |path, command| {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|l| !["help", "version"].contains(l)) else {
                    continue;
                };
                let wanted = format!("TRACKLESS_{}", long.to_uppercase().replace('-', "_"));
                let env = arg.get_env().map(|e| e.to_string_lossy().into_owned());
                assert_eq!(env.as_deref(), Some(wanted.as_str()), "{path} --{long}");
                seen += 1;
            }
        });
        assert!(seen > 40, "only {seen} flags were looked at");
    }

    #[test]
    fn help_of_every_verb_describes_its_flags_and_gives_an_example() {
        let mut command = CommandLine::command();
        command.build();
        each_command(&command, "trackless", &mut |path, command| {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{path} has no example");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{path}: {} is not described", arg.get_id());
            }
        });
    }

    #[test]
    fn output_flags_stand_before_and_after_the_verb() {
        for line in ["trackless --json -vv info x", "trackless info x --json -vv"] {
            let parsed = CommandLine::try_parse_from(line.split(' ')).unwrap();
            assert!(parsed.common.json, "{line}");
            assert_eq!(parsed.common.verbose, 2, "{line}");
        }
    }

    #[test]
    fn seed_takes_its_value_only_after_an_equals_sign() {
        let seed = |line: &str| match CommandLine::try_parse_from(line.split(' ')).unwrap().verb {
            Verb::Get(get) => (get.seed, get.links),
            other => panic!("{other:?}"),
        };
        assert_eq!(seed("t get a"), (None, vec!["a".into()]));
        assert_eq!(seed("t get --seed a"), (Some(SeedGoal::Forever), vec!["a".into()]));
        assert_eq!(seed("t get a --seed=1.5"), (Some(SeedGoal::Ratio(1.5)), vec!["a".into()]));
        let for_two_hours = SeedGoal::For(Duration::from_secs(7200));
        assert_eq!(seed("t get a --seed=2h"), (Some(for_two_hours), vec!["a".into()]));
    }

    #[test]
    fn lists_repeat_and_split_at_commas() {
        let line = "t node --listen 127.0.0.1:0 --listen [::1]:0 --bootstrap a:1,b:2";
        let Verb::Node(node) = CommandLine::try_parse_from(line.split(' ')).unwrap().verb else {
            panic!("not a node")
        };
        assert_eq!(node.network.listen, ["127.0.0.1:0", "[::1]:0"]);
        assert_eq!(node.network.bootstrap, ["a:1", "b:2"]);
    }
}
