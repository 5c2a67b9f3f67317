//! The `trackless` program: parse, run, exit code.

fn main() -> std::process::ExitCode {
    trackless::cli::main()
}
