//! What lies on the bus beside RAM, as far as whoever starts the kernel has told.

use kerncore::bus::BusRange;
use spin::Once;

static ON_CHIP: Once<&'static [BusRange]> = Once::new();

/// Notes where on-chip memory lies, from which code may be run. Told once, at boot; what is told later is not heard.
pub fn set_on_chip(ranges: &'static [BusRange]) {
    ON_CHIP.call_once(|| ranges);
}

/// Where on-chip memory lies; nowhere, until somebody has told.
pub fn on_chip() -> &'static [BusRange] {
    ON_CHIP.get().copied().unwrap_or_default()
}
