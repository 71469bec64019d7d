//! Address spaces of programs on SoftMachine: each sees its own memory and no other's, on whichever CPU, and leaves nothing
//! behind.

use crate::mutants::user::{Programs, Right, audit, own_page, pages_of};
use histories::bed::{Bed, frame, page, pages};
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    attributes::{Access, Attributes, Execute, MemoryType, Scope},
    audit::Violation,
    descriptor::l2,
    frames::FrameOwner,
    kernel_space::VmapError,
    machine::Machine,
    user::{
        CloseError, PlaceError, Protection, UserSummary, UserViolation, WINDOWS,
        windows::{NoWindow, WindowError},
    },
};
use machine::{Behaviour, Fault, Kind, Privilege};

const TEXT: u32 = 0x10;
const DATA: u32 = 0x20;

fn everywhere(test: impl Fn(&Programs<'_, Right>)) {
    for behaviour in Behaviour::all(2) {
        println!("{behaviour:?}");
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let programs = Programs::new(bed, &Right);
            test(&programs);
            assert_eq!(programs.spaces.numbers_taken(), 0, "the numbers came back, too");
        });
    }
}

/// S118, S112: the rights of each window are the program's, and text is nobody else's while it can be executed.
#[test]
fn data_and_text_have_their_rights_and_nothing_else_is_there() {
    everywhere(|programs| {
        let space = programs.space();
        space.map_data(pages(DATA, 2), Protection::ReadWrite).expect("memory");
        space.map_data(pages(DATA + 3, 2), Protection::ReadOnly).expect("memory");
        space.map_text(pages(TEXT, 2), b"\x01\x02\x03\x04\x05").expect("memory");
        let cpu = programs.cpu(0);
        let may =
            |number, kind| space.with_open(|| cpu.access(page(number), kind, Privilege::User));
        let rights =
            |number| [Kind::Read, Kind::Write, Kind::Execute].map(|kind| may(number, kind).is_ok());
        assert_eq!(rights(DATA), [true, true, false]);
        assert_eq!(rights(DATA + 1), [true, true, false]);
        assert_eq!(rights(DATA + 3), [true, false, false]);
        assert_eq!(rights(TEXT), [true, false, true]);
        for hole in [0, 1, DATA - 1, DATA + 2, DATA + 5, 0x7_ffff] {
            assert_eq!(may(hole, Kind::Read), Err(Fault::Translation(page(hole))));
        }
        let words =
            space.with_open(|| [0, 4, 8].map(|at| cpu.load(VirtAddr::new((TEXT << 12) + at))));
        assert_eq!(words, [Ok(0x0403_0201), Ok(5), Ok(0)]);
        let text = space.translate(page(TEXT)).expect("mapped").physical.pfn();
        let linear = page(text.number() + 0x2_0000);
        assert_eq!(cpu.load(linear), Err(Fault::Translation(linear)), "no second view of text");
        let kernel = &programs.bed.space;
        let mapped = kernel.vmap(&[text], Attributes::KERNEL_RODATA, linear).expect_err("refused");
        assert!(matches!(mapped, VmapError::Protection { owner: FrameOwner::Text, .. }));
        let summary = audit(&space);
        assert_eq!(
            summary,
            UserSummary {
                frames: 4,
                table_frames: 2 + 1,
                text_frames: 2,
                windows: 3,
                shown: 0,
                pages: 6
            }
        );
        programs.bed.clean_beside(3);
    });
}

/// S118: while no space is open, the kernel reaches no byte of any, whatever the TLB remembers.
#[test]
fn a_closed_space_cannot_be_reached() {
    everywhere(|programs| {
        let space = programs.space();
        own_page(&space, 1);
        for number in [0, 1] {
            let cpu = programs.cpu(number);
            let closed = Err(Fault::Translation(page(1)));
            assert_eq!(cpu.load(page(1)), closed);
            assert!(space.with_open_on(&cpu, || cpu.load(page(1))).is_ok());
            assert_eq!(cpu.load(page(1)), closed);
            assert_eq!(
                cpu.access(page(1), Kind::Read, Privilege::User),
                closed.map(|_| unreachable!())
            );
        }
    });
}

#[test]
fn refusals_name_what_was_wrong_and_take_nothing() {
    everywhere(|programs| {
        let space = programs.space();
        let data = |range| space.map_data(range, Protection::ReadWrite);
        let whole = pages(1, 0x7_ffff);
        data(pages(DATA, 2)).expect("memory");
        let refused = |error| Err(PlaceError::Window(error));
        assert_eq!(data(pages(DATA, 0)), refused(WindowError::Empty));
        for wanted in [pages(0, 1), pages(0x7_ffff, 2), pages(0x8_0000, 1), pages(0xf_ffff, 1)] {
            assert_eq!(data(wanted), refused(WindowError::Outside { wanted, whole }));
        }
        let (wanted, by) = (pages(DATA - 1, 2), pages(DATA, 2));
        assert_eq!(data(wanted), refused(WindowError::Taken { wanted, by }));
        let long = vec![0; PAGE_SIZE as usize + 1];
        let too_long = PlaceError::TooLong { bytes: long.len(), pages: 1 };
        assert_eq!(space.map_text(pages(TEXT, 1), &long), Err(too_long));
        let none = |address| Err(CloseError::NoWindow(NoWindow { address }));
        assert_eq!(space.unmap(page(DATA + 1)), none(page(DATA + 1)));
        for place in 1..WINDOWS {
            data(pages(DATA + 2 * u32::try_from(place).expect("few"), 1)).expect("memory");
        }
        assert_eq!(data(pages(TEXT, 1)), refused(WindowError::Full { capacity: WINDOWS }));
        assert_eq!(space.unmap(page(DATA)), Ok(()));
        assert_eq!(space.unmap(page(DATA)), none(page(DATA)));
        assert_eq!(space.window_of(page(DATA + 1)), None);
        assert_eq!(space.window_of(page(DATA + 2)), Some(pages(DATA + 2, 1)));
        audit(&space);
    });
}

/// Whatever runs out, nothing is taken.
#[test]
fn a_window_that_lacks_memory_leaves_nothing() {
    let bed = Bed::warm();
    let programs = Programs::new(&bed, &Right);
    for left in 0..6 {
        bed.changes_nothing(|bed| {
            let space = programs.space();
            let rest = bed.starve(left);
            // Four pages, and a table for each of two sections.
            let data = space.map_data(pages(0x1fe, 4), Protection::ReadOnly);
            assert_eq!(data.is_ok(), left > 4, "{left}: {data:?}");
            if data.is_ok() {
                space.unmap(page(0x1fe)).expect("a window");
            }
            let text = space.map_text(pages(0x1fe, 4), &[]);
            assert!(text.is_err() || left > 4, "{left}: {text:?}");
            assert_eq!(space.window_of(page(0x1fe)).is_some(), text.is_ok());
            audit(&space);
            bed.feed(rest);
        });
    }
    let rest = bed.starve(1);
    bed.changes_nothing(|bed| {
        let kernel = &bed.space;
        assert!(kerncore::user::UserSpace::new(kernel, &programs.spaces).is_err(), "8 KiB in one");
    });
    bed.feed(rest);
}

/// The audit believes the windows and nothing else.
#[test]
fn the_audit_sees_each_kind_of_damage() {
    let bed = Bed::warm();
    let programs = Programs::new(&bed, &Right);
    let space = programs.space();
    space.map_data(pages(DATA, 1), Protection::ReadWrite).expect("memory");
    let cpu = bed.machine.cpu(0);
    let above = cpu.read_descriptor(space.root());
    let slot = |number: u32| kerncore::addr::PhysAddr::new((above & !0x3ff) + number * 4);
    let found = |at, word| {
        let before = bed.poke(at, word);
        let mut found = Vec::new();
        space.audit(&mut |violation| found.push(violation));
        bed.poke(at, before);
        found
    };
    let right = cpu.read_descriptor(slot(DATA));
    let user = |access, scope| {
        Attributes::new(MemoryType::NormalWriteBack, access, Execute::Never, scope).expect("data")
    };
    let own = space.translate(page(DATA)).expect("mapped").physical.pfn();
    let word =
        |frame, attributes| l2::Descriptor::SmallPage(frame, attributes).encode().expect("4 KiB");
    for wrong in [
        0,
        word(frame(0x6_0400), user(Access::UserReadWrite, Scope::NonGlobal)),
        word(own, user(Access::UserReadOnly, Scope::NonGlobal)),
        word(own, user(Access::UserReadWrite, Scope::Global)),
    ] {
        let entry = UserViolation::Entry { address: page(DATA), wanted: right, had: wrong };
        assert_eq!(found(slot(DATA), wrong), [entry]);
    }
    for stray in [0, 1, DATA + 1] {
        let address = page(stray);
        assert_eq!(found(slot(stray), right), [UserViolation::Stray { address, had: right }]);
    }
    let second = kerncore::addr::PhysAddr::new(space.root().raw() + 4);
    assert_eq!(found(second, above)[0], UserViolation::Tables { made: 1, found: 2 });
    let section = 0x6000_0000 | 0b10;
    assert_eq!(
        found(second, section),
        [UserViolation::Stray { address: page(0x100), had: section }]
    );
    let foreign = found(second, 0x6100_0001);
    let table = kerncore::addr::PhysAddr::new(0x6100_0000);
    let had = bed.space.zones().table().owner_of(table.pfn());
    let address = page(0x100);
    assert!(foreign.contains(&UserViolation::ForeignTable { address, table, had }), "{foreign:?}");
    // A program's text in the linear map is the kernel's audit's to see.
    space.map_text(pages(TEXT, 1), &[]).expect("memory");
    let text = space.translate(page(TEXT)).expect("mapped").physical.pfn();
    let linear = page(text.number() + 0x2_0000);
    let before = bed.poke_page(linear, text, Attributes::KERNEL_DATA);
    let beside = bed.beside(2 + 1);
    let (_, seen) = bed.audit();
    assert!(
        matches!(seen[..], [Violation::Present { address, .. }] if address == linear),
        "{seen:?}"
    );
    drop(beside);
    bed.poke(bed.l2_slot(linear), before);
    audit(&space);
}

/// S118: what a space leaves behind leads nowhere: its first level is empty when its frames go, to the last slot and no further,
/// so that no walker that comes too late finds a table in it.
#[test]
fn the_first_level_is_empty_when_its_frames_go() {
    everywhere(|programs| {
        let bed = programs.bed;
        let space = programs.space();
        for number in [0x1, 0x100, 0x7_ffff] {
            space.map_data(pages(number, 1), Protection::ReadWrite).expect("memory");
        }
        let root = space.root();
        let word = |index: u32| {
            let slot = root.checked_add(index * 4).expect("below 4 GiB");
            bed.machine.cpu(0).read_descriptor(slot)
        };
        let filled = |word: &dyn Fn(u32) -> u32| (0..2048).filter(|&at| word(at) != 0).count();
        assert_eq!(filled(&word), 3);
        drop(space);
        assert_eq!(filled(&word), 0);
    });
}

/// A text may fill its window to the last byte; a space has a number from when it first runs; and both are counted.
#[test]
fn a_text_of_whole_pages_fits_and_numbers_are_counted_s118() {
    everywhere(|programs| {
        let spaces = &programs.spaces;
        assert_eq!((spaces.numbers_taken(), spaces.rollovers()), (0, 0));
        let (one, other) = (programs.space(), programs.space());
        let full = vec![0xa5; 2 * PAGE_SIZE as usize];
        one.map_text(pages(TEXT, 2), &full).expect("it fits");
        let cpu = programs.cpu(0);
        let last = VirtAddr::new((TEXT << 12) + 2 * PAGE_SIZE - 4);
        assert_eq!(one.with_open(|| cpu.load(last)), Ok(0xa5a5_a5a5));
        assert_eq!(spaces.numbers_taken(), 1);
        other.with_open(|| {});
        assert_eq!((spaces.numbers_taken(), spaces.rollovers()), (2, 0));
        drop(one);
        assert_eq!(spaces.numbers_taken(), 1);
        let more: Vec<_> = (0..12).map(|_| programs.space()).collect();
        for space in &more {
            space.with_open(|| {});
        }
        assert_eq!(spaces.rollovers(), 3, "13 spaces ran one after the other on 4 numbers");
    });
}

#[test]
fn text_and_data_may_have_any_pages_of_the_lower_half() {
    everywhere(|programs| {
        let space = programs.space();
        space.map_data(pages(0x7_ffff, 1), Protection::ReadWrite).expect("the last page");
        space.map_data(pages(0xff, 2), Protection::ReadWrite).expect("two tables");
        let UserSummary { frames, table_frames, .. } = audit(&space);
        assert_eq!((frames, table_frames), (1 + 2, 2 + 1));
        assert_eq!(pages_of(&space, 0x100), 2);
    });
}
