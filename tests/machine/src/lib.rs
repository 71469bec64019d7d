//! SoftMachine: a processor on the host that may lie as far as the architecture lets it.
//!
//! An emulator is kind: it has no cache, its TLB forgets more than it was told to, its barriers are instant. What it
//! forgives must fail somewhere, so it fails here.
//!
//! ```text
//!   CPU 0 ─┬─ TLB 0 ──┐                            descriptors and data are written into the cache;
//!   CPU 1 ─┼─ TLB 1 ──┼─ walker ──────────┐        the walkers and devices read memory past it;
//!     …    │          │                   ▼        cleans and invalidations are only *begun* by their
//!          └──────────┴── data cache ─▶ memory     calls, and complete at the barrier of the same CPU
//!                                         ▲
//!                                       device
//! ```
//!
//! How far it lies is a [`Behaviour`]: both extremes and anything between, by a seed. The extremes are:
//!
//! * **hoarding**: a TLB keeps a translation until it is invalidated, and reads ahead whatever the tables offer; a dirty
//!   line stays in the cache until it is cleaned, and clean ones are read ahead; nothing completes before the
//!   barrier, and then in the reverse order;
//! * **forgetful**: the TLB holds nothing, every write goes to memory at once, every operation completes at once.
//!
//! Right code works on all of them. Code that forgets a step works on the forgetful machine, which is what an emulator
//! is most like.
//!
//! A machine may have an outer cache between the data cache and memory, which is cleaned and invalidated by physical address and
//! completes nothing before it is waited for.
//!
//! Each CPU has its own TTBR0, TTBR1, TTBCR and ASID, and what its walker brings into its TLB while they change is
//! tagged with whatever they hold at that moment.
//!
//! The rules are ARM DDI 0406C's (B2.2 caches, B3.9 and B3.10 TLBs, A3.8 barriers); `rules` and `rules_contexts` in
//! `tests/suite/` state them.
//! The walker is written anew from the manual's figures and shares nothing with `kerncore::descriptor`, so that a
//! bit in the wrong place does not cancel out.

mod chance;
mod context;
mod cpu;
mod event;
mod host;
mod memory;
mod pass_on;
pub mod schedule;
mod state;
mod stream;
mod tlb;
mod user;
mod walker;

#[doc(hidden)]
pub use kerncore;

pub use context::{Asid, Register, Ttbcr};
pub use cpu::SoftCpu;
pub use event::Event;
pub use host::{HostLock, HostLocks, HostSharedLock, TablePool, fail_nth};
pub use state::{Behaviour, SoftMachine};
pub use tlb::{Fault, Kind, Privilege, Reach, Scope};
