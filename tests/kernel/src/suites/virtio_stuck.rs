//! A buffer of a network card's that cannot be taken back, since somebody has freed its memory while the device had it: it is named, and
//! neither offered again nor freed.

extern crate alloc;

use alloc::vec;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use dma::bounce;
use dma::device::Device;
use dma::streaming::{self, Call, UnmapError};
use drivers::virtio::RequestError;
use kerncore::addr::{DmaAddr, PAGE_SIZE, Pfn};
use kerncore::kmap::KmapError;
use kerncore::layout::linear_address;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use virtio_drivers::Error;
use virtio_hal::{Link, Steady, shared_buffers};

use super::dma_refused::{frame, give, take};
use super::virtio_odd::{Answer, NET, Odd, Seen, fault, quietly, spin};
use super::witness::NOBODY;

/// Buffers that are gone.
static DROPPED: AtomicU32 = AtomicU32::new(0);

/// A page, which is the test's.
struct Frail(Pfn);

impl Frail {
    fn memory(&self) -> *mut [u8] {
        let address = linear_address(self.0.base()).expect("low memory");
        let start = core::ptr::with_exposed_provenance_mut(address.raw() as usize);
        core::ptr::slice_from_raw_parts_mut(start, PAGE_SIZE as usize)
    }
}

impl Deref for Frail {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the linear map has the page, and this test alone uses it.
        unsafe { &*self.memory() }
    }
}

impl DerefMut for Frail {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { &mut *self.memory() }
    }
}

impl Drop for Frail {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Relaxed);
    }
}

// SAFETY: the bytes are where the frame is.
unsafe impl Steady for Frail {}

/// Where the card had the buffer of `frame`, says the error, and how many bytes.
#[track_caller]
fn named<R>(refused: Result<R, RequestError>, frame: Pfn) -> (DmaAddr, u32) {
    let error = refused.map(drop).expect_err("its memory is gone");
    let RequestError::Back { device, dma, bytes, error } = error else { panic!("{error}") };
    let gone = matches!(error, UnmapError::Memory(KmapError::NotMemory { frame: found, .. }) if found == frame);
    assert!(gone, "{error}");
    assert_eq!((device, dma.raw()), ("virtio network card", frame.base().raw()));
    (dma, bytes)
}

#[ktest]
fn a_buffer_that_is_not_taken_back_is_named_and_neither_offered_again_nor_freed() -> Completion {
    /// Bytes of a frame's header (Virtio 1.2, 5.1.6).
    const HEADER: u32 = 12;
    static LIKE_IT: Device = Device::new("a device that has what the card had");
    if bounce::is_forced() {
        return Skipped("a copy has memory of its own");
    }
    quietly(|| {
        let seen = Seen::new();
        seen.answer.set(Answer { beside: 0, length: HEADER, last: 0 });
        DROPPED.store(0, Relaxed);
        let frames = [frame(), frame()];
        let buffers = frames.map(|frame| vec![Frail(frame)]);
        let [incoming, outgoing] = buffers;
        let mut card = Link::new(Odd::new(NET, &seen), incoming, outgoing).expect("it comes up");
        give(frames[0]);
        let first = named(card.receive(&mut spin, <[u8]>::len), frames[0]);
        assert_eq!((first.1, card.stuck_buffers(), shared_buffers()), (PAGE_SIZE, 1, 0));
        // There is no other, and nobody waits for a frame that cannot come.
        let full = Err(fault(Error::QueueFull));
        for _ in 0..3 {
            assert_eq!(card.receive(&mut spin, <[u8]>::len), full);
        }
        assert_eq!(card.send(&[0; 60], &mut spin), Ok(()));
        give(frames[1]);
        let second = named(card.flush(&mut spin), frames[1]);
        assert_eq!((second.1, card.stuck_buffers(), shared_buffers()), (HEADER + 60, 2, 0));
        assert_eq!(card.flush(&mut spin), Ok(()), "nothing is under way");
        assert_eq!(card.send(&[0; 60], &mut spin), full.map(drop));
        drop(card);
        assert_eq!(DROPPED.load(Relaxed), 0, "it would be freed twice");
        // Whose they are is said by the test, so that nothing stays.
        for (frame, (flow, (dma, bytes))) in
            frames.into_iter().zip([(Flow::FromDevice, first), (Flow::ToDevice, second)])
        {
            take(frame);
            let (name, family) = ("a test", Family::Single);
            let call = Call { name, device: &LIKE_IT, flow, caller: NOBODY, family };
            // SAFETY: mapped so by the card, which is gone.
            assert_eq!(unsafe { streaming::unmap(call, dma, bytes) }, Ok(()));
            give(frame);
        }
    });
    Ran
}
