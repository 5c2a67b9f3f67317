//! Instructions and allocations of one step, counted by valgrind. What is not installed is not
//! counted.

use std::process::Command;

/// Instructions and allocations for one step of a case.
pub fn of(name: &str, rounds: u32) -> [Option<f64>; 2] {
    [INSTRUCTIONS, ALLOCATIONS].map(|counter| {
        let once = count(&counter, name, rounds)?;
        let twice = count(&counter, name, 2 * rounds)?;
        // What came before the first step is in both.
        Some((twice - once) / f64::from(rounds))
    })
}

struct Counter {
    options: &'static [&'static str],
    // The figure stands behind this in what valgrind prints.
    before: &'static str,
}

const INSTRUCTIONS: Counter =
    Counter { options: &["--tool=cachegrind", "--cachegrind-out-file=/dev/null"], before: "refs:" };
const ALLOCATIONS: Counter = Counter { options: &["--tool=memcheck"], before: "total heap usage:" };

fn count(counter: &Counter, name: &str, rounds: u32) -> Option<f64> {
    let own = std::env::current_exe().ok()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(counter.options).arg(own).args(["--run", name, &rounds.to_string()]);
    let output = valgrind.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stderr);
    let figure = text.split_once(counter.before)?.1.split_whitespace().next()?;
    figure.replace(',', "").parse().ok()
}
