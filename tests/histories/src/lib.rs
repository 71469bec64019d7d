//! Histories: what may happen to a kernel in what order, and what must hold after each step.
//!
//! ```text
//!   proptest ──▶ steps ──┐                        a value tree, shrunk when it fails
//!                        ├──▶ history::live ──▶ model = tables = CPUs = device, audit, ledger
//!   bytes ──▶ decode ────┘                        libFuzzer's, or a file of the corpus
//! ```
//!
//! One kernel of eight megabytes ([`bed`]) and one model ([`history`]) serve both ways of finding histories, so that what
//! one of them found, the other can be told. Beside them stand the parsers of what a boot loader says ([`boot`]), which take
//! foreign bytes as they come. Everything here panics when something is wrong: it is for tests.

#[expect(
    clippy::missing_panics_doc,
    reason = "all of it is for tests, and to panic is to fail one"
)]
pub mod bed;
pub mod boot;
pub mod bytes;
mod changes;
pub mod history;
pub mod host_memory;
mod large;
mod step;
