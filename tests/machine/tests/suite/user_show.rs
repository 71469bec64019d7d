//! Memory of the kernel's in windows of programs, on SoftMachine: who may free it when (S43 to S46, S78).

use crate::mutants::user::{Programs, Right, audit};
use histories::bed::{Bed, CALLER, page, pages};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    attributes::{Attributes, MemoryType},
    descriptor::l2::Descriptor,
    frames::FrameOwner,
    kernel_space::{RemoveError, ShareError},
    machine::Machine,
    page_table::MapError,
    user::{Protection, ShowError, UserViolation},
};
use machine::{Behaviour, Fault, HostLocks, Kind, Privilege, SoftCpu};

type Space<'p> = kerncore::user::UserSpace<'p, 'static, SoftCpu<'static>, HostLocks>;

const AT: u32 = 0x123;

fn waiting<'p>(programs: &'p Programs<'_, Right>, count: u32) -> Space<'p> {
    let space = programs.space();
    space.reserve(pages(AT, count), Protection::ReadWrite).expect("free addresses");
    space
}

fn shared(bed: &Bed, count: u32) -> VirtAddr {
    bed.space.vmalloc_user(count * PAGE_SIZE, CALLER).expect("memory").pages.start()
}

/// S46, S23: a free comes before the window or after it, and what a CPU still remembers of a window goes before its frames do.
#[test]
fn an_area_is_free_when_no_window_shows_it_and_no_earlier_s46() {
    for behaviour in Behaviour::all(2) {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let programs = Programs::new(bed, &Right);
            let base = shared(bed, 3);
            let spaces = [1, 2].map(|_| waiting(&programs, 2));
            for space in &spaces {
                assert_eq!(space.show_vmalloc(page(AT), base, 1), Ok(()));
                assert_eq!(audit(space).shown, 1);
            }
            assert_eq!(bed.space.windows_shown(), 2);
            let in_use = |users| Err(RemoveError::InUse { address: base, users });
            assert_eq!(bed.space.vfree((), base), in_use(2));
            assert_eq!(bed.space.vfree_atomic((), base), in_use(2));
            let [one, two] = spaces;
            let (cpu, second) = (programs.cpu(1), bed.frame_at(page(base.page_number() + 2)));
            let there = || cpu.access(page(AT + 1), Kind::Write, Privilege::User);
            one.with_open_on(&cpu, || {
                assert_eq!(there().map(PhysAddr::pfn), Ok(second));
                one.unmap(page(AT)).expect("a window");
                assert_eq!(there(), Err(Fault::Translation(page(AT + 1))));
            });
            assert_eq!(bed.space.vfree((), base), in_use(1));
            drop(two);
            assert_eq!(bed.space.vfree((), base), Ok(()));
            let late = one.reserve(pages(AT, 1), Protection::ReadOnly);
            assert_eq!(late, Ok(()));
            let gone = ShowError::Share(ShareError::Unknown { address: base });
            assert_eq!(one.show_vmalloc(page(AT), base, 0), Err(gone));
            audit(&one);
        });
    }
}

/// S44: by offset and window exactly what lies in the area, its guard not counted, whatever the sum of the two would be.
#[test]
fn a_window_shows_what_lies_in_the_area_and_nothing_else_s44() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let programs = Programs::new(bed, &Right);
        let base = shared(bed, 4);
        for window in 1..=6 {
            for offset in (0..=6).chain([0x10_0000, u32::MAX - 1, u32::MAX]) {
                let space = waiting(&programs, window);
                let fits = u64::from(offset) + u64::from(window) <= 4;
                let outside = ShareError::Outside { area: 4, offset, window };
                let wanted = if fits { Ok(()) } else { Err(ShowError::Share(outside)) };
                assert_eq!(space.show_vmalloc(page(AT), base, offset), wanted);
                let first = base.page_number() + offset.min(4);
                let leads = fits.then(|| bed.frame_at(page(first)));
                let found = space.translate(page(AT)).map(|found| found.physical.pfn());
                assert_eq!(found, leads, "{window} from {offset}");
                assert_eq!(bed.space.windows_shown(), u32::from(fits));
            }
        }
        let plain = bed.vmalloc(4);
        let space = waiting(&programs, 1);
        let found = kerncore::area::AreaKind::Vmalloc;
        let refused = ShareError::NotForUsers { address: plain, found };
        assert_eq!(space.show_vmalloc(page(AT), plain, 0), Err(ShowError::Share(refused)));
        for area in [plain, base] {
            bed.space.vfree((), area).expect("nobody sees it");
        }
    });
}

/// S78: of a coherent buffer the type is the buffer's own, and neither the pool's area nor another's handle will do.
#[test]
fn a_coherent_buffer_is_shown_as_what_it_is_s78() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let programs = Programs::new(bed, &Right);
        let coherent =
            |owner| bed.space.coherent_alloc(2 * PAGE_SIZE, owner, CALLER).expect("memory");
        let (buffer, pool) = (coherent(FrameOwner::Dma), coherent(FrameOwner::AtomicPool));
        let (base, at) = (buffer.pages.start(), buffer.physical);
        let space = waiting(&programs, 2);
        let show = |base, physical, offset| space.show_coherent(page(AT), base, physical, offset);
        let refused = |why| Err(ShowError::Share(why));
        let elsewhere = ShareError::Elsewhere { address: base, found: at };
        assert_eq!(show(base, pool.physical, 0), refused(elsewhere));
        let address = pool.pages.start();
        assert_eq!(show(address, pool.physical, 0), refused(ShareError::Pool { address }));
        let outside = ShareError::Outside { area: 2, offset: 1, window: 2 };
        assert_eq!(show(base, at, 1), refused(outside));
        assert_eq!(show(base, at, 0), Ok(()));
        let promised = space.translate(page(AT)).expect("mapped").attributes().expect("ours");
        assert_eq!(promised.memory(), MemoryType::NormalNonCacheable);
        audit(&space);
        let in_use = Err(RemoveError::InUse { address: base, users: 1 });
        assert_eq!(bed.space.coherent_free_at((), base, at, 2 * PAGE_SIZE), in_use);
        assert_eq!(bed.space.coherent_free((), base, 2 * PAGE_SIZE), in_use);
        drop(space);
        for (base, at) in [(base, at), (address, pool.physical)] {
            bed.space.coherent_free_at((), base, at, 2 * PAGE_SIZE).expect("nobody sees it");
        }
    });
}

/// S45: what was mapped before an error stays until the window ends, and the area stays as long.
#[test]
fn a_window_that_is_shown_in_part_keeps_its_area_s45() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let programs = Programs::new(bed, &Right);
        let base = shared(bed, 8);
        let space = programs.space();
        // Four pages below the border of a section that has a table, and four above it where none can be made.
        space.map_data(pages(0x200, 1), Protection::ReadOnly).expect("a table for it");
        let first = 0x2fc;
        space.reserve(pages(first, 8), Protection::ReadOnly).expect("free addresses");
        for count in 0..3 {
            // What is left of the frame that was cut for tables.
            space.map_data(pages(0x400 + count * 0x100, 1), Protection::ReadOnly).expect("a table");
        }
        let rest = bed.starve(0);
        let shown = space.show_vmalloc(page(first), base, 0);
        assert!(matches!(shown, Err(ShowError::Map(error)) if error.mapped() == 4), "{shown:?}");
        bed.feed(rest);
        assert!(space.translate(page(first + 3)).is_some());
        assert!(space.translate(page(first + 4)).is_none());
        audit(&space);
        let again = Err(ShowError::InUse { address: page(first) });
        assert_eq!(space.show_vmalloc(page(first), base, 0), again);
        let in_use = Err(RemoveError::InUse { address: base, users: 1 });
        assert_eq!(bed.space.vfree((), base), in_use);
        space.unmap(page(first)).expect("a window");
        assert_eq!(bed.space.vfree((), base), Ok(()));
        audit(&space);
    });
}

/// Somebody else's entry in a window is not mapped over: it stays, nothing is mapped below that table, and the area is pinned until the
/// window ends (S19).
#[test]
fn a_window_is_not_shown_over_what_is_mapped_there_s17_s19() {
    for behaviour in Behaviour::all(2) {
        let bed = Bed::warm_on(behaviour);
        let programs = Programs::new(&bed, &Right);
        let base = shared(&bed, 3);
        let space = waiting(&programs, 3);
        assert_eq!(space.show_vmalloc(page(AT), base, 0), Ok(()));
        space.unmap(page(AT)).expect("a window");
        let above = bed.machine.cpu(0).read_descriptor(PhysAddr::new(space.root().raw() + 4));
        let foreign = Descriptor::SmallPage(bed.frame_at(base), Attributes::KERNEL_RODATA);
        let foreign = foreign.encode().expect("a small page");
        for number in 0..3 {
            let slot = PhysAddr::new((above & !0x3ff) + ((AT + number) % 256) * 4);
            space.reserve(pages(AT, 3), Protection::ReadWrite).expect("free addresses");
            assert_eq!(bed.poke(slot, foreign), 0, "nothing is mapped");
            let address = page(AT + number);
            let occupied = MapError::Occupied { address, descriptor: foreign, mapped: 0 };
            assert_eq!(space.show_vmalloc(page(AT), base, 0), Err(ShowError::Map(occupied)));
            assert_eq!(bed.machine.cpu(0).read_descriptor(slot), foreign, "it is left alone");
            for other in (0..3).filter(|&other| other != number) {
                assert_eq!(space.translate(page(AT + other)), None);
            }
            let in_use = RemoveError::InUse { address: base, users: 1 };
            assert_eq!(bed.space.vfree((), base), Err(in_use));
            bed.poke(slot, 0);
            space.unmap(page(AT)).expect("a window");
            audit(&space);
        }
        bed.space.vfree((), base).expect("nobody sees it");
        drop(space);
        bed.clean();
    }
}

/// The audit compares a window with the area's own tables.
#[test]
fn the_audit_sees_a_window_that_shows_something_else() {
    let bed = Bed::warm();
    let programs = Programs::new(&bed, &Right);
    let (base, other) = (shared(&bed, 1), shared(&bed, 1));
    let space = waiting(&programs, 1);
    assert_eq!(space.show_vmalloc(page(AT), base, 0), Ok(()));
    let right = bed.frame_at(base);
    let wrong = bed.frame_at(other);
    let promised = space.translate(page(AT)).expect("mapped").attributes().expect("ours");
    let above = programs.cpu(0);
    let table = Machine::read_descriptor(&above, PhysAddr::new(space.root().raw() + 4));
    let slot = PhysAddr::new((table & !0x3ff) + (AT % 256) * 4);
    let word = |frame| {
        let page = Descriptor::SmallPage(frame, promised);
        page.encode().expect("a small page")
    };
    let before = bed.poke(slot, word(wrong));
    let mut found = Vec::new();
    space.audit(&mut |violation| found.push(violation));
    let (wanted, had) = (word(right), word(wrong));
    assert_eq!(found, [UserViolation::Entry { address: page(AT), wanted, had }]);
    bed.poke(slot, before);
    audit(&space);
}
