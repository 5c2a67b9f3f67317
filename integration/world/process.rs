//! Child processes: started, listened to line by line, ended by their pid, and never left behind.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A program about to be started.
#[derive(Debug)]
pub struct Launch {
    name: String,
    command: Command,
}

impl Launch {
    /// Starts `program` with no arguments and no stdin.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let name = Path::new(program.as_ref()).file_name().unwrap_or_default().to_string_lossy();
        let mut command = Command::new(program.as_ref());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { name: name.into_owned(), command }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn without_env(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Where it runs.
    #[must_use]
    pub fn cwd(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// The same with another copy of the program.
    #[must_use]
    pub fn with_program(self, program: &Path) -> Self {
        let mut other = Launch::new(program);
        other.copy(&self.command);
        other.name = self.name;
        other
    }

    /// Puts another program in front, as `env` or `prlimit` are put in front.
    #[must_use]
    pub fn behind<S: AsRef<OsStr>>(self, wrapper: &str, args: impl IntoIterator<Item = S>) -> Self {
        let mut outer = Launch::new(wrapper);
        outer.command.args(args).arg(self.command.get_program());
        outer.copy(&self.command);
        outer.name = format!("{} (behind {wrapper})", self.name);
        outer
    }

    fn copy(&mut self, other: &Command) {
        self.command.args(other.get_args());
        for (key, value) in other.get_envs() {
            match value {
                Some(value) => self.command.env(key, value),
                None => self.command.env_remove(key),
            };
        }
        if let Some(dir) = other.get_current_dir() {
            self.command.current_dir(dir);
        }
    }

    /// Starts it.
    pub fn start(mut self) -> Program {
        let started = Instant::now();
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: cannot be started: {e}", self.name));
        let stdout = Stream::follow(child.stdout.take().expect("piped"));
        let stderr = Stream::follow(child.stderr.take().expect("piped"));
        let memory = Memory::watch(child.id());
        Program { name: self.name, child, stdout, stderr, memory, started, ended: false }
    }

    /// Starts it and waits for its end.
    pub fn run(self, limit: Duration) -> Ended {
        self.start().wait(limit)
    }
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    memory: Arc<Memory>,
    started: Instant,
    ended: bool,
}

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    /// All it said on stdout.
    pub stdout: String,
    /// All it said on stderr.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
    /// The most memory it had resident, in KiB.
    pub peak_kib: u64,
}

impl Ended {
    /// Fails the test unless this was the exit code.
    #[track_caller]
    pub fn expect(self, code: i32, what: &str) -> Ended {
        assert_eq!(
            self.code,
            code,
            "{what}: exit code {} instead of {code}\nstdout: {}\nstderr: {}",
            self.code,
            last(&self.stdout, 1500),
            last(&self.stderr, 3000)
        );
        self
    }

    /// Fails the test if it ever had more memory than this.
    #[track_caller]
    pub fn expect_memory_below(self, mib: u64, what: &str) -> Ended {
        let peak = self.peak_kib / 1024;
        assert!(peak < mib, "{what}: {peak} MiB were resident, allowed are {mib}");
        self
    }
}

impl Program {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line of stdout satisfies `wanted`.
    #[track_caller]
    pub fn stdout_line(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        self.line(&self.stdout, what, limit, &wanted)
    }

    /// Waits until a line of stderr satisfies `wanted`.
    #[track_caller]
    pub fn stderr_line(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        self.line(&self.stderr, what, limit, &wanted)
    }

    /// Waits until there are so many lines of stdout; returns them.
    #[track_caller]
    pub fn stdout_lines(&self, count: usize, limit: Duration) -> Vec<String> {
        let seen = std::cell::Cell::new(0);
        self.stdout_line("line for each", limit, |_| {
            seen.set(seen.get() + 1);
            seen.get() == count
        });
        self.stdout.text().lines().take(count).map(str::to_owned).collect()
    }

    #[track_caller]
    fn line(
        &self,
        stream: &Stream,
        what: &str,
        limit: Duration,
        wanted: &dyn Fn(&str) -> bool,
    ) -> String {
        stream.find(limit, wanted).unwrap_or_else(|| {
            panic!("{}: no {what} within {limit:?}\n{}", self.name, self.last_words())
        })
    }

    /// For the message of a failure.
    pub fn last_words(&self) -> String {
        let (out, err) = (self.stdout.text(), self.stderr.text());
        format!("last of stdout: {}\nlast of stderr: {}", last(&out, 800), last(&err, 3000))
    }

    /// Does it still run?
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Fails the test if it has ended.
    #[track_caller]
    pub fn expect_alive(&mut self, what: &str) {
        assert!(self.is_alive(), "{what}: {} has ended\n{}", self.name, self.last_words());
        assert_no_panic(&self.name, &self.stderr.text());
    }

    /// Memory resident now, in KiB.
    pub fn resident_kib(&self) -> u64 {
        status_kib(self.pid(), "VmRSS:").unwrap_or(0)
    }

    /// The most memory that was ever resident, in KiB.
    pub fn peak_kib(&self) -> u64 {
        status_kib(self.pid(), "VmHWM:").unwrap_or_else(|| self.memory.peak.load(Ordering::Relaxed))
    }

    /// Processor time that it has used so far, in the kernel too.
    pub fn cpu(&self) -> Duration {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The name of the program, in brackets, may hold anything.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        let ticks: u64 = fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        // Linux shows hundredths of a second to programs, however its clock ticks.
        Duration::from_millis(ticks * 10)
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_alive() {
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a pid");
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it where it stands.
    pub fn kill(mut self) -> Ended {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(10))
    }

    /// Asks it to end, and waits.
    #[track_caller]
    pub fn terminate(mut self, limit: Duration) -> Ended {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// Has it ended by now? Then how?
    pub fn poll(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(code)
    }

    /// Waits for its end; kills it and fails the test if that does not come.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Ended {
        let end = Instant::now() + limit;
        let status = loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                break status;
            }
            if Instant::now() >= end {
                let words = self.last_words();
                panic!("{}: did not end within {limit:?}\n{words}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = self.started.elapsed();
        self.ended = true;
        self.memory.done.store(true, Ordering::Relaxed);
        // A grandchild may hold the pipes open: what was said until now is enough.
        self.stdout.wait_closed(Duration::from_secs(2));
        self.stderr.wait_closed(Duration::from_secs(2));
        let ended = Ended {
            code: code(status),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            took,
            peak_kib: self.memory.peak.load(Ordering::Relaxed),
        };
        assert_no_panic(&self.name, &ended.stderr);
        ended
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.memory.done.store(true, Ordering::Relaxed);
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
            if !std::thread::panicking() {
                assert_no_panic(&self.name, &self.stderr.text());
            }
        }
    }
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[track_caller]
fn assert_no_panic(name: &str, stderr: &str) {
    assert!(
        !stderr.contains("panicked at") && !stderr.contains("stack overflow"),
        "{name} panicked:\n{}",
        last(stderr, 4000)
    );
}

/// The end of a text, at most `len` bytes.
pub fn last(text: &str, len: usize) -> &str {
    let mut from = text.len().saturating_sub(len);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// One of a child's output streams.
#[derive(Debug, Default)]
struct Stream {
    state: Mutex<StreamState>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct StreamState {
    bytes: Vec<u8>,
    closed: bool,
}

impl Stream {
    fn follow(mut pipe: impl Read + Send + 'static) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let writer = Arc::clone(&stream);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let read = pipe.read(&mut buffer).unwrap_or(0);
                let mut state = writer.state.lock().unwrap();
                state.bytes.extend(&buffer[..read]);
                state.closed = read == 0;
                drop(state);
                writer.news.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        stream
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.state.lock().unwrap().bytes).into_owned()
    }

    // Whole lines only; a progress bar ends them with a carriage return.
    fn find(&self, limit: Duration, wanted: &dyn Fn(&str) -> bool) -> Option<String> {
        let end = Instant::now() + limit;
        let mut state = self.state.lock().unwrap();
        let mut seen = 0;
        loop {
            while let Some(len) = state.bytes[seen..].iter().position(|b| b"\r\n".contains(b)) {
                let line = String::from_utf8_lossy(&state.bytes[seen..seen + len]).into_owned();
                seen += len + 1;
                if wanted(&line) {
                    return Some(line);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return None;
            }
            state = self.news.wait_timeout(state, left).unwrap().0;
        }
    }

    fn wait_closed(&self, limit: Duration) {
        let state = self.state.lock().unwrap();
        drop(self.news.wait_timeout_while(state, limit, |state| !state.closed).unwrap());
    }
}

/// Remembers the peak of a process's memory, which is gone from /proc once it has ended.
#[derive(Debug, Default)]
struct Memory {
    peak: AtomicU64,
    done: AtomicBool,
}

impl Memory {
    fn watch(pid: u32) -> Arc<Self> {
        let memory = Arc::new(Self::default());
        let watcher = Arc::clone(&memory);
        std::thread::spawn(move || {
            while !watcher.done.load(Ordering::Relaxed) {
                let Some(peak) = status_kib(pid, "VmHWM:") else { return };
                watcher.peak.fetch_max(peak, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        memory
    }
}

fn status_kib(pid: u32, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
