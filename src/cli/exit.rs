//! How the program ends: the exit codes, and a failure as people and scripts see it. Scripts
//! depend on these numbers: they never change.

use std::fmt;
use std::io;

use serde_json::{Value, json};

use crate::driver::Stage;
use crate::swarm::{DiskError, DiskErrorKind};

/// The exit codes, the same in JSON as `"code"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// All that was asked for is done.
    Ok = 0,
    /// None of the others.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A link or a torrent cannot be used.
    BadLink = 3,
    /// No peers.
    NoPeers = 4,
    /// Data does not match its torrent.
    Mismatch = 5,
    /// No network, or no bootstrap node answered.
    NoNetwork = 6,
    /// Timed out; what is there can be resumed.
    TimedOut = 7,
    /// Disk full, or an I/O error.
    Disk = 8,
    /// Not allowed.
    Permission = 9,
    /// Exists already, or another process has it.
    Conflict = 10,
    /// A signature or a sequence number was refused.
    Refused = 12,
    /// Ended by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Code {
    /// The number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// One thing to do about it, where the failure itself knows nothing better.
    pub const fn advice(self) -> &'static str {
        match self {
            Code::Ok => "",
            Code::Other => "run it again with -v to see more",
            Code::Usage => "see `trackless --help`",
            Code::BadLink => "check that the link or file is whole",
            Code::NoPeers => "try again later, or ask whoever gave you the link to share it",
            Code::Mismatch => "`trackless get` with the same torrent fetches what is bad",
            Code::NoNetwork => "check the connection, or name a node with --bootstrap HOST:PORT",
            Code::TimedOut => "run the same command again: it goes on where it stopped",
            Code::Disk => "free some space or choose another folder, then run it again",
            Code::Permission => "choose a folder that you may write to",
            Code::Conflict => {
                "end the other process or move the file away, or choose another place"
            }
            Code::Refused => "look at what is stored now, then sign a higher --seq",
            Code::Interrupted | Code::Terminated => {
                "run the same command again: it goes on where it stopped"
            }
        }
    }
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// Why a verb did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What went wrong, in one line.
    pub error: String,
    /// How far it came, where there are stages.
    pub stage: Option<Stage>,
    /// It was printed already, link by link.
    pub is_reported: bool,
    advice: Option<String>,
}

impl Failure {
    /// A failure with the usual advice of its code.
    pub fn new(code: Code, error: impl Into<String>) -> Self {
        Self { code, error: error.into(), stage: None, is_reported: false, advice: None }
    }

    /// Names the stage it died in.
    #[must_use]
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = Some(stage);
        self
    }

    /// Replaces the usual advice.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Marks it as printed.
    #[must_use]
    pub fn reported(mut self) -> Self {
        self.is_reported = true;
        self
    }

    /// Was it a signal that ended the verb?
    pub fn is_signal(&self) -> bool {
        matches!(self.code, Code::Interrupted | Code::Terminated)
    }

    /// Our own bug: a task panicked, and said so on stderr.
    pub fn internal() -> Self {
        Self::new(Code::Other, "an internal error, shown above")
            .advise("please report it, with what was shown")
    }

    /// A failed file operation on `what`.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let failure = Self::new(Self::io_code(error), format!("{what}: {}", plain_io_text(error)));
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory => failure.advise("check the path"),
            _ => failure,
        }
    }

    fn io_code(error: &io::Error) -> Code {
        use io::ErrorKind::{AlreadyExists, PermissionDenied, ReadOnlyFilesystem};
        match error.kind() {
            PermissionDenied | ReadOnlyFilesystem => Code::Permission,
            AlreadyExists => Code::Conflict,
            _ => Code::Disk,
        }
    }

    /// One thing to do about it.
    pub fn advice(&self) -> &str {
        self.advice.as_deref().unwrap_or(self.code.advice())
    }

    /// What scripts read.
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code.number(),
            "error": self.error,
            "stage": self.stage.map(Stage::name),
            "advice": self.advice(),
        })
    }
}

impl From<&DiskError> for Failure {
    fn from(error: &DiskError) -> Self {
        let code = match error.kind {
            DiskErrorKind::Full | DiskErrorKind::Busy | DiskErrorKind::Io => Code::Disk,
            DiskErrorKind::Permission => Code::Permission,
            DiskErrorKind::Conflict | DiskErrorKind::Occupied => Code::Conflict,
            DiskErrorKind::Layout => Code::BadLink,
        };
        let text = format!("{}: {}", error.context, without_number(&error.message));
        let failure = Self::new(code, text).at(Stage::Data);
        match error.kind {
            DiskErrorKind::Occupied => failure.advise(
                "move it away or choose another folder with -o; `get --overwrite` replaces it",
            ),
            _ => failure,
        }
    }
}

// "No such file or directory (os error 2)": the number helps nobody.
fn plain_io_text(error: &io::Error) -> String {
    without_number(&error.to_string())
}

fn without_number(text: &str) -> String {
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Code; 14] = [
        Code::Ok,
        Code::Other,
        Code::Usage,
        Code::BadLink,
        Code::NoPeers,
        Code::Mismatch,
        Code::NoNetwork,
        Code::TimedOut,
        Code::Disk,
        Code::Permission,
        Code::Conflict,
        Code::Refused,
        Code::Interrupted,
        Code::Terminated,
    ];

    #[test]
    fn numbers_are_the_documented_ones() {
        let numbers = ALL.map(Code::number);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 130, 143]);
    }

    #[test]
    fn every_failure_gives_one_thing_to_do() {
        for code in ALL.into_iter().filter(|c| *c != Code::Ok) {
            assert!(!Failure::new(code, "x").advice().is_empty(), "{code:?}");
        }
        assert_eq!(Failure::new(Code::Other, "x").advise("do this").advice(), "do this");
    }

    #[test]
    fn json_carries_code_error_stage_and_advice() {
        let json = Failure::new(Code::NoPeers, "nobody").at(Stage::Peers).to_json();
        assert_eq!(json["code"], 4);
        assert_eq!(json["error"], "nobody");
        assert_eq!(json["stage"], "peers");
        assert!(json["advice"].as_str().unwrap().contains("later"));
        assert!(Failure::new(Code::Usage, "x").to_json()["stage"].is_null());
    }

    #[test]
    fn storage_failures_map_to_their_codes() {
        let code = |kind| {
            let error = DiskError { kind, context: "write".into(), message: "no".into() };
            Failure::from(&error).code
        };
        assert_eq!(code(DiskErrorKind::Full), Code::Disk);
        assert_eq!(code(DiskErrorKind::Io), Code::Disk);
        assert_eq!(code(DiskErrorKind::Permission), Code::Permission);
        assert_eq!(code(DiskErrorKind::Conflict), Code::Conflict);
        assert_eq!(code(DiskErrorKind::Occupied), Code::Conflict);
        assert_eq!(code(DiskErrorKind::Layout), Code::BadLink);
    }

    #[test]
    fn io_errors_read_without_their_number() {
        let failure = Failure::io("a.torrent", &io::Error::from_raw_os_error(13));
        assert_eq!(failure.code, Code::Permission);
        assert_eq!(failure.error, "a.torrent: permission denied");
        let missing = Failure::io("a.torrent", &io::ErrorKind::NotFound.into());
        assert_eq!((missing.code, missing.advice()), (Code::Disk, "check the path"));
        let folder = Failure::io("a", &io::ErrorKind::IsADirectory.into());
        assert_eq!((folder.code, folder.advice()), (Code::Disk, "check the path"));
        let message = io::Error::from_raw_os_error(13).to_string();
        let kind = DiskErrorKind::Permission;
        let error = DiskError { kind, context: "opening a".into(), message };
        assert_eq!(Failure::from(&error).error, "opening a: permission denied");
    }
}
