//! The test image: the suites, the ledgers that watch them, and the runner's start.
//!
//! One file under `suites/` is one suite. Each test leaves the kernel as it found it, or fails by name.
#![cfg_attr(target_arch = "arm", no_std, no_main)]

#[cfg(target_arch = "arm")]
extern crate alloc;

#[cfg(target_arch = "arm")]
mod ledgers;
#[cfg(target_arch = "arm")]
mod suites;

#[cfg(target_arch = "arm")]
mod kernel {
    use core::panic::PanicInfo;

    use arch::exception::Frame;
    use arch::semihosting::Console;
    use image::console::LogStyle;
    use image::exit::{Code, exit, exit_with};
    use image::loader::Registers;
    use image::start::Started;
    use image::{clock, interrupts, outer_cache, report, secondaries, start};
    use ktest::{Filter, Mode, Options};

    /// The order when `seed=` names none; the host always names one.
    const DEFAULT_SEED: u64 = 1;

    /// Entered by the stub, high, with the MMU on.
    #[unsafe(no_mangle)]
    extern "C" fn kernel_main(r0: u32, r1: u32, r2: u32) -> ! {
        match start::start(LogStyle::Diagnostic, Registers { r0, r1, r2 }) {
            Ok(started) => exit_with(run(started)),
            Err(error) => {
                log::error!("{error}");
                exit(Code::Failure)
            }
        }
    }

    fn run(started: &Started) -> u32 {
        let config = &started.config;
        // The tests that need interrupts fail by name.
        if let Err(error) = interrupts::start() {
            log::error!("no interrupts: {error}");
        }
        if let Err(error) = secondaries::bring_up() {
            log::error!("{error}");
        }
        outer_cache::start();
        clock::start();
        // Tests compare what there is before and after them. Those of the growth say when it may.
        dma::pool_growth::set_growth(dma::pool_growth::Growth::WhenAsked);
        // A pool that could not be made has said so; the tests that need it fail by name.
        let _printed = dma::atomic_pool::init(config.coherent_pool);
        let _printed = dma::bounce::init(config.bounce, config.copies);
        dma::debug::init(config.dma_checks);
        // The host, which waits for questions, says so in its own report.
        if let Err(why) = witness::open(config.witness) {
            log::error!("{why}");
        }
        let mode = match (config.list, config.fatal) {
            (true, _) => Mode::List,
            (false, Some(name)) => Mode::Fatal(name),
            (false, None) => Mode::Run,
        };
        let options = Options {
            mode,
            filter: config.test_filter.map_or(Filter::All, Filter::parse),
            seed: config.seed.unwrap_or(DEFAULT_SEED),
            from: config.from.unwrap_or(1) as usize,
            memory: u64::from(started.ram.used),
        };
        if config.vmallocinfo {
            let totals = mm::area_list::for_each_line(|line| log::info!("{line}"));
            log::info!("{totals}");
        }
        crate::ledgers::fail_nth(config.fail_nth);
        let summary = ktest::run(&options, &mut Console, crate::ledgers::all());
        u32::try_from(summary.exit_code()).unwrap_or(Code::Failure as u32)
    }

    #[unsafe(no_mangle)]
    extern "C" fn kernel_exception(frame: &mut Frame) {
        if interrupts::serve(frame) {
            return;
        }
        arch::smp::end_of_all();
        let kind = frame.kind();
        let _death = match frame.fault() {
            Some(fault) => ktest::report_death(
                format_args!("unexpected {kind:?} exception: {fault}"),
                &mut Console,
            ),
            None => {
                ktest::report_death(format_args!("unexpected {kind:?} exception"), &mut Console)
            }
        };
        report::exception(frame);
        exit(Code::Exception)
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        arch::smp::end_of_all();
        let _death = ktest::report_panic(info, &mut Console);
        report::panic(info);
        exit(Code::Panic)
    }
}

/// On other architectures there is nothing to run; the crate only has to compile.
#[cfg(not(target_arch = "arm"))]
fn main() {}
