//! Blocks of frames in windows of programs, as the linear map has them, on SoftMachine: who may free them when (S46, S78, S97).

use crate::mutants::user::{Programs, Right, audit};
use histories::bed::{Bed, frame, page, pages};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, PhysAddr},
    attributes::{Attributes, MemoryType},
    descriptor::l2::Descriptor,
    frames::{FrameOwner, FreeError, NotShown},
    kernel_space::ShareError,
    machine::Machine,
    user::{Protection, ShowError, UserViolation},
};
use machine::{Behaviour, Fault, HostLocks, Kind, Privilege, SoftCpu};

type Space<'p> = kerncore::user::UserSpace<'p, 'static, SoftCpu<'static>, HostLocks>;

const AT: u32 = 0x123;
const OWNER: FrameOwner = FrameOwner::Pages;

/// A zeroed block of 2^`order` frames.
fn block(bed: &Bed, order: u32) -> Pfn {
    bed.space.zeroed_frames(order, OWNER).expect("memory").leak().0
}

fn free(bed: &Bed, first: Pfn, order: u32) -> Result<(), FreeError> {
    bed.space.free_frames_at((), first, order, OWNER)
}

fn waiting<'p>(programs: &'p Programs<'_, Right>, count: u32) -> Space<'p> {
    let space = programs.space();
    space.reserve(pages(AT, count), Protection::ReadWrite).expect("free addresses");
    space
}

/// Shows the block at `first` in the window, from its page `offset` on.
fn show(bed: &Bed, space: &Space<'_>, first: Pfn, offset: u32) -> Result<(), ShowError> {
    space.show_block(page(AT), offset, |_| bed.space.show_block((), first, OWNER))
}

/// S46, S23: a free comes before the window or after it, and what a CPU still remembers of a window goes before its frames do.
#[test]
fn a_block_is_free_when_no_window_shows_it_and_no_earlier_s46() {
    for behaviour in Behaviour::all(2) {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let programs = Programs::new(bed, &Right);
            let first = block(bed, 2);
            let [one, two] = [1, 2].map(|_| waiting(&programs, 2));
            let told = std::cell::Cell::new(0);
            for space in [&one, &two] {
                let shown = space.show_block(page(AT), 1, |window| {
                    told.set(told.get() + window);
                    bed.space.show_block((), first, OWNER)
                });
                assert_eq!(shown, Ok(()));
                assert_eq!(audit(space).shown, 1);
            }
            assert_eq!(told.get(), 4, "pages of windows");
            let counts = || (bed.space.zones().census().shown, bed.space.windows_shown());
            assert_eq!(counts(), (2, 0), "no area is shown");
            let in_use = |windows| Err(FreeError::Shown { frame: first, owner: OWNER, windows });
            assert_eq!(free(bed, first, 2), in_use(2));
            let (cpu, third) = (programs.cpu(1), first.checked_add(2).expect("a frame"));
            let there = || cpu.access(page(AT + 1), Kind::Write, Privilege::User);
            one.with_open_on(&cpu, || {
                assert_eq!(there().map(PhysAddr::pfn), Ok(third));
                one.unmap(page(AT)).expect("a window");
                assert_eq!(there(), Err(Fault::Translation(page(AT + 1))));
            });
            assert_eq!(free(bed, first, 2), in_use(1));
            drop(two);
            assert_eq!(counts(), (0, 0));
            assert_eq!(free(bed, first, 2), Ok(()));
            one.reserve(pages(AT, 1), Protection::ReadOnly).expect("free addresses");
            let gone = NotShown::NoBlock { frame: first, owner: FrameOwner::Free, claimed: OWNER };
            let refused = Err(ShowError::Share(ShareError::Block(gone)));
            assert_eq!(show(bed, &one, first, 0), refused);
            audit(&one);
        });
    }
}

/// S44, S97: by offset and window exactly what lies in the block, by the one type that the linear map has it by; what is refused is not
/// counted.
#[test]
fn a_window_shows_what_lies_in_the_block_as_the_linear_map_has_it_s44_s97() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let programs = Programs::new(bed, &Right);
        let first = block(bed, 2);
        for window in 1..=6 {
            for offset in (0..=6).chain([0x10_0000, u32::MAX - 1, u32::MAX]) {
                let space = waiting(&programs, window);
                let fits = u64::from(offset) + u64::from(window) <= 4;
                let outside = ShareError::Outside { area: 4, offset, window };
                let wanted = if fits { Ok(()) } else { Err(ShowError::Share(outside)) };
                assert_eq!(show(bed, &space, first, offset), wanted);
                assert_eq!(bed.space.zones().table().windows_onto(first), u16::from(fits));
                for index in 0..window {
                    let seen = space.translate(page(AT + index));
                    let leads = fits.then(|| first.checked_add(offset + index)).flatten();
                    assert_eq!(seen.map(|seen| seen.physical.pfn()), leads, "{window} {offset}");
                    let memory = seen.map(|seen| seen.attributes().expect("ours").memory());
                    assert_eq!(memory, fits.then_some(MemoryType::NormalWriteBack));
                }
                audit(&space);
            }
        }
        // What the owner says goes, and takes nothing.
        let space = waiting(&programs, 1);
        let none = ShareError::Unknown { address: page(7) };
        let shown = space.show_block(page(AT), 0, |_| Err(none));
        assert_eq!(shown, Err(ShowError::Share(none)));
        // Nor is anybody asked for a window that there is not, or that is in use.
        let asked = |_| panic!("asked");
        let no_window = space.show_block(page(AT + 1), 0, asked);
        assert!(matches!(no_window, Err(ShowError::NoWindow(_))), "{no_window:?}");
        assert_eq!(show(bed, &space, first, 3), Ok(()));
        let again = Err(ShowError::InUse { address: page(AT) });
        assert_eq!(space.show_block(page(AT), 0, asked), again);
        drop(space);
        assert_eq!(free(bed, first, 2), Ok(()));
    });
}

/// S97: what the linear map has not, or not cacheable, is not shown so, and the audit sees where that comes to be.
#[test]
fn a_block_has_one_type_for_programs_and_the_kernel_s97() {
    let bed = Bed::warm();
    let programs = Programs::new(&bed, &Right);
    let (space, first) = (waiting(&programs, 2), block(&bed, 1));
    let second = first.checked_add(1).expect("a frame");
    let address = bed.space.linear().pages_of(second, 1).expect("low memory").start();
    let slot = bed.l2_slot(address);
    let uncached = Attributes::WRITE_COMBINE;
    let uncached = Descriptor::SmallPage(second, uncached).encode().expect("a small page");
    for other in [0, uncached] {
        let before = bed.poke(slot, other);
        let refused = Err(ShowError::Share(ShareError::NotLinear { frame: first }));
        assert_eq!(show(&bed, &space, first, 0), refused);
        assert_eq!(bed.space.zones().table().windows_onto(first), 0, "it is not counted");
        bed.poke(slot, before);
    }
    assert_eq!(show(&bed, &space, first, 0), Ok(()));
    audit(&space);
    for (other, linear) in [(0, None), (uncached, Some(MemoryType::NormalNonCacheable))] {
        let before = bed.poke(slot, other);
        let mut found = Vec::new();
        space.audit(&mut |violation| found.push(violation));
        let seen = MemoryType::NormalWriteBack;
        let wanted = UserViolation::Types { address: page(AT), frame: second, seen, linear };
        assert_eq!(found, [wanted]);
        assert!(wanted.to_string().contains("the linear map"), "{wanted}");
        bed.poke(slot, before);
    }
    // Another frame in the window's table, and one that changed hands.
    let above = Machine::read_descriptor(&programs.cpu(0), space_slot(&space));
    let slot = PhysAddr::new((above & !0x3ff) + (AT % 256) * 4);
    let promised = space.translate(page(AT)).expect("mapped").attributes().expect("ours");
    let word = |frame| Descriptor::SmallPage(frame, promised).encode().expect("a small page");
    let before = bed.poke(slot, word(frame(second.number())));
    let mut found = Vec::new();
    space.audit(&mut |violation| found.push(violation));
    let (wanted, had) = (word(first), word(second));
    assert_eq!(found, [UserViolation::Entry { address: page(AT), wanted, had }]);
    bed.poke(slot, before);
    audit(&space);
    drop(space);
    assert_eq!(free(&bed, first, 1), Ok(()));
}

/// Where the first level of `space` has the section of the windows.
fn space_slot(space: &Space<'_>) -> PhysAddr {
    PhysAddr::new(space.root().raw() + ((AT * PAGE_SIZE) >> 20) * 4)
}

/// S45: what was mapped before an error stays until the window ends, and the block stays as long.
#[test]
fn a_window_that_is_shown_in_part_keeps_its_block_s45() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let programs = Programs::new(bed, &Right);
        let first = block(bed, 3);
        let space = programs.space();
        // Four pages below the border of a section that has a table, and four above it where none can be made.
        space.map_data(pages(0x200, 1), Protection::ReadOnly).expect("a table for it");
        let start = 0x2fc;
        space.reserve(pages(start, 8), Protection::ReadOnly).expect("free addresses");
        for count in 0..3 {
            // What is left of the frame that was cut for tables.
            space.map_data(pages(0x400 + count * 0x100, 1), Protection::ReadOnly).expect("a table");
        }
        let rest = bed.starve(0);
        let pin = |_| bed.space.show_block((), first, OWNER);
        let shown = space.show_block(page(start), 0, pin);
        assert!(matches!(shown, Err(ShowError::Map(error)) if error.mapped() == 4), "{shown:?}");
        bed.feed(rest);
        assert!(space.translate(page(start + 3)).is_some());
        assert!(space.translate(page(start + 4)).is_none());
        audit(&space);
        let in_use = Err(FreeError::Shown { frame: first, owner: OWNER, windows: 1 });
        assert_eq!(free(bed, first, 3), in_use);
        space.unmap(page(start)).expect("a window");
        assert_eq!(free(bed, first, 3), Ok(()));
        audit(&space);
    });
}

/// S46: who frees what he showed has to wait for windows that wait for his word.
#[test]
fn a_window_that_is_being_made_might_show_anything_s46_s102() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let programs = Programs::new(bed, &Right);
        let memory = PhysAddr::new(0x4c00_0000);
        let base = bed.space.ioremap(
            memory,
            4 * PAGE_SIZE,
            Attributes::WRITE_COMBINE,
            histories::bed::CALLER,
        );
        let base = base.expect("addresses");
        let space = waiting(&programs, 2);
        let refused = ShareError::Unknown { address: base };
        for (answer, onto) in [(Err(refused), Some(0)), (Ok(()), Some(1))] {
            let may_be = || {
                assert_eq!(space.windows_onto(base, (0, 4)), None, "it might be one");
                answer
            };
            let shown = space.show_device_memory(page(AT), (base, memory), 1, may_be);
            assert_eq!(shown, answer.map_err(ShowError::Share));
            assert_eq!(space.windows_onto(base, (0, 4)), onto);
        }
        assert_eq!(space.windows_onto(base, (0, 1)), Some(0));
        drop(space);
        bed.space.iounmap((), base).expect("nobody sees it");
    });
}
