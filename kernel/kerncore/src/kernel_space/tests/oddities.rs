//! Removing an area in whose tables somebody else has written (S21, S22, S90): what is odd is heard of, and what is still
//! mapped stays out of use.

use std::sync::OnceLock;

use super::*;
use crate::descriptor::{L2_TABLE_SIZE, SLOT_SIZE, l1, l2};
use crate::page_table::Oddity;

/// Pages of every area here.
const PAGES: u32 = 3;
/// Neither empty nor present.
const LEFTOVER: u32 = 0xdead_0000;

/// Remembers what it hears, and sees to it that it could ask the space anything meanwhile.
#[derive(Default)]
struct Ear {
    space: OnceLock<&'static Space>,
    heard: Mutex<Vec<(PageRange, Removal)>>,
    failed: Mutex<Vec<RemoveError>>,
}

impl Support<'static> for Ear {
    fn chunk(&self, block: FrameBlock, entries: u32) -> AreaChunk<'static> {
        Host.chunk(block, entries)
    }

    fn index_chunk(&self, block: FrameBlock, entries: u32) -> IndexChunk<'static> {
        Host.index_chunk(block, entries)
    }

    fn frame_words<'a>(&self, frame: &'a FrameBlock) -> &'a [AtomicU32] {
        Host.frame_words(frame)
    }

    fn area_words<'a>(&self, area: &'a ArrayArea) -> &'a [AtomicU32] {
        Host.area_words(area)
    }

    fn odd_tables(&self, area: PageRange, removal: Removal) {
        let space = self.space.get().expect("it is heard of after the space is made");
        assert!(space.nearest_area(area.start()).is_ok(), "the lock of areas is held");
        self.heard.lock().expect("no test panics inside").push((area, removal));
    }

    fn deferred_free_failed(&self, error: &RemoveError) {
        self.failed.lock().expect("no test panics inside").push(*error);
    }
}

impl Ear {
    fn heard(&self) -> Vec<(PageRange, Removal)> {
        std::mem::take(&mut self.heard.lock().expect("no test panics inside"))
    }
}

/// A space, and who hears of what is odd in it.
fn space_with_ear() -> (&'static Space, &'static Ear) {
    let ear: &'static Ear = Box::leak(Box::default());
    let space: &'static Space = Box::leak(Box::new(KernelSpace { support: ear, ..space() }));
    assert!(ear.space.set(space).is_ok(), "it is new");
    (space, ear)
}

/// Writes `descriptor` over the slot of `address`.
pub(super) fn overwrite(space: &Space, address: VirtAddr, descriptor: u32) {
    let machine = space.table.machine();
    let above = PhysAddr::new(space.table.root().raw() + l1::index(address) * SLOT_SIZE);
    let table = machine.read_descriptor(above) & !(L2_TABLE_SIZE - 1);
    let slot = PhysAddr::new(table + l2::index(address) * SLOT_SIZE);
    machine.write_descriptors(slot, core::iter::once(descriptor));
}

/// The slot of a page of 64 KiB, which reaches beyond every area here.
fn large() -> u32 {
    let large = l2::Descriptor::LargePage(PhysAddr::new(0x6000_0000), Attributes::KERNEL_DATA);
    large.encode().expect("aligned")
}

/// A kind of area: how one is made, what removes it, and how many frames come back by that.
type Kind = (fn(&Space) -> VirtAddr, fn(&Space, VirtAddr) -> Result<(), RemoveError>, u32);

const KINDS: [Kind; 4] = [
    (an_area, |space, base| space.vfree((), base), PAGES),
    (a_view, |space, base| space.vunmap((), base), 0),
    (registers, |space, base| space.iounmap((), base), 0),
    (a_buffer, |space, base| space.coherent_free((), base, PAGES * PAGE_SIZE).map(drop), PAGES),
];

fn a_view(space: &Space) -> VirtAddr {
    let block = space.zones.allocate_pages(PAGES, FrameOwner::Test).expect("free memory");
    let frames: Vec<Pfn> = (0..PAGES).filter_map(|page| block.first().checked_add(page)).collect();
    block.leak();
    let area = space.vmap(&frames, Attributes::KERNEL_DATA, VirtAddr::new(0)).expect("addresses");
    area.pages.start()
}

fn registers(space: &Space) -> VirtAddr {
    let (physical, bytes) = (PhysAddr::new(0x1000_0000), PAGES * PAGE_SIZE);
    space.ioremap(physical, bytes, Attributes::DEVICE, VirtAddr::new(0)).expect("addresses")
}

fn a_buffer(space: &Space) -> VirtAddr {
    let bytes = PAGES * PAGE_SIZE;
    let area = space.coherent_alloc(bytes, FrameOwner::Dma, VirtAddr::new(0)).expect("memory");
    area.pages.start()
}

#[test]
fn what_an_entry_of_somebody_else_still_maps_stays_out_of_use_s22_s90() {
    for (make, remove, _) in KINDS {
        let (space, ear) = space_with_ear();
        let base = make(space);
        let (census, counts) = (space.zones.census(), space.area_counts());
        let address = VirtAddr::new(base.raw() + PAGE_SIZE);
        overwrite(space, address, large());
        let error = FramesError::StillMapped;
        assert_eq!(remove(space, base), Err(RemoveError::Frames { address: base, error }));
        assert_eq!(space.find(base), None);
        assert_eq!(space.zones.census(), census, "a frame came back that is still mapped");
        let now = space.area_counts();
        assert_eq!(now.pages_taken, counts.pages_taken, "addresses came back that are mapped");
        assert_eq!(now.records, counts.records - 1, "the record is nobody's");
        let oddity = Oddity::ReachesOutside { address, descriptor: large() };
        let removal =
            Removal { pages: PAGES - 1, oddities: 1, left_alone: 1, first_oddity: Some(oddity) };
        assert_eq!(ear.heard(), [(pages(base.page_number(), PAGES), removal)]);
        assert_ne!(make(space), base);
    }
}

#[test]
fn an_odd_entry_that_could_be_cleared_is_heard_of_and_keeps_nothing_back_s21() {
    for (make, remove, own) in KINDS {
        let (space, ear) = space_with_ear();
        let base = make(space);
        remove(space, base).expect("live");
        assert_eq!(ear.heard(), []);
        let counts = space.area_counts();
        let base = make(space);
        let address = VirtAddr::new(base.raw() + 2 * PAGE_SIZE);
        overwrite(space, address, LEFTOVER);
        let free = space.zones.free_pages();
        remove(space, base).expect("nothing is still mapped");
        let oddity = Oddity::Leftover { address, descriptor: LEFTOVER };
        let removal =
            Removal { pages: PAGES - 1, oddities: 1, left_alone: 0, first_oddity: Some(oddity) };
        assert_eq!(ear.heard(), [(pages(base.page_number(), PAGES), removal)]);
        assert_eq!(space.area_counts(), counts);
        assert_eq!(space.zones.free_pages(), free + own);
    }
}

/// S89: one area that cannot be freed is said, and keeps none back that was queued behind it.
#[test]
fn a_deferred_free_that_fails_is_heard_of_and_keeps_no_other_s89() {
    let (space, ear) = space_with_ear();
    let areas = [an_area(space), an_area(space), an_area(space)];
    let free = space.zones.free_pages();
    let address = areas[1];
    overwrite(space, VirtAddr::new(address.raw() + PAGE_SIZE), large());
    for area in areas {
        space.vfree_atomic((), area).expect("live");
    }
    assert_eq!((space.free_deferred(), space.deferred()), (3, 0));
    let error = FramesError::StillMapped;
    let failed = std::mem::take(&mut *ear.failed.lock().expect("no test panics inside"));
    assert_eq!(failed, [RemoveError::Frames { address, error }]);
    assert_eq!(space.zones.free_pages(), free + 2 * PAGES);
}
