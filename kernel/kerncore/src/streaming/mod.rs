//! Ordinary memory, lent to a device for one transfer at a time (S105).
//!
//! ```text
//!              map                     sync for the processor             unmap
//!   processor ─────▶ device … device ─────────────────────────▶ processor ◀─────── device
//!             cleaned                ◀─────────────────────────  invalidated, if the device writes
//!                                       sync for the device
//!                                       cleaned
//! ```
//!
//! A buffer is the processor's or the device's, never both's. Which maintenance a change of owner takes follows from the
//! [`Flow`] of the data, and is decided in [`upkeep`]; whether the device can be given the buffer itself is decided in
//! [`route()`].

mod direction;
mod machine;
mod route;
mod upkeep;

pub use direction::{Bidirectional, Direction, Flow, FromDevice, Outgoing, ToDevice};
pub use machine::{Levels, OuterCache, StreamMachine, Upkeep};
pub use route::{Bounced, Question, Refusal, Route, route, writes_part_of_a_line};
pub use upkeep::{Handover, Piece, Step, to_device, to_processor};
