//! What the kernel's safety hangs on no device is given for a transfer, on the bus or behind an IOMMU; what drivers keep their buffers in
//! it is (S105, S106, S112).

use core::cell::UnsafeCell;

use boot::layout::{Use, parts};
use dma::bounce::usage;
use dma::device::Device;
use dma::streaming::{self, Call, MapError, Memory};
use kerncore::addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use kerncore::frames::FrameOwner;
use kerncore::kmap::KmapError;
use kerncore::layout::{linear_address, linear_physical};
use kerncore::streaming::Flow;
use ktest::Completion::{self, Ran, Skipped};
use ktest::{assert_err, ktest};
use mm::kernel;
use mm::page_alloc::Pages;

use super::iommu::{Attached, BYTES};
use super::played_device::call;
use super::witness::{Books, byte_at, plus};

static ON_BUS: Device = Device::new("a device that asks for the kernel's own");
static BEHIND: Device = Device::coherent("a device behind an IOMMU that asks for the kernel's own");

const FLOWS: [Flow; 3] = [Flow::ToDevice, Flow::FromDevice, Flow::Bidirectional];

fn map(call: Call<'_>, memory: Memory, bytes: u32) -> Result<DmaAddr, MapError> {
    // SAFETY: refused, or the test's own; there is no device.
    unsafe { streaming::map(call, memory, bytes) }
}

/// Asks for `bytes` at `first` in each way.
#[track_caller]
fn assert_refused(first: PhysAddr, bytes: u32, wanted: KmapError) {
    for device in [&ON_BUS, &BEHIND] {
        assert_refused_by(device, first, bytes, wanted);
    }
}

/// For one device.
#[track_caller]
pub(super) fn assert_refused_by(device: &Device, first: PhysAddr, bytes: u32, wanted: KmapError) {
    for flow in FLOWS {
        let mapped = map(call(device, flow), Memory::Physical(first), bytes);
        assert_eq!(mapped, Err(MapError::Memory(wanted)), "{}: {flow:?}", device.name());
    }
}

fn frame_of(address: VirtAddr) -> Pfn {
    linear_physical(address).expect("linear").pfn()
}

fn last_of(pages: kerncore::addr::PageRange) -> VirtAddr {
    plus(pages.start(), pages.bytes() - PAGE_SIZE)
}

#[ktest]
fn no_device_has_the_kernel_s_text_constants_tables_or_books_s105_s112() {
    let books = Books::now();
    let attached = Attached::new(&BEHIND, BYTES);
    let owner = FrameOwner::KernelImage;
    for part in parts() {
        if !matches!(part.usage, Use::Text | Use::ReadOnly | Use::Tables) {
            continue;
        }
        for address in [part.pages.start(), last_of(part.pages)] {
            let frame = frame_of(address);
            // Tables that RAM did not need are others' by now.
            if kernel().zones().table().owner_of(frame) == owner {
                let refused = KmapError::KernelsOwn { frame, owner };
                for (offset, bytes) in [(0, PAGE_SIZE), (64, 64), (PAGE_SIZE - 1, 1)] {
                    let first = frame.base().checked_add(offset).expect("RAM");
                    assert_refused(first, bytes, refused);
                }
            }
        }
    }
    for owner in
        [FrameOwner::FrameTable, FrameOwner::PageTable, FrameOwner::Slab, FrameOwner::VaStorage]
    {
        let table = kernel().zones().table();
        let mut frames = core::iter::successors(Some(table.first()), |frame| frame.checked_add(1));
        let found = frames.by_ref().take(1 << 18).find(|&frame| table.owner_of(frame) == owner);
        if let Some(frame) = found {
            assert_refused(frame.base(), 64, KmapError::KernelsOwn { frame, owner });
        } else {
            assert_eq!(owner, FrameOwner::Slab, "no teeth");
        }
    }
    drop(attached);
    books.assert_unchanged();
}

/// The last frame of the constants, with the first of the data.
#[ktest]
fn a_buffer_that_begins_in_constants_and_ends_in_data_is_refused_s112() {
    let rodata = parts().into_iter().find(|part| part.usage == Use::ReadOnly).expect("constants");
    let address = last_of(rodata.pages);
    let (frame, owner) = (frame_of(address), FrameOwner::KernelImage);
    let attached = Attached::new(&BEHIND, BYTES);
    assert_refused(frame.base(), 2 * PAGE_SIZE, KmapError::KernelsOwn { frame, owner });
    assert_eq!(attached.taken(), 0);
}

/// S105, S106: a constant can be sent, as a copy, and is no buffer for what comes.
#[ktest]
fn a_constant_is_sent_as_a_copy_s105_s106() -> Completion {
    #[repr(align(64))]
    struct Constant([u8; 128]);
    static CONSTANT: Constant = Constant(*b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    if usage().slots == usage().taken {
        return Skipped("no bounce buffers in this boot");
    }
    let address = VirtAddr::new(u32::try_from(CONSTANT.0.as_ptr().addr()).expect("32 bits"));
    let owner = FrameOwner::KernelImage;
    let refused = MapError::Memory(KmapError::KernelsOwn { frame: frame_of(address), owner });
    let _attached = Attached::new(&BEHIND, BYTES);
    for device in [&ON_BUS, &BEHIND] {
        for memory in [Memory::Anywhere(address), Memory::Linear(address)] {
            let dma = map(call(device, Flow::ToDevice), memory, 128).expect("a copy");
            assert_ne!(usage().taken, 0, "a copy");
            let copy = device.physical_address(dma);
            let first = linear_address(copy).expect("low memory");
            assert!((0..128).all(|at| byte_at(plus(first, at)) == CONSTANT.0[at as usize]));
            // SAFETY: mapped above; there is no device.
            let ended = unsafe { streaming::unmap(call(device, Flow::ToDevice), dma, 128) };
            assert_eq!((ended, usage().taken), (Ok(()), 0));
            for flow in [Flow::FromDevice, Flow::Bidirectional] {
                assert_eq!(map(call(device, flow), memory, 128), Err(refused));
            }
        }
    }
    Ran
}

#[repr(align(64))]
struct Buffer(UnsafeCell<[u8; 128]>);

// SAFETY: one test names it.
unsafe impl Sync for Buffer {}

/// `static`s and locals are in the image, too.
#[ktest]
fn a_device_has_statics_and_locals_for_a_transfer_s105() {
    static BUFFER: Buffer = Buffer(UnsafeCell::new([0; 128]));
    let local = Buffer(UnsafeCell::new([0; 128]));
    let _attached = Attached::new(&BEHIND, BYTES);
    for buffer in [&BUFFER, &local] {
        let address = VirtAddr::new(u32::try_from(buffer.0.get().addr()).expect("32 bits"));
        for device in [&ON_BUS, &BEHIND] {
            for flow in FLOWS {
                let dma = map(call(device, flow), Memory::Anywhere(address), 128).expect("data");
                // SAFETY: mapped above; there is no device.
                assert_eq!(unsafe { streaming::unmap(call(device, flow), dma, 128) }, Ok(()));
            }
        }
    }
}

/// S106: a slot is part of no buffer, whether it is taken or not.
#[ktest]
fn no_device_has_bounce_buffers_but_as_copies_s105_s106() -> Completion {
    if usage().slots == usage().taken {
        return Skipped("no bounce buffers in this boot");
    }
    let attached = Attached::new(&BEHIND, BYTES);
    let page = Pages::new(0).expect("memory");
    let own = call(&ON_BUS, Flow::FromDevice);
    let inside = page.physical().checked_add(1).expect("RAM");
    let dma = map(own, Memory::Physical(inside), 100).expect("room");
    let (slot, owner) = (PhysAddr::new(dma.raw()), FrameOwner::Reserved);
    assert_ne!(slot, inside, "no teeth: not copied");
    let refused = KmapError::NotMemory { frame: slot.pfn(), owner };
    assert_refused(slot, PAGE_SIZE, refused);
    // SAFETY: mapped above; there is no device.
    assert_eq!(unsafe { streaming::unmap(own, dma, 100) }, Ok(()));
    assert_refused(slot, PAGE_SIZE, refused);
    assert_eq!(usage().taken, 0);
    assert_err!(map(own, Memory::Physical(slot), 64), MapError::Memory(_));
    assert_eq!(attached.taken(), 0);
    Ran
}
