//! Reading and writing through areas: what is shown of what, and that it stays while it is shown (S14a, S39 to S42).

use super::bed::{Bed, CALLER, WINDOW, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::AreaFlags,
    attributes::Attributes,
    frames::FrameOwner,
    kernel_space::{Access, Fill, Span},
    va_space::Request,
};
use machine::Behaviour;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

const DATA: Attributes = Attributes::KERNEL_DATA;
const TOP: u32 = WINDOW * PAGE_SIZE;

fn at(offset: u32) -> VirtAddr {
    VirtAddr::new(TOP + offset)
}

/// How many bytes were said to be shown, and the spans: offsets of memory from the window's start, lengths of gaps.
fn spans(bed: &Bed, from: VirtAddr, bytes: u32, access: Access) -> (u32, Vec<String>) {
    let mut shown = Vec::new();
    let mut sum = 0;
    let done = bed.space.for_each_span(from, bytes, access, |span| match span {
        Span::Gap { bytes } => {
            sum += bytes;
            shown.push(format!("-{bytes:#x}"));
        }
        Span::Memory { address, bytes } => {
            assert_eq!(address.raw(), from.raw() + sum, "no gap between spans");
            sum += bytes;
            shown.push(format!("{:#x}+{bytes:#x}", address.raw() - TOP));
        }
    });
    assert_eq!(done, sum);
    (done, shown)
}

fn read(bed: &Bed, from: VirtAddr, bytes: u32) -> (u32, Vec<String>) {
    spans(bed, from, bytes, Access::Read)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

/// S40, S41: from below the first area to behind the last; a short count, and nothing beyond it.
#[test]
fn gaps_and_guards_count_and_nothing_behind_the_last_area_does_s40_s41() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        assert_eq!(read(bed, at(0), 5), (0, vec![]), "no area at all");
        let [one, hole, two] = [2, 1, 1].map(|count| bed.vmalloc(count));
        bed.space.vfree((), hole).expect("a live area");
        assert_eq!((one, two), (at(0), at(0x5000)));
        for access in [Access::Read, Access::Write] {
            let all =
                strings(&["-0x10", "0x0+0x1000", "0x1000+0x1000", "-0x3000", "0x5000+0x1000"]);
            let from = VirtAddr::new(TOP - 16);
            assert_eq!(spans(bed, from, u32::MAX >> 1, access), (0x6010, all));
        }
        assert_eq!(read(bed, at(0xfff), 2), (2, strings(&["0xfff+0x1", "0x1000+0x1"])));
        assert_eq!(read(bed, at(0x1ffe), 4), (4, strings(&["0x1ffe+0x2", "-0x2"])));
        assert_eq!(read(bed, at(0x2004), 8), (8, strings(&["-0x8"])), "a guard");
        assert_eq!(read(bed, at(0x5fff), 9), (1, strings(&["0x5fff+0x1"])), "the last byte");
        for beyond in [0x6000, 0x7000, 0x20_0000] {
            assert_eq!(read(bed, at(beyond), 9), (0, vec![]), "{beyond:#x}");
        }
        assert_eq!(read(bed, at(0), 0), (0, vec![]));
        for area in [one, two] {
            bed.space.vfree((), area).expect("a live area");
        }
    });
}

/// S39: what would pass the top of memory is clipped to it; from zero on nothing can.
#[test]
fn a_length_never_passes_the_top_of_memory_s39() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let area = bed.vmalloc(1);
        assert_eq!(read(bed, VirtAddr::new(u32::MAX), 9), (0, vec![]));
        let (done, _) = read(bed, VirtAddr::new(0), u32::MAX);
        assert_eq!(done, TOP + PAGE_SIZE);
        let (done, shown) = read(bed, VirtAddr::new(1), u32::MAX);
        assert_eq!((done, shown.len()), (TOP + PAGE_SIZE - 1, 2));
        bed.space.vfree((), area).expect("a live area");
    });
}

/// S42: nothing that is not mapped, no register, and nothing that may not be written is touched.
#[test]
fn what_is_no_memory_is_neither_read_nor_written_s42() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (list, frames) = bed.frames(2);
        let request = Request::of_bytes(2 * PAGE_SIZE);
        let bare = bed.space.reserve_area(request, AreaFlags::NONE, CALLER).expect("addresses");
        let base = bare.area.pages.start();
        let one = bed.space.zones().table().belonging(frames[0]);
        bed.space.map_area(base, [Some(one)].into_iter(), DATA).expect("mapped");
        let marked = bed.space.reserve_area(Request::of_bytes(1), AreaFlags::IOREMAP, CALLER);
        let marked = marked.expect("addresses").area.pages.start();
        bed.space.map_area(marked, [Some(one)].into_iter(), DATA).expect("mapped");
        let device = PhysAddr::new(0x1001_3000);
        let device = bed.space.ioremap(device, 4, Attributes::DEVICE, CALLER).expect("addresses");
        let constant = Attributes::KERNEL_RODATA;
        let constant = bed.space.vmap(&frames, constant, CALLER).expect("addresses").pages.start();
        let dma = bed.space.coherent_alloc(1, FrameOwner::Dma, CALLER).expect("memory");
        let dma = dma.pages.start();
        let rest = |access| spans(bed, base, u32::MAX >> 1, access);
        let seen = ["0x0+0x1000", "-0x1000", "-0x1000", "-0x1000", "-0x1000", "-0x1000"];
        let mut wanted = seen.to_vec();
        wanted.extend(["-0x1000", "0x7000+0x1000", "0x8000+0x1000", "-0x1000", "0xa000+0x1000"]);
        assert_eq!((device, constant, dma), (at(0x5000), at(0x7000), at(0xa000)));
        assert_eq!(rest(Access::Read), (0xb000, strings(&wanted)));
        let mut wanted = seen.to_vec();
        wanted.extend(["-0x1000", "-0x1000", "-0x1000", "-0x1000", "0xa000+0x1000"]);
        assert_eq!(rest(Access::Write), (0xb000, strings(&wanted)));
        for area in [base, marked, constant] {
            bed.space.vunmap((), area).expect("a live area");
        }
        bed.space.iounmap((), device).expect("a live area");
        bed.space.coherent_free((), dma, 1).expect("a live area");
        bed.feed(list);
    });
}

/// S14a: whoever removes an area that is being read waits; until then it is not found, and all of it is there.
#[test]
fn a_removal_waits_until_its_area_is_read_s14a() {
    let bed = Bed::warm_on(Behaviour::Hoarding);
    bed.changes_nothing(|bed| {
        let base = bed.vmalloc(2);
        let next = bed.vmalloc(1);
        bed.machine.cpu(0).store(VirtAddr::new(base.raw() + PAGE_SIZE), 0xfeed).expect("mapped");
        let (freed, started) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            let mut words = Vec::new();
            let done = bed.space.for_each_span(base, 3 * PAGE_SIZE, Access::Read, |span| {
                let Span::Memory { address, .. } = span else { return };
                if !started.swap(true, SeqCst) {
                    scope.spawn(|| {
                        bed.space.vfree((), base).expect("nobody else frees it");
                        freed.store(true, SeqCst);
                    });
                    while bed.space.find(base).is_some() {
                        thread::yield_now();
                    }
                }
                for _ in 0..1000 {
                    assert!(!freed.load(SeqCst), "freed while it was read");
                    thread::yield_now();
                }
                words.push(bed.machine.cpu(0).load(address).expect("mapped"));
            });
            // The gap behind it counts, because there is an area above.
            assert_eq!((done, words.len(), words[1]), (3 * PAGE_SIZE, 2, 0xfeed));
        });
        assert!(freed.into_inner());
        bed.space.vfree((), next).expect("a live area");
    });
}

/// What is removed at the same time as another area is read does not wait, nor does what is made.
#[test]
fn only_the_area_that_is_read_is_pinned_s14a() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let [one, two] = [1, 1].map(|count| bed.vmalloc(count));
        let mut visits = 0;
        bed.space.for_each_span(one, 1, Access::Write, |_| {
            visits += 1;
            bed.space.vfree((), two).expect("another");
            let made = bed.space.vmalloc(1, Fill::Zeroed, CALLER).expect("memory");
            bed.space.vfree((), made.pages.start()).expect("another");
        });
        assert_eq!(visits, 1);
        bed.space.vfree((), one).expect("read no more");
        assert_eq!(bed.space.find(page(WINDOW)), None);
    });
}
