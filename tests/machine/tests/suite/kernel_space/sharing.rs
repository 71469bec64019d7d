//! One mapping of registers for several users (S57 to S62).

use super::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::AreaKind,
    attributes::Attributes,
    kernel_space::{IoRemapError, NoArea, RemoveError},
};
use std::num::NonZeroU32;

const DEVICE: PhysAddr = PhysAddr::new(0x2000_1000);
const WAYS: [Attributes; 3] =
    [Attributes::DEVICE, Attributes::WRITE_COMBINE, Attributes::STRONGLY_ORDERED];

fn at(offset: u32) -> PhysAddr {
    PhysAddr::new(DEVICE.raw() + offset)
}

#[track_caller]
fn share(bed: &Bed, offset: u32, bytes: u32) -> VirtAddr {
    let mapped = bed.space.ioremap_shared(at(offset), bytes, Attributes::DEVICE, CALLER);
    mapped.unwrap_or_else(|error| panic!("{bytes:#x} bytes at {offset:#x}: {error}"))
}

#[track_caller]
fn leads(bed: &Bed, address: VirtAddr, offset: u32) {
    let entry = bed.space.table().translate(address).expect("mapped");
    assert_eq!(entry.physical, at(offset), "{address}");
}

/// S59: two devices in one page, at `0x2000_1000` and `0x2000_1400`, have one mapping and each its own pointer; whichever goes
/// first.
#[test]
fn two_devices_in_one_page_have_one_mapping_and_a_pointer_each_s59_s62() {
    for order in [[0, 1], [1, 0]] {
        let bed = Bed::warm();
        bed.changes_nothing(|bed| {
            let users = [share(bed, 0, 0x400), share(bed, 0x400, 0x400)];
            assert_eq!(users[1].raw() - users[0].raw(), 0x400);
            leads(bed, users[0], 0);
            leads(bed, users[1], 0x400);
            assert_eq!(bed.clean().areas, [0, 0, 1, 0, 0, 0, 0], "one area");
            assert_eq!(bed.space.users_of(users[0]), Some(2));
            assert_eq!(bed.space.iounmap((), users[order[0]]), Ok(()));
            assert_eq!(bed.space.users_of(users[0]), Some(1));
            leads(bed, users[order[1]], [0, 0x400][order[1]]);
            assert_eq!(bed.space.iounmap((), users[order[1]]), Ok(()));
            assert_eq!(bed.space.users_of(users[0]), None);
            assert!(bed.space.table().translate(users[0]).is_none());
            // One use more than there were.
            for address in users {
                let unknown = Err(RemoveError::Unknown { address });
                assert_eq!(bed.space.iounmap((), address), unknown);
            }
        });
    }
}

/// S58, S61: also where many others are mapped, so that the index keeps the run in its tree, under another name for each state.
#[test]
fn a_mapping_is_shared_and_ends_beside_many_others_s58_s61() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let others: Vec<_> = (0..40)
            .map(|page| {
                let physical = at(0x10_0000 + page * PAGE_SIZE);
                bed.space.ioremap_own(physical, 4, Attributes::DEVICE, CALLER).expect("addresses")
            })
            .collect();
        for _ in 0..3 {
            let users = [share(bed, 0, 0x400), share(bed, 0x400, 0x400), share(bed, 0x800, 4)];
            assert_eq!(bed.space.users_of(users[0]), Some(3), "one mapping");
            for address in users {
                leads(bed, address, address.page_offset());
                assert_eq!(bed.space.iounmap((), address), Ok(()));
                bed.clean();
            }
            assert_eq!(bed.space.users_of(users[0]), None);
            // Nobody has the page any more: it may be of another type (S97).
            let combined = bed.space.ioremap_own(DEVICE, 4, Attributes::WRITE_COMBINE, CALLER);
            assert_eq!(bed.space.iounmap((), combined.expect("nobody's")), Ok(()));
        }
        for address in others {
            assert_eq!(bed.space.iounmap((), address), Ok(()));
        }
    });
}

/// S58: only what lies wholly inside is shared, to the last page, also where sums would wrap.
#[test]
fn a_request_wholly_inside_is_shared_and_no_other_s58() {
    let bed = Bed::warm();
    let whole = share(&bed, 4 * PAGE_SIZE, 3 * PAGE_SIZE);
    let page = PAGE_SIZE;
    for (offset, bytes, delta) in [
        (4 * page, 3 * page, Some(0)),
        (4 * page, 1, Some(0)),
        (5 * page + 0x123, 0x456, Some(page + 0x123)),
        (6 * page + 0xfff, 1, Some(2 * page + 0xfff)),
        (4 * page + 1, 3 * page - 1, Some(1)),
        (4 * page + 1, 3 * page, None),
        (4 * page - 1, 2, None),
        (3 * page, 5 * page, None),
        (3 * page, page, None),
        (7 * page, page, None),
        (6 * page + 0xfff, 2, None),
    ] {
        bed.changes_nothing(|bed| {
            let user = share(bed, offset, bytes);
            leads(bed, user, offset);
            let found = delta.map(|delta| VirtAddr::new(whole.raw() + delta));
            assert_eq!(found.is_some_and(|found| found == user), delta.is_some(), "{offset:#x}");
            assert_eq!(bed.space.users_of(whole), Some(1 + u32::from(delta.is_some())));
            bed.space.iounmap((), user).expect("a use");
        });
    }
    bed.space.iounmap((), whole).expect("the last use");
    // The end of the bus: no sum that could wrap.
    for bytes in [1, 0x1000] {
        let top = PhysAddr::new(0xffff_f000);
        let map = || bed.space.ioremap_shared(top, bytes, Attributes::DEVICE, CALLER);
        let (one, other) = (map().expect("no RAM"), map().expect("no RAM"));
        assert_eq!(one, other);
        let below = bed.space.ioremap_shared(at(0), 1, Attributes::DEVICE, CALLER);
        assert_ne!(below.expect("no RAM").page_base(), one);
        for address in [one, other, below.expect("no RAM")] {
            bed.space.iounmap((), address).expect("a use");
        }
    }
    bed.clean();
}

/// S58: another type is not shared, nor may it be mapped meanwhile (S97); and each way has shares of its own.
#[test]
fn other_attributes_are_not_shared_s58_s97() {
    let bed = Bed::warm();
    for one in WAYS {
        for other in WAYS {
            bed.changes_nothing(|bed| {
                let map = |way| bed.space.ioremap_shared(at(0), 4, way, CALLER);
                let first = map(one).expect("nobody else");
                match map(other) {
                    Ok(second) => {
                        assert_eq!((one, first), (other, second));
                        bed.space.iounmap((), second).expect("a use");
                    }
                    Err(refused) => {
                        assert_ne!(one, other);
                        let is_alias = matches!(refused, IoRemapError::Area(NoArea::Alias(_)));
                        assert!(is_alias, "{refused}");
                    }
                }
                bed.space.iounmap((), first).expect("a use");
            });
        }
    }
    // Equal types whose rights differ may both be mapped, and are two mappings.
    let way = Attributes::new(
        Attributes::DEVICE.memory(),
        kerncore::attributes::Access::KernelReadOnly,
        Attributes::DEVICE.execute(),
        Attributes::DEVICE.scope(),
    );
    let read = bed.space.ioremap_shared(at(0), 4, way.expect("read-only"), CALLER);
    let (read, write) = (read.expect("nobody else"), share(&bed, 0, 4));
    assert_ne!(read, write);
    for address in [read, write] {
        bed.space.iounmap((), address).expect("a use");
    }
    bed.clean();
}

/// S57, S58: what is not made to be shared is its user's own: ioremap's, `vmap_pfn`'s, a bare area, an area in the making.
#[test]
fn what_is_somebodys_own_is_not_shared_s57_s58_s61() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let own = bed.space.ioremap(at(0), 4, Attributes::DEVICE, CALLER).expect("addresses");
        let frames = [at(0).pfn()];
        let listed = bed.space.vmap_devices(frames.iter().copied(), Attributes::DEVICE, CALLER);
        let listed = listed.expect("addresses").pages.start();
        let shared = share(bed, 0, 4);
        assert!(shared != own && shared != listed);
        assert_eq!(bed.space.users_of(own), Some(0));
        assert_eq!(bed.space.users_of(shared), Some(1));
        // Nor does its end touch them.
        bed.space.iounmap((), shared).expect("a use");
        leads(bed, own, 0);
        leads(bed, listed, 0);
        let found = AreaKind::Vmap;
        let wrong = Err(RemoveError::WrongKind { address: listed, found });
        assert_eq!(bed.space.iounmap((), listed), wrong);
        bed.space.iounmap((), own).expect("a live area");
        bed.space.vunmap((), listed).expect("a live area");
    });
}

/// S61: what failed is never found, whatever it lacked.
#[test]
fn a_mapping_that_failed_is_never_found_s61() {
    let mut failed = 0;
    for nth in (1..).map_while(NonZeroU32::new) {
        let bed = Bed::new();
        let map = || bed.space.ioremap_shared(at(0), 3 * PAGE_SIZE, Attributes::DEVICE, CALLER);
        let (mapped, outcome) = machine::fail_nth(nth, kerncore::failure::Afterwards::Nothing, map);
        let again = share(&bed, 0, 4);
        assert_eq!(bed.space.users_of(again), Some(1 + u32::from(mapped.is_ok())));
        leads(&bed, again, 0);
        bed.clean();
        bed.space.iounmap((), again).expect("a use");
        if outcome.failed.is_none() {
            bed.space.iounmap((), mapped.expect("nothing failed")).expect("a use");
            break;
        }
        failed += u32::from(mapped.is_err());
    }
    assert!(failed >= 3, "record, addresses, table: {failed}");
}

/// Many shared mappings, in the index's row and in its tree: each is found again, and goes with its last use.
#[test]
fn shares_are_found_among_many_s58() {
    let bed = Bed::warm();
    let count = 100;
    let first: Vec<VirtAddr> =
        (0..count).map(|number| share(&bed, 2 * number * PAGE_SIZE, 4)).collect();
    bed.changes_nothing(|bed| {
        for (number, &address) in (0..).zip(&first) {
            let again = share(bed, 2 * number * PAGE_SIZE + 8, 4);
            assert_eq!(again.raw(), address.raw() + 8);
        }
        for &address in &first {
            bed.space.iounmap((), address).expect("a use");
        }
    });
    for &address in first.iter().rev() {
        assert_eq!(bed.space.users_of(address), Some(1));
        bed.space.iounmap((), address).expect("the last use");
        assert_eq!(bed.space.users_of(address), None);
    }
    bed.clean();
}

/// `ioremap=shared`: ioremap itself shares from then on, and what was mapped before stays its user's own.
#[test]
fn by_default_each_has_his_own_unless_it_is_said_otherwise_s57() {
    let bed = Bed::warm();
    let map = || bed.space.ioremap(at(0), 4, Attributes::DEVICE, CALLER).expect("addresses");
    bed.changes_nothing(|bed| {
        let (one, two) = (map(), map());
        assert_ne!(one, two);
        bed.space.share_by_default();
        let (three, four) = (map(), map());
        assert!(three != one && three != two && three == four);
        let own = bed.space.ioremap_own(at(0), 4, Attributes::DEVICE, CALLER).expect("addresses");
        assert_ne!(own, three);
        for address in [one, three, own, two, four] {
            assert_eq!(bed.space.iounmap((), address), Ok(()));
        }
    });
}
