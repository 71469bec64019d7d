//! The benchmark image: what one operation costs, in instructions.
//!
//! It is linked from the same crates, with the same features and the same profile as the shipped image, and calls what C
//! code calls. One boot measures one row, `test=NAME`, so that every row begins in the same state; `list` prints the rows.
//! Exact under `-icount shift=5` only: the clock is then a count of instructions. `make bench` runs all rows, and adds what
//! Linux needs for the same.
//!
//! ```text
//! row NAME                                       one line each, with `list`
//! cost NAME OPERATIONS TOTAL FIRST DEAREST       in instructions; the dearest is that of all but the first
//! ```
//! Rows of the disk move data; how much in an operation, the host knows.
#![cfg_attr(target_arch = "arm", no_std, no_main)]

#[cfg(target_arch = "arm")]
extern crate alloc;

#[cfg(target_arch = "arm")]
mod disk;
#[cfg(target_arch = "arm")]
mod iommu;
#[cfg(target_arch = "arm")]
mod meter;
#[cfg(target_arch = "arm")]
mod rows;

#[cfg(target_arch = "arm")]
mod kernel {
    use core::fmt::Write;
    use core::panic::PanicInfo;

    use image::console::{Console, LogStyle};
    use image::exit::{Code, exit};
    use image::loader::Registers;
    use image::start::Started;
    use image::{clock, interrupts, outer_cache, report, start};

    use crate::meter::Meter;
    use crate::rows::{Clock, ROWS, Row};

    /// Entered by the stub, high, with the MMU on.
    #[unsafe(no_mangle)]
    extern "C" fn kernel_main(r0: u32, r1: u32, r2: u32) -> ! {
        let ended = match start::start(LogStyle::Level, Registers { r0, r1, r2 }) {
            Ok(started) => run(started),
            Err(error) => {
                log::error!("{error}");
                Err(())
            }
        };
        exit(if ended.is_ok() { Code::Success } else { Code::Failure })
    }

    fn run(started: &Started) -> Result<(), ()> {
        let config = &started.config;
        // As in the shipped image: what goes to devices is cleaned out of this one, too.
        outer_cache::start();
        if config.list {
            return ROWS.iter().try_for_each(|row| say(format_args!("row {}\n", row.name)));
        }
        let wanted = config.test_filter.unwrap_or_default();
        let Some(row) = ROWS.iter().find(|row| row.name == wanted) else {
            log::error!("no row is called \"{wanted}\": test= names one, list prints them");
            return Err(());
        };
        // The timer's registers are the first area of the window, and leave a hole below the pool, out of which most rows take.
        if row.clock == Clock::Runs {
            clock::start();
        }
        // A pool that could not be made has said so; the rows that need it fail.
        let _printed = dma::atomic_pool::init(config.coherent_pool);
        measure(row, config.operations.unwrap_or(row.operations))
    }

    fn measure(row: &Row, operations: u32) -> Result<(), ()> {
        let mut meter = Meter::new(operations).map_err(|error| log::error!("no clock: {error}"))?;
        (row.run)(&mut meter);
        let (name, cost) = (row.name, meter.cost());
        let (total, first, dearest) = (cost.total, cost.first, cost.dearest);
        say(format_args!("cost {name} {operations} {total} {first} {dearest}\n"))
    }

    fn say(text: core::fmt::Arguments<'_>) -> Result<(), ()> {
        Console.write_fmt(text).map_err(|_| ())
    }

    #[unsafe(no_mangle)]
    extern "C" fn kernel_exception(frame: &mut arch::exception::Frame) {
        if interrupts::serve(frame) {
            return;
        }
        arch::smp::end_of_all();
        report::exception(frame);
        exit(Code::Exception)
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        arch::smp::end_of_all();
        report::panic(info);
        exit(Code::Panic)
    }
}

/// On other architectures there is nothing to run; the crate only has to compile.
#[cfg(not(target_arch = "arm"))]
fn main() {}
