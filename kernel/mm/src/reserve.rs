//! Memory that layers above keep in reserve, and give back when somebody is short of it.
//!
//! This crate knows nothing of them, so they name themselves here ([`keep`]), once, at boot.

use spin::Once;

/// One for each layer that keeps some: the atomic pool.
static RESERVES: [Once<fn() -> u32>; 1] = [const { Once::new() }; 1];

/// From now on `give_back` is asked before who may sleep is refused an area, what lies in one, or pages (`Pages`). It gives back what nobody uses, and says how many
/// pages; it is called where one may sleep, under no lock, perhaps by several CPUs at once, and by whoever it takes memory from. Says
/// whether there was room to note it.
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

/// Asks all of them, until one gave something back: how many pages.
#[cold]
pub(crate) fn give_back() -> u32 {
    let mut answers = RESERVES.iter().filter_map(Once::get).map(|give_back| give_back());
    answers.find(|&pages| pages != 0).unwrap_or(0)
}
