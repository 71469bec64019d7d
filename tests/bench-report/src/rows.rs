//! The rows, and what Linux needs for the same.
//!
//! Linux was measured on the same emulated board in the same way. *Best* is the better of 6.1 and 6.12 in the leanest build
//! that could be made of each: one CPU only, no hardening, no debugging. *Smp* is 6.12 in the board's configuration without
//! drivers, with the code for several CPUs, one of them online: what is run in practice.

use crate::image::Cost;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its name, in the image and in all files.
    pub(crate) name: &'static str,
    /// Linux at its leanest, in instructions.
    pub(crate) best: Option<u32>,
    /// Linux as it is run.
    pub(crate) smp: Option<u32>,
    /// The most that it is to cost here.
    pub(crate) goal: u32,
    /// What the name does not say.
    pub(crate) note: &'static str,
}

const fn row(
    name: &'static str,
    best: Option<u32>,
    smp: Option<u32>,
    goal: u32,
    note: &'static str,
) -> Row {
    Row { name, best, smp, goal, note }
}

/// All rows, those that cannot be measured yet among them.
#[rustfmt::skip] // a table
pub(crate) const ROWS: &[Row] = &[
    row("vmalloc_vfree_4K", Some(2_112), Some(3_729), 500, ""),
    row("vmalloc_vfree_16K", Some(3_127), Some(4_984), 650, ""),
    row("vmalloc_vfree_64K", Some(7_100), Some(10_590), 1_300, ""),
    row("vmalloc_vfree_256K", Some(23_008), Some(33_263), 3_700, ""),
    row("vmalloc_vfree_1M", Some(87_011), Some(124_521), 13_000, ""),
    row("vmalloc_vfree_4M", Some(430_600), Some(490_228), 52_000, ""),
    row("vmalloc_huge_vfree_1M", None, None, 800, "one section"),
    row("vzalloc_vfree_4K", Some(2_536), Some(4_136), 700, ""),
    row("vzalloc_vfree_64K", Some(13_931), Some(17_388), 4_500, ""),
    row("vzalloc_vfree_1M", Some(196_340), Some(233_358), 60_000, ""),
    row("vmap_vunmap_1p", Some(1_273), Some(2_374), 300, ""),
    row("vmap_vunmap_4p", Some(1_715), Some(2_757), 400, ""),
    row("vmap_vunmap_16p", Some(3_433), Some(4_401), 620, ""),
    row("vmap_vunmap_64p", Some(10_060), Some(11_251), 1_500, ""),
    row("vmap_vunmap_256p", Some(36_663), Some(38_663), 4_800, ""),
    row("ioremap_iounmap_4K", Some(1_418), Some(2_590), 450, ""),
    row("ioremap_iounmap_64K", Some(4_178), Some(4_860), 600, ""),
    row("ioremap_iounmap_1M", Some(25_604), Some(27_041), 600, ""),
    row("ioremap_iounmap_2M", Some(11_512), Some(50_896), 650, ""),
    row("ioremap_iounmap_16M", Some(68_949), Some(389_972), 1_100, ""),
    row("ioremap_shared_again_4K", Some(1_418), Some(2_590), 200, "a second user of a mapped page"),
    row("get_vm_area_free_4K", Some(992), Some(2_144), 250, ""),
    row("vm_map_ram_1p", Some(479), Some(707), 160, ""),
    row("vm_map_ram_16p", Some(2_584), Some(3_037), 400, ""),
    row("vm_map_ram_32p", Some(4_831), Some(5_516), 600, ""),
    row("vm_map_ram_64p", Some(9_727), Some(10_997), 1_100, ""),
    row("dma_coherent_sleeping_4K", Some(3_976), Some(5_564), 1_500, "remap, zeroed, cleaned"),
    row("dma_coherent_sleeping_64K", Some(33_101), Some(35_414), 15_000, ""),
    row("dma_coherent_sleeping_256K", Some(124_950), Some(130_415), 58_000, ""),
    row("dma_coherent_cma_4K", Some(31_294), Some(42_706), 1_700, ""),
    row("dma_coherent_atomic_4K", Some(709), Some(839), 150, "not zeroed"),
    row("dma_coherent_atomic_64K", Some(709), Some(839), 160, "not zeroed"),
    row("dma_coherent_atomic_256K", Some(761), Some(894), 220, "not zeroed"),
    row("vmalloc_vfree_4K_live_1000", Some(2_424), Some(3_924), 550, ""),
    row("vmalloc_vfree_4K_live_10000", Some(2_662), Some(4_067), 550, ""),
    row("vmalloc_vfree_4K_live_30000", Some(2_764), Some(4_137), 550, ""),
    row("vmalloc_vfree_4K_fragmented", Some(3_156), Some(3_694), 700, "20,000 areas, every second freed"),
    row("vmalloc_vfree_8K_fragmented", Some(4_125), Some(5_211), 750, ""),
    row("vmalloc_vfree_64K_fragmented", Some(8_713), Some(11_745), 1_600, ""),
    row("vmalloc_vfree_random_live_1000", None, None, 2_500, "sizes of 1 to 16 pages, in random order"),
    row("vmalloc_vfree_random_live_10000", None, None, 2_500, "sizes of 1 to 16 pages, in random order"),
    row("vmalloc_vfree_random_live_30000", None, None, 2_500, "sizes of 1 to 8 pages: more do not fit"),
    row("find_vm_area_live_10000", Some(118), Some(168), 50, ""),
    row("vmalloc_to_page", Some(28), Some(28), 28, ""),
    row("page_alloc_free_order0", Some(333), Some(548), 60, ""),
    row("page_alloc_free_order4", Some(888), Some(1_223), 130, ""),
    // Nobody measured Linux at these. The goals are what the processor's view of as much costs here: vmap_vunmap_1p, _16p, _256p; and for
    // buffers, that on top of dma_coherent_sleeping.
    row("iommu_map_unmap_1p", None, None, 300, "adjacent pages, for a device that snoops"),
    row("iommu_map_unmap_16p", None, None, 620, ""),
    row("iommu_map_unmap_256p", None, None, 4_800, ""),
    row("iommu_map_sg_1p", None, None, 300, "a list of scattered pages, for a device that snoops"),
    row("iommu_map_sg_16p", None, None, 620, ""),
    row("iommu_map_sg_256p", None, None, 4_800, ""),
    row("iommu_alloc_free_4K", None, None, 1_800, "remap, zeroed, cleaned"),
    row("iommu_alloc_free_64K", None, None, 15_620, ""),
    row("iommu_alloc_free_1M", None, None, 236_000, ""),
];

/// A row that moves data: its figure is how many bytes a thousand instructions move, and more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Its name, in the image and in all files.
    pub(crate) name: &'static str,
    /// Bytes that an operation moves.
    pub(crate) bytes: u32,
    /// What the name does not say.
    pub(crate) note: &'static str,
}

/// All of them: a disk of 64 MiB, read in requests of 64 KiB.
pub(crate) const RATES: &[Rate] = &[
    Rate { name: "disk_read_64M_coherent", bytes: 64 << 10, note: "where the device has it" },
    Rate {
        name: "disk_read_64M_mapped",
        bytes: 64 << 10,
        note: "ordinary memory, mapped in place",
    },
    Rate { name: "disk_read_64M_bounced", bytes: 64 << 10, note: "copied" },
];

/// The names of all rows, in the order of the table.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name).chain(RATES.iter().map(|rate| rate.name))
}

/// The row of this name, if it moves data.
pub(crate) fn rate(name: &str) -> Option<&'static Rate> {
    RATES.iter().find(|rate| rate.name == name)
}

/// What is said of a row, recorded and compared: instructions of an operation; or bytes that a thousand instructions move, of
/// which a fraction does not count.
pub(crate) fn figure(name: &str, cost: &Cost) -> u32 {
    let Some(rate) = rate(name) else { return cost.mean() };
    let bytes = u128::from(rate.bytes) * u128::from(cost.operations);
    u32::try_from(bytes * 1000 / u128::from(cost.total.max(1))).unwrap_or(u32::MAX)
}

/// What the image measures for comparison only: a call that does nothing, of the form of the others.
pub(crate) const EMPTY_CALL: &str = "empty_call";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_told_by_bytes_and_everything_else_by_instructions() {
        let cost = Cost { operations: 1024, total: 2_048_001, first: 0, dearest: 0 };
        assert_eq!(figure("vmalloc_to_page", &cost), 2001, "a fraction counts as a whole");
        assert_eq!(figure("disk_read_64M_bounced", &cost), 32_767, "and here not at all");
        assert_eq!(figure("disk_read_64M_bounced", &Cost { total: 0, ..cost }), u32::MAX);
    }

    #[test]
    fn no_name_stands_for_two_rows() {
        let mut all: Vec<&str> = names().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), ROWS.len() + RATES.len());
    }
}
