//! What the user sees while it works: a line that redraws itself on a terminal, a plain line every
//! few seconds otherwise, nothing with `-q` or `--json`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::format::{escape, size};
use super::output::{Console, write_stderr};
use super::stage::{Counts, Stage, percent};

/// The progress display of one verb.
#[derive(Debug)]
pub struct Progress {
    display: Display,
}

#[derive(Debug)]
enum Display {
    Off,
    Plain { last: Option<(Instant, Option<Stage>)> },
    Redrawn { bar: ProgressBar, with_bar: bool, drawn: Instant },
}

impl Progress {
    /// The display that fits the streams.
    pub fn new(console: &Console) -> Self {
        let display = if !console.shows_progress() {
            Display::Off
        } else if let Some(bars) = console.bars() {
            let bar = bars.add(ProgressBar::new(0));
            bar.set_style(style("{spinner} {wide_msg}"));
            Display::Redrawn { bar, with_bar: false, drawn: Instant::now() }
        } else {
            Display::Plain { last: None }
        };
        Self { display }
    }

    /// A display that shows nothing.
    pub fn off() -> Self {
        Self { display: Display::Off }
    }

    /// How often [`Progress::download`] wants to be called.
    pub fn interval(&self) -> Duration {
        match self.display {
            Display::Redrawn { .. } => Duration::from_millis(200),
            Display::Off | Display::Plain { .. } => Duration::from_millis(500),
        }
    }

    /// The state of a download. `name` is foreign text.
    pub fn download(&mut self, name: Option<&str>, counts: &Counts) {
        let name = name.map(|n| format!("{}: ", escape(n))).unwrap_or_default();
        let figures = (counts.verified, counts.wanted);
        self.show(Some(counts.stage()), counts.has_metadata.then_some(figures), || {
            format!("{name}{}", counts.line())
        });
    }

    /// The state of hashing or checking `what`.
    pub fn bytes(&mut self, what: &str, done: u64, total: u64) {
        self.show(None, Some((done, total)), || {
            format!("{what}: {} of {} ({})", size(done), size(total), percent(done, total))
        });
    }

    /// A line of text that counts something else.
    pub fn line(&mut self, text: impl FnOnce() -> String) {
        self.show(None, None, text);
    }

    /// Would a line be shown now? For one that costs something to make.
    pub fn is_due(&self) -> bool {
        match &self.display {
            Display::Off => false,
            Display::Plain { last } => {
                last.is_none_or(|(at, _)| Instant::now() >= at + PLAIN_INTERVAL)
            }
            Display::Redrawn { drawn, .. } => drawn.elapsed() >= REDRAW_INTERVAL,
        }
    }

    fn show(
        &mut self,
        stage: Option<Stage>,
        figures: Option<(u64, u64)>,
        text: impl FnOnce() -> String,
    ) {
        match &mut self.display {
            Display::Off => {}
            Display::Plain { last } => {
                let now = Instant::now();
                let due = match *last {
                    // What takes no time needs no progress: the first line comes a little later.
                    None => Some(now + FIRST_LINE - PLAIN_INTERVAL),
                    Some((at, before)) if stage == before => {
                        (now - at >= PLAIN_INTERVAL).then_some(now)
                    }
                    Some((at, _)) => (now - at >= STAGE_INTERVAL).then_some(now),
                };
                let Some(at) = due else { return };
                let first = last.is_none();
                *last = Some((at, stage));
                if !first {
                    write_stderr(&text());
                }
            }
            Display::Redrawn { bar, with_bar, drawn } => {
                // Hashing reports every block; what is over before the eye sees it is not drawn.
                if drawn.elapsed() < REDRAW_INTERVAL {
                    return;
                }
                *drawn = Instant::now();
                if let Some((done, total)) = figures {
                    if !*with_bar {
                        bar.set_style(style("{spinner} [{bar:24}] {wide_msg}"));
                        *with_bar = true;
                    }
                    bar.set_length(total);
                    bar.set_position(done);
                }
                bar.set_message(text());
                bar.tick();
            }
        }
    }

    /// Takes the display away.
    pub fn clear(&self) {
        if let Display::Redrawn { bar, .. } = &self.display {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("=> ")
}

const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
const FIRST_LINE: Duration = Duration::from_secs(1);
// A new stage is news, but not one line for each step of a start that takes a second.
const STAGE_INTERVAL: Duration = Duration::from_secs(1);
