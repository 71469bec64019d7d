//! vmap on the live tables (S17 to S19, S34, S37, S97, S112).

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use arch::exception::{Access, FaultStatus};
use arch::probe;
use kerncore::addr::{PAGE_SIZE, Pfn, VirtAddr};
use kerncore::area::{AreaFlags, AreaKind, AreaSummary};
use kerncore::attributes::{Attributes, MemoryType};
use kerncore::descriptor::l2::SmallPages;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::VmapError;
use kerncore::layout::linear_physical;
use kerncore::page_table::MapError;
use ktest::{assert_err, ktest};
use mm::kernel;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::witness::{
    Books, NOBODY, assert_absent, assert_fenced, assert_leads, assert_walkers_lead, authority,
    byte_at, each_page, linear, lowest_fit, overwrite, plus, word_at,
};

#[track_caller]
fn pages(count: u32) -> Vec<Pages> {
    (0..count).map(|_| Pages::new(0).expect("memory")).collect()
}

fn frames(pages: &[Pages]) -> Vec<Pfn> {
    pages.iter().flat_map(Pages::frames).collect()
}

#[track_caller]
fn map(frames: &[Pfn]) -> AreaSummary {
    kernel().vmap(frames, Attributes::KERNEL_DATA, NOBODY).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn unmap(area: AreaSummary) {
    kernel().vunmap(authority(), area.pages.start()).unwrap_or_else(|error| panic!("{error}"));
}

/// Stores a byte in memory that this test owns and keeps no reference to.
#[track_caller]
fn store(address: VirtAddr, value: u8) {
    // SAFETY: the callers name pages of their own, which nothing borrows meanwhile.
    unsafe { probe::write_u8(address, value) }.unwrap_or_else(|fault| panic!("{fault}"));
}

/// S16, S37: neither sorted nor adjacent, and behind each page exactly the frame that stood at its place in the list.
#[ktest]
fn frames_lie_behind_the_pages_in_the_order_given_s37() {
    let own = pages(9);
    let mut order = frames(&own);
    order.reverse();
    order.swap(2, 7);
    let wanted = lowest_fit(9, 0);
    let area = map(&order);
    assert_eq!(Some(area.pages.start()), wanted);
    assert_eq!((area.kind, area.flags, area.pages.count()), (AreaKind::Vmap, AreaFlags::MAP, 9));
    for (page, &frame) in each_page(area.pages).zip(&order) {
        assert_leads(page, frame.base());
        let entry = kernel().table().translate(page).expect("an entry");
        assert_eq!(entry.attributes(), Ok(Attributes::KERNEL_DATA));
    }
    assert_fenced(area.pages);
    unmap(area);
    each_page(area.pages).for_each(assert_absent);
}

#[ktest]
fn both_views_of_a_page_show_the_same_bytes_at_once() {
    let own = pages(3);
    let order = frames(&own);
    let area = map(&order);
    for (number, (page, &frame)) in (1..).zip(each_page(area.pages).zip(&order)) {
        for offset in [0, 1, 0x7ff, 0xfff] {
            store(plus(page, offset), number);
            assert_eq!(byte_at(plus(linear(frame), offset)), number);
            store(plus(linear(frame), offset), !number);
            assert_eq!(byte_at(plus(page, offset)), !number);
        }
    }
    unmap(area);
}

#[ktest]
fn a_frame_listed_twice_is_one_memory_at_two_pages_s37() {
    let own = pages(2);
    let (a, b) = (own[0].first(), own[1].first());
    let area = map(&[a, b, a, a]);
    let page = |number: u32| plus(area.pages.start(), number * PAGE_SIZE + 5);
    store(page(1), 0x11);
    store(page(0), 0x77);
    assert_eq!([0, 1, 2, 3].map(|number| byte_at(page(number))), [0x77, 0x11, 0x77, 0x77]);
    store(page(3), 0x78);
    assert_eq!([0, 1, 2, 3].map(|number| byte_at(page(number))), [0x78, 0x11, 0x78, 0x78]);
    unmap(area);
}

#[ktest]
fn two_mappings_that_share_frames_end_one_by_one() {
    let own = pages(4);
    let (a, b, c, d) = (own[0].first(), own[1].first(), own[2].first(), own[3].first());
    let (lower, upper) = (map(&[a, b, c]), map(&[c, b, d]));
    assert!(!lower.pages.overlaps(upper.pages));
    let page = |area: AreaSummary, number: u32| plus(area.pages.start(), number * PAGE_SIZE);
    store(page(lower, 2), 0xc1);
    assert_eq!(byte_at(page(upper, 0)), 0xc1);
    unmap(lower);
    store(page(upper, 1), 0xb1);
    assert_eq!(byte_at(linear(b)), 0xb1, "the other mapping still reaches the frame");
    assert_eq!(byte_at(page(upper, 0)), 0xc1);
    each_page(lower.pages).for_each(assert_absent);
    unmap(upper);
}

#[ktest]
fn unmapping_keeps_the_frames_and_what_they_hold_s34() {
    let own = pages(5);
    let order = frames(&own);
    let area = map(&order);
    for (number, page) in (10..).zip(each_page(area.pages)) {
        store(page, number);
    }
    let (free, census) = (kernel().zones().free_pages(), kernel().zones().table().census());
    unmap(area);
    assert_eq!(kernel().zones().free_pages(), free);
    assert_eq!(kernel().zones().table().census(), census);
    for (number, page) in (10..).zip(&own) {
        assert_eq!(page[0], number);
        assert_eq!(kernel().zones().table().owner_of(page.first()), FrameOwner::Pages);
    }
}

#[ktest]
fn an_owned_map_is_one_slice_and_gives_its_pages_back_in_order() {
    let mut own = pages(3);
    own.push(Pages::new(2).expect("memory"));
    own.push(Pages::exactly(3).expect("memory"));
    let order = frames(&own);
    let mut mapped = VmArea::map(own).expect("addresses");
    assert_eq!(mapped.len(), 10 * PAGE_SIZE as usize);
    assert_eq!(mapped.pages().count(), 10);
    for (number, page) in (1..).zip(mapped.chunks_exact_mut(PAGE_SIZE as usize)) {
        page.fill(number);
    }
    let range = mapped.pages();
    let back = mapped.unmap();
    each_page(range).for_each(assert_absent);
    assert_eq!(frames(&back), order);
    let bytes = back.iter().flat_map(|block| block.chunks_exact(PAGE_SIZE as usize));
    for (number, page) in (1..).zip(bytes) {
        assert!(page.iter().all(|&byte| byte == number), "page {number}");
    }
}

#[ktest]
fn a_dropped_map_frees_its_pages_and_an_empty_one_is_refused_s37() {
    let books = Books::now();
    drop(VmArea::map(pages(7)).expect("addresses"));
    books.assert_unchanged();
    let refused = VmArea::map(Vec::new());
    assert!(matches!(refused.map(drop), Err(error) if error.reason == VmapError::NoPages));
    books.assert_unchanged();
}

#[ktest]
fn no_pages_and_more_pages_than_ram_are_refused_s37() {
    let own = pages(1);
    let books = Books::now();
    let refused = kernel().vmap(&[], Attributes::KERNEL_DATA, NOBODY);
    assert_err!(refused, VmapError::NoPages);
    let total = kernel().zones().total();
    let many = vec![own[0].first(); total as usize + 1];
    let refused = kernel().vmap(&many, Attributes::KERNEL_DATA, NOBODY);
    assert_err!(refused, VmapError::MoreThanMemory { wanted, total: had } if (wanted, had) == (many.len(), total));
    books.assert_unchanged();
}

/// The offender stands last, so that whatever is done page by page would have been done for the others.
#[track_caller]
fn refused_because_of(offender: Pfn, attributes: Attributes) -> VmapError {
    refused_because_of_one(|| offender, attributes).1
}

/// The same of an offender that is chosen when nothing more will be allocated.
#[track_caller]
fn refused_because_of_one(
    offender: impl FnOnce() -> Pfn,
    attributes: Attributes,
) -> (Pfn, VmapError) {
    let own = pages(4);
    let mut order = frames(&own);
    order.reserve(1);
    let offender = offender();
    order.push(offender);
    let books = Books::now();
    let refused = kernel().vmap(&order, attributes, NOBODY);
    books.assert_unchanged();
    (offender, refused.expect_err("the mapping was made"))
}

#[ktest]
fn a_free_frame_and_one_that_is_no_ram_are_refused_by_name_s37() {
    let free = || Pages::new(0).expect("memory").first();
    let (frame, refused) = refused_because_of_one(free, Attributes::KERNEL_DATA);
    assert_eq!(refused, VmapError::NotMemory { frame, owner: FrameOwner::Free });
    let table = kernel().zones().table();
    let above = table.first().checked_add(table.len()).expect("below 4 GiB");
    let below = Pfn::new(table.first().number() - 1).expect("a frame");
    let device = board::vexpress_a9::GIC_DISTRIBUTOR.base.pfn();
    for frame in
        [above, below, device, Pfn::new(0).expect("a frame"), Pfn::new(0xf_ffff).expect("a frame")]
    {
        assert_eq!(
            refused_because_of(frame, Attributes::KERNEL_DATA),
            VmapError::NotMemory { frame, owner: FrameOwner::Absent }
        );
    }
}

/// S97: a cacheable view of what is lent uncached, and an uncached view of what the linear map has cacheable.
#[ktest]
fn no_frame_gets_a_view_of_a_second_memory_type_s97() {
    let lent = kernel().coherent_alloc(2 * PAGE_SIZE, FrameOwner::Dma, NOBODY).expect("memory");
    let frame = lent.physical.pfn().checked_add(1).expect("a frame");
    assert_eq!(
        refused_because_of(frame, Attributes::KERNEL_DATA),
        VmapError::MemoryType {
            frame,
            owner: FrameOwner::Dma,
            wanted: MemoryType::NormalWriteBack
        }
    );
    kernel().coherent_free(authority(), lent.pages.start(), lent.pages.bytes()).expect("ours");
    let own = pages(1);
    let frame = own[0].first();
    for attributes in [
        Attributes::DEVICE,
        Attributes::STRONGLY_ORDERED,
        Attributes::WRITE_COMBINE,
        Attributes::WRITE_THROUGH,
    ] {
        let refused = kernel().vmap(&[frame], attributes, NOBODY);
        let wanted = attributes.memory();
        assert_eq!(refused, Err(VmapError::MemoryType { frame, owner: FrameOwner::Pages, wanted }));
    }
}

/// S112: the linear map writes what would be executed here, and executes what would be written.
#[ktest]
fn no_frame_becomes_writable_at_one_address_and_executable_at_another_s112() {
    let own = pages(1);
    let frame = own[0].first();
    let books = Books::now();
    let refused = kernel().vmap(&[frame], Attributes::KERNEL_TEXT, NOBODY);
    assert_err!(refused, VmapError::Protection { frame: named, .. } if named == frame);
    books.assert_unchanged();
    let text = boot::layout::image().start();
    let text = linear_physical(text).expect("text lies in the linear map").pfn();
    let refused = refused_because_of(text, Attributes::KERNEL_DATA);
    assert!(
        matches!(refused, VmapError::Protection { frame, owner: FrameOwner::KernelImage, .. } if frame == text),
        "{refused}"
    );
}

#[ktest]
fn a_read_only_mapping_reads_and_refuses_every_write() {
    let mut own = pages(2);
    for page in &mut own {
        page.fill(0x3c);
    }
    let order = frames(&own);
    let area = kernel().vmap(&order, Attributes::KERNEL_RODATA, NOBODY).expect("addresses");
    for (page, &frame) in each_page(area.pages).zip(&order) {
        assert_eq!(word_at(page), 0x3c3c_3c3c);
        // SAFETY: nothing borrows the page, should the store succeed.
        let stored = unsafe { probe::write_u32(page, 0) };
        let fault = stored.expect_err("a read-only page was written");
        assert!(matches!(fault.status, FaultStatus::Permission(_)), "{fault}");
        assert_eq!((fault.access, fault.address), (Access::Write, Some(page)));
        assert_eq!(word_at(linear(frame)), 0x3c3c_3c3c, "nothing was written");
        store(linear(frame), 0x3d);
        assert_eq!(byte_at(page), 0x3d, "its own address writes it as before");
    }
    unmap(area);
}

#[ktest]
fn the_flags_given_are_the_flags_stored_s37() {
    let own = pages(1);
    for bits in
        [0, AreaFlags::MAP.bits(), AreaFlags::MAP.with(AreaFlags::USERMAP).bits(), 0x8000_0004]
    {
        let flags = AreaFlags::from_bits(bits);
        let frame = kernel().zones().table().belonging(own[0].first());
        let area = kernel()
            .vmap_flags([Some(frame)].into_iter(), Attributes::KERNEL_DATA, flags, NOBODY)
            .expect("addresses");
        assert_eq!(kernel().find(area.pages.start()).map(|area| area.flags), Some(flags));
        assert_eq!(area.kind, AreaKind::Vmap, "whatever the flags say, vmap made it (S34)");
        unmap(area);
    }
}

/// S17, S19: what was mapped before the slot in use was met goes again, the slot itself stays. (Only a kernel gone wrong has
/// such a slot in a free range; so the test writes one.)
#[ktest]
fn an_entry_that_somebody_left_is_refused_by_name_and_left_alone_s17() {
    const PAGES: usize = 600; // in three sections, so that the first is mapped when the last is looked at
    let own = pages(1);
    let order = [own[0].first(); PAGES];
    let area = map(&order);
    unmap(area);
    let address = plus(area.pages.start(), 599 * PAGE_SIZE);
    let descriptor = SmallPages::new(Attributes::KERNEL_RODATA).word(own[0].first());
    let books = Books::now();
    assert_eq!(overwrite(address, descriptor), 0);
    let refused = kernel().vmap(&order, Attributes::KERNEL_DATA, NOBODY);
    assert_err!(
        refused,
        VmapError::Map(MapError::Occupied { address: at, descriptor: found, mapped })
            if (at, found) == (address, descriptor) && mapped > 0
    );
    books.assert_unchanged();
    assert_walkers_lead(address, own[0].physical());
    assert_eq!(overwrite(address, 0), descriptor, "left alone");
    each_page(area.pages).filter(|&page| page != address).for_each(assert_absent);
    let again = map(&order);
    assert_eq!(again.pages, area.pages);
    unmap(again);
}
