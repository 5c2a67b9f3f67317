//! Logs go to stderr: warnings and errors by default (errors alone with `-q`), events with `-v`,
//! packets with `-vv`, or what `TRACKLESS_LOG` says in `tracing` filter syntax.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use super::args::CommonArgs;

/// Starts logging. Costs nothing worth naming when nothing is asked for.
pub fn start(args: &CommonArgs) {
    let from_env = std::env::var("TRACKLESS_LOG").ok().filter(|f| !f.is_empty());
    let filter = match (&from_env, args.verbose) {
        (Some(filter), _) => filter.as_str(),
        (None, 0) if args.quiet => "error",
        (None, 0) => "warn",
        (None, 1) => "warn,trackless=debug",
        (None, _) => "warn,trackless=trace",
    };
    let filter = match EnvFilter::try_new(filter) {
        Ok(filter) => filter,
        Err(error) => {
            super::output::write_stderr(&format!("trackless: TRACKLESS_LOG: {error}"));
            EnvFilter::new("warn")
        }
    };
    let colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| QuietStderr)
        .with_ansi(colour)
        .try_init();
}

// A stderr that nobody reads is no reason to complain on stderr.
struct QuietStderr;

impl Write for QuietStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().lock().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
