//! Pages that the contiguous region has lent, while a device works on them (S101, S105): they stay where they are.

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use dma::bounce;
use dma::coherent::{AllocateError, allocate};
use dma::device::Device;
use dma::streaming::{Call, MapError, Memory, map, unmap};
use kerncore::addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::contiguous::{ContiguousError, PageUse, Unmovable};
use kerncore::dma_mask::DmaMask;
use kerncore::kernel_space::CoherentError;
use kerncore::layout::linear_address;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use kerncore::user::Protection;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::kernel;
use mm::movable_buffer::MovableBuffer;
use mm::user::AddressSpace;

use super::buffers::{NO_REGION, give_all, take_region};
use super::user::{DATA, at, pages};
use super::witness::{Books, NOBODY, word_at};

static DEVICE: Device = Device::new("a device that works on lent pages");

const fn call(flow: Flow) -> Call<'static> {
    let (device, family) = (&DEVICE, Family::Page);
    Call { name: "a test's mapping", device, flow, caller: NOBODY, family }
}

#[track_caller]
fn lend(memory: Memory, bytes: u32, flow: Flow) -> DmaAddr {
    // SAFETY: nobody but the test knows of the page, and it does not use it meanwhile.
    unsafe { map(call(flow), memory, bytes) }.expect("a page of a program's")
}

#[track_caller]
fn end(dma: DmaAddr, bytes: u32, flow: Flow) {
    // SAFETY: mapped by the test; there is no such device.
    let unmapped = unsafe { unmap(call(flow), dma, bytes) };
    assert_eq!(unmapped, Ok(()));
}

/// The lent pages that are full of marks, in their order.
fn lent_with_marks() -> Vec<Pfn> {
    let Some(region) = kernel().contiguous() else { return Vec::new() };
    let frames = (0..region.pages()).filter_map(|page| region.first().checked_add(page));
    let is_marked = |frame: &Pfn| {
        let lent = region.use_of(*frame) == Some(PageUse::Lent);
        lent && linear_address(frame.base()).is_some_and(|page| word_at(page) == 0x5a5a_5a5a)
    };
    frames.filter(is_marked).collect()
}

fn lent_with_mark() -> Option<Pfn> {
    lent_with_marks().first().copied()
}

/// A program of so many pages, which begin with `marks`.
#[track_caller]
fn full_of(count: u32, marks: &[u8]) -> AddressSpace {
    let space = AddressSpace::new().expect("memory");
    space.map_data(pages(DATA, count), Protection::ReadWrite).expect("memory");
    space.copy_to(at(DATA), marks).expect("mapped");
    space
}

/// A page that the region has lent.
#[track_caller]
fn movable_page() -> MovableBuffer {
    let buffer = MovableBuffer::new(1).expect("memory");
    assert_eq!(buffer.movable(), 1, "this test has no teeth");
    buffer
}

/// Each way of the data, in place or by a copy: the page stays, the refusal names it and says why; afterwards it moves as any other.
#[ktest]
fn a_program_s_page_stays_where_it_is_while_it_is_mapped_for_a_device_s101_s105() -> Completion {
    let Some(region) = kernel().contiguous() else { return NO_REGION };
    let books = Books::now();
    // Two devices may read a page at once; who writes has it alone.
    for (flow, offset, bytes, devices) in [
        (Flow::ToDevice, 0, PAGE_SIZE, 2),
        (Flow::FromDevice, 0, PAGE_SIZE, 1),
        (Flow::Bidirectional, 3, 50, 1),
    ] {
        let mark = vec![0x5a; PAGE_SIZE as usize];
        let space = full_of(2, &mark);
        let frame = lent_with_mark().expect("this test has no teeth");
        let place = PhysAddr::new(frame.base().raw() + offset);
        let memory = Memory::Physical(place);
        let mut mapped: Vec<DmaAddr> = (0..devices).map(|_| lend(memory, bytes, flow)).collect();
        let (buffers, why) = take_region();
        let unmovable =
            ContiguousError::Unmovable { pages: 1, frame, why: Unmovable::Mapped { devices } };
        assert_eq!(why, AllocateError::Remap(CoherentError::Contiguous(unmovable)));
        assert_eq!(lent_with_mark(), Some(frame), "{flow:?}");
        assert_eq!(region.usage().lent, 1, "the page behind it went");
        while let Some(dma) = mapped.pop() {
            let still = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY);
            assert!(still.is_err(), "a mapping is left");
            end(dma, bytes, flow);
        }
        let last = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY).expect("it is movable again");
        assert_eq!(last.dma.raw(), frame.base().raw());
        let mut found = vec![0; mark.len()];
        space.copy_from(&mut found, at(DATA)).expect("mapped");
        assert!(flow == Flow::FromDevice || found == mark, "words were lost on the way");
        give_all(vec![(last, PAGE_SIZE)]);
        give_all(buffers);
        drop(space);
        assert_eq!((region.usage().lent, bounce::usage().taken), (0, 0));
    }
    books.assert_unchanged();
    Ran
}

/// A guard that was dropped too early does no harm: what is mapped is pinned by that. Nor does an owner who goes.
#[ktest]
fn a_movable_page_stays_while_it_is_mapped_whether_its_guard_lives_or_not_s101_s105() -> Completion
{
    let Some(region) = kernel().contiguous() else { return NO_REGION };
    let books = Books::now();
    let buffer = movable_page();
    let is_free = |frame: &Pfn| region.use_of(*frame) == Some(PageUse::Free);
    let mut all = (0..region.pages()).filter_map(|page| region.first().checked_add(page));
    let home = all.find(is_free).map(|free| kernel().zones().table().owner_of(free));
    let (frame, address) = {
        let page = buffer.pin(0).expect("a page");
        #[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
        let address = VirtAddr::new((&raw const *page).addr() as u32);
        (page.frame(), address)
    };
    let dma = lend(Memory::Linear(address), PAGE_SIZE, Flow::FromDevice);
    assert!(bounce::is_forced() || dma.raw() == frame.base().raw());
    let (buffers, why) = take_region();
    let mapped =
        ContiguousError::Unmovable { pages: 1, frame, why: Unmovable::Mapped { devices: 1 } };
    assert_eq!(why, AllocateError::Remap(CoherentError::Contiguous(mapped)));
    drop(buffer);
    let still = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY);
    assert!(still.is_err(), "a device works on {frame}");
    end(dma, PAGE_SIZE, Flow::FromDevice);
    assert_eq!(region.use_of(frame), Some(PageUse::Free));
    let owner = kernel().zones().table().owner_of(frame);
    assert_eq!(Some(owner), home, "it is the region's again");
    let last = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY).expect("nobody has it");
    assert_eq!(last.dma.raw(), frame.base().raw());
    give_all(vec![(last, PAGE_SIZE)]);
    give_all(buffers);
    books.assert_unchanged();
    Ran
}

/// What was not mapped after all moves as any other: nothing of it stays pinned.
#[ktest]
fn a_lent_page_that_could_not_be_mapped_moves_s101_s105() -> Completion {
    let Some(region) = kernel().contiguous() else { return NO_REGION };
    let books = Books::now();
    // It reaches the first frame of RAM, where no copies are.
    let near = Device::new("a device that reaches one frame");
    let least = kernel().zones().table().first().base().raw() + PAGE_SIZE - 1;
    assert_eq!(near.set_mask(DmaMask::new(u64::from(least))), Ok(()));
    let mut buffer = movable_page();
    let frame = {
        let mut page = buffer.pin_mut(0).expect("a page");
        page.fill(0x77);
        let refused = Call { device: &near, ..call(Flow::Bidirectional) };
        // SAFETY: to be refused.
        let refused = unsafe { map(refused, Memory::Physical(page.frame().base()), PAGE_SIZE) };
        assert!(matches!(refused, Err(MapError::Exhausted { .. })), "{refused:?}");
        page.frame()
    };
    let (buffers, why) = take_region();
    assert_eq!((region.usage().lent, region.usage().held), (0, region.pages()), "{why}");
    let moved = buffer.pin(0).expect("a page");
    assert!(moved.frame() != frame && moved.iter().all(|&byte| byte == 0x77));
    drop(moved);
    drop(buffer);
    give_all(buffers);
    books.assert_unchanged();
    Ran
}

/// Whatever the last one wrote there, the next finds zeros, in the region's memory and in what comes when that has none.
#[ktest]
fn a_movable_page_is_zeroed_whoever_had_it_before_s85_s101() -> Completion {
    if kernel().contiguous().is_none() {
        return NO_REGION;
    }
    let books = Books::now();
    let rounds = |is_lent: bool| {
        let mut had = None;
        for _ in 0..2 {
            let mut buffer = MovableBuffer::new(1).expect("memory");
            assert_eq!(buffer.movable() == 1, is_lent);
            let mut page = buffer.pin_mut(0).expect("a page");
            assert!(page.iter().all(|&byte| byte == 0), "what another had written");
            page.fill(0x99);
            let frame = page.frame();
            assert!(had.is_none_or(|had| had == frame), "this test has no teeth");
            had = Some(frame);
        }
    };
    rounds(true);
    let (buffers, _) = take_region();
    rounds(false);
    give_all(buffers);
    books.assert_unchanged();
    Ran
}

/// Where a piece crosses from a page into the next, both stay.
#[ktest]
fn both_pages_that_a_piece_lies_in_stay_where_they_are_s101_s105() -> Completion {
    let Some(region) = kernel().contiguous() else { return NO_REGION };
    let books = Books::now();
    let space = full_of(16, &vec![0x5a; 16 * PAGE_SIZE as usize]);
    let lent = lent_with_marks();
    let Some(both) = lent.windows(2).find(|both| both[0].checked_add(1) == Some(both[1])) else {
        return Skipped("no two of its lent pages are neighbours");
    };
    let place = PhysAddr::new(both[1].base().raw() - 64);
    for flow in Flow::ALL {
        let dma = lend(Memory::Physical(place), 128, flow);
        let (buffers, why) = take_region();
        assert_eq!(region.usage().lent, 2, "{flow}: {why}");
        assert!(both.iter().all(|&frame| region.use_of(frame) == Some(PageUse::Lent)), "{flow}");
        end(dma, 128, flow);
        give_all(buffers);
    }
    drop(space);
    assert_eq!((region.usage().lent, bounce::usage().taken), (0, 0));
    books.assert_unchanged();
    Ran
}
