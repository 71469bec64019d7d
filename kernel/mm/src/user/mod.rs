//! Programs: their address spaces, how they run, and the copies to and from their memory (S118).
//!
//! [`AddressSpace`] owns one program's half of the addresses; [`Program`] is such a space with registers. What runs is
//! [`kerncore::user`] on the Cortex-A9; here it gets a register of what lives, for the audit and the ledger, and meets User mode
//! ([`arch::user`]).
//!
//! ```text
//!   Program::run ──▶ opens the space ──▶ arch::user::run ──▶ closes it ──┬─ a call: the kernel answers, it goes on
//!                                                                        ├─ a fault: it is killed, and only it
//!                                                                        └─ a call to end: it ends
//! ```

mod program;
mod register;
mod space;

pub use program::{Answer, Call, End, Program};
pub use space::{
    AddressSpace, CopyError, SpaceError, audit, live, numbers_taken, rollovers, waits, windows_onto,
};
pub(crate) use space::{move_out, spaces};
