//! What both images do: bring the kernel up, and report its end.
//!
//! ```text
//!   kernel_main ──▶ start::start     console on the host, command line, RAM, tables, heap
//!                      │
//!                      ▼
//!                   the binary's own work (the shipped image reads a disk, the test image runs its suites)
//!                      │
//!                      ▼
//!                   exit::exit
//!
//!   kernel_exception, #[panic_handler]: the binary's, over `report`
//! ```
#![no_std]
#![cfg(target_arch = "arm")]

pub mod capture;
pub mod clock;
pub mod console;
pub mod exit;
pub mod interrupts;
pub mod loader;
pub mod outer_cache;
pub mod panel;
pub mod programs;
pub mod report;
pub mod secondaries;
pub mod shell;
pub mod start;
