//! SIGINT and SIGTERM: the first ends cleanly (state saved, peers told), a second ends at once.

use std::future::pending;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Code, Failure};

/// Waits for the signals that end a program.
#[derive(Debug)]
pub struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Signals {
    /// From now on both signals come here. Call inside the runtime.
    pub fn listen() -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
        }
    }

    /// The next one, as the exit code it stands for.
    pub async fn next(&mut self) -> Code {
        async fn recv(signal: &mut Option<Signal>) {
            if let Some(signal) = signal
                && signal.recv().await.is_some()
            {
                return;
            }
            pending::<()>().await;
        }
        tokio::select! {
            () = recv(&mut self.interrupt) => Code::Interrupted,
            () = recv(&mut self.terminate) => Code::Terminated,
        }
    }

    /// The first signal came and the clean end has begun: one more ends the process where it stands.
    pub fn second_ends_at_once(mut self) {
        tokio::spawn(async move {
            let code = self.next().await;
            std::process::exit(code.number().into());
        });
    }
}

/// What a verb ends with after a signal.
pub fn stopped(code: Code) -> Failure {
    let name = if code == Code::Terminated { "terminated" } else { "interrupted" };
    Failure::new(code, name)
}

/// Runs work without a network (hashing) so that a signal ends it with its own exit code.
pub fn interruptible<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("starting", &e))?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen();
        tokio::select! {
            done = tokio::task::spawn_blocking(work) => match done {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::internal()),
            },
            // Half a hash is worth nothing.
            code = signals.next() => Err(stopped(code).advise("run it again: it begins anew")),
        }
    });
    // The work only reads: nothing is lost by not waiting for it.
    runtime.shutdown_background();
    outcome
}
