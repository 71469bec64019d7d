//! What memory has lent, mapped and taken: before and after a test, and for the console.
//!
//! The counts are [`kerncore::ledger::Ledger`]'s, which says of each whether it is *held* and must come back, or *capacity*
//! that may grow and stay: frames of the kernel's second-level tables (S24), heap pages, chunks of records. Nothing hides behind
//! capacity: frames of all owners add up to RAM, and what is held is compared owner by owner, so that the sum of what
//! is free and what is kept is constant too; that the tables kept are those that were made is for the audit to say, and
//! what lies in kept memory (records, heap bytes) is counted as held.

use kerncore::ledger::{Count, Ledger};

use crate::{heap, kernel, user};

/// Brings to rest what may lag behind: frees the areas that wait for it, removes idle blocks of `vm_map_ram`, and merges the free blocks that wait on the
/// allocator's front lists. Not in interrupt context.
pub fn settle() {
    kernel().free_deferred();
    kernel().close_idle_blocks();
    kernel().zones().drain();
}

/// The counts as they stand; of pools and buffers, which lie above this crate, none. Exact only while nothing else maps or
/// allocates. Allocates nothing; any context.
pub fn snapshot() -> Ledger {
    let heap = u32::try_from(heap::usage().used).unwrap_or(u32::MAX);
    let few = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    kerncore::audit::ledger(kernel())
        .with(Count::HeapBytes, heap)
        .with(Count::AddressSpaces, few(user::live()))
        .with(Count::SpaceNumbers, few(user::numbers_taken()))
}
