//! The outer cache, if somebody has turned one on.
//!
//! It is a device, so that its driver is far above this crate; but whoever maintains the data cache for devices has to maintain it,
//! too. So the driver tells of it here.

use kerncore::streaming::OuterCache;
use spin::Once;

static OUTER: Once<&'static dyn OuterCache> = Once::new();

/// From now on there is `cache` behind the data caches. Once, at boot; a second one is not taken.
pub fn register(cache: &'static dyn OuterCache) {
    let registered = OUTER.call_once(|| cache);
    debug_assert!(core::ptr::addr_eq(*registered, cache), "two outer caches");
    crate::lines::add_outer();
}

/// The outer cache.
#[inline(always)]
pub fn get() -> Option<&'static dyn OuterCache> {
    OUTER.get().copied()
}

/// Whether there is one.
#[inline(always)]
pub fn is_there() -> bool {
    OUTER.is_completed()
}
