//! What handlers of interrupts may do to areas, and what they may not.

use super::bed::{Bed, CALLER, RAM_PAGES, WINDOW_PAGES};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, PhysAddr, SECTION_SIZE, VirtAddr},
    area::{AreaFlags, AreaKind},
    attributes::{Attributes, MemoryType},
    frames::{FrameOwner, FrameRequest},
    kernel_space::{Access, Fill, RemoveError},
    va_space::Request,
};
use machine::{Behaviour, Event, Fault};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

const DEVICE: PhysAddr = PhysAddr::new(0x1001_3000);

/// One of each kind, and what they are made of.
struct Areas {
    vmalloc: VirtAddr,
    vmap: VirtAddr,
    ioremap: VirtAddr,
    coherent: VirtAddr,
    bus: PhysAddr,
    map_ram: VirtAddr,
    bare: VirtAddr,
    frame: Pfn,
}

type Call = fn(&Bed, &Areas);

/// The wider family's ways.
const WIDER: [(&str, Call); 16] = [
    ("vmalloc", |bed, _| {
        let _area = bed.space.vmalloc_user(1, CALLER);
    }),
    ("vmalloc_huge", |bed, _| {
        let _area = bed.space.vmalloc_huge(SECTION_SIZE, Fill::Uninitialised, CALLER);
    }),
    ("vrealloc", |bed, areas| {
        let (fill, memory) = (Fill::Uninitialised, FrameRequest::ANY);
        let _area = bed.space.vrealloc((), areas.vmalloc, 2 * PAGE_SIZE, fill, memory, CALLER);
    }),
    ("vmap_pfn", |bed, _| {
        let frames = [DEVICE.pfn()].into_iter();
        let _area = bed.space.vmap_devices(frames, Attributes::DEVICE, CALLER);
    }),
    ("get_vm_area", |bed, _| {
        let _area = bed.space.reserve_area(Request::of_bytes(1), AreaFlags::NONE, CALLER);
    }),
    ("alloc_vm_area", |bed, _| {
        let request = Request::of_bytes(1);
        let _area = bed.space.reserve_area_with_tables(request, AreaFlags::NONE, CALLER);
    }),
    ("map_vm_area", |bed, areas| {
        let frames = core::iter::empty();
        let _mapped = bed.space.map_area(areas.bare, frames, Attributes::KERNEL_DATA);
    }),
    ("unmap_kernel_range", |bed, areas| {
        let pages = super::bed::pages(areas.bare.page_number(), 1);
        let _removed = bed.space.unmap_area((), pages);
    }),
    ("__vmalloc_area", |bed, areas| {
        let _area = bed.space.fill_area(areas.bare, Fill::Uninitialised);
    }),
    ("__vmalloc_area", |bed, areas| {
        let _consumed = bed.space.consume_area(areas.bare);
    }),
    ("vmalloc_exec", |bed, _| {
        let _area = bed.space.vmalloc_exec(1, CALLER);
    }),
    ("set_memory_rox", |bed, areas| {
        let _sealed = bed.space.seal((), areas.vmalloc, 1);
    }),
    ("vread", |bed, areas| {
        bed.space.for_each_span(areas.vmalloc, 1, Access::Read, |_| {});
    }),
    ("vwrite", |bed, areas| {
        bed.space.for_each_span(areas.vmalloc, 1, Access::Write, |_| {});
    }),
    ("free_vm_area", |bed, areas| {
        let _freed = bed.space.free_area((), areas.bare, ptr::null());
    }),
    ("remove_vm_area", |bed, areas| {
        let _removed = bed.space.remove_area((), areas.bare);
    }),
];

/// Registers' ways: what is at hand by large entries, what is not, what is shared, and ioremap's kin.
const REGISTERS: [(&str, Call); 7] = [
    ("ioremap", |bed, _| {
        let border = PhysAddr::new(0x4000_0000);
        let _area = bed.space.ioremap(border, SECTION_SIZE, Attributes::DEVICE, CALLER);
    }),
    ("ioremap", |bed, _| {
        let _area = bed.space.ioremap(DEVICE, 99 * PAGE_SIZE, Attributes::DEVICE, CALLER);
    }),
    ("ioremap_shared", |bed, _| {
        let _area = bed.space.ioremap_shared(DEVICE, 4, Attributes::DEVICE, CALLER);
    }),
    ("memremap", |bed, areas| {
        let memory = MemoryType::NormalWriteBack;
        let _area = bed.space.memremap(areas.frame.base(), 4, memory, CALLER);
    }),
    ("memremap", |bed, _| {
        let _area = bed.space.memremap(DEVICE, 4, MemoryType::NormalNonCacheable, CALLER);
    }),
    ("memunmap", |bed, areas| {
        let linear = bed.space.linear().pages_of(areas.frame, 1).expect("low RAM").start();
        let _ended = bed.space.memunmap((), linear);
    }),
    ("ioremap_exec", |bed, _| {
        let _area = bed.space.ioremap_exec((DEVICE, 4), &[], CALLER);
    }),
];

/// The short ways of some, which C callers' names try first.
const AT_HAND: [(&str, Call); 5] = [
    ("vmap", |bed, areas| {
        let _area = bed.space.vmap_at_hand(&bed.records(&[areas.frame]), AreaFlags::NONE, CALLER);
    }),
    ("vunmap", |bed, areas| {
        let _left = bed.space.vunmap_at_hand((), areas.vmap);
    }),
    ("vm_map_ram", |bed, areas| {
        let _mapped = bed.space.map_ram_at_hand(&bed.records(&[areas.frame]));
    }),
    ("vm_unmap_ram", |bed, areas| {
        let _ended = bed.space.unmap_ram_at_hand((), areas.map_ram, 1);
    }),
    ("get_vm_area", |bed, _| {
        let _area = bed.space.reserve_at_hand(Request::of_bytes(1), AreaFlags::NONE, CALLER);
    }),
];

/// Ways that are refused anywhere else.
const REFUSED: [(&str, Call); 4] = [
    ("ioremap", |bed, _| {
        assert!(bed.space.ioremap(DEVICE, 0, Attributes::DEVICE, CALLER).is_err());
    }),
    ("ioremap", |bed, _| {
        let ram = bed.space.zones().table().first().base();
        assert!(bed.space.ioremap_own(ram, 4, Attributes::DEVICE, CALLER).is_err());
    }),
    ("ioremap_shared", |bed, _| {
        assert!(bed.space.ioremap_shared(DEVICE, u32::MAX, Attributes::DEVICE, CALLER).is_err());
    }),
    ("iounmap", |bed, _| {
        assert!(bed.space.iounmap((), VirtAddr::new(0)).is_err());
    }),
];

/// S10, S35: each way to make or remove an area ends the kernel in a handler, on the CPU that runs it and on no other,
/// before anything is taken.
#[test]
fn areas_are_made_and_removed_outside_of_handlers_alone_s10_s35_s49() {
    let bed = Bed::warm();
    let (list, frames) = bed.frames(1);
    let attributes = Attributes::KERNEL_DATA;
    let ioremap = bed.space.ioremap(DEVICE, 4, Attributes::DEVICE, CALLER).expect("addresses");
    let coherent = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
    let areas = Areas {
        vmalloc: bed.vmalloc(1),
        vmap: bed.space.vmap(&frames, attributes, CALLER).expect("addresses").pages.start(),
        ioremap,
        coherent: coherent.pages.start(),
        bus: coherent.physical,
        map_ram: bed.space.map_ram(&bed.records(&frames), CALLER).expect("addresses"),
        bare: {
            let request = Request::of_bytes(1);
            let area = bed.space.reserve_area(request, AreaFlags::NONE, CALLER);
            area.expect("addresses").area.pages.start()
        },
        frame: frames[0],
    };
    let calls: [(&str, Call); 13] = [
        ("vmalloc", |bed, _| {
            let _area = bed.space.vmalloc(1, Fill::Uninitialised, CALLER);
        }),
        ("vmap", |bed, areas| {
            let _area = bed.space.vmap(&[areas.frame], Attributes::KERNEL_DATA, CALLER);
        }),
        ("ioremap", |bed, _| {
            let _area = bed.space.ioremap(DEVICE, 4, Attributes::DEVICE, CALLER);
        }),
        ("dma_alloc_coherent", |bed, _| {
            let _area = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        }),
        ("vfree", |bed, areas| {
            let _freed = bed.space.vfree((), areas.vmalloc);
        }),
        ("vunmap", |bed, areas| {
            let _freed = bed.space.vunmap((), areas.vmap);
        }),
        ("iounmap", |bed, areas| {
            let _freed = bed.space.iounmap((), areas.ioremap);
        }),
        ("dma_free_coherent", |bed, areas| {
            let _freed = bed.space.coherent_free((), areas.coherent, PAGE_SIZE);
        }),
        ("dma_free_coherent", |bed, areas| {
            let _freed = bed.space.coherent_free_at((), areas.coherent, areas.bus, PAGE_SIZE);
        }),
        ("vm_map_ram", |bed, areas| {
            let _mapped = bed.space.map_ram(&bed.records(&[areas.frame]), CALLER);
        }),
        ("vm_unmap_ram", |bed, areas| {
            let _ended = bed.space.unmap_ram((), areas.map_ram, 1);
        }),
        ("close_idle_blocks", |bed, _| {
            bed.space.close_idle_blocks();
        }),
        ("free_deferred", |bed, _| {
            bed.space.free_deferred();
        }),
    ];
    for (name, call) in
        calls.into_iter().chain(WIDER).chain(REGISTERS).chain(AT_HAND).chain(REFUSED)
    {
        bed.changes_nothing(|bed| {
            let handler = AssertUnwindSafe(|| bed.machine.cpu(0).interrupt(|| call(bed, &areas)));
            let died = catch_unwind(handler).expect_err(name);
            let message = died.downcast_ref::<String>().map(String::as_str);
            let said = format!("{name} in interrupt context, where no area is made or removed");
            assert_eq!(message, Some(said.as_str()));
        });
    }
    // The space is CPU 0's here, so what CPU 1 handles is no matter.
    bed.machine.cpu(1).interrupt(|| {
        for (_, call) in
            calls.into_iter().chain(WIDER).chain(REGISTERS).chain(AT_HAND).chain(REFUSED)
        {
            call(&bed, &areas);
        }
    });
    bed.feed(list);
}

/// S89: at once nobody finds it, nothing is unmapped or reused before it is freed, and then everything comes back.
#[test]
fn a_deferred_free_is_queued_and_then_done_s89_s23() {
    for behaviour in Behaviour::all(3) {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let cpu = bed.machine.cpu(1);
            let [first, second] = [bed.vmalloc(2), bed.vmalloc(1)];
            cpu.store(first, 0x1234_5678).expect("mapped");
            let frame = bed.frame_at(first);
            let free = bed.space.zones().free_pages();
            bed.machine.take_log();
            bed.machine.cpu(0).interrupt(|| {
                assert_eq!(bed.space.vfree_atomic((), first), Ok(()));
                let again = bed.space.vfree_atomic((), first);
                assert_eq!(again, Err(RemoveError::Unknown { address: first }));
                let inside = VirtAddr::new(first.raw() + 4);
                let misaligned = RemoveError::Misaligned { address: inside };
                assert_eq!(bed.space.vfree_atomic((), inside), Err(misaligned));
            });
            let invalidated = |(_, event): &(usize, Event)| matches!(event, Event::Invalidate(..));
            assert!(!bed.machine.take_log().iter().any(invalidated), "that is for later");
            assert_eq!((bed.space.find(first), bed.space.deferred()), (None, 1));
            assert_eq!(bed.space.vfree((), first), Err(RemoveError::Unknown { address: first }));
            assert_eq!(bed.space.zones().free_pages(), free);
            assert_eq!(bed.space.zones().table().owner_of(frame), FrameOwner::Vmalloc);
            let other = bed.vmalloc(2);
            assert_ne!(other, first, "the addresses are not free yet");
            assert_eq!(cpu.load(first), Ok(0x1234_5678), "nor is the memory");
            assert_eq!(bed.space.free_deferred(), 1);
            assert_eq!(cpu.load(first), Err(Fault::Translation(first)));
            assert_eq!((bed.space.deferred(), bed.space.free_deferred()), (0, 0));
            assert_eq!(bed.vmalloc(2), first, "the lowest place again");
            for area in [first, second, other] {
                bed.space.vfree((), area).expect("a live area");
            }
        });
    }
}

/// S89: in the order of the calls.
#[test]
fn deferred_frees_are_done_in_their_order_s89() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let areas = [1, 1, 1, 1].map(|pages| bed.vmalloc(pages));
        let [a, b, c, d] = areas;
        for area in [c, a, d, b] {
            bed.space.vfree_atomic((), area).expect("a live area");
        }
        bed.machine.take_log();
        assert_eq!(bed.space.free_deferred(), 4);
        let mut order = Vec::new();
        for (_, event) in bed.machine.take_log() {
            if let Event::Invalidate(machine::Scope::Pages(pages), _) = event {
                order.push(pages.start());
            }
        }
        assert_eq!(order, [c, a, d, b]);
    });
}

/// S34: by kind, as vfree.
#[test]
fn only_vmallocs_areas_are_freed_later_s34_s89() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let mapped = bed.space.ioremap(DEVICE, 4, Attributes::DEVICE, CALLER).expect("addresses");
        let refused = bed.space.vfree_atomic((), mapped);
        let found = AreaKind::IoRemap;
        assert_eq!(refused, Err(RemoveError::WrongKind { address: mapped, found }));
        assert_eq!(bed.space.deferred(), 0);
        bed.space.iounmap((), mapped).expect("a live area");
    });
}

/// Whoever finds no frames or no addresses frees what waits first, and is refused only when nothing does.
#[test]
fn what_waits_is_freed_before_anybody_is_refused_s89() {
    let bed = Bed::warm();
    let hoard = bed.starve(8);
    bed.changes_nothing(|bed| {
        let all = bed.vmalloc(8);
        bed.space.vfree_atomic((), all).expect("a live area");
        let again = bed.vmalloc(8);
        assert_eq!(bed.space.deferred(), 0);
        let refused = bed.space.vmalloc(PAGE_SIZE, Fill::Uninitialised, CALLER);
        assert!(refused.is_err(), "{refused:?}");
        bed.space.vfree((), again).expect("a live area");
    });
    bed.feed(hoard);

    let bed = Bed::warm();
    const { assert!(WINDOW_PAGES < RAM_PAGES, "the window is the scarcer of the two") };
    bed.gives_back(|bed| {
        let most = WINDOW_PAGES - 3;
        let large = bed.vmalloc(most);
        bed.space.vfree_atomic((), large).expect("a live area");
        let again = bed.vmalloc(most);
        assert_eq!((again, bed.space.deferred()), (large, 0));
        bed.space.vfree((), again).expect("a live area");
    });
}
