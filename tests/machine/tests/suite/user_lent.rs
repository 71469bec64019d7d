//! Memory of the contiguous region that is lent to programs and movable pages, and comes back when buffers ask (S101).

use crate::mutants::user::{Programs, Right, audit};
use histories::bed::{Bed, CALLER, Furniture, LowMemory, page, pages};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr},
    contiguous::{Borrower, ContiguousError, RegionUse, Unmovable},
    frames::{AllocateError, FrameBlock, FrameOwner},
    user::{Protection, UserSpace},
};
use machine::{Behaviour, Fault, HostLocks, SoftCpu};

/// One section, so that each buffer of one page more than half of it needs all that is lent.
const PAGES: u32 = 256;
const DATA: u32 = 0x20;

type Space<'p> = UserSpace<'p, 'static, SoftCpu<'static>, HostLocks>;

fn everywhere(test: impl Fn(&Programs<'_, Right>)) {
    for behaviour in Behaviour::all(4) {
        println!("{behaviour:?}");
        let furniture = Furniture { contiguous: PAGES, ..Furniture::with(LowMemory::All) };
        let bed = Bed::furnished(behaviour, furniture, |machine| machine.cpu(0));
        bed.warm_up();
        bed.changes_nothing(|bed| test(&Programs::new(bed, &Right)));
        assert_eq!(usage(&bed), RegionUse { pages: PAGES, held: 0, lent: 0, largest: PAGES });
    }
}

fn usage(bed: &Bed) -> RegionUse {
    bed.space.contiguous().expect("furnished").usage()
}

/// Who is asked to do without a page, as `mm` asks.
fn move_out<'p>(
    bed: &'p Bed,
    spaces: &'p [&Space<'p>],
) -> impl Fn(Borrower, Pfn) -> Result<FrameBlock, Unmovable> + 'p {
    move |borrower, frame| match borrower {
        Borrower::Nobody => panic!("nobody has {frame}"),
        Borrower::Program { space, page } => {
            let space = spaces.iter().find(|other| other.id() == space).expect("it lives");
            space.move_out(page, frame)
        }
        Borrower::Movable { place } => bed.space.move_movable(place, frame),
    }
}

fn take(bed: &Bed, pages: u32, spaces: &[&Space<'_>]) -> Result<FrameBlock, ContiguousError> {
    let region = bed.space.contiguous().expect("furnished");
    region.take(pages, FrameOwner::Test, move_out(bed, spaces))
}

fn give_back(bed: &Bed, block: FrameBlock) {
    let region = bed.space.contiguous().expect("furnished");
    assert!(region.give_back(block).is_ok());
}

fn frame_of(space: &Space<'_>, number: u32) -> Pfn {
    space.translate(page(number)).expect("mapped").physical.pfn()
}

/// A program's data comes from the region, moves when a buffer wants all of it, and both CPUs find every word afterwards.
#[test]
fn a_programs_data_moves_out_and_keeps_every_word_s101() {
    everywhere(|programs| {
        let bed = programs.bed;
        let region = bed.space.contiguous().expect("furnished");
        let space = programs.space();
        space.map_data(pages(DATA, 3), Protection::ReadWrite).expect("memory");
        assert_eq!(usage(bed).lent, 3);
        let word = |number: u32, index: u32| VirtAddr::new(page(DATA + number).raw() + index * 4);
        let last = PAGE_SIZE / 4 - 1;
        let cpu = |number| programs.cpu(number);
        space.with_open_on(&cpu(1), || {
            for number in 0..3 {
                for index in [0, 77, last] {
                    assert_eq!(cpu(1).load(word(number, index)), Ok(0), "zeroed");
                    cpu(1).store(word(number, index), number << 16 | index).expect("mapped");
                }
            }
            let before = [0, 1, 2].map(|number| frame_of(&space, DATA + number));
            let block = take(bed, PAGES, &[&space]).expect("all can move");
            assert_eq!((usage(bed).held, usage(bed).lent), (PAGES, 0));
            for (number, was) in (0..3).zip(before) {
                let now = frame_of(&space, DATA + number);
                assert!(region.contains(was) && !region.contains(now), "{was} to {now}");
                for index in [0, 77, last] {
                    assert_eq!(cpu(1).load(word(number, index)), Ok(number << 16 | index));
                }
            }
            space.with_open_on(&cpu(0), || {
                assert_eq!(cpu(0).load(word(2, 77)), Ok(0x2_004d), "on the other CPU");
                cpu(0).store(word(2, 77), 5).expect("mapped");
            });
            assert_eq!(cpu(1).load(word(2, 77)), Ok(5));
            bed.clean_beside(audit(&space).table_frames);
            give_back(bed, block);
        });
        // What is asked for next is lent again.
        space.map_data(pages(DATA + 8, 2), Protection::ReadOnly).expect("memory");
        assert_eq!(usage(bed).lent, 2);
        space.unmap(page(DATA)).expect("a window");
        assert_eq!(usage(bed).lent, 2, "its frames were others");
        audit(&space);
    });
}

/// Lent pages come first and others after them, in one window.
#[test]
fn a_window_may_be_lent_in_part_s101() {
    everywhere(|programs| {
        let bed = programs.bed;
        let region = bed.space.contiguous().expect("furnished");
        let block = take(bed, PAGES - 2, &[]).expect("free");
        let space = programs.space();
        space.map_data(pages(DATA, 5), Protection::ReadWrite).expect("memory");
        let lent = |number| region.contains(frame_of(&space, DATA + number));
        assert_eq!([0, 1, 2, 3, 4].map(lent), [true, true, false, false, false]);
        assert_eq!(usage(bed).lent, 2);
        bed.clean_beside(audit(&space).table_frames);
        space.unmap(page(DATA)).expect("a window");
        assert_eq!(usage(bed).lent, 0);
        give_back(bed, block);
    });
}

/// Where no memory is to move to, that is said, and everything is as it was.
#[test]
fn a_page_that_has_nowhere_to_go_stays_and_is_named_s101() {
    everywhere(|programs| {
        let bed = programs.bed;
        let space = programs.space();
        space.map_data(pages(DATA, 1), Protection::ReadWrite).expect("memory");
        let was = frame_of(&space, DATA);
        let rest = bed.starve(0);
        let refused = take(bed, PAGES, &[&space]);
        let Err(ContiguousError::Unmovable { pages: PAGES, frame, why }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(frame, was);
        assert!(matches!(why, Unmovable::NoMemory(AllocateError::Exhausted { .. })), "{why}");
        bed.feed(rest);
        assert_eq!(frame_of(&space, DATA), was);
        assert_eq!((usage(bed).held, usage(bed).lent), (0, 1));
        audit(&space);
    });
}

/// A borrower that is asked for what it has not says so, and changes nothing.
#[test]
fn who_is_asked_for_anothers_frame_keeps_its_own_s101() {
    everywhere(|programs| {
        let space = programs.space();
        space.map_data(pages(DATA, 2), Protection::ReadWrite).expect("memory");
        space.map_text(pages(DATA + 4, 1), &[1, 2, 3]).expect("memory");
        let frames = [DATA, DATA + 1].map(|number| frame_of(&space, number));
        let text = frame_of(&space, DATA + 4);
        for (number, frame) in [
            (DATA, frames[1]),
            (DATA + 1, frames[0]),
            (DATA + 2, frames[0]),
            (DATA + 4, text),
            (DATA, Pfn::new(0x7_0000).expect("below 4 GiB")),
        ] {
            let refused = space.move_out(number, frame);
            assert_eq!(refused, Err(Unmovable::Busy), "{number:#x}");
        }
        assert_eq!([DATA, DATA + 1].map(|number| frame_of(&space, number)), frames);
        assert!(space.is_there(page(DATA)) && !space.is_there(page(DATA + 2)));
        audit(&space);
    });
}

/// A pinned page is an error and no wait; unpinned it moves, and its contents with it.
#[test]
fn a_movable_page_stays_while_it_is_pinned_and_moves_when_it_is_not_s101() {
    everywhere(|programs| {
        let bed = programs.bed;
        let region = bed.space.contiguous().expect("furnished");
        let movable = bed.space.take_movable().expect("memory");
        assert!(movable.may_move());
        let frame = bed.space.pin_movable(&movable).expect("a page");
        assert!(region.contains(frame));
        let cpu = programs.cpu(0);
        let linear = |frame: Pfn| bed.space.linear().pages_of(frame, 1).expect("low").start();
        let word = |frame: Pfn| VirtAddr::new(linear(frame).raw() + 400);
        assert_eq!(cpu.load(word(frame)), Ok(0));
        cpu.store(word(frame), 0x5eed).expect("mapped");
        let pinned = Unmovable::Pinned { guards: 1 };
        let error = ContiguousError::Unmovable { pages: PAGES, frame, why: pinned };
        assert_eq!(take(bed, PAGES, &[]), Err(error));
        assert_eq!(region.movable_counts(), (1, 1));
        bed.space.unpin_movable(&movable);
        let block = take(bed, PAGES, &[]).expect("it can move");
        let now = bed.space.pin_movable(&movable).expect("a page");
        assert!(!region.contains(now));
        assert_eq!(cpu.load(word(now)), Ok(0x5eed));
        bed.space.unpin_movable(&movable);
        bed.clean();
        bed.space.free_movable(movable).expect("not pinned");
        // While the region has none to lend, a page has a frame of its own.
        let own = bed.space.take_movable().expect("memory");
        assert!(!own.may_move());
        give_back(bed, block);
        bed.space.free_movable(own).expect("not pinned");
        assert_eq!(region.movable_counts(), (0, 0));
    });
}

/// The buffer that pushed others out is uncached and sees nothing of theirs, in whatever cache it was.
#[test]
fn a_buffer_where_a_program_was_is_zero_and_uncached_s85_s97_s101() {
    everywhere(|programs| {
        let bed = programs.bed;
        let space = programs.space();
        space.map_data(pages(DATA, 2), Protection::ReadWrite).expect("memory");
        let cpu = programs.cpu(1);
        space.with_open_on(&cpu, || {
            for number in [DATA, DATA + 1] {
                cpu.store(page(number), 0xddba).expect("mapped");
            }
            let frames = [DATA, DATA + 1].map(|number| frame_of(&space, number));
            let block = take(bed, PAGES, &[&space]).expect("all can move");
            give_back(bed, block);
            // All but one page of the lower half, and with it both of the program's former frames.
            let area = bed.space.contiguous_alloc(PAGES * PAGE_SIZE, FrameOwner::Dma, CALLER);
            let area = area.expect("free");
            for frame in frames {
                let offset = frame.base().raw() - area.physical.raw();
                let address = VirtAddr::new(area.pages.start().raw() + offset);
                assert_eq!(cpu.load(address), Ok(0));
                assert_eq!(bed.machine.device_read(PhysAddr::new(frame.base().raw())), 0);
                let linear = bed.space.linear().pages_of(frame, 1).expect("low").start();
                assert_eq!(cpu.load(linear), Err(Fault::Translation(linear)));
            }
            assert_eq!(cpu.load(page(DATA)), Ok(0xddba));
            let freed = bed.space.coherent_free((), area.pages.start(), PAGES * PAGE_SIZE);
            assert_eq!(freed.map(|freed| freed.actual), Ok(PAGES));
        });
    });
}
