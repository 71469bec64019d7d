//! Memory of a device's own in windows of programs, on SoftMachine (S78, S97, S102).

use crate::mutants::user::{Programs, Right, audit};
use histories::bed::{Bed, CALLER, page, pages};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, SECTION_SIZE, VirtAddr},
    area::AreaKind,
    attributes::{Attributes, MemoryType},
    kernel_space::{RemoveError, ShareError},
    user::{Protection, ShowError},
};

const AT: u32 = 0x123;
/// No RAM; a section begins there.
const MEMORY: PhysAddr = PhysAddr::new(0x4c00_0000);

/// By small pages and by sections: a program sees the frames that the kernel's mapping has, by the same type, and the mapping stays
/// until it does no more.
#[test]
fn a_device_s_memory_is_seen_where_its_mapping_leads_and_stays_mapped_s78_s102() {
    for (bytes, offset) in [(4 * PAGE_SIZE, 1), (2 * SECTION_SIZE, 255), (2 * SECTION_SIZE, 510)] {
        let bed = Bed::warm();
        bed.changes_nothing(|bed| {
            let programs = Programs::new(bed, &Right);
            let base = bed.space.ioremap(MEMORY, bytes, Attributes::WRITE_COMBINE, CALLER);
            let base = base.expect("addresses");
            let space = programs.space();
            space.reserve(pages(AT, 2), Protection::ReadWrite).expect("free addresses");
            let show = |base, physical, offset| {
                space.show_device_memory(page(AT), (base, physical), offset, || Ok(()))
            };
            let refused = |why| Err(ShowError::Share(why));
            let elsewhere = ShareError::Elsewhere { address: base, found: MEMORY };
            let next = PhysAddr::new(MEMORY.raw() + PAGE_SIZE);
            assert_eq!(show(base, next, offset), refused(elsewhere));
            let area = bytes / PAGE_SIZE;
            for offset in [area - 1, area, u32::MAX] {
                let outside = ShareError::Outside { area, offset, window: 2 };
                assert_eq!(show(base, MEMORY, offset), refused(outside));
            }
            assert_eq!(show(base, MEMORY, offset), Ok(()));
            for index in 0..2 {
                let seen = space.translate(page(AT + index)).expect("mapped");
                let wanted = MEMORY.raw() + (offset + index) * PAGE_SIZE;
                assert_eq!(seen.physical, PhysAddr::new(wanted));
                let attributes = seen.attributes().expect("ours");
                assert_eq!(attributes.memory(), MemoryType::NormalNonCacheable);
            }
            audit(&space);
            let in_use = Err(RemoveError::InUse { address: base, users: 1 });
            assert_eq!(bed.space.iounmap((), base), in_use);
            drop(space);
            assert_eq!(bed.space.iounmap((), base), Ok(()));
        });
    }
}

/// S97: registers have another type, and coherent buffers and vmalloc's memory are shown by their own calls.
#[test]
fn nothing_but_uncached_memory_of_a_device_is_shown_as_that_s97_s102() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let programs = Programs::new(bed, &Right);
        let registers = bed.space.ioremap(MEMORY, PAGE_SIZE, Attributes::DEVICE, CALLER);
        let registers = registers.expect("addresses");
        let buffer = bed.space.coherent_alloc(PAGE_SIZE, kerncore::frames::FrameOwner::Dma, CALLER);
        let buffer = buffer.expect("memory");
        let space = programs.space();
        space.reserve(pages(AT, 1), Protection::ReadWrite).expect("free addresses");
        let refused = |base: VirtAddr, physical, found| {
            let shown = space.show_device_memory(page(AT), (base, physical), 0, || Ok(()));
            let why = ShareError::NotForUsers { address: base, found };
            assert_eq!(shown, Err(ShowError::Share(why)));
            assert_eq!(space.translate(page(AT)), None);
        };
        refused(registers, MEMORY, AreaKind::IoRemap);
        let base = buffer.pages.start();
        refused(base, buffer.physical, AreaKind::Dma);
        drop(space);
        bed.space.iounmap((), registers).expect("nobody sees it");
        bed.space.coherent_free((), base, PAGE_SIZE).expect("nobody sees it");
    });
}
