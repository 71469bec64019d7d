//! The outer cache, turned on.

use board::vexpress_a9::L2_CACHE_CONTROLLER;
use drivers::pl310;
use mm::io_mem::IoMem;

/// Turns the outer cache on, when the other CPUs are up; a kernel without it is slower, and otherwise the same. Says so in one line if
/// it does not come on.
pub fn start() {
    // Mapped for good by the board's own wish, so that this takes no addresses (S95).
    match IoMem::map(L2_CACHE_CONTROLLER.base) {
        Ok(registers) => {
            if let Err(error) = pl310::start(registers) {
                log::warn!("no outer cache: {error}");
            }
        }
        Err(error) => log::warn!("no outer cache: {error}"),
    }
}
