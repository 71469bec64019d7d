//! What is refused to a device behind an IOMMU is refused before anything of it is undone: it goes on seeing all (S67, S81, S109).

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use dma::attributes;
use dma::bounce;
use dma::coherent::{self, FreeError};
use dma::debug;
use dma::device::Device;
use dma::scatter::ScatterEntry;
use dma::streaming::{self, Call, UnmapError};
use image::capture::capture_log;
use kerncore::addr::{PAGE_SIZE, Pfn};
use kerncore::attributes::Attributes;
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::RemoveError;
use kerncore::kmap::KmapError;
use kerncore::layout::linear_physical;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use ktest::Completion::{self, Ran, Skipped};
use ktest::{assert_err, ktest};
use linux::page::pointer_to;
use linux::streaming_sg::{dma_map_sg, dma_unmap_sg};
use mm::kernel;

use super::iommu::{Attached, BYTES, Engine};
use super::witness::{Books, NOBODY, authority};

static SNOOPING: Device = Device::coherent("a snooping device that is refused something");

const BOTH: u32 = Flow::Bidirectional as u32;

pub(super) fn frame() -> Pfn {
    kernel().zones().allocate(0, FrameOwner::Pages).expect("memory").leak().0
}

pub(super) fn give(frame: Pfn) {
    let freed = kernel().free_frames_at(authority(), frame, 0, FrameOwner::Pages);
    assert_eq!(freed, Ok(()), "{frame}");
}

/// Takes `wanted`, which is free.
pub(super) fn take(wanted: Pfn) {
    let mut others = Vec::with_capacity(4096);
    let found = core::iter::repeat_with(frame).take(others.capacity()).any(|frame| {
        let is_it = frame == wanted;
        if !is_it {
            others.push(frame);
        }
        is_it
    });
    others.into_iter().for_each(give);
    assert!(found, "{wanted} is somebody else's");
}

/// S105, S109: of a joined list a page was freed while the device had it. The device sees nothing of the list any more, whichever page it
/// was, and who ends it is told; and so with a page alone.
#[ktest]
fn an_unmap_of_what_was_freed_meanwhile_hides_it_and_says_so_s109() -> Completion {
    if bounce::is_forced() {
        return Skipped("a copy has memory of its own");
    }
    let call = Call {
        name: "a test",
        device: &SNOOPING,
        flow: Flow::Bidirectional,
        caller: NOBODY,
        family: Family::Scatter,
    };
    let books = Books::now();
    for (count, freed) in [(3, 0), (3, 1), (3, 2), (1, 0)] {
        let attached = Attached::new(&SNOOPING, BYTES);
        let frames: Vec<Pfn> = (0..count).map(|_| frame()).collect();
        let mut list = vec![ScatterEntry::EMPTY; frames.len()];
        ScatterEntry::initialise(&mut list);
        for (entry, &frame) in list.iter_mut().zip(&frames) {
            let record = pointer_to(frame).addr();
            entry.set_page(u32::try_from(record).expect("32 bits"), PAGE_SIZE, 0);
        }
        // SAFETY: a device, and a list of frames of the test's, which it leaves alone.
        let mapped = unsafe { dma_map_sg(&raw const SNOOPING, list.as_mut_ptr(), count, BOTH) };
        assert_eq!(mapped, 1);
        let dma = list[0].dma_address;
        let mut unmap = || {
            // SAFETY: mapped above, or refused; there is no device.
            unsafe { dma_unmap_sg(&raw const SNOOPING, list.as_mut_ptr(), count, BOTH) };
        };
        give(frames[freed]);
        if count == 1 {
            // SAFETY: mapped above; there is no device.
            let ended = unsafe { streaming::unmap(call, dma, PAGE_SIZE) };
            let gone = frames[freed];
            assert_err!(ended, UnmapError::Memory(KmapError::NotMemory { frame, .. }) if frame == gone);
        } else {
            let ((), log) = capture_log(&mut unmap);
            assert_eq!(log.text().matches(SNOOPING.name()).count(), 1, "{log:?}");
        }
        assert_eq!(attached.taken(), 0, "frame {freed} of {count}");
        for at in (0..count).map(|page| dma.raw() + page * PAGE_SIZE) {
            assert!(Engine(&SNOOPING).read(at, &mut [0; 4]).is_err(), "{at:#x}");
        }
        let ((), log) = capture_log(&mut unmap);
        let refusal =
            if count == 1 { SNOOPING.name() } else { "nothing is mapped for the device at" };
        assert!(log.text().contains(refusal), "{log:?}");
        // The checker has never heard of it either.
        let told = 1 + usize::from(debug::is_on());
        assert_eq!(log.text().matches(SNOOPING.name()).count(), told, "only once: {log:?}");
        take(frames[freed]);
        frames.into_iter().for_each(give);
    }
    books.assert_unchanged();
    Ran
}

/// S67, S81: memory of a device that snoops has no area, so that another view of it may lead there. It is not the buffer.
#[ktest]
fn a_free_by_another_view_of_a_buffer_is_refused_while_the_device_sees_it_s67() {
    let attached = Attached::new(&SNOOPING, BYTES);
    let bytes = 2 * PAGE_SIZE;
    let adjacent = DmaAttributes::FORCE_CONTIGUOUS;
    let buffer = attributes::allocate(&SNOOPING, bytes, Sleep::May, adjacent, NOBODY);
    let buffer = buffer.expect("memory");
    let first = linear_physical(buffer.address).expect("linear").pfn();
    let frames = [first, first.checked_add(1).expect("RAM")];
    let view = kernel().vmap(&frames, Attributes::KERNEL_DATA, NOBODY).expect("room");
    let address = view.pages.start();
    let free = |address| {
        // SAFETY: refused, or nobody uses it.
        unsafe { coherent::free(&SNOOPING, bytes, address, buffer.dma) }
    };
    let (refused, _log) = capture_log(|| free(address));
    assert_eq!(refused, Err(FreeError::Invalid(RemoveError::Unknown { address })));
    assert_eq!(attached.taken(), 2);
    assert_eq!(Engine(&SNOOPING).write(buffer.dma.raw() + PAGE_SIZE, &[1; 4]), Ok(()));
    assert_eq!(kernel().vunmap(authority(), address), Ok(()));
    assert_eq!(free(buffer.address), Ok(()));
    assert_eq!(attached.taken(), 0);
}
