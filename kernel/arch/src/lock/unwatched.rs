//! Locks of builds that are not for tests: nobody watches, and nothing is left of the watch.

use kerncore::addr::VirtAddr;
use kerncore::lock::Class;

/// Who takes a lock: nobody asks.
#[derive(Clone, Copy)]
pub(super) struct Caller;

impl Caller {
    #[inline(always)]
    pub(super) const fn of_the_lock() -> Self {
        Self
    }
}

/// Takes no room.
pub(super) struct Watch;

#[expect(clippy::unused_self, reason = "called as the watch of test images is")]
impl Watch {
    pub(super) const fn new(_class: Class) -> Self {
        Self
    }

    #[inline(always)]
    pub(super) const fn before_waiting(&self, _caller: Caller) {}

    #[inline(always)]
    pub(super) const fn without_waiting(&self, _caller: Caller) {}

    #[inline(always)]
    pub(super) const fn given_back(&self, _caller: Caller) {}
}

/// Said at the beginning of each operation that may sleep, whether it will or not. In builds with the feature `lock-order`
/// it ends the kernel if this CPU holds a lock or runs a handler; in others nothing happens.
#[inline(always)]
pub const fn might_sleep(_operation: &'static str) {}

/// Said before memory is freed, which `memory` names. In builds with the feature `lock-order` it ends the kernel if a lock lies
/// there that this CPU holds (S36); in others nobody asks.
#[inline(always)]
pub fn memory_goes(_memory: impl FnOnce() -> Option<(VirtAddr, u32)>) {}
