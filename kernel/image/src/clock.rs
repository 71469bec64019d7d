//! The clock of listings, started.

use board::vexpress_a9::TIMER_DAUGHTERBOARD;
use drivers::sp804;
use mm::io_mem::IoMem;

/// Starts the clock that listings say moments by. Without it all else is the same; says so in one line if it does not start.
pub fn start() {
    match IoMem::map(TIMER_DAUGHTERBOARD.base).map(sp804::count_down) {
        Ok(Ok(counter)) => mm::clock::start(counter),
        Ok(Err(error)) => log::warn!("no clock: {error}"),
        Err(error) => log::warn!("no clock: {error}"),
    }
}
