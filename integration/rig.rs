//! What the tests share: where the repository and the program are, how to run it with a deadline,
//! and folders that vanish with their test.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// The program under test.
pub const TRACKLESS: &str = env!("CARGO_BIN_EXE_trackless");

/// Longer than anything here takes on a slow machine; a test that hangs ends with its output.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The root of the sources.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` file below a folder, in a stable order; none if the folder does not exist.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// What a finished program left.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The exit code; a panic or a signal has none and fails the test.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {self:#?}"))
    }

    /// stdout as one JSON object.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// stdout as one JSON object a line.
    pub fn records(&self) -> Vec<serde_json::Value> {
        let read = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}: {self:#?}"))
        };
        self.stdout.lines().map(read).collect()
    }

    /// Fails the test unless the program ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self:#?}");
        self
    }
}

/// The program with an environment of its own: no state, no settings of whoever runs the tests.
pub fn trackless(home: &Path) -> Command {
    let mut command = Command::new(TRACKLESS);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRACKLESS_") {
            command.env_remove(name);
        }
    }
    for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "NO_COLOR", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.env("HOME", home).env("RUST_BACKTRACE", "1").stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn run(home: &Path, args: &[&str]) -> Done {
    finish(trackless(home).args(args), None)
}

/// Runs a command to its end, with `input` on stdin, and kills it at the [`DEADLINE`].
pub fn finish(command: &mut Command, input: Option<&[u8]>) -> Done {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    if let Some(input) = input {
        // A program that reads no input may be gone by now.
        let _ = child.stdin.take().unwrap().write_all(input);
    }
    let status = wait(&mut child, DEADLINE);
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap()).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let status = status.unwrap_or_else(|| {
        panic!("{command:?} was still running after {DEADLINE:?}\n{stdout}\n{stderr}")
    });
    Done { status, stdout, stderr }
}

/// Waits for the end; kills what does not come to one.
pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal (`INT`, `TERM`, `KILL`) to a process of ours.
pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// A program that goes on until it is told to end; killed with its test.
pub struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Option<std::thread::JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, stdout) = std::sync::mpsc::channel();
        let reader = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Some(drain(child.stderr.take().unwrap()));
        Self { child, stdout, stderr }
    }

    /// The next line on stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.stdout.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(error) => {
                let done = self.end("KILL");
                panic!("no line on stdout: {error}: {done:#?}")
            }
        }
    }

    /// The next line on stdout, and all that wait behind it.
    #[track_caller]
    pub fn lines(&mut self) -> Vec<String> {
        let next = self.line();
        std::iter::once(next).chain(self.stdout.try_iter()).collect()
    }

    /// Sends a signal and waits for the end; stdout holds the lines that [`Running::line`] left.
    pub fn end(&mut self, name: &str) -> Done {
        signal(&self.child, name);
        let status = wait(&mut self.child, DEADLINE).expect("a signal ends it");
        let stderr = self.stderr.take().map(|reader| reader.join().unwrap()).unwrap_or_default();
        let stdout: Vec<_> = self.stdout.iter().collect();
        Done {
            status,
            stdout: stdout.join("\n"),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
