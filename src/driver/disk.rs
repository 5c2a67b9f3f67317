//! The threads that write, hash and read, for all torrents.
//!
//! ```text
//! submit ─┬─ jobs on pieces ──> lanes (one thread each; a piece always takes the same one)
//!         └─ open, select, flush, close ──> slow threads, alone: when all earlier jobs are done
//! drain  <── events, in batches                      saver: a record for each torrent now and then
//! ```
//!
//! Jobs on one piece are done in the order given, because its lane is a queue; so the state of a
//! half-written piece belongs to one thread and needs no lock (`disk::worker`). Reads for peers
//! overtake what waits for a flush: serving goes on while the disk syncs. Each torrent limits its own
//! blocks that wait to be written, and `Buffers` counts those of all in lanes. Blocks behind a job that
//! must be alone are one torrent's, and no reason to hold up others.

mod reads;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::driver::buffers::Buffers;
use crate::driver::resume;
use crate::driver::storage::handles::Handles;
use crate::driver::storage::{Storage, locked};
use crate::swarm::{DiskError, DiskErrorKind, DiskEvent, DiskRequest, PieceIndex};

pub use crate::driver::storage::erase::Erased;
pub use crate::driver::storage::{StorageConfig, StorageMode};

pub(in crate::driver) use worker::WAITING_BYTES_MAX;
use worker::Worker;

/// A job for a lane.
struct Job {
    id: u32,
    storage: Arc<Storage>,
    task: Task,
}

enum Task {
    Do(DiskRequest),
    /// Part of a good piece, for a reader of ours.
    Fetch(Fetch),
    /// The torrent is closed: drop what is held of it.
    Forget,
    /// The torrent is closed: delete what it wrote.
    Erase(EraseReply),
}

impl Task {
    // The piece that it is about; jobs without one are done alone.
    fn piece(&self) -> Option<u32> {
        match self {
            Task::Do(request) => piece_of(request),
            Task::Fetch(fetch) => Some(fetch.piece.get()),
            Task::Forget | Task::Erase(_) => None,
        }
    }

    // Reads are not waited for by jobs that must be alone.
    fn is_waited_for(&self) -> bool {
        matches!(self, Task::Do(request) if !matches!(request, DiskRequest::Read { .. }))
    }
}

/// Part of a good piece, and who wants it.
pub(in crate::driver) struct Fetch {
    pub(in crate::driver) piece: PieceIndex,
    pub(in crate::driver) begin: u32,
    pub(in crate::driver) len: u32,
    pub(in crate::driver) reply: FetchReply,
}

/// Called from a disk thread.
pub(in crate::driver) type FetchReply = Box<dyn FnOnce(Result<Bytes, DiskError>) + Send>;

/// How a torrent is removed. Who waits for it is called from a disk thread.
pub(in crate::driver) enum Removal {
    /// Its data stays. Called when nothing of it is open any more.
    Close(Box<dyn FnOnce() + Send>),
    /// What it wrote is deleted.
    Erase(EraseReply),
}

pub(in crate::driver) type EraseReply = Box<dyn FnOnce(Result<Erased, DiskError>) + Send>;

/// The disk threads of a process.
#[derive(Debug)]
pub struct DiskPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl DiskPool {
    /// Starts `workers` threads (at least one) for blocks, and a few for what takes longer. `wake`
    /// is called when events are there to be drained, from any of them.
    pub fn new(workers: usize, wake: impl Fn() + Send + Sync + 'static) -> DiskPool {
        Self::counting(workers, Arc::default(), wake)
    }

    /// The same; blocks that wait for a lane are counted in `buffers`.
    pub(in crate::driver) fn counting(
        workers: usize,
        buffers: Arc<Buffers>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> DiskPool {
        let workers = workers.max(1);
        let shared = Arc::new(Shared {
            queues: Mutex::new(Queues::new(workers)),
            lane_wakers: (0..workers).map(|_| Condvar::new()).collect(),
            slow_waker: Condvar::new(),
            saver_waker: Condvar::new(),
            events: Mutex::default(),
            wake: Box::new(wake),
            handles: Handles::new(),
            buffers,
            waiting_bytes: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        let mut start = |name: String, run: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(name).spawn(move || run(&shared));
            threads.push(thread.expect("a process that cannot start a thread cannot work at all"));
        };
        for lane in 0..workers {
            start(format!("disk-{lane}"), Box::new(move |shared| shared.run_lane(lane)));
        }
        for slow in 0..SLOW_THREADS {
            start(format!("disk-slow-{slow}"), Box::new(Shared::run_slow));
        }
        start("disk-saver".to_owned(), Box::new(Shared::run_saver));
        DiskPool { shared, threads }
    }

    /// Makes a torrent known. Its first request is to open it; its id is never used again.
    pub fn add(&self, id: u32, config: StorageConfig) {
        let state_dir = config.state_dir.clone();
        let storage = Arc::new(Storage::new(config, self.shared.handles.clone()));
        let mut queues = locked(&self.shared.queues);
        queues.torrents.insert(id, Entry::new(storage));
        queues.state_dirs.extend(state_dir);
    }

    /// Queues a job; never waits. A job for a torrent that is not known is dropped, and one that was
    /// closed is known only if it is to be opened again.
    pub fn submit(&self, id: u32, request: DiskRequest) {
        let mut queues = locked(&self.shared.queues);
        let reopens = matches!(request, DiskRequest::Open { .. });
        if let Some(storage) = reopens.then(|| queues.closed.remove(&id)).flatten() {
            storage.restart();
            queues.torrents.insert(id, Entry::new(storage));
        }
        let Some(entry) = queues.torrents.get_mut(&id) else { return };
        if let DiskRequest::Close = request {
            entry.storage.stop();
            entry.is_closing = true;
        }
        // A read needs nothing but good data, which stays: it waits for no earlier job.
        if let DiskRequest::Read { .. } = request {
            let storage = entry.storage.clone();
            return self.shared.dispatch(&mut queues, Job { id, storage, task: Task::Do(request) });
        }
        entry.held.push_back(request);
        self.shared.release(&mut queues, id);
    }

    /// Queues a read for a reader of ours; never waits. For a torrent that is not known there is no
    /// reply: it is dropped.
    pub(in crate::driver) fn fetch(&self, id: u32, fetch: Fetch) {
        let mut queues = locked(&self.shared.queues);
        let Some(storage) = queues.torrents.get(&id).map(|entry| entry.storage.clone()) else {
            return;
        };
        self.shared.dispatch(&mut queues, Job { id, storage, task: Task::Fetch(fetch) });
    }

    /// The torrent is removed: it is closed, if it was not told to, and its data deleted if that is
    /// wanted; then it is not known any more.
    pub(in crate::driver) fn remove(&self, id: u32, removal: Removal) {
        let mut queues = locked(&self.shared.queues);
        if let Some(storage) = queues.closed.remove(&id) {
            return self.shared.end(&mut queues, id, storage, removal);
        }
        let Some(entry) = queues.torrents.get_mut(&id) else {
            drop(queues);
            return match removal {
                Removal::Close(reply) => reply(),
                Removal::Erase(reply) => reply(Ok(Erased::default())),
            };
        };
        entry.removals.push(removal);
        if !std::mem::replace(&mut entry.is_closing, true) {
            entry.storage.stop();
            entry.held.push_back(DiskRequest::Close);
            self.shared.release(&mut queues, id);
        }
    }

    /// Moves the events since the last call to the end of `out`.
    pub fn drain(&self, out: &mut Vec<(u32, DiskEvent)>) {
        out.append(&mut locked(&self.shared.events));
    }

    /// Finishes all queued jobs, records what is good of torrents still open, and ends the threads.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for DiskPool {
    fn drop(&mut self) {
        let queues = locked(&self.shared.queues);
        for entry in queues.torrents.values() {
            entry.storage.stop();
        }
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake_all();
        drop(queues);
        for thread in self.threads.drain(..) {
            // A thread's panic was reported when it happened.
            let _ = thread.join();
        }
        let mut queues = locked(&self.shared.queues);
        let left = std::mem::take(&mut queues.torrents);
        let state_dirs = std::mem::take(&mut queues.state_dirs);
        drop(queues);
        for (id, entry) in left {
            if let Err(e) = entry.storage.close() {
                self.shared.push(&mut vec![(id, DiskEvent::Failed(e))]);
            }
        }
        // What was used in this run is the youngest by now.
        state_dirs.iter().for_each(|dir| resume::sweep(dir));
    }
}

struct Shared {
    queues: Mutex<Queues>,
    lane_wakers: Vec<Condvar>,
    slow_waker: Condvar,
    saver_waker: Condvar,
    events: Mutex<Vec<(u32, DiskEvent)>>,
    wake: Box<dyn Fn() + Send + Sync>,
    handles: Arc<Handles>,
    // They count the blocks that wait for a lane.
    buffers: Arc<Buffers>,
    // Blocks that wait in memory until their turn to be hashed, of all lanes.
    waiting_bytes: AtomicUsize,
    stopping: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

struct Queues {
    torrents: BTreeMap<u32, Entry>,
    // Ended by themselves and not removed: they may be opened again, or what they wrote deleted.
    closed: BTreeMap<u32, Arc<Storage>>,
    // Where their records are: one place, as sessions are made.
    state_dirs: BTreeSet<PathBuf>,
    lanes: Vec<Lane>,
    slow: VecDeque<Job>,
    // Jobs in lanes or in work, slow ones included. Threads end when there are none.
    unfinished: usize,
}

struct Lane {
    jobs: VecDeque<Job>,
    idle: bool,
}

struct Entry {
    storage: Arc<Storage>,
    // Jobs on pieces under way, but for reads.
    running: usize,
    // A job that must be alone is under way.
    alone: bool,
    // Jobs that wait behind one that must be alone; its head is next.
    held: VecDeque<DiskRequest>,
    is_closing: bool,
    // Nobody will ask for it any more; these wait for its end.
    removals: Vec<Removal>,
}

impl Entry {
    fn new(storage: Arc<Storage>) -> Entry {
        Entry {
            storage,
            running: 0,
            alone: false,
            held: VecDeque::new(),
            is_closing: false,
            removals: Vec::new(),
        }
    }
}

impl Queues {
    fn new(lanes: usize) -> Queues {
        let lane = |_| Lane { jobs: VecDeque::new(), idle: false };
        Queues {
            torrents: BTreeMap::new(),
            closed: BTreeMap::new(),
            state_dirs: BTreeSet::new(),
            lanes: (0..lanes).map(lane).collect(),
            slow: VecDeque::new(),
            unfinished: 0,
        }
    }
}

impl Shared {
    // Lets go of a torrent's held jobs as far as their order allows.
    fn release(&self, queues: &mut Queues, id: u32) {
        while let Some(entry) = queues.torrents.get_mut(&id) {
            let Some(request) = entry.held.front() else { return };
            let alone = piece_of(request).is_none();
            if entry.alone || (alone && entry.running > 0) {
                return;
            }
            let Some(request) = entry.held.pop_front() else { return };
            let storage = entry.storage.clone();
            if !alone {
                entry.running += 1;
                let task = Task::Do(self.buffers.count(request));
                self.dispatch(queues, Job { id, storage, task });
                continue;
            }
            entry.alone = true;
            queues.unfinished += 1;
            queues.slow.push_back(Job { id, storage, task: Task::Do(request) });
            self.slow_waker.notify_one();
        }
    }

    fn dispatch(&self, queues: &mut Queues, job: Job) {
        let piece = job.task.piece().unwrap_or(0);
        let lane = job.id.wrapping_mul(7).wrapping_add(piece) as usize % queues.lanes.len();
        self.enqueue(queues, lane, job);
    }

    fn enqueue(&self, queues: &mut Queues, lane: usize, job: Job) {
        queues.unfinished += 1;
        let queue = &mut queues.lanes[lane];
        queue.jobs.push_back(job);
        if queue.idle {
            queue.idle = false;
            self.lane_wakers[lane].notify_one();
        }
    }

    fn run_lane(&self, lane: usize) {
        let mut worker = Worker::new(&self.waiting_bytes);
        let (mut batch, mut events, mut finished) = (Vec::new(), Vec::new(), Vec::new());
        while self.next_batch(lane, &mut batch, &mut finished) {
            finished.extend(batch.iter().map(|job| (job.id, job.task.is_waited_for())));
            let work = AssertUnwindSafe(|| worker.work(&mut batch, &mut events));
            if catch_unwind(work).is_err() {
                batch.clear();
                worker = Worker::new(&self.waiting_bytes);
                let failed = finished.iter().map(|(id, _)| (*id, internal_error()));
                events.extend(failed);
            }
            self.push(&mut events);
        }
    }

    // Accounts for the batch before, and waits for the next one. False when all is done.
    fn next_batch(
        &self,
        lane: usize,
        batch: &mut Vec<Job>,
        finished: &mut Vec<(u32, bool)>,
    ) -> bool {
        let mut queues = locked(&self.queues);
        queues.unfinished -= finished.len();
        for (id, is_waited_for) in finished.drain(..) {
            let entry = queues.torrents.get_mut(&id).filter(|_| is_waited_for);
            let Some(entry) = entry else { continue };
            entry.running = entry.running.saturating_sub(1);
            if entry.running == 0 && !entry.held.is_empty() {
                self.release(&mut queues, id);
            }
        }
        loop {
            let jobs = &mut queues.lanes[lane].jobs;
            if !jobs.is_empty() {
                let count = jobs.len().min(BATCH_MAX);
                batch.extend(jobs.drain(..count));
                return true;
            }
            if self.is_over(&queues) {
                self.wake_all();
                return false;
            }
            queues.lanes[lane].idle = true;
            let waker = &self.lane_wakers[lane];
            queues = waker.wait(queues).unwrap_or_else(PoisonError::into_inner);
            queues.lanes[lane].idle = false;
        }
    }

    fn run_slow(&self) {
        let mut queues = locked(&self.queues);
        loop {
            if let Some(job) = queues.slow.pop_front() {
                drop(queues);
                let (id, storage) = (job.id, job.storage);
                let ends = matches!(job.task, Task::Do(DiskRequest::Close));
                let work = AssertUnwindSafe(|| match job.task {
                    Task::Do(request) => self.work_alone(id, &storage, request),
                    Task::Erase(reply) => reply(storage.erase()),
                    Task::Fetch(_) | Task::Forget => unreachable!("lanes do these"),
                });
                if catch_unwind(work).is_err() {
                    self.push(&mut vec![(id, internal_error())]);
                }
                queues = locked(&self.queues);
                queues.unfinished -= 1;
                if ends {
                    self.on_closed(&mut queues, id, storage);
                } else if let Some(entry) = queues.torrents.get_mut(&id) {
                    entry.alone = false;
                    self.release(&mut queues, id);
                }
                continue;
            }
            if self.is_over(&queues) {
                return self.wake_all();
            }
            queues = self.slow_waker.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    // Every lane forgets what it holds of the torrent; its data goes if that is wanted.
    fn on_closed(&self, queues: &mut Queues, id: u32, storage: Arc<Storage>) {
        for lane in 0..queues.lanes.len() {
            let (storage, task) = (storage.clone(), Task::Forget);
            self.enqueue(queues, lane, Job { id, storage, task });
        }
        let Some(entry) = queues.torrents.remove(&id) else { return };
        if !entry.removals.is_empty() {
            for removal in entry.removals {
                self.end(queues, id, storage.clone(), removal);
            }
        } else if entry.held.is_empty() {
            queues.closed.insert(id, storage);
        } else {
            // It is to be opened again, as was said meanwhile.
            let held = entry.held;
            let is_closing = held.iter().any(|request| matches!(request, DiskRequest::Close));
            if !is_closing {
                storage.restart();
            }
            queues.torrents.insert(id, Entry { held, is_closing, ..Entry::new(storage) });
            self.release(queues, id);
        }
    }

    // The last that is done for a torrent.
    fn end(&self, queues: &mut Queues, id: u32, storage: Arc<Storage>, removal: Removal) {
        match removal {
            Removal::Close(reply) => reply(),
            Removal::Erase(reply) => {
                queues.unfinished += 1;
                queues.slow.push_back(Job { id, storage, task: Task::Erase(reply) });
                self.slow_waker.notify_one();
            }
        }
    }

    fn work_alone(&self, id: u32, storage: &Storage, request: DiskRequest) {
        let mut events = Vec::new();
        let opens = matches!(request, DiskRequest::Open { .. });
        let outcome = match request {
            DiskRequest::Open { info, wanted, afresh } => {
                let progress = |done, total| {
                    self.push(&mut vec![(id, DiskEvent::Checking { done, total })]);
                };
                let opened = storage.open(&info, wanted.as_deref(), afresh, &progress);
                opened.map(|have| events.push((id, DiskEvent::Opened { have })))
            }
            DiskRequest::Select { wanted } => match storage.opened() {
                Some(opened) => opened.select(&wanted),
                None => Ok(()),
            },
            // After a failure nothing was written that this could promise.
            DiskRequest::Flush if storage.has_failed() => Ok(()),
            DiskRequest::Flush => match storage.opened() {
                Some(opened) => opened.flush().map(|()| events.push((id, DiskEvent::Flushed))),
                None => Ok(()),
            },
            DiskRequest::Close => storage.close(),
            DiskRequest::Write { .. }
            | DiskRequest::Discard { .. }
            | DiskRequest::Commit { .. }
            | DiskRequest::Read { .. }
            | DiskRequest::HashBlocks { .. } => unreachable!("jobs on pieces go to lanes"),
        };
        if let Err(e) = outcome {
            // One failure is told once, but every attempt to open gets its answer.
            if storage.fail() || opens {
                events.push((id, DiskEvent::Failed(e)));
            }
        }
        self.push(&mut events);
    }

    // Keeps the records of running downloads at most `SAVE_EVERY` and one sync behind.
    fn run_saver(&self) {
        let mut queues = locked(&self.queues);
        while !self.stopping.load(Ordering::Acquire) {
            let waited = self.saver_waker.wait_timeout(queues, SAVE_EVERY);
            let (held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queues = held;
            if !timeout.timed_out() {
                continue;
            }
            let torrents: Vec<_> =
                queues.torrents.iter().map(|(id, e)| (*id, e.storage.clone())).collect();
            drop(queues);
            for (id, storage) in torrents {
                let Some(opened) = storage.opened().filter(|_| !storage.has_failed()) else {
                    continue;
                };
                match opened.save() {
                    // The next time there may be a descriptor for it.
                    Err(e) if e.kind != DiskErrorKind::Busy && storage.fail() => {
                        self.push(&mut vec![(id, DiskEvent::Failed(e))]);
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            queues = locked(&self.queues);
        }
    }

    fn push(&self, events: &mut Vec<(u32, DiskEvent)>) {
        if events.is_empty() {
            return;
        }
        let mut queue = locked(&self.events);
        let first = queue.is_empty();
        queue.append(events);
        drop(queue);
        if first {
            (self.wake)();
        }
    }

    fn is_over(&self, queues: &Queues) -> bool {
        self.stopping.load(Ordering::Acquire) && queues.unfinished == 0
    }

    fn wake_all(&self) {
        self.lane_wakers.iter().for_each(Condvar::notify_all);
        self.slow_waker.notify_all();
        self.saver_waker.notify_all();
    }
}

fn piece_of(request: &DiskRequest) -> Option<u32> {
    match request {
        DiskRequest::Write { piece, .. }
        | DiskRequest::Discard { piece }
        | DiskRequest::Commit { piece }
        | DiskRequest::Read { piece, .. }
        | DiskRequest::HashBlocks { piece } => Some(piece.get()),
        DiskRequest::Open { .. }
        | DiskRequest::Select { .. }
        | DiskRequest::Flush
        | DiskRequest::Close => None,
    }
}

fn internal_error() -> DiskEvent {
    let (kind, context) = (DiskErrorKind::Io, "storing data".to_owned());
    DiskEvent::Failed(DiskError { kind, context, message: "internal error".to_owned() })
}

/// Threads for opening, flushing and closing: one long check does not keep other torrents waiting.
const SLOW_THREADS: usize = 2;
/// Jobs that a lane takes at once: 1 MiB of blocks, still in the cache when they are hashed.
const BATCH_MAX: usize = 64;
/// How far a record may be behind. What is newer is found by hashing after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
