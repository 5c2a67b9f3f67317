//! When the process has no descriptor left. Others come back all the time: strangers that say nothing
//! leave within seconds, and make room for each other. Whoever opens a file waits for a moment; an
//! end is only made of it when that does not help.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// Opens something; again and again for a few seconds where there is no descriptor for it.
/// Blocks: for disk threads.
pub(in crate::driver) fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES_MAX {
        match open() {
            Err(e) if is_out_of_descriptors(&e) => pause(),
            done => return done,
        }
    }
    open()
}

/// Is this what the system says when there are too many open files?
pub(in crate::driver) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[expect(clippy::disallowed_methods, reason = "no event tells that a descriptor is free")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// Three seconds in all.
const TRIES_MAX: u32 = 60;
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_descriptor_is_waited_for_and_nothing_else() {
        let mut tries = 0;
        let opened = patiently(|| {
            tries += 1;
            if tries < 4 { Err(Errno::MFILE.into()) } else { Ok(tries) }
        });
        assert_eq!(opened.unwrap(), 4);
        let mut tries = 0;
        let refused = patiently(|| {
            tries += 1;
            Err::<(), _>(io::Error::from(Errno::ACCESS))
        });
        assert_eq!(Errno::from_io_error(&refused.unwrap_err()), Some(Errno::ACCESS));
        assert_eq!(tries, 1);
    }
}
