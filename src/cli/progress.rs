//! What the user sees while it works: a line that redraws itself on a terminal, a plain line every
//! few seconds otherwise (of what goes on for ever one a minute, if it has changed), nothing with `-q` or `--json`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::format::{escape, size};
use super::output::{Console, write_stderr};
use super::stage::{line, percent};
use crate::driver::{Stage, TorrentStatus};

/// The progress display of one verb.
#[derive(Debug)]
pub struct Progress {
    display: Display,
}

#[derive(Debug)]
enum Display {
    Off,
    Plain { last: Option<(Instant, Option<Stage>)>, standing: Standing },
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
            Display::Plain { last: None, standing: Standing::default() }
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

    /// The state of a download in which nothing has happened for `waited`. `name` is foreign text.
    pub fn download(&mut self, name: Option<&str>, status: &TorrentStatus, waited: Duration) {
        let name = name.map(|n| format!("{}: ", escape(n))).unwrap_or_default();
        let stage = status.stage();
        let figures = (status.swarm.verified_bytes, status.swarm.wanted_bytes);
        self.show(Some(stage), (stage == Stage::Data).then_some(figures), || {
            format!("{name}{}", line(status, waited))
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

    /// How something stands that goes on for ever. A terminal shows it all the time; elsewhere it is a
    /// line when it is another than before, and a minute has passed.
    pub fn standing(&mut self, text: impl FnOnce() -> String) {
        let Display::Plain { standing, .. } = &mut self.display else { return self.line(text) };
        if let Some(line) = standing.look(Instant::now(), text) {
            write_stderr(line);
        }
    }

    /// Would [`Progress::standing`] look now? For a line that costs something to make.
    pub fn is_due(&self) -> bool {
        match &self.display {
            Display::Off => false,
            Display::Plain { standing, .. } => standing.is_due(Instant::now()),
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
            Display::Plain { last, .. } => {
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

// What was said last of something that goes on.
#[derive(Debug, Default)]
struct Standing {
    next: Option<Instant>,
    said: String,
}

impl Standing {
    fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    // The line, if it is time for one and it is news.
    fn look(&mut self, now: Instant, text: impl FnOnce() -> String) -> Option<&str> {
        if !self.is_due(now) {
            return None;
        }
        // What ends at once has no standing: the first line comes a little later.
        let is_first = self.next.is_none();
        self.next = Some(now + if is_first { FIRST_LINE } else { STANDING_INTERVAL });
        let text = if is_first { String::new() } else { text() };
        if text == self.said {
            return None;
        }
        self.said = text;
        Some(&self.said)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("=> ")
}

const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
// As often as a node tells.
const STANDING_INTERVAL: Duration = Duration::from_secs(60);
const FIRST_LINE: Duration = Duration::from_secs(1);
// A new stage is news, but not one line for each step of a start that takes a second.
const STAGE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_told_once_a_minute_and_only_when_it_is_news() {
        let (start, mut standing) = (Instant::now(), Standing::default());
        // Asked every second for a quarter of an hour; something changes in the seventh minute.
        let text = |second: u64| if (400..450).contains(&second) { "busy" } else { "idle" };
        let told: Vec<_> = (0..900)
            .filter_map(|second| {
                let now = start + Duration::from_secs(second);
                let line = standing.look(now, || text(second).to_owned());
                line.map(|line| (second, line.to_owned()))
            })
            .collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!((told[0].0, told[0].1.as_str()), (1, "idle"));
        assert_eq!((told[1].1.as_str(), told[2].1.as_str()), ("busy", "idle"));
    }
}
