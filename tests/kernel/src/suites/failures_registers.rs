//! Mappings of registers when each of their allocations fails in turn (S8, S9, S19, S94, S96).

use core::ffi::c_void;

use board::vexpress_a9::SRAM;
use kerncore::addr::{PAGE_SIZE, PhysAddr, SECTION_SIZE};
use kerncore::attributes::{Attributes, MemoryType};
use kerncore::kernel_space::{IoRemapError, MemRemapError};
use ktest::ktest;
use linux::ioremap::{
    MEMREMAP_WB, MEMREMAP_WC, MEMREMAP_WT, ioremap_exec, ioremap_np, ioremap_wc, iounmap, memremap,
    memunmap,
};
use mm::kernel;

use super::failures::{no_area, no_table, survives, survives_by_name};
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

/// S93: the kin of ioremap, by their C names; small, and large with a small page behind.
#[ktest]
fn c_callers_get_null_for_kin_of_ioremap_s8_s93() {
    // SAFETY: made a moment before, and nobody has a reference.
    let end = |io: *mut c_void| unsafe { iounmap(io) };
    for bytes in [PAGE_SIZE, 3 * SECTION_SIZE + 1] {
        survives_by_name("ioremap_wc", || ioremap_wc(BEYOND_RAM, bytes), end);
        survives_by_name("ioremap_np", || ioremap_np(BEYOND_RAM, bytes), end);
        survives_by_name("ioremap_exec", || ioremap_exec(SRAM.base.raw() + PAGE_SIZE, bytes), end);
        for flags in [MEMREMAP_WB, MEMREMAP_WT, MEMREMAP_WC] {
            // SAFETY: as above.
            let end = |memory: *mut c_void| unsafe { memunmap(memory) };
            survives_by_name("memremap", || memremap(BEYOND_RAM, bytes, flags), end);
        }
    }
}

/// S93: the error says which allocation it was, through both layers.
#[ktest]
fn memremap_and_ioremap_exec_s8_s9_s93() {
    let is_right = |point, error: &MemRemapError| match error {
        MemRemapError::Map(IoRemapError::Area(error)) => no_area(point, error),
        MemRemapError::Map(IoRemapError::Map(error)) => no_table(point, error),
        _ => false,
    };
    let bytes = 2 * SECTION_SIZE + 1;
    survives(
        "memremap, 2 MiB and a byte",
        || {
            let physical = PhysAddr::new(BEYOND_RAM);
            kernel().memremap(physical, bytes, MemoryType::NormalNonCacheable, NOBODY)
        },
        is_right,
        |address| assert_eq!(kernel().memunmap(authority(), address), Ok(())),
    );
    survives(
        "ioremap_exec, 2 MiB and a byte",
        || kernel().ioremap_exec((SRAM.base, bytes), mm::bus::on_chip(), NOBODY),
        is_right,
        |address| assert_eq!(kernel().iounmap(authority(), address), Ok(())),
    );
}
