//! A DHT of whole nodes, up to a hundred thousand and with a million others around them, that lives
//! for hours: hosts come and go behind all kinds of address translators, some announce, others look
//! it up, some lie. A table tells what came of it, one row for each stretch of time.
//!
//! Everything follows from the options, and so from their seed.

mod charts;
mod citizen;
mod figures;
mod life;
mod options;
mod run;
mod work;

pub use citizen::{Citizen, Conspiracy, Manners, Traits};
pub use figures::{Figures, Row, Table};
pub use options::{Named, Nats, Options, Sessions, Storm, Sybils};
pub use run::{Run, Step};

use crate::sim::implicit;

// The nodes around those that are whole.
fn implicit(options: &Options) -> implicit::Options {
    implicit::Options {
        seed: options.seed,
        nodes: options.implicit,
        rtt_median: options.weather.rtt_median,
        rtt_sigma: options.weather.rtt_sigma,
        loss: options.weather.loss,
        public: true,
        valid_ids: 1.0 - options.invalid_ids,
        ..implicit::Options::harsh()
    }
}

#[cfg(test)]
mod tests;
