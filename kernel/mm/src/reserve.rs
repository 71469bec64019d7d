//! Memory that layers above keep in reserve, and give back when somebody is short of it.
//!
//! This crate knows nothing of them, so they name themselves here ([`keep`]), once, at boot.
//!
//! | who may sleep is refused | when all is gone that nobody uses |
//! |---|---|
//! | an area of whatever kind, and what lies in it; a device's domain | yes (`kerncore::kernel_space::shortage`) |
//! | pages: [`Pages`](crate::page_alloc::Pages), [`AnyPages`](crate::any_pages::AnyPages), [`MovableBuffer`](crate::movable_buffer::MovableBuffer), those of C callers, buffers of devices that snoop | yes ([`unless_short`]) |
//! | a program's space, its text and its data | yes |
//! | tables for what a program is shown of the kernel's memory | no: what was shown before stays, so that it cannot begin anew |
//! | the heap | no: it grows under its own lock |
//! | the new place of a page that is moved | no: who moves it may have been asked to by whom this would wait for |

use kerncore::frames::AllocateError;
use spin::Once;

/// One for each layer that keeps some: the atomic pool.
static RESERVES: [Once<fn() -> u32>; 1] = [const { Once::new() }; 1];

/// From now on `give_back` is asked before who may sleep is refused an area, what lies in one, or pages. It gives back what nobody uses,
/// and says how many pages; it is called where one may sleep, under no lock, perhaps by several CPUs at once, and by whoever it takes
/// memory from. Says whether there was room to note it.
#[must_use]
pub fn keep(give_back: fn() -> u32) -> bool {
    RESERVES.iter().any(|place| {
        let mut is_new = false;
        place.call_once(|| {
            is_new = true;
            give_back
        });
        is_new
    })
}

/// Asks all of them, until one gave something back: how many pages. Nobody is asked where one may not sleep.
#[cold]
pub(crate) fn give_back() -> u32 {
    if !arch::cpu::may_sleep() {
        return 0;
    }
    let mut answers = RESERVES.iter().filter_map(Once::get).map(|give_back| give_back());
    answers.find(|&pages| pages != 0).unwrap_or(0)
}

/// What comes of `take`, which was refused by `error`, for as long as that was for want of frames, somebody has some in reserve, and he
/// may be asked here: where one may sleep, under no lock.
///
/// # Errors
/// The last refusal.
#[cold]
#[inline(never)]
pub fn unless_short<T>(
    mut error: AllocateError,
    take: impl Fn() -> Result<T, AllocateError>,
) -> Result<T, AllocateError> {
    while matches!(error, AllocateError::Exhausted { .. }) && give_back() != 0 {
        match take() {
            Ok(taken) => return Ok(taken),
            Err(again) => error = again,
        }
    }
    Err(error)
}
