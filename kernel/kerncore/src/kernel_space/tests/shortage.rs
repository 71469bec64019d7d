//! Who is short of something and whom that concerns: what lingers is freed first, and the books take what there is.

use core::sync::atomic::Ordering::Release;

use super::*;
use crate::kernel_space::{Access, BareError, Fill, Span};
use crate::va_space::{Request, Window};

fn who() -> VirtAddr {
    VirtAddr::new(0x8001_0000)
}

/// Takes all memory, in areas of at most `most` pages.
fn take_all(space: &Space, most: u32) -> Vec<VirtAddr> {
    let mut held = vec![];
    for pages in [most, 1] {
        while let Ok(area) = space.vmalloc(pages * PAGE_SIZE, Fill::Uninitialised, who()) {
            held.push(area.pages.start());
        }
    }
    held
}

/// S14a, S92: each way to make an area, when all memory is taken and some of it only waits to be freed.
#[test]
fn whoever_is_short_of_frames_gets_those_that_wait_to_be_freed_s14a_s92() {
    type Try = fn(&Space) -> Result<VirtAddr, String>;
    let tries: [(&str, Try); 5] = [
        ("vmalloc", |space| {
            let made = space.vmalloc(PAGE_SIZE, Fill::Uninitialised, who());
            made.map(|area| area.pages.start()).map_err(|error| error.to_string())
        }),
        ("vmalloc of more than a frame of page pointers", |space| {
            let made = space.vmalloc(33 * PAGE_SIZE, Fill::Uninitialised, who());
            made.map(|area| area.pages.start()).map_err(|error| error.to_string())
        }),
        ("vmalloc_huge", |space| {
            let made = space.vmalloc_huge(17 * PAGE_SIZE, Fill::Uninitialised, who());
            made.map(|area| area.pages.start()).map_err(|error| error.to_string())
        }),
        ("vmalloc_exec", |space| {
            let made = space.vmalloc_exec(PAGE_SIZE, who());
            made.map(|area| area.pages.start()).map_err(|error| error.to_string())
        }),
        ("a coherent buffer", |space| {
            let made = space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, who());
            made.map(|area| area.pages.start()).map_err(|error| error.to_string())
        }),
    ];
    for (name, one) in tries {
        let space = space_of(1024, 4096);
        for &base in take_all(&space, 8).iter().take(20) {
            space.vfree_atomic((), base).expect("live");
        }
        assert!(one(&space).is_ok(), "{name}: {:?}", one(&space));
        assert_eq!(space.deferred(), 0, "{name}");
    }
}

/// S14a, S92: a second-level table is memory as well.
#[test]
fn whoever_lacks_a_table_gets_one_of_memory_that_waits_to_be_freed_s14a_s92() {
    type Try = fn(&Space, &[Pfn]) -> Result<(), String>;
    let tries: [(&str, Try); 4] = [
        ("vmap", |space, frames| {
            let made = space.vmap(frames, Attributes::KERNEL_DATA, who());
            made.map(drop).map_err(|error| error.to_string())
        }),
        ("vmap of page pointers", |space, frames| {
            let records: Vec<*const Frame> = frames
                .iter()
                .map(|&frame| core::ptr::from_ref(space.zones.table().frame(frame).expect("RAM")))
                .collect();
            let made = space.vmap_pages(&records, AreaFlags::NONE, who());
            made.map(drop).map_err(|error| error.to_string())
        }),
        ("alloc_vm_area", |space, frames| {
            let bytes = u32::try_from(frames.len()).expect("few") * PAGE_SIZE;
            let request = Request::of_bytes(bytes);
            let made = space.reserve_area_with_tables(request, AreaFlags::NONE, who());
            made.map(drop).map_err(|error| error.to_string())
        }),
        ("ioremap", |space, frames| {
            let bytes = u32::try_from(frames.len()).expect("few") * PAGE_SIZE;
            let made = space.ioremap(PhysAddr::new(0x1000_1000), bytes, Attributes::DEVICE, who());
            made.map(drop).map_err(|error| error.to_string())
        }),
    ];
    for (name, one) in tries {
        let space = space_of(1024, 4096);
        let list = space.zones.allocate_list(1, FrameOwner::Pages).expect("frames");
        let frame = list.frames(space.zones.table()).next().expect("one");
        for &base in take_all(&space, 4).iter().take(20) {
            space.vfree_atomic((), base).expect("live");
        }
        let made = one(&space, &vec![frame; 1000]);
        assert_eq!((made, space.deferred()), (Ok(()), 0), "{name}");
        list.leak();
    }
}

/// Single frames that somebody has.
fn hold(space: &Space, frames: u32) -> Vec<FrameBlock> {
    let one = || space.zones.allocate(0, FrameOwner::Pages).expect("a frame");
    (0..frames).map(|_| one()).collect()
}

/// S14a, S92: what is mapped into an area that somebody reserved before, where no table is yet. What was mapped when one was found
/// lacking is mapped anew.
#[test]
fn whoever_fills_an_area_gets_a_table_of_memory_that_waits_s14a_s92() {
    // Four tables: one more than may be left of the frame that was last cut.
    const PAGES: u32 = 1000;
    type Try = fn(&Space, VirtAddr, Pfn) -> Result<u32, String>;
    let tries: [(&str, u32, Try); 2] = [
        ("map_vm_area", 0, |space, base, frame| {
            let one = Some(space.zones.table().belonging(frame));
            let frames = vec![one; PAGES as usize].into_iter();
            let mapped = space.map_area(base, frames, Attributes::KERNEL_DATA);
            mapped.map_err(|error| error.to_string())
        }),
        ("__vmalloc_area", PAGES + 1, |space, base, _| {
            let filled = space.fill_area(base, Fill::Uninitialised);
            filled.map(|area| area.pages.count()).map_err(|error| error.to_string())
        }),
    ];
    for (name, needs, fill) in tries {
        let space = space_of(3072, 8192);
        let (page, held) = (hold(&space, 1).remove(0), hold(&space, needs));
        let waiting = take_all(&space, 8);
        let start = VirtAddr::new((WINDOW + (20 << 8)) * PAGE_SIZE);
        let window = Some(Window::to_top(start));
        let request = Request { window, ..Request::of_bytes(PAGES * PAGE_SIZE) };
        let bare = space.reserve_area(request, AreaFlags::NONE, who()).expect("addresses");
        for base in waiting.into_iter().take(20) {
            space.vfree_atomic((), base).expect("live");
        }
        for block in held {
            space.zones.free(block).expect("ours");
        }
        assert_eq!((space.zones.free_pages(), space.deferred()), (needs, 20), "{name}");
        assert_eq!(fill(&space, bare.area.pages.start(), page.first()), Ok(PAGES), "{name}");
        assert_eq!(space.deferred(), 0, "{name}");
        finds(&space, &[]);
        page.leak();
    }
}

/// S14a, S27, S92: an area of its own for more than a frame of pointers needs a record and a table, as any area does.
#[test]
fn a_page_array_gets_a_table_of_memory_that_waits_s14a_s27_s92() {
    let space = space_of(2048 + 512, 4096);
    let (array, pages) = (hold(&space, 2), 1025 + 255);
    let (waiting, mut kept) = (take_all(&space, 64), 0);
    // What is left of the frame that was last cut into tables goes to addresses below the array's.
    let request = Request::of_bytes(1024 * PAGE_SIZE);
    let refused = space.reserve_area_with_tables(request, AreaFlags::NONE, who());
    assert!(matches!(refused, Err(BareError::Table(_))), "{refused:?}");
    for base in waiting {
        match space.find(base) {
            Some(area) if area.pages.count() > 1 => space.vfree_atomic((), base).expect("live"),
            _ => kept += 1,
        }
    }
    assert!(kept < 100, "{kept} areas of a page");
    for block in array {
        space.zones.free(block).expect("ours");
    }
    assert_eq!(space.zones.free_pages(), 2);
    let made = space.vmalloc(pages * PAGE_SIZE, Fill::Uninitialised, who());
    assert!(made.is_ok(), "{made:?}");
    assert_eq!(space.deferred(), 0);
    finds(&space, &[]);
}

/// S14a: another CPU has the areas in hand that only wait to be freed, and will have freed them in a moment.
#[test]
fn what_another_cpu_frees_just_now_is_waited_for_s14a_s92() {
    let space = space();
    assert!(!space.free_lingering(), "nothing lingers");
    space.waiting.store(2, Release);
    std::thread::scope(|scope| {
        // It has seen them, though it may come here only when they are gone.
        let other = scope.spawn(|| space.free_lingering_of(2));
        for _ in 0..1000 {
            std::thread::yield_now();
        }
        assert!(!other.is_finished(), "refused while two areas are being freed");
        space.waiting.store(0, Release);
        assert!(other.join().expect("no panic"), "they are free now");
    });
}

/// S9: half of memory is free, and no two frames of it are adjacent.
#[test]
fn records_are_made_of_single_frames_where_there_are_no_others_s9() {
    let space = space_of(2048, 4096);
    space.vmalloc(PAGE_SIZE, Fill::Uninitialised, who()).expect("memory");
    let mut taken: Vec<_> =
        core::iter::from_fn(|| space.zones.allocate(0, FrameOwner::Pages).ok()).collect();
    taken.sort_by_key(|block| block.first().number());
    for (index, block) in taken.into_iter().enumerate() {
        match index % 2 {
            0 => space.zones.free(block).expect("ours"),
            _ => _ = block.leak(),
        }
    }
    let made = take_all(&space, 1).len();
    assert_eq!(space.zones.free_pages(), 0, "after {made} areas");
}

/// S3, S51: a size that no memory would help takes none, not even for a record.
#[test]
fn a_size_that_cannot_be_takes_no_record_s3_s51() {
    let space = space();
    for bytes in [0, 0xffff_f000, u32::MAX] {
        let refused = space.reserve_area(Request::of_bytes(bytes), AreaFlags::NONE, who());
        assert!(refused.is_err(), "{bytes:#x}");
        let refused =
            space.reserve_area_with_tables(Request::of_bytes(bytes), AreaFlags::NONE, who());
        assert!(refused.is_err(), "{bytes:#x}");
    }
    assert_eq!(space.area_counts().record_capacity, 0);
}

/// S14a, S42: what is read of an area without memory may be another's when its addresses are taken again.
#[test]
fn a_reserved_area_is_not_freed_under_its_reader_s14a_s42() {
    let space = space();
    let request = Request::of_bytes(8 * PAGE_SIZE);
    let bare = space.reserve_area(request, AreaFlags::NONE, who()).expect("addresses");
    let base = bare.area.pages.start();
    // A pointer that another thread may have: it is compared, and not followed.
    let descriptor = bare.descriptor.addr();
    std::thread::scope(|scope| {
        let mut freeing = None;
        space.for_each_span(base, 8 * PAGE_SIZE, Access::Read, |span| {
            assert!(matches!(span, Span::Gap { .. }), "{span:?}");
            let freeing = freeing.get_or_insert_with(|| {
                scope.spawn(|| space.free_area((), base, core::ptr::without_provenance(descriptor)))
            });
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            assert!(!freeing.is_finished(), "freed while it is read");
        });
        let freeing = freeing.expect("there is a gap");
        assert_eq!(freeing.join().expect("no panic"), Ok(()));
    });
    assert!(space.find(base).is_none());
}
