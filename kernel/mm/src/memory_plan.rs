//! What whoever starts the kernel decides about memory.

use kerncore::kernel_space::StaticRequest;
use kerncore::zones::Nodes;

/// How memory is to be brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Bytes of RAM from the start of the linear map.
    pub ram: u32,
    /// Of them, bytes that are to have linear addresses; the rest is high memory.
    pub low: u32,
    /// Nodes that memory is divided among.
    pub nodes: Nodes,
    /// Bytes of the vmalloc window.
    pub vmalloc: u32,
    /// Bytes of low memory that are set aside for contiguous buffers (S101); none, if there is not enough.
    pub contiguous: u32,
    /// Registers that are mapped for good (S95).
    pub statics: &'static [StaticRequest],
}
