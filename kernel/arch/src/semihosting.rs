//! The host behind the emulator or debugger (Arm's semihosting specification).
//!
//! Output, the exit code, the command line, and where RAM ends. The host's shell, which the same interface would
//! offer, is nobody's business here.
//!
//! The trap instruction is HLT 0xf000 rather than SVC: without a host it is an undefined instruction, whose exception
//! leaves supervisor mode's LR alone, so that [`answer_without_host`] can turn it into an error and go on.

use core::ffi::CStr;
use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicI32, Ordering};

use kerncore::addr::{PhysAddr, VirtAddr};
use semihosting::fd::BorrowedFd;
use semihosting::sys::arm_compat as host;
use semihosting::sys::arm_compat::syscall::{OperationNumber, ParamRegW, syscall};

use crate::exception::{Frame, Mode};
use crate::probe;

/// HLT 0xf000, in ARM state.
const TRAP: u32 = 0xe10f_0070;
/// What the host returns for a call that failed.
const FAILED: u32 = u32::MAX;
/// The host's name for its console; opened for writing it is the standard output.
const CONSOLE: &CStr = c":tt";

/// Why the host did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The host refused, with its `errno` (-1 if there is no host at all).
    Refused {
        /// The host's error number.
        errno: i32,
    },
    /// Part of the output was taken, `missing` bytes were not.
    Truncated {
        /// Bytes not written.
        missing: usize,
    },
    /// The answer is longer than the room for it.
    TooLong,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { errno: -1 } => f.write_str("the host does not answer"),
            Self::Refused { errno } => write!(f, "the host refused, by error {errno}"),
            Self::Truncated { missing } => write!(f, "the host did not take {missing} bytes"),
            Self::TooLong => f.write_str("it is too long"),
        }
    }
}

impl core::error::Error for HostError {}

/// The host's error number for an answer that does not fit.
const E2BIG: i32 = 7;

impl HostError {
    fn from_host(error: &semihosting::io::Error) -> Self {
        Self::Refused { errno: error.raw_os_error().unwrap_or(-1) }
    }
}

/// The handle of the standard output; 0, which is no handle, until it is opened.
static STDOUT: AtomicI32 = AtomicI32::new(0);

fn stdout() -> Result<BorrowedFd<'static>, HostError> {
    let mut handle = STDOUT.load(Ordering::Relaxed);
    if handle == 0 {
        let opened = host::sys_open(CONSOLE, host::OpenMode::WRONLY_TRUNC)
            .map_err(|error| HostError::from_host(&error))?;
        // Two CPUs may both come here; then one handle more is open, and both work.
        handle = opened.into_raw_fd();
        STDOUT.store(handle, Ordering::Relaxed);
    }
    // SAFETY: the handle is open, nobody ever closes it, and it is not -1, which `sys_open` reports as an error.
    Ok(unsafe { BorrowedFd::borrow_raw(handle) })
}

/// Writes `text` to the host's standard output. Any context; the emulator stops meanwhile.
///
/// # Errors
/// [`HostError::Refused`] if there is no host or it refuses, [`HostError::Truncated`] if it did not take all.
pub fn write_str(text: &str) -> Result<(), HostError> {
    if text.is_empty() {
        return Ok(());
    }
    match host::sys_write_orig(stdout()?, text.as_bytes()) {
        Ok(0) => Ok(()),
        Ok(missing) => Err(HostError::Truncated { missing }),
        Err(error) => Err(HostError::from_host(&error)),
    }
}

/// The host's standard output, for `write!`.
#[derive(Clone, Copy, Debug)]
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_str(text).map_err(|_| fmt::Error)
    }
}

/// Ends the emulation with `code`, of which the host keeps the low eight bits. Returns if there is no host.
pub fn exit(code: u32) {
    host::sys_exit_extended(host::ExitReason::ADP_Stopped_ApplicationExit, code as usize);
}

/// Reads the command line, program name first, into `buffer`. What is not UTF-8 becomes question marks, so that only
/// the words that have some suffer.
///
/// # Errors
/// [`HostError::Refused`] if there is no host, [`HostError::TooLong`] if `buffer` cannot hold it.
pub fn command_line(buffer: &mut [u8]) -> Result<&str, HostError> {
    // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and the host writes initialized bytes only, so what the
    // caller finds in `buffer` afterwards is initialized.
    let uninit = unsafe { &mut *(&raw mut *buffer as *mut [MaybeUninit<u8>]) };
    let line = match host::sys_get_cmdline_uninit(uninit) {
        Ok(line) => line,
        Err(error) if error.raw_os_error() == Some(E2BIG) => return Err(HostError::TooLong),
        Err(error) => return Err(HostError::from_host(&error)),
    };
    let mut good = 0;
    while let Err(error) = core::str::from_utf8(&line[good..]) {
        good += error.valid_up_to();
        line[good] = b'?';
    }
    Ok(core::str::from_utf8(line).unwrap_or_default())
}

/// The processor time that the host has spent on this emulation, in hundredths of a second, or `None` if there is no host.
/// For patience with the host: on one that is busy with others it stands still, and no instruction count slows it down.
pub fn clock() -> Option<u32> {
    host::sys_clock().ok().and_then(|clock| u32::try_from(clock).ok())
}

/// What `SYS_HEAPINFO` fills in: four physical addresses.
#[derive(Default)]
#[repr(C)]
struct HeapInfo {
    heap_base: u32,
    heap_limit: u32,
    stack_base: u32,
    stack_limit: u32,
}

/// The end of RAM as the host sees it: the address behind its last byte, or `None` if the host does not say.
pub fn ram_end() -> Option<PhysAddr> {
    let mut info = HeapInfo::default();
    // The parameter is the address of a pointer to the answer. (The crate's own `sys_heapinfo` passes the address of
    // the answer, whose first word, zero, the host then takes for the pointer.)
    let mut parameter = [ParamRegW::ref_(&mut info)];
    // SAFETY: the call writes four words where the parameter points, and those are `info`.
    let result =
        unsafe { syscall(OperationNumber::SYS_HEAPINFO, ParamRegW::block(&mut parameter)) };
    let answered = result.usize() == 0 && info.heap_limit != 0;
    answered.then(|| PhysAddr::new(info.heap_limit))
}

/// If `frame` is a semihosting call that no host took, makes it return an error and says so.
///
/// From undefined mode there is no way back, since the exception has overwritten that mode's LR.
pub(crate) fn answer_without_host(frame: &mut Frame) -> bool {
    let called = !matches!(frame.mode(), Mode::User | Mode::Undefined)
        && frame.pc.is_multiple_of(4)
        && probe::read_u32(VirtAddr::new(frame.pc)) == Ok(TRAP);
    if called {
        frame.registers[0] = FAILED;
        frame.pc = frame.pc.wrapping_add(4);
    }
    called
}
