//! Bare areas: reserved, mapped and unmapped by their owner, filled, removed (S12, S16 to S19, S25, S38, S47, S55, S85a).

use super::bed::{Bed, CALLER, WINDOW, page, pages};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, VirtAddr},
    area::{AreaFlags, AreaKind, Mapping},
    attributes::{Attributes, MemoryType},
    frames::{Belonging, FrameOwner},
    kernel_space::{
        ChangeError, Fill, FillAreaError, MapAreaError, RemoveError, UnmapAreaError, VmapError,
    },
    page_table::MapError,
    va_space::{Alignment, IoRemapPolicy, Request, Window},
};
use machine::{Behaviour, Fault};

const DATA: Attributes = Attributes::KERNEL_DATA;
const NONE: AreaFlags = AreaFlags::NONE;

fn reserve(bed: &Bed, count: u32) -> VirtAddr {
    let request = Request::of_bytes(count * PAGE_SIZE);
    let bare = bed.space.reserve_area(request, NONE, CALLER).expect("addresses");
    bare.area.pages.start()
}

fn belonging(bed: &Bed, frames: &[Pfn]) -> Vec<Option<Belonging>> {
    frames.iter().map(|&frame| Some(bed.space.zones().table().belonging(frame))).collect()
}

fn map(bed: &Bed, base: VirtAddr, frames: &[Pfn]) -> Result<u32, MapAreaError> {
    bed.space.map_area(base, belonging(bed, frames).into_iter(), DATA)
}

fn at(base: VirtAddr, number: u32) -> VirtAddr {
    VirtAddr::new(base.raw() + number * PAGE_SIZE)
}

fn remove(bed: &Bed, base: VirtAddr) {
    let descriptor = bed.space.remove_area((), base).expect("a live area");
    assert!(bed.space.free_removed((), descriptor));
}

#[test]
fn a_bare_area_maps_nothing_and_keeps_others_from_its_addresses_s12() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let base = reserve(bed, 3);
        let found = bed.space.find(base).expect("live");
        assert_eq!((found.kind, found.pages), (AreaKind::Bare, pages(WINDOW, 3)));
        assert_eq!(bed.clean().areas, [0, 0, 0, 0, 1, 0, 0]);
        for number in 0..4 {
            let reached = bed.machine.cpu(0).load(at(base, number));
            assert_eq!(reached, Err(Fault::Translation(at(base, number))));
        }
        let next = bed.vmalloc(1);
        assert_eq!(next, page(WINDOW + 4), "behind the guard (S2)");
        bed.space.vfree((), next).expect("a live area");
        remove(bed, base);
    });
}

/// S4, S5, S7: the older rule doubles a power of two; a start inside a page is rounded up; the guard must fit, too.
#[test]
fn windows_and_alignments_are_those_that_were_asked_for() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let below = bed.vmalloc(1);
        let aligned = Request {
            bytes: 2 * PAGE_SIZE,
            window: None,
            alignment: Alignment::IoRemap(IoRemapPolicy::Seed),
        };
        let bare = bed.space.reserve_area(aligned, AreaFlags::IOREMAP, CALLER).expect("addresses");
        assert_eq!(bare.area.pages.first(), WINDOW + 4, "16 KiB for 8");
        let window = |first: u32, end: u32| {
            let window = Window::new(VirtAddr::new(first), VirtAddr::new(end));
            let request = Request { window: Some(window), ..Request::of_bytes(PAGE_SIZE) };
            bed.space.reserve_area(request, NONE, CALLER).map(|bare| bare.area.pages.first())
        };
        let start = page(WINDOW + 40).raw();
        assert_eq!(window(start + 1, start + 3 * PAGE_SIZE), Ok(WINDOW + 41));
        assert!(window(start + PAGE_SIZE, start + 3 * PAGE_SIZE).is_err(), "taken");
        assert!(window(start, start + PAGE_SIZE).is_err(), "no room for the guard");
        for base in [bare.area.pages.start(), page(WINDOW + 41)] {
            remove(bed, base);
        }
        bed.space.vfree((), below).expect("a live area");
    });
}

/// On a machine that forgets nothing: what was unmapped is not reached, what is mapped anew is.
#[test]
fn what_is_unmapped_is_flushed_before_it_is_mapped_again_s21_s55() {
    for behaviour in [Behaviour::Hoarding, Behaviour::Forgetful, Behaviour::Random(5)] {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let (list, frames) = bed.frames(3);
            let base = reserve(bed, 3);
            assert_eq!(map(bed, base, &frames), Ok(3));
            bed.clean();
            let cpu = bed.machine.cpu(1);
            for number in 0..3 {
                assert_eq!(cpu.store(at(base, number), 7 + number), Ok(()));
            }
            let removal = bed.space.unmap_area((), pages(WINDOW + 1, 1)).expect("inside");
            assert_eq!(removal.pages, 1);
            bed.clean();
            assert_eq!(cpu.load(at(base, 1)), Err(Fault::Translation(at(base, 1))));
            assert_eq!(cpu.load(at(base, 2)), Ok(9));
            let again = bed.space.unmap_area((), pages(WINDOW, 4)).expect("its guard counted");
            assert_eq!(again.pages, 2, "what is not mapped stays so (S25)");
            assert_eq!(map(bed, base, &[frames[2], frames[0]]), Ok(2));
            assert_eq!((cpu.load(base), cpu.load(at(base, 1))), (Ok(9), Ok(7)));
            bed.space.vunmap((), base).expect("what its owner mapped goes with it");
            assert_eq!(cpu.load(base), Err(Fault::Translation(base)));
            bed.feed(list);
        });
    }
}

/// S17 to S19, S38: what stops it is named, with how much is mapped, which stays until it is unmapped.
#[test]
fn a_mapping_that_fails_says_how_far_it_came_and_keeps_that() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (list, frames) = bed.frames(3);
        let base = reserve(bed, 3);
        let mut gap = belonging(bed, &frames);
        gap[2] = None;
        let refused = bed.space.map_area(base, gap.into_iter(), DATA);
        let reason = VmapError::MissingFrame { index: 2 };
        assert_eq!(refused, Err(MapAreaError::Map { reason, mapped: 2 }));
        assert_eq!(bed.frame_at(at(base, 1)), frames[1]);
        bed.clean();
        let Err(MapAreaError::Map { reason, mapped: 0 }) = map(bed, base, &frames) else {
            panic!("mapped over what is mapped")
        };
        assert!(matches!(reason, VmapError::Map(MapError::Occupied { .. })), "{reason}");
        bed.space.unmap_area((), pages(WINDOW, 3)).expect("its own");
        let free = belonging(bed, &[Pfn::new(0x6_0400).expect("RAM")]);
        let refused = bed.space.map_area(base, free.into_iter(), DATA);
        assert!(matches!(
            refused,
            Err(MapAreaError::Map { reason: VmapError::NotMemory { .. }, mapped: 0 })
        ));
        let wanted = Attributes::DEVICE;
        let refused = bed.space.map_area(base, belonging(bed, &frames).into_iter(), wanted);
        let reason = VmapError::MemoryType {
            frame: frames[0],
            owner: FrameOwner::Test,
            wanted: MemoryType::Device,
        };
        assert_eq!(refused, Err(MapAreaError::Map { reason, mapped: 0 }));
        let mut many = frames.clone();
        many.push(frames[0]);
        let refused = map(bed, base, &many);
        assert!(matches!(
            refused,
            Err(MapAreaError::Map {
                reason: VmapError::Map(MapError::DoesNotFit { .. }),
                mapped: 0
            })
        ));
        remove(bed, base);
        bed.feed(list);
    });
}

/// S47: with all tables there, guard included, mapping never asks for memory.
#[test]
fn an_area_with_its_tables_is_mapped_without_a_free_frame_s47() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let (list, frames) = bed.frames(2);
        // Its guard is the first page of the third MiB of the window.
        let first = WINDOW + 2 * 256 - 2;
        let window = Window::new(page(first), page(first + 3));
        let request = Request { window: Some(window), ..Request::of_bytes(2 * PAGE_SIZE) };
        let tables = bed.space.table_memory().tables_made();
        let bare = bed.space.reserve_area_with_tables(request, NONE, CALLER).expect("memory");
        assert_eq!(bed.space.table_memory().tables_made(), tables + 2);
        assert_eq!(bed.space.table().translate(page(first)), None);
        let hunger = bed.starve(0);
        assert_eq!(map(bed, bare.area.pages.start(), &frames), Ok(2));
        bed.feed(hunger);
        remove(bed, bare.area.pages.start());
        bed.feed(list);
    });
}

/// S47: without memory for a table nothing is taken but the tables made until then.
#[test]
fn an_area_whose_tables_cannot_be_had_is_not_made_s47() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let request = Request::of_bytes(3 << 20);
        let hunger = bed.starve(0);
        // A frame is cut into four tables; until they are used up nothing more is asked for.
        let mut refused = 0;
        for _ in 0..3 {
            let made = bed.space.reserve_area_with_tables(request, NONE, CALLER);
            match made {
                Ok(bare) => remove(bed, bare.area.pages.start()),
                Err(_) => refused += 1,
            }
            assert_eq!(bed.space.area_counts().areas, 0);
        }
        assert!(refused == 0 || refused == 3, "tables are kept (S24): {refused}");
        bed.feed(hunger);
    });
}

#[test]
fn others_areas_and_addresses_are_left_alone() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (list, frames) = bed.frames(1);
        let (base, other) = (reserve(bed, 2), bed.vmalloc(2));
        let change = |error| Err::<u32, _>(MapAreaError::Change(error));
        let wrong = ChangeError::WrongKind { address: other, found: AreaKind::Vmalloc };
        assert_eq!(map(bed, other, &frames), change(wrong));
        let address = at(base, 1);
        assert_eq!(map(bed, address, &frames), change(ChangeError::Unknown { address }));
        let address = VirtAddr::new(base.raw() + 4);
        assert_eq!(map(bed, address, &frames), change(ChangeError::Misaligned { address }));
        let unmap = |first, count| bed.space.unmap_area((), pages(first, count)).map(drop);
        assert_eq!(unmap(other.page_number(), 1), Err(UnmapAreaError::Change(wrong)));
        for (first, count) in [(WINDOW, 4), (WINDOW + 1, 3), (WINDOW + 2, 1), (WINDOW + 90, 1)] {
            let outside = UnmapAreaError::Outside { pages: pages(first, count) };
            assert_eq!(unmap(first, count), Err(outside));
        }
        let filled = bed.space.fill_area(other, Fill::Zeroed).map(drop);
        assert_eq!(filled, Err(FillAreaError::Change(wrong)));
        let found = AreaKind::Vmalloc;
        let refused = RemoveError::WrongKind { address: other, found };
        assert_eq!(bed.space.remove_area((), other), Err(refused));
        assert_eq!(bed.space.vfree((), base), {
            Err(RemoveError::WrongKind { address: base, found: AreaKind::Bare })
        });
        bed.clean();
        remove(bed, base);
        assert_eq!(bed.space.remove_area((), base), Err(RemoveError::Unknown { address: base }));
        bed.space.vfree((), other).expect("a live area");
        bed.feed(list);
    });
}

/// S85a: from then on vmalloc's; without memory the area is gone and nothing else was taken.
#[test]
fn a_reserved_area_is_filled_or_consumed_s85a() {
    let bed = Bed::warm_on(Behaviour::Hoarding);
    bed.changes_nothing(|bed| {
        let base = reserve(bed, 3);
        let filled = bed.space.fill_area(base, Fill::Zeroed).expect("memory");
        assert_eq!((filled.kind, filled.pages), (AreaKind::Vmalloc, pages(WINDOW, 3)));
        assert!(filled.flags.contains(AreaFlags::ALLOC));
        bed.clean();
        for number in 0..3 {
            assert_eq!(bed.machine.cpu(1).load(at(base, number)), Ok(0));
        }
        let again = bed.space.fill_area(base, Fill::Zeroed).map(drop);
        let found = AreaKind::Vmalloc;
        let change = ChangeError::WrongKind { address: base, found };
        assert_eq!(again, Err(FillAreaError::Change(change)));
        bed.space.vfree((), base).expect("vmalloc's");

        let (list, frames) = bed.frames(1);
        let base = reserve(bed, 3);
        assert_eq!(map(bed, base, &frames), Ok(1));
        let refused = bed.space.fill_area(base, Fill::Uninitialised).map(drop);
        assert_eq!(refused, Err(FillAreaError::Mapped { address: base }));
        remove(bed, base);
        bed.feed(list);

        let base = reserve(bed, 3);
        let hunger = bed.starve(2);
        let refused = bed.space.fill_area(base, Fill::Zeroed).map(drop);
        assert!(matches!(refused, Err(FillAreaError::Consumed(_))), "{refused:?}");
        assert_eq!(bed.space.find(base), None);
        bed.feed(hunger);
    });
}

/// S14, S48: a removed area's descriptor is its owner's until he frees it; one that is freed at once is the area's own.
#[test]
fn a_descriptor_is_its_owners_until_it_is_freed_s14_s48() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (list, frames) = bed.frames(2);
        let request = Request::of_bytes(2 * PAGE_SIZE);
        let reserve = || bed.space.reserve_area(request, NONE, CALLER).expect("addresses");
        let (one, two) = (reserve(), reserve());
        let (first, second) = (one.area.pages.start(), two.area.pages.start());
        assert_eq!(map(bed, first, &frames), Ok(2));
        let swapped = bed.space.free_area((), first, two.descriptor);
        assert_eq!(swapped, Err(RemoveError::Unknown { address: first }));
        let gone = bed.space.remove_area((), first).expect("live");
        assert_eq!(gone, one.descriptor);
        assert_eq!((bed.space.area_counts().records, bed.space.area_counts().removed), (2, 1));
        bed.clean();
        let third = reserve();
        assert_eq!(third.area.pages, one.area.pages, "its addresses are free");
        assert_ne!(third.descriptor, gone, "its place is not");
        assert!(bed.space.free_removed((), gone));
        assert!(!bed.space.free_removed((), gone), "once");
        assert!(!bed.space.free_removed((), two.descriptor), "a live area's");
        let freed = bed.space.free_area((), second, two.descriptor);
        assert_eq!(freed, Ok(()));
        assert_eq!(map(bed, first, &frames), Ok(2));
        bed.space.free_area((), first, third.descriptor).expect("mapped or not");
        bed.feed(list);
    });
}

/// While somebody maps, the area is found, and neither removed nor changed by another.
#[test]
fn nobody_removes_what_is_being_changed() {
    struct Meddling<'b>(&'b Bed, VirtAddr, std::vec::IntoIter<Option<Belonging>>);
    impl Clone for Meddling<'_> {
        fn clone(&self) -> Self {
            Self(self.0, self.1, self.2.clone())
        }
    }
    impl Iterator for Meddling<'_> {
        type Item = Option<Belonging>;
        fn next(&mut self) -> Option<Self::Item> {
            let (bed, address) = (self.0, self.1);
            let busy = RemoveError::Busy { address };
            assert_eq!(bed.space.remove_area((), address), Err(busy));
            assert_eq!(bed.space.vunmap((), address), Err(busy));
            let (frame, change) = (self.2.clone().next()?, ChangeError::Busy { address });
            let other = bed.space.map_area(address, [frame].into_iter(), DATA);
            assert_eq!(other, Err(MapAreaError::Change(change)));
            bed.space.with_area(address, |record| {
                assert!(matches!(record.mapping, Mapping::Away { .. }), "{:?}", record.mapping);
            });
            self.2.next()
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            self.2.size_hint()
        }
    }
    impl ExactSizeIterator for Meddling<'_> {}

    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (list, frames) = bed.frames(2);
        let base = reserve(bed, 2);
        let frames = Meddling(bed, base, belonging(bed, &frames).into_iter());
        assert_eq!(bed.space.map_area(base, frames, DATA), Ok(2));
        assert_eq!(bed.space.windows_shown(), 0);
        remove(bed, base);
        bed.feed(list);
    });
}
