//! The last words of a kernel: what happened, where, and who called.
//!
//! They go straight to the host, past the console and its lock, in whose way the trouble may lie.

use core::fmt::Write;
use core::panic::PanicInfo;

use arch::exception::{Fault, Frame, Kind};
use arch::semihosting::Console;
use arch::{cpu, smp};
use kerncore::addr::VirtAddr;
use mm::report::Named;

/// Which CPU it is that speaks, and what became of the others, if there are any.
fn others(out: &mut Console) {
    if !smp::are_several() {
        return;
    }
    let _ = write!(out, "on CPU {}; ", cpu::id());
    let mut running = smp::still_running().peekable();
    if running.peek().is_none() {
        let _ = writeln!(out, "the others have stopped");
        return;
    }
    let _ = write!(out, "still running:");
    for cpu in running {
        let _ = write!(out, " CPU {cpu}");
    }
    let _ = writeln!(out);
}

/// Reports an exception that nothing waited for (S113). A write that fails changes nothing about what follows.
pub fn exception(frame: &Frame) {
    let mut out = Console;
    let _ = writeln!(out, "\nunexpected {:?} exception in {:?} mode", frame.kind(), frame.mode());
    others(&mut out);
    if let Some(fault) = frame.fault() {
        let _ = writeln!(out, "{fault}");
        near(&fault, &mut out);
    } else if frame.kind() == Kind::SupervisorCall {
        let _ = writeln!(out, "no system call is known here");
    }
    let _ = writeln!(out, "{frame}");
    let _ = writeln!(out, "Backtrace:");
    for address in arch::backtrace::from_frame(frame) {
        let _ = writeln!(out, "  {}", Named(address));
    }
}

/// Names the area that the faulting address lies in, or the nearest.
fn near(fault: &Fault, out: &mut Console) {
    let (Some(address), Some(kernel)) = (fault.address, mm::try_kernel()) else { return };
    if !kernel.window().contains(address) {
        let _ = writeln!(out, "{address} lies in {}", region(address));
        return;
    }
    match kernel.nearest_area(address) {
        Ok(Some(area)) if area.pages.contains(address) => {
            let _ = writeln!(out, "{address} lies in the {} area {}", area.kind, area.pages);
        }
        Ok(Some(area)) => {
            let _ = writeln!(
                out,
                "{address} lies in no area; the nearest is {} ({})",
                area.pages, area.kind
            );
        }
        Ok(None) => {
            let _ = writeln!(out, "{address} lies in no area; there are none");
        }
        Err(busy) => {
            let _ = writeln!(out, "which area {address} lies in cannot be said: {busy}");
        }
    }
}

fn region(address: VirtAddr) -> &'static str {
    use kerncore::layout;

    for part in boot::layout::parts() {
        if part.pages.contains(address) {
            return part.name;
        }
    }
    if boot::layout::image().contains(address) {
        "a guard page of the image"
    } else if address < layout::LINEAR_START {
        "the user half, where nothing is mapped"
    } else if address < layout::LINEAR_END {
        "the linear map"
    } else if address < layout::VMALLOC_END {
        "the part of the vmalloc window that vmalloc= left out"
    } else if address < layout::HEAP_END {
        "the heap's region"
    } else {
        "the fixed mappings"
    }
}

/// Reports a panic.
pub fn panic(info: &PanicInfo<'_>) {
    let mut out = Console;
    let _ = writeln!(out, "\nkernel panic: {}", info.message());
    others(&mut out);
    if let Some(location) = info.location() {
        let _ = writeln!(out, "at {location}");
    }
    let _ = writeln!(out, "Backtrace:");
    for address in arch::backtrace::here() {
        let _ = writeln!(out, "  {}", Named(address));
    }
}
