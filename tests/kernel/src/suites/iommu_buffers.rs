//! Coherent buffers behind an IOMMU that are not of scattered frames: who may free them, and by which address; what else sees them; what
//! the next device finds there (S67, S81, S109).

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use arch::lock::IrqSpinLock;
use dma::attributes;
use dma::bounce;
use dma::coherent::{Buffer, FreeError, free};
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use dma::scatter::ScatterEntry;
use dma::streaming::{self, Call, Memory, UnmapError};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use kerncore::coherent::{Coherency, Sleep};
use kerncore::dma_attributes::DmaAttributes;
use kerncore::frames::FrameOwner;
use kerncore::layout::linear_physical;
use kerncore::lock::Class;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::page::pointer_to;
use linux::streaming_sg::{dma_map_sg, dma_unmap_sg};
use mm::kernel;
use mm::page_alloc::Pages;

use super::interrupts::in_handler;
use super::iommu::{Attached, BASE, Engine};
use super::witness::NOBODY;

static OWNER: Device = Device::new("the owner of a buffer behind an IOMMU");
static SNOOPING: Device = Device::coherent("the snooping owner of a buffer behind an IOMMU");
static OTHER: Device = Device::new("another device behind an IOMMU");
static ON_BUS: Device = Device::new("a device on the bus");
static SNOOPING_ON_BUS: Device = Device::coherent("a snooping device on the bus");

/// Every way to such a buffer, and to one of scattered frames.
const KINDS: [(&Device, Sleep, DmaAttributes); 5] = [
    (&OWNER, Sleep::MayNot, DmaAttributes::NONE),
    (&OWNER, Sleep::May, DmaAttributes::FORCE_CONTIGUOUS),
    (&SNOOPING, Sleep::May, DmaAttributes::FORCE_CONTIGUOUS),
    (&SNOOPING, Sleep::MayNot, DmaAttributes::NONE),
    (&OWNER, Sleep::May, DmaAttributes::NONE),
];

/// The last of them, of a device that snoops.
const SCATTERED: (&Device, Sleep, DmaAttributes) = (&SNOOPING, Sleep::May, DmaAttributes::NONE);

fn take(device: &Device, bytes: u32, (sleep, attributes): (Sleep, DmaAttributes)) -> Buffer {
    attributes::allocate(device, bytes, sleep, attributes, NOBODY).expect("memory")
}

/// Frees it, and says nothing on the console.
fn give(device: &Device, bytes: u32, address: VirtAddr, dma: DmaAddr) -> Result<(), FreeError> {
    // SAFETY: nobody uses it, or the call is refused.
    capture_log(|| unsafe { free(device, bytes, address, dma) }).0
}

fn call(device: &Device) -> Call<'_> {
    let (flow, family) = (Flow::Bidirectional, Family::Single);
    Call { name: "a test", device, flow, caller: NOBODY, family }
}

/// What the device reads there.
fn seen(device: &'static Device, dma: DmaAddr) -> Option<[u8; 4]> {
    let mut bytes = [0; 4];
    Engine(device).read(dma.raw(), &mut bytes).ok().map(|()| bytes)
}

/// S67: a free that does not speak of the device's view changes nothing: by the address on the bus, by another domain's device, by what the
/// same device sees of it for a transfer; and after the device went to the bus, too.
#[ktest]
fn only_who_names_the_own_view_frees_a_buffer_behind_an_iommu_s67() {
    for (device, sleep, marks) in KINDS {
        let at = Attached::new(device, 1 << 20);
        let other = IommuMapping::new(BASE, 1 << 20).expect("memory");
        // SAFETY: it has nothing.
        unsafe { other.attach(&OTHER) }.expect("attached to nothing");
        let bytes = 3 * PAGE_SIZE;
        let buffer = take(device, bytes, (sleep, marks));
        let on_bus = DmaAddr::new(device.physical_address(buffer.dma).raw());
        Engine(device).write(buffer.dma.raw(), &[0x5a; 4]).expect("seen");
        let plain = match device.coherency() {
            Coherency::Coherent => &SNOOPING_ON_BUS,
            Coherency::NonCoherent => &ON_BUS,
        };
        for (wrong, dma) in [(plain, on_bus), (plain, buffer.dma), (&OTHER, buffer.dma)] {
            let refused = give(wrong, bytes, buffer.address, dma);
            assert!(refused.is_err(), "{marks:?} by {}: {refused:?}", wrong.name());
        }
        let behind = DmaAddr::new(buffer.dma.raw() + PAGE_SIZE);
        for (dma, size) in [(on_bus, bytes), (behind, bytes), (buffer.dma, PAGE_SIZE)] {
            assert!(give(device, size, buffer.address, dma).is_err(), "{marks:?} at {dma}");
        }
        // The buffer's frames by another run of the same device.
        let memory = Memory::Physical(device.physical_address(buffer.dma));
        // SAFETY: nobody but the device uses it.
        if let Ok(view) = unsafe { streaming::map(call(device), memory, bytes) } {
            assert!(give(device, bytes, buffer.address, view).is_err(), "{marks:?}: no own view");
            // SAFETY: just mapped.
            let ended = unsafe { streaming::unmap(call(device), view, bytes) };
            assert_eq!(ended, Ok(()), "{marks:?}: a transfer ends by itself");
        }
        // SAFETY: the buffer comes back when it is attached again.
        capture_log(|| unsafe { detach(device) }).0.expect("attached");
        assert!(give(device, bytes, buffer.address, on_bus).is_err(), "{marks:?}: on the bus");
        // SAFETY: it has this buffer alone.
        unsafe { at.1.attach(device) }.expect("on the bus");
        assert_eq!(seen(device, buffer.dma), Some([0x5a; 4]), "{marks:?}: as it was");
        assert_eq!((at.taken(), other.domain().usage().taken), (3, 0));
        assert_eq!(give(device, bytes, buffer.address, buffer.dma), Ok(()));
        assert!(give(device, bytes, buffer.address, buffer.dma).is_err(), "only once");
        assert_eq!((at.taken(), at.1.holders()), (0, 2));
        // SAFETY: it has nothing.
        unsafe { detach(&OTHER) }.expect("attached");
    }
}

/// S108: whose domain ends is seen by nobody, and goes back as any buffer on the bus does.
#[ktest]
fn a_buffer_whose_domain_ended_goes_back_on_the_bus_s108() {
    for (device, sleep, marks) in KINDS
        .into_iter()
        .filter(|&(_, sleep, marks)| sleep == Sleep::MayNot || marks != DmaAttributes::NONE)
    {
        let mapping = IommuMapping::new(BASE, 1 << 20).expect("memory");
        // SAFETY: it has nothing.
        unsafe { mapping.attach(device) }.expect("attached to nothing");
        let buffer = take(device, PAGE_SIZE, (sleep, marks));
        let on_bus = DmaAddr::new(device.physical_address(buffer.dma).raw());
        // SAFETY: the buffer is not used any more.
        capture_log(|| unsafe { detach(device) }).0.expect("attached");
        assert!(give(device, PAGE_SIZE, buffer.address, on_bus).is_err(), "it may come back");
        drop(mapping);
        assert_eq!(give(device, PAGE_SIZE, buffer.address, on_bus), Ok(()), "{marks:?}");
    }
}

/// S71: while such a buffer stands, others of the pool go back as ever.
#[ktest]
fn others_of_the_pool_go_back_beside_a_buffer_that_an_iommu_shows_s67() {
    let at = Attached::new(&OWNER, 1 << 20);
    let before = take(&ON_BUS, PAGE_SIZE, (Sleep::MayNot, DmaAttributes::NONE));
    let buffer = take(&OWNER, PAGE_SIZE, (Sleep::MayNot, DmaAttributes::NONE));
    let behind = take(&ON_BUS, PAGE_SIZE, (Sleep::MayNot, DmaAttributes::NONE));
    for plain in [before, behind] {
        assert!(give(&ON_BUS, 2 * PAGE_SIZE, plain.address, plain.dma).is_err());
        assert_eq!(give(&ON_BUS, PAGE_SIZE, plain.address, plain.dma), Ok(()));
    }
    let on_bus = DmaAddr::new(OWNER.physical_address(buffer.dma).raw());
    assert!(give(&ON_BUS, PAGE_SIZE, buffer.address, on_bus).is_err());
    assert_eq!(give(&OWNER, PAGE_SIZE, buffer.address, buffer.dma), Ok(()));
    assert_eq!(at.taken(), 0);
}

/// S105: who exports a buffer, and who imports it: another device's transfer of the same frames ends by itself, and the buffer's own view is
/// ended by no name of a transfer. Memory at its linear addresses, which has no other view, is mapped; what has another is refused.
#[ktest]
fn a_transfer_of_a_buffer_ends_and_its_own_view_does_not_s105() {
    for (device, sleep, marks) in KINDS.into_iter().chain([SCATTERED]) {
        let is_scattered = sleep == Sleep::May && marks == DmaAttributes::NONE;
        let at = Attached::new(device, 1 << 20);
        let importer = IommuMapping::new(DmaAddr::new(0x3000_0000), 1 << 20).expect("memory");
        // SAFETY: it has nothing.
        unsafe { importer.attach(&OTHER) }.expect("attached to nothing");
        let buffer = take(device, PAGE_SIZE, (sleep, marks));
        let on_bus = device.physical_address(buffer.dma);
        let memory = Memory::Physical(on_bus);
        // SAFETY: nobody but the devices uses it.
        let mapped = unsafe { streaming::map(call(&OTHER), memory, PAGE_SIZE) };
        let is_linear = linear_physical(buffer.address).is_some();
        assert_eq!(
            is_linear,
            device.coherency() == Coherency::Coherent && !is_scattered,
            "{marks:?}"
        );
        match mapped {
            Ok(dma) => {
                assert!(is_linear, "{marks:?}: mapped, and it has a view of its own");
                // SAFETY: just mapped.
                let ended = unsafe { streaming::unmap(call(&OTHER), dma, PAGE_SIZE) };
                assert_eq!(ended, Ok(()), "{marks:?}");
            }
            Err(error) => {
                assert!(!is_linear, "{marks:?}: {error}");
                // By frame and owner.
                let owner = kernel().zones().table().owner_of(on_bus.pfn());
                let words = alloc::format!("{} ({owner})", on_bus.pfn());
                assert!(alloc::format!("{error}").contains(&words), "{marks:?}: {error}");
            }
        }
        assert_eq!(importer.domain().usage().taken, 0, "{marks:?}");
        // SAFETY: refused.
        let refused = unsafe { streaming::unmap(call(device), buffer.dma, PAGE_SIZE) };
        assert!(refused.is_err(), "{marks:?}: {refused:?}");
        assert!(!is_linear || matches!(refused, Err(UnmapError::Coherent { .. })), "{refused:?}");
        assert_eq!(at.taken(), 1, "{marks:?}");
        assert_eq!(give(device, PAGE_SIZE, buffer.address, buffer.dma), Ok(()));
        // SAFETY: it has nothing.
        unsafe { detach(&OTHER) }.expect("attached");
    }
}

/// S109: what one domain's device has left in a buffer, another's does not find there.
#[ktest]
fn nothing_of_one_domain_is_left_for_another_s109() {
    let mappings = [&OWNER, &OTHER].map(|device| {
        let mapping = IommuMapping::new(BASE, 1 << 20).expect("memory");
        // SAFETY: it has nothing.
        unsafe { mapping.attach(device) }.expect("attached to nothing");
        mapping
    });
    for how in [
        (Sleep::May, DmaAttributes::NONE),
        (Sleep::May, DmaAttributes::FORCE_CONTIGUOUS),
        (Sleep::MayNot, DmaAttributes::NONE),
    ] {
        for bytes in [100, PAGE_SIZE, 2 * PAGE_SIZE + 7] {
            let whole = bytes.next_multiple_of(PAGE_SIZE) as usize;
            let buffer = take(&OWNER, bytes, how);
            Engine(&OWNER).write(buffer.dma.raw(), &vec![0xa5; whole]).expect("seen");
            assert_eq!(give(&OWNER, bytes, buffer.address, buffer.dma), Ok(()));
            let buffer = take(&OTHER, bytes, how);
            let mut found = vec![1; whole];
            Engine(&OTHER).read(buffer.dma.raw(), &mut found).expect("seen");
            assert!(found.iter().all(|&byte| byte == 0), "{how:?}, {bytes} bytes");
            assert_eq!(give(&OTHER, bytes, buffer.address, buffer.dma), Ok(()));
        }
    }
    for device in [&OWNER, &OTHER] {
        // SAFETY: it has nothing.
        unsafe { detach(device) }.expect("attached");
    }
    drop(mappings);
}

/// S105: memory that was freed too early: its mapping ends, and says so; the device sees nothing of who has it now. Of a device that snoops: the
/// lines of another stay that device's in the ledger, as they would in a cache, for nobody takes back what is somebody else's.
#[ktest]
fn what_was_freed_too_early_is_seen_no_more_when_its_mapping_ends_s105() -> Completion {
    if bounce::is_forced() {
        return Skipped("a copy has memory of its own");
    }
    let device = &SNOOPING;
    let at = Attached::new(device, 1 << 20);
    for order in [0, 1, 4] {
        let block = kernel().zones().allocate(order, FrameOwner::Pages).expect("memory");
        let (first, bytes) = (block.first().base(), PAGE_SIZE << order);
        // SAFETY: nobody else uses it.
        let mapped = unsafe { streaming::map(call(device), Memory::Physical(first), bytes) };
        let dma = mapped.expect("ordinary memory");
        kernel().zones().free(block).expect("the test's own");
        // SAFETY: the mapping is this test's, and the device does nothing.
        let ended = unsafe { streaming::unmap(call(device), dma, bytes) };
        assert!(matches!(ended, Err(UnmapError::Memory(_))), "{ended:?}");
        assert_eq!((at.taken(), seen(device, dma)), (0, None), "order {order}");
    }
    Ran
}

/// The same of a piece of a list: the others come back.
#[ktest]
fn a_list_ends_though_a_piece_was_freed_too_early_s105() -> Completion {
    if bounce::is_forced() {
        return Skipped("a copy has memory of its own");
    }
    let device = &SNOOPING;
    let at = Attached::new(device, 1 << 20);
    let mut pages: Vec<Option<Pages>> =
        (0..16).map(|_| Some(Pages::new(0).expect("memory"))).collect();
    let mut entries = vec![ScatterEntry::EMPTY; 16];
    ScatterEntry::initialise(&mut entries);
    for (entry, page) in entries.iter_mut().zip(&pages) {
        let page = pointer_to(page.as_ref().expect("there").first()).addr();
        entry.set_page(u32::try_from(page).expect("32 bits"), PAGE_SIZE, 0);
    }
    let (sg, flow) = (entries.as_mut_ptr(), Flow::FromDevice as u32);
    // SAFETY: a device, and a list of as many pages, which nobody uses.
    let segments = unsafe { dma_map_sg(device, sg, 16, flow) };
    assert_eq!((segments, at.taken()), (1, 16));
    let dma = entries[0].dma_address;
    for page in [2, 11] {
        Engine(device).write(dma.raw() + page * PAGE_SIZE, &[0x3c; 4]).expect("seen");
    }
    drop(pages[7].take());
    // SAFETY: just mapped; the device does nothing.
    let ((), log) = capture_log(|| unsafe { dma_unmap_sg(device, sg, 16, flow) });
    assert!(log.text().contains("is not memory in use"), "he is told: {}", log.text());
    assert_eq!((at.taken(), seen(device, dma)), (0, None));
    for page in [2, 11] {
        let page = pages[page].as_ref().expect("there");
        assert_eq!(page[..4], [0x3c; 4], "the others came back");
    }
    Ran
}

/// S75, S77: a handler frees what it has taken, and so does who holds a spin lock, a page as well as more.
#[ktest]
fn who_may_not_sleep_takes_and_frees_buffers_behind_an_iommu_s75_s77_s109() {
    static LOCK: IrqSpinLock<()> = IrqSpinLock::new(Class::OuterTest(0), ());
    fn take_and_give() {
        for device in [&OWNER, &SNOOPING] {
            for pages in [1, 2] {
                let bytes = pages * PAGE_SIZE;
                let buffer = take(device, bytes, (Sleep::MayNot, DmaAttributes::NONE));
                // SAFETY: taken just so, and nobody uses it.
                let freed = unsafe { free(device, bytes, buffer.address, buffer.dma) };
                assert_eq!(freed, Ok(()));
            }
        }
    }
    let attached = [&OWNER, &SNOOPING].map(|device| Attached::new(device, 1 << 20));
    in_handler(take_and_give);
    LOCK.with(|()| take_and_give());
    for at in &attached {
        assert_eq!(at.taken(), 0);
    }
}
