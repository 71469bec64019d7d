//! The kernel's side of the witnesses: what it says of its mappings goes to the host, which asks others and answers.
//!
//! ```text
//!   kernel, at a stop of its own                      host (tests/host/src/witness/)
//!   ────────────────────────────                      ──────────────────────────────
//!   our walker, ATS1CPR, ATS1CPW, an access  ──────▶  the machine is stopped
//!   waits for the answer, by UART1                    gva2gpa: the emulator's walker
//!                                                     xp: the words of the tables, read by a decoder of its own
//!                                            ◀──────  the machine goes on; all agree, or who says what
//! ```
//!
//! A request is lines of text. `q NUMBER CPU TTBR0 TTBR1 TTBCR DACR SCTLR TEST` begins it, each [`Testimony`] is a line, and
//! `e NUMBER` ends it. In the place of testimonies a [`Picture`] asks what the emulator's screen shows. The answer is `+NUMBER`, or `-NUMBER` and what is wrong.
//!
//! A kernel without such a host (`witness=` says that there is one) hears the three witnesses that it has itself, in the
//! assertions of the suites. Whoever asks fails when there is no answer: nothing here waits for ever.
//!
//! What is asked about: what a test asks ([`check`], [`check_pages`]) while its mappings live, and a sample of everything after
//! every test ([`after_a_test`]).
#![no_std]
#![cfg(target_arch = "arm")]

mod channel;
mod kind;
mod picture;
mod sample;
mod testimony;

pub use channel::{Failure, PATIENCE, answer, ask, ask_screen, is_open, open, say};
pub use kind::Kind;
pub use picture::Picture;
pub use sample::{after_a_test, check, check_pages};
pub use testimony::{Access, Entry, Testimony};
