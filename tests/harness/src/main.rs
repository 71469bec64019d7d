//! The image that misbehaves: tests that are wrong on purpose, each in one way, beside one that is right and one that skips.
//!
//! It comes up like the test image and runs the same `ktest`. The host boots each test alone, by its own runner, and
//! asserts what that runner makes of it (`tests/host/src/harness/`). The test image itself has no wrong test.
#![cfg_attr(target_arch = "arm", no_std, no_main)]

#[cfg(target_arch = "arm")]
extern crate alloc;

#[cfg(target_arch = "arm")]
#[path = "../../kernel/src/ledgers.rs"]
mod ledgers;
#[cfg(target_arch = "arm")]
mod output;
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
    use image::{interrupts, report, secondaries, start};
    use ktest::{Filter, Mode, Options};

    use crate::output::Mangled;

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
        // Without them the tests of several CPUs have one.
        let up = interrupts::start().map_err(|error| log::error!("no interrupts: {error}"));
        if up.is_ok()
            && let Err(error) = secondaries::bring_up()
        {
            log::error!("{error}");
        }
        let _printed = dma::atomic_pool::init(config.coherent_pool);
        let options = Options {
            mode: if config.list { Mode::List } else { Mode::Run },
            filter: config.test_filter.map_or(Filter::All, Filter::parse),
            seed: config.seed.unwrap_or(1),
            from: config.from.unwrap_or(1) as usize,
            memory: u64::from(started.ram.used),
        };
        crate::ledgers::fail_nth(config.fail_nth);
        let deaf = options.filter == Filter::Exactly("witness::asks_nobody");
        if let Err(why) = witness::open(config.witness.filter(|_| !deaf)) {
            log::error!("{why}");
        }
        let mut out = Mangled::of(&options);
        let summary = ktest::run(&options, &mut out, crate::ledgers::all());
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
