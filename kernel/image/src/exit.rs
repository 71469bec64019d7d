//! The end of a run, as the host sees it.

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// All is well.
    Success = 0,
    /// The work failed, or a test did.
    Failure = 1,
    /// A panic.
    Panic = 101,
    /// An exception that nothing waited for.
    Exception = 102,
}

/// Ends the emulation; without a host, stops this CPU.
pub fn exit(code: Code) -> ! {
    match code {
        Code::Success | Code::Failure => exit_with(code as u32),
        // Whoever gave up may hold any lock, or have stopped another CPU that does: nothing is waited for.
        Code::Panic | Code::Exception => end(code as u32),
    }
}

/// Ends the emulation in good order, with a number of the caller's own. What was put off is done first, where it may be
/// (S89).
pub fn exit_with(code: u32) -> ! {
    if arch::cpu::may_sleep() && mm::try_kernel().is_some() {
        mm::vm_area::free_deferred();
    }
    end(code)
}

fn end(code: u32) -> ! {
    arch::semihosting::exit(code);
    arch::cpu::halt()
}
