//! Several CPUs at once: what is made is found, what is freed is freed once, and nothing is lost (S13, S14, S14a, S60).

use super::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::{AreaKind, AreaSummary},
    attributes::Attributes,
    kernel_space::{Fill, RemoveError},
};
use std::{
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

const DEVICE: PhysAddr = PhysAddr::new(0x1001_3000);
const CPUS: u32 = 4;
const ROUNDS: u32 = 100;

/// Runs `act` on four CPUs, which begin each round together.
fn on_four_cpus(act: impl Fn(u32, &Barrier) + Sync) {
    let barrier = Barrier::new(CPUS as usize);
    thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (act, barrier) = (&act, &barrier);
            scope.spawn(move || act(cpu, barrier));
        }
    });
}

fn registers(bed: &Bed) -> VirtAddr {
    bed.space.ioremap(DEVICE, 3 * PAGE_SIZE, Attributes::DEVICE, CALLER).expect("empty memory")
}

/// Every CPU frees what one has made, at once, by different addresses inside: one succeeds, the others find nothing.
#[test]
fn one_mapping_is_removed_once_however_many_try_s14_s59_s60() {
    let bed = Bed::warm();
    let shared = AtomicU32::new(0);
    let removed = AtomicU32::new(0);
    bed.gives_back(|bed| {
        on_four_cpus(|cpu, barrier| {
            for round in 0..ROUNDS {
                if round % CPUS == cpu {
                    shared.store(registers(bed).raw(), Ordering::SeqCst);
                }
                barrier.wait();
                let base = VirtAddr::new(shared.load(Ordering::SeqCst));
                let inside = base.checked_add(PAGE_SIZE / 2 * cpu).expect("three pages");
                match bed.space.iounmap((), inside) {
                    Ok(()) => assert!(removed.fetch_add(1, Ordering::SeqCst) < ROUNDS),
                    Err(RemoveError::Unknown { address }) => assert_eq!(address, inside),
                    Err(other) => panic!("{other}"),
                }
                barrier.wait();
            }
        });
        assert_eq!(removed.load(Ordering::SeqCst), ROUNDS);
    });
}

/// A CPU's own area is its own from the moment it is made to the moment it is freed, whatever the others do.
#[test]
fn what_a_cpu_makes_it_finds_and_frees_while_others_do_the_same_s13_s14a() {
    let bed = Bed::warm();
    let frames = bed.frames(CPUS);
    bed.gives_back(|bed| {
        on_four_cpus(|cpu, _| {
            for round in 0..ROUNDS {
                let pages = 1 + (round * 7 + cpu * 5) % 9;
                let area = make(bed, round + cpu, pages, frames.1[cpu as usize]);
                let base = area.pages.start();
                assert_eq!(bed.space.find(base), Some(area));
                assert_eq!(bed.space.find_containing(base), Some(area));
                assert!(bed.space.table().translate(base).is_some());
                let last = area.pages.start().checked_add(area.pages.bytes() - 1).expect("inside");
                assert!(bed.space.table().translate(last).is_some());
                let refused = match area.kind {
                    AreaKind::Vmalloc => bed.space.vunmap((), base),
                    _ => bed.space.vfree((), base),
                };
                assert_eq!(
                    refused,
                    Err(RemoveError::WrongKind { address: base, found: area.kind })
                );
                let freed = match area.kind {
                    AreaKind::Vmalloc | AreaKind::PageArray => bed.space.vfree((), base),
                    AreaKind::Vmap | AreaKind::Bare | AreaKind::MapRam | AreaKind::MapRamBlock => {
                        bed.space.vunmap((), base)
                    }
                    AreaKind::IoRemap => bed.space.iounmap((), base),
                    // None of the second kind is made here.
                    AreaKind::Dma | AreaKind::Scattered => {
                        let freed = bed.space.coherent_free((), base, area.pages.bytes());
                        freed.map(|freed| assert_eq!(freed.missing, 0))
                    }
                };
                assert_eq!(freed, Ok(()));
            }
        });
    });
    bed.feed(frames.0);
}

fn make(bed: &Bed, kind: u32, pages: u32, frame: kerncore::addr::Pfn) -> AreaSummary {
    let bytes = pages * PAGE_SIZE;
    let space = &bed.space;
    match kind % 4 {
        0 => space.vmalloc(bytes, Fill::Zeroed, CALLER).expect("memory"),
        1 => {
            let list = vec![frame; pages as usize];
            space.vmap(&list, Attributes::KERNEL_DATA, CALLER).expect("addresses")
        }
        2 => {
            let address = space.ioremap(DEVICE, bytes, Attributes::DEVICE, CALLER);
            space.find(address.expect("addresses")).expect("just made")
        }
        _ => {
            let owner = kerncore::frames::FrameOwner::Dma;
            space.coherent_alloc(bytes, owner, CALLER).expect("contiguous memory")
        }
    }
}
