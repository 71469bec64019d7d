//! Mappings of registers when each of their allocations fails in turn (S8, S9, S19, S94, S96).

use kerncore::addr::{PAGE_SIZE, PhysAddr};
use kerncore::attributes::Attributes;
use kerncore::kernel_space::IoRemapError;
use ktest::ktest;
use mm::kernel;

use super::failures::{no_area, no_table, survives};
use super::witness::{NOBODY, authority};

/// Nothing answers there, and nothing is asked.
const BEYOND_RAM: u32 = 0xa000_0000;

#[ktest]
fn ioremap_s8_s9_s94() {
    let is_right = |point, error: &IoRemapError| match error {
        IoRemapError::Area(error) => no_area(point, error),
        IoRemapError::Map(error) => no_table(point, error),
        _ => false,
    };
    // By sections and a table behind them; by small pages; by a supersection, sections, a large page and a small one.
    for (name, offset, bytes) in [
        ("ioremap, 3 MiB and a byte", 0, (3 << 20) + 1),
        ("ioremap, 3 MiB by small pages", PAGE_SIZE, 3 << 20),
        ("ioremap, entries of each size", 0, (18 << 20) + 0x1_1000),
    ] {
        survives(
            name,
            || {
                let physical = PhysAddr::new(BEYOND_RAM + offset);
                kernel().ioremap(physical, bytes, Attributes::DEVICE, NOBODY)
            },
            is_right,
            |address| assert_eq!(kernel().iounmap(authority(), address), Ok(())),
        );
    }
}
