//! The shipped image: reads a disk through coherent DMA and prints its SHA-256.
#![cfg_attr(target_arch = "arm", no_std, no_main)]

#[cfg(target_arch = "arm")]
mod disk;

#[cfg(target_arch = "arm")]
mod kernel {
    use core::fmt::Write;
    use core::panic::PanicInfo;

    use arch::exception::Frame;
    use board::vexpress_a9;
    use drivers::pl011::{self, SerialPort};
    use image::console::{self, Console, LogStyle};
    use image::exit::{Code, exit};
    use image::loader::Registers;
    use image::start::Started;
    use image::{clock, interrupts, outer_cache, panel, report, secondaries, shell, start};
    use kerncore::config::Screen;
    use mm::io_mem::IoMem;

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

    /// Everything after memory is up. What goes wrong is said where it is noticed.
    fn run(started: &Started) -> Result<(), ()> {
        if let Err(error) = interrupts::start() {
            log::warn!("no interrupts: {error}");
        }
        if let Err(error) = secondaries::bring_up() {
            log::warn!("{error}");
        }
        outer_cache::start();
        if let Err(error) = open_console() {
            log::warn!("no serial port: {error}");
        }
        say(format_args!("{}\n\n", started.banner()));
        monitor::execute("map", &mut Console).map_err(|error| log::error!("{error}"))?;
        say(format_args!("\n"));
        clock::start();
        // Without a pool only callers that may not sleep go without memory; it has said so itself.
        let _printed = dma::atomic_pool::init(started.config.coherent_pool);
        // Without bounce buffers only what a device cannot have in place goes without; they have said so themselves.
        let _printed = dma::bounce::init(started.config.bounce, started.config.copies);
        dma::debug::init(started.config.dma_checks);
        // Until the end, whatever that is.
        let _shown = (started.config.screen == Screen::Memory).then(|| {
            // What is not shown there can still be read here.
            panel::show(started).map_err(|error| log::warn!("nothing on the screen: {error}"))
        });
        super::disk::digest(&mut Console).map_err(|error| log::error!("{error}"))?;
        if started.config.vmallocinfo {
            monitor::execute("vmallocinfo", &mut Console)
                .map_err(|error| log::error!("{error}"))?;
        }
        if started.config.monitor {
            let line = vexpress_a9::UART_INTERRUPTS[0].id();
            console::listen(line).map_err(|error| log::error!("no monitor: {error}"))?;
            shell::run();
        }
        Ok(())
    }

    fn open_console() -> Result<(), mm::io_mem::IoMemError> {
        let registers = IoMem::<pl011::Registers>::map(vexpress_a9::UARTS[0].base)?;
        match SerialPort::new(registers, vexpress_a9::UART_CLOCK_HZ) {
            Ok(port) => console::use_port(port),
            Err(error) => log::warn!("the serial port did not come up: {error}"),
        }
        Ok(())
    }

    /// Prints; a console that does not take text cannot be told so.
    fn say(text: core::fmt::Arguments<'_>) {
        let _ = Console.write_fmt(text);
    }

    #[unsafe(no_mangle)]
    extern "C" fn kernel_exception(frame: &mut Frame) {
        if !interrupts::serve(frame) {
            arch::smp::end_of_all();
            report::exception(frame);
            exit(Code::Exception)
        }
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
