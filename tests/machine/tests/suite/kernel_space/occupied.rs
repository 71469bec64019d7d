//! Somebody left an entry where each operation is about to map: it is refused by name, the entry stays, and nothing that the
//! operation took or wrote before it is lost (S17, S19, S28, S29, S37, S66).

use super::bed::{Bed, CALLER, RAM, WINDOW, frame, page};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr},
    area::{AreaFlags, AreaSummary},
    attributes::Attributes,
    frames::{FrameList, FrameOwner, FrameRequest},
    kernel_space::{
        CoherentError, ExecError, Fill, FillAreaError, IoRemapError, ReallocError, Rights,
        VmallocError, VmallocRequest, VmapError,
    },
    page_table::MapError,
    va_space::Request,
};
use machine::Fault;

const DEVICE: PhysAddr = PhysAddr::new(0x1001_3000);
/// Pages that are mapped, seven of which lie below the border between the window's first two second-level tables.
const PAGES: u32 = 12;
const BYTES: u32 = PAGES * PAGE_SIZE;

/// What an operation that ended for another reason says.
fn other<E: std::fmt::Debug>(error: E) -> MapError {
    panic!("not by the mapping: {error:?}")
}

fn of_vmalloc(error: VmallocError) -> MapError {
    if let VmallocError::Map(error) = error { error } else { other(error) }
}

fn of_vmap(error: VmapError) -> MapError {
    if let VmapError::Map(error) = error { error } else { other(error) }
}

fn of_coherent(error: CoherentError) -> MapError {
    if let CoherentError::Map(error) = error { error } else { other(error) }
}

fn start(area: AreaSummary) -> VirtAddr {
    area.pages.start()
}

/// Finds out where `run` maps, and lets somebody be in the way at some page of that, the first of `offsets` first. Below that
/// one nothing is looked at.
#[track_caller]
fn refuses(
    bed: &Bed,
    offsets: &[u32],
    run: impl Fn() -> Result<VirtAddr, MapError>,
    undo: impl Fn(VirtAddr),
) {
    let settle = || {
        bed.space.free_deferred();
        bed.space.close_idle_blocks();
    };
    let base = run().unwrap_or_else(|error| panic!("{error}"));
    undo(base);
    settle();
    for &offset in offsets {
        let address = page(base.page_number() + offset);
        bed.changes_nothing(|bed| {
            let foreign = frame(RAM + 3);
            let before = bed.poke_page(address, foreign, Attributes::KERNEL_RODATA);
            assert_eq!(before, 0, "{address} was in use");
            let slot = bed.l2_slot(address);
            match run() {
                Err(MapError::Occupied { address: named, mapped, .. }) => {
                    assert_eq!(named, address);
                    assert!(mapped <= offset, "{mapped} pages before page {offset}");
                }
                other => panic!("page {offset}: {other:?}"),
            }
            for number in (offsets[0]..offset).step_by(2) {
                let gone = page(base.page_number() + number);
                for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                    assert_eq!(cpu.load(gone), Err(Fault::Translation(gone)), "{cpu:?}");
                }
            }
            assert_eq!(bed.frame_at(address), foreign, "the entry stays");
            bed.poke(slot, 0);
            settle();
            // Whoever looked there meanwhile knows it no more.
            bed.space.table().raw_machine(()).ends_page(address);
        });
    }
    undo(run().expect("nobody is in the way any more"));
    settle();
}

/// The end of a page that was mapped behind the kernel's back.
trait EndsPage {
    fn ends_page(&self, address: VirtAddr);
}

impl<M: kerncore::machine::Machine> EndsPage for M {
    fn ends_page(&self, address: VirtAddr) {
        let page = super::bed::pages(address.page_number(), 1);
        self.invalidate_tlb(page);
        self.barrier();
    }
}

const OFFSETS: [u32; 4] = [0, 6, 7, 11];
/// The first page that is not taken.
const FIRST: u32 = WINDOW + 249;

/// The window up to seven pages below the border is taken.
fn bed() -> Bed {
    let bed = Bed::warm();
    let request = Request::of_bytes((FIRST - WINDOW - 1) * PAGE_SIZE);
    let taken = bed.space.reserve_area(request, AreaFlags::NONE, CALLER).expect("addresses");
    assert_eq!(taken.area.pages.start(), page(WINDOW));
    let area = bed.vmalloc(PAGES);
    assert_eq!(area, page(FIRST));
    bed.space.vfree((), area).expect("a live area");
    bed
}

fn with_frames(bed: &Bed, count: u32, test: impl FnOnce(&[Pfn])) {
    let (list, frames): (FrameList, Vec<Pfn>) = bed.frames(count);
    test(&frames);
    bed.feed(list);
}

#[test]
fn vmalloc_of_every_sort_s17_s28_s29() {
    let bed = bed();
    let free = |base| assert_eq!(bed.space.vfree((), base), Ok(()));
    let plain = || bed.space.vmalloc(BYTES, Fill::Zeroed, CALLER);
    refuses(&bed, &OFFSETS, || plain().map(start).map_err(of_vmalloc), free);
    let user = || bed.space.vmalloc_user(BYTES, CALLER);
    refuses(&bed, &OFFSETS, || user().map(start).map_err(of_vmalloc), free);
    let request = VmallocRequest::new(BYTES, Fill::Uninitialised, CALLER);
    let request = VmallocRequest { rights: Rights::ReadOnly, memory: FrameRequest::LOW, ..request };
    let read_only = || bed.space.vmalloc_with(request);
    refuses(&bed, &OFFSETS, || read_only().map(start).map_err(of_vmalloc), free);
}

#[test]
fn memory_at_reserved_addresses_which_are_consumed_s17_s85a() {
    let bed = bed();
    let fill = || {
        let area = bed.space.reserve_area(Request::of_bytes(BYTES), AreaFlags::NONE, CALLER);
        let base = area.expect("addresses").area.pages.start();
        bed.space.fill_area(base, Fill::Zeroed).map(start).map_err(|error| match error {
            FillAreaError::Consumed(error) => of_vmalloc(error),
            error => other(error),
        })
    };
    refuses(&bed, &OFFSETS, fill, |base| assert_eq!(bed.space.vfree((), base), Ok(())));
}

#[test]
fn vmap_of_memory_and_of_devices_s17_s37() {
    let bed = bed();
    let unmap = |base| assert_eq!(bed.space.vunmap((), base), Ok(()));
    with_frames(&bed, PAGES, |frames| {
        let map = || bed.space.vmap(frames, Attributes::KERNEL_DATA, CALLER);
        refuses(&bed, &OFFSETS, || map().map(start).map_err(of_vmap), unmap);
        let records = bed.records(frames);
        let map = || bed.space.vmap_pages(&records, AreaFlags::NONE, CALLER).map_err(of_vmap);
        refuses(&bed, &OFFSETS, map, unmap);
    });
    let devices = || (0..PAGES).map(|number| frame(0x1_0013 + number));
    let frames: Vec<Pfn> = devices().collect();
    let map = || bed.space.vmap_devices(frames.iter().copied(), Attributes::DEVICE, CALLER);
    refuses(&bed, &OFFSETS, || map().map(start).map_err(of_vmap), unmap);
}

#[test]
fn short_lived_mappings_in_blocks_and_beyond_s17_s87() {
    let bed = bed();
    with_frames(&bed, 80, |frames| {
        for (count, offsets) in [(16, [0, 15]), (80, [0, 79])] {
            let records = bed.records(&frames[..count as usize]);
            let map = || bed.space.map_ram(&records, CALLER).map_err(of_vmap);
            let unmap = |base| assert_eq!(bed.space.unmap_ram((), base, count), Ok(()));
            refuses(&bed, &offsets, map, unmap);
        }
    });
}

#[test]
fn registers_s17_s94() {
    let bed = bed();
    let map = || {
        let mapped = bed.space.ioremap(DEVICE, BYTES, Attributes::DEVICE, CALLER);
        mapped.map_err(|error| match error {
            IoRemapError::Map(error) => error,
            error => other(error),
        })
    };
    refuses(&bed, &OFFSETS, map, |base| assert_eq!(bed.space.iounmap((), base), Ok(())));
}

/// The frames go back to the linear map, too.
#[test]
fn coherent_memory_and_memory_for_code_s17_s66_s97() {
    let bed = bed();
    let make = || bed.space.coherent_alloc(BYTES, FrameOwner::Dma, CALLER);
    let free = |base| assert_eq!(bed.space.coherent_free((), base, BYTES).map(drop), Ok(()));
    refuses(&bed, &OFFSETS, || make().map(start).map_err(of_coherent), free);
    let make = || {
        bed.space.vmalloc_exec(BYTES, CALLER).map(start).map_err(|error| match error {
            ExecError::Map(error) => error,
            error => other(error),
        })
    };
    refuses(&bed, &OFFSETS, make, |base| assert_eq!(bed.space.vfree((), base), Ok(())));
}

/// Whether it grows where it is or moves, it stays what it was.
#[test]
fn memory_that_grows_s17_s86() {
    let grow = |bed: &Bed, base| {
        let grown = bed.space.vrealloc((), base, BYTES, Fill::Zeroed, FrameRequest::ANY, CALLER);
        grown.map_err(|error| {
            assert_eq!(bed.space.find(base).map(|area| area.pages.count()), Some(3), "as it was");
            match error {
                ReallocError::Grow(error) => of_vmalloc(error),
                error @ ReallocError::Change(_) => other(error),
            }
        })
    };
    // In place, behind its three pages.
    let bed = bed();
    let base = bed.vmalloc(3);
    let kept = bed.frame_at(base);
    let shrink = |base| {
        let size = 3 * PAGE_SIZE;
        let shrunk = bed.space.vrealloc((), base, size, Fill::Zeroed, FrameRequest::ANY, CALLER);
        assert_eq!(shrunk.map(start), Ok(base));
    };
    let base_of_growth = || grow(&bed, base).map(start);
    refuses(&bed, &[3, 6, 7, 11], base_of_growth, shrink);
    assert_eq!(bed.frame_at(base), kept);
    assert_eq!(bed.space.vfree((), base), Ok(()));

    // To another place: somebody has the pages behind.
    let bed = self::bed();
    let (base, behind) = (bed.vmalloc(3), bed.vmalloc(1));
    assert_eq!((base, behind), (page(FIRST), page(FIRST + 4)));
    let kept = bed.frame_at(base);
    let elsewhere = page(FIRST + 6);
    for offset in [0, 1, 3, 11] {
        let address = page(elsewhere.page_number() + offset);
        bed.changes_nothing(|bed| {
            bed.poke_page(address, frame(RAM + 3), Attributes::KERNEL_RODATA);
            let refused = grow(bed, base);
            assert!(
                matches!(refused, Err(MapError::Occupied { address: named, .. }) if named == address),
                "page {offset}: {refused:?}"
            );
            assert_eq!((bed.frame_at(base), bed.frame_at(address)), (kept, frame(RAM + 3)));
            bed.poke(bed.l2_slot(address), 0);
        });
    }
    assert_eq!(grow(&bed, base).map(start), Ok(elsewhere));
    assert_eq!(bed.frame_at(elsewhere), kept);
    assert_eq!(bed.space.vfree((), elsewhere), Ok(()));
    assert_eq!(bed.space.vfree((), behind), Ok(()));
}
