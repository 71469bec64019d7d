//! Damage to the physical index, which no caller can do: the audit sees it (S97).

use super::world::{PlainMachine, Space, space};
use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::attributes::{Attributes, MemoryType};
use crate::audit::{Expected, Violation, audit};
use crate::kernel_space::*;
use crate::lock::Lock;
use crate::physical_index::{Class, Name, Run};

const DEVICE: PhysAddr = PhysAddr::new(0x1001_3000);
const CALLER: VirtAddr = VirtAddr::new(0x8001_0000);

/// What the audit says of areas and the index; this world has neither image nor heap.
fn found(space: &Space) -> Vec<Violation> {
    let nothing = PageRange::EMPTY;
    let expected = Expected {
        image: nothing,
        parts: &[],
        constants: nothing,
        heap: nothing,
        heap_mapped: 0,
        space_tables: 0,
    };
    let mut found = Vec::new();
    audit::<&PlainMachine, _>(space, &expected, &mut |violation| found.push(violation));
    found.retain(|violation| {
        matches!(
            violation,
            Violation::Unindexed { .. }
                | Violation::IndexRuns { .. }
                | Violation::IndexUnsound
                | Violation::MemoryTypes { .. }
        )
    });
    found
}

fn map(space: &Space) -> VirtAddr {
    space.ioremap(DEVICE, 2 * PAGE_SIZE, Attributes::DEVICE, CALLER).expect("addresses")
}

/// The index forgets the run of `address`.
fn forget(space: &Space, address: VirtAddr) -> Run {
    space.areas.with(|areas| {
        let devices = areas.find(address).expect("a live area").devices;
        areas.index.remove(devices.runs, devices.page).expect("its run")
    })
}

#[test]
fn a_mapping_that_the_index_has_forgotten_is_seen_s97() {
    let space = space();
    assert_eq!(found(&space), []);
    let (one, other) = (map(&space), map(&space));
    assert_eq!(found(&space), []);
    forget(&space, one);
    let attributes = Attributes::DEVICE;
    let unindexed = Violation::Unindexed { address: one, physical: DEVICE, attributes };
    assert_eq!(found(&space), [unindexed]);
    space.iounmap((), other).expect("a live area");
    assert_eq!(found(&space), [unindexed]);
}

#[test]
fn a_run_of_nobody_and_books_that_do_not_add_up_are_seen_s97() {
    let space = space();
    map(&space);
    let range = (DEVICE.pfn(), DEVICE.pfn());
    let run = Run::new(range, 0xc_0080, Class::new(Attributes::DEVICE), Name::NONE);
    let name = space.areas.with(|areas| areas.index.insert(run)).expect("room");
    assert_eq!(found(&space), [Violation::IndexRuns { runs: 2, found: 1 }]);
    space.areas.with(|areas| areas.index.remove(name, 0xc_0080)).expect("its run");
    assert_eq!(found(&space), []);
    space.areas.with(|areas| areas.index.damage());
    assert_eq!(found(&space), [Violation::IndexUnsound]);
}

/// Two live mappings with two types, had the guard looked away: each way round.
#[test]
fn two_types_that_the_guard_let_pass_are_seen_s97() {
    for upper_is_noted in [true, false] {
        let space = space();
        let one = map(&space);
        let run = forget(&space, one);
        let combined = space.ioremap(DEVICE, PAGE_SIZE, Attributes::WRITE_COMBINE, CALLER);
        let combined = combined.expect("the index knows of nobody");
        if upper_is_noted {
            // The lower one's run is put back, for whoever looks: both are in the index now.
            space.areas.with(|areas| {
                let runs = areas.index.insert(run).expect("room");
                areas.find_mut(one).expect("a live area").devices.runs = runs;
            });
        }
        let (first_type, second_type) = (MemoryType::Device, MemoryType::NormalNonCacheable);
        let (first, second) = (one, combined);
        let physical = DEVICE;
        let types = Violation::MemoryTypes { physical, first, first_type, second, second_type };
        let attributes = Attributes::DEVICE;
        let unindexed = Violation::Unindexed { address: one, physical, attributes };
        assert_eq!(found(&space), [if upper_is_noted { types } else { unindexed }]);
    }
}
