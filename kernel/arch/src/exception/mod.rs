//! Exceptions: vectors, the frame they leave, and what a fault was.
//!
//! ```text
//!   vectors.S ──▶ exception_dispatch ──▶ a program's call or fault? ──▶ back to who runs it (crate::user)
//!   (own mode,       (dispatch.rs)   ──▶ a probe's access?  ──▶ back, behind the access, with the fault as a value
//!    own stack)                      ──▶ fault while handling a fault? ──▶ last words, exit
//!                                    ──▶ kernel_exception(&mut Frame), the image's
//! ```
//!
//! [`Frame`], [`Fault`] and the decoding of fault status registers are plain data and compile everywhere.

#[cfg(target_arch = "arm")]
mod dispatch;
mod fault;
mod frame;
mod status;

pub use fault::{Access, Fault};
pub use frame::{Frame, Kind, Mode};
#[cfg(target_arch = "arm")]
pub(crate) use frame::{IT_STATE, THUMB};
pub use status::{FaultStatus, Level};

#[cfg(target_arch = "arm")]
core::arch::global_asm!(include_str!("vectors.S"), options(raw));

/// Makes the linker keep the vectors, which only assembly refers to.
#[cfg(target_arch = "arm")]
#[inline(always)]
pub fn link() {
    unsafe extern "C" {
        static exception_vectors: u8;
    }
    core::hint::black_box(&raw const exception_vectors);
}
