//! What devices are given: pages, lists and buffers. What should come of each wish is foreseen, also where allocations fail (S28).

use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use arch::failure::fail_nth;
use dma::coherent::{self, AllocateError, Buffer};
use dma::streaming::{self, MapError};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, pages_for};
use kerncore::coherent::Sleep;
use kerncore::failure::{Afterwards, Outcome};
use kerncore::iommu::{DomainMapError, IovaError};
use kerncore::streaming::Flow;
use mm::page_alloc::Pages;

use super::World;
use super::held::{Held, What, call_for};
use super::model::{DEVICES, NARROW, reaches, segments};
use crate::suites::iommu_lists::Scattered;
use crate::suites::witness::NOBODY;

/// The most things that devices have at once.
const MOST: usize = 9;

/// What becomes of an attempt.
enum Attempt {
    /// The device sees it by these segments.
    Made(Vec<(u32, u32)>),
    /// Refused for want of addresses, or because it does not reach them.
    NoView,
    /// Refused because something was made to fail.
    Failed,
}

const fn is_no_view(error: &DomainMapError) -> bool {
    let DomainMapError::Iova(error) = error else { return false };
    matches!(error, IovaError::Exhausted { .. } | IovaError::OutOfReach { .. })
}

impl World {
    /// What should become of a device's wish to see pieces, each so many bytes from an offset in its page on.
    fn foresee(&self, device: usize, pieces: &[(u32, u32)]) -> Attempt {
        let Some(slot) = self.places[device] else { return Attempt::Failed };
        let (mut beside, mut told) = (Vec::new(), Vec::new());
        for &(offset, bytes) in pieces {
            let pages = pages_for(offset + bytes);
            let Some(first) = self.side(slot).lowest(pages, &beside) else {
                return Attempt::NoView;
            };
            let dma = first * PAGE_SIZE + offset;
            if !reaches(device, dma, bytes) {
                return Attempt::NoView;
            }
            beside.push((first, pages));
            told.push((dma, bytes));
        }
        Attempt::Made(told)
    }

    /// Runs `operation`, now and then with an allocation that fails.
    fn maybe_failing<R>(&mut self, operation: impl FnOnce() -> R) -> (R, bool) {
        if self.numbers.below(4) != 0 {
            return (operation(), false);
        }
        let nth = NonZeroU32::MIN.saturating_add(self.numbers.below(7));
        let afterwards = if self.flip() { Afterwards::Plenty } else { Afterwards::Nothing };
        let (made, Outcome { failed, .. }) = fail_nth(nth, afterwards, operation);
        (made, failed.is_some())
    }

    /// What a device is given where it is now, full of `bytes`, which it sees nothing of yet.
    fn unseen(&self, device: usize, what: What, flow: Flow, bytes: Vec<u8>) -> Held {
        let (slot, is_known) = (self.places[device], flow.device_reads());
        Held { device, slot, what, flow, bytes, is_known, segments: Vec::new() }
    }

    /// What came of it must be what was foreseen; it is entered in the books.
    fn enter(&mut self, foreseen: Attempt, came: Attempt, mut new: Held) {
        match (foreseen, came) {
            (Attempt::Made(wanted), Attempt::Made(found)) => {
                assert_eq!(found, wanted, "{}", self.when);
                new.segments = found;
            }
            // Without an IOMMU it is where it is.
            (Attempt::Failed, Attempt::Made(found)) if new.slot.is_none() => new.segments = found,
            (Attempt::NoView, Attempt::NoView) | (_, Attempt::Failed) => return,
            _ => panic!("{}: something else was to come of it", self.when),
        }
        if let Some(slot) = new.slot {
            let runs = new.runs();
            let side = self.side_mut(slot);
            side.runs.extend(runs);
            side.buffers += u32::from(matches!(new.what, What::Buffer(_, true)));
        }
        self.held.push(new);
    }

    /// A device for something new; one that reaches less has it only behind an IOMMU: elsewhere there would be copies.
    pub(super) fn taker(&mut self) -> Option<usize> {
        let device = self.any_device();
        let may = device != NARROW || self.places[device].is_some();
        (may && self.held.len() < MOST).then_some(device)
    }

    /// Bytes inside of pages. What a device writes is in whole lines, so that nothing is copied.
    fn extent(&mut self, flow: Flow, pages: u32) -> (u32, u32) {
        let unit = if flow.device_writes() { 64 } else { 4 };
        let offset = if self.flip() { 0 } else { self.numbers.below(PAGE_SIZE / unit) * unit };
        let most = pages * PAGE_SIZE - offset;
        let bytes = if self.flip() { most } else { (1 + self.numbers.below(most / unit)) * unit };
        (offset, bytes)
    }

    pub(super) fn flow(&mut self) -> Flow {
        Flow::ALL[self.numbers.below(3) as usize]
    }

    pub(super) fn give_pages(&mut self) {
        let Some(device) = self.taker() else { return };
        let (flow, count) = (self.flow(), 1 + self.numbers.below(5));
        let (offset, bytes) = self.extent(flow, count);
        let mut pages = Pages::exactly(count).expect("memory");
        let fill = self.pattern(bytes);
        pages[offset as usize..(offset + bytes) as usize].copy_from_slice(&fill);
        let what = What::Pages(pages, offset);
        let memory = what.memory().expect("pages");
        let foreseen = self.foresee(device, &[(offset, bytes)]);
        let call = call_for(device, flow);
        let (mapped, is_failing) =
            // SAFETY: the history's pages, which it leaves alone meanwhile.
            self.maybe_failing(|| unsafe { streaming::map(call, memory, bytes) });
        let came = match mapped {
            Ok(dma) => Attempt::Made(vec![(dma.raw(), bytes)]),
            Err(error) if is_failing => {
                assert!(matches!(error, MapError::Iommu(_)), "{}: {error}", self.when);
                Attempt::Failed
            }
            Err(MapError::Iommu(error)) if is_no_view(&error) => Attempt::NoView,
            Err(error) => panic!("{}: {error}", self.when),
        };
        let new = self.unseen(device, what, flow, fill);
        self.enter(foreseen, came, new);
    }

    pub(super) fn give_list(&mut self) {
        let Some(device) = self.taker() else { return };
        let (flow, count) = (self.flow(), 2 + self.numbers.below(17) as usize);
        let (offset, _) = self.extent(flow, 1);
        let (_, end) = self.extent(flow, 1);
        let mut list = Scattered::new(count, offset, end);
        let fill = self.pattern(list.bytes());
        list.write(&fill);
        let pieces = segments(&list.pieces, DEVICES[device].segment_limits());
        let foreseen = self.foresee(device, &pieces);
        let ((mapped, is_failing), log) =
            capture_log(|| self.maybe_failing(|| list.map(&DEVICES[device], flow as u32)));
        assert!(!log.text().contains("lost"), "{}: {log:?}", self.when);
        let came = match mapped {
            0 if is_failing => Attempt::Failed,
            0 => Attempt::NoView,
            count => Attempt::Made(list.segments(count)),
        };
        let new = self.unseen(device, What::List(list), flow, fill);
        self.enter(foreseen, came, new);
    }

    pub(super) fn allocate(&mut self) {
        let Some(device) = self.taker() else { return };
        let (bytes, may) = (1 + self.numbers.below(7 * PAGE_SIZE), self.flip());
        let (sleep, slot) = (if may { Sleep::May } else { Sleep::MayNot }, self.places[device]);
        let foreseen = self.foresee(device, &[(0, bytes)]);
        let ((made, is_failing), _log) = capture_log(|| {
            self.maybe_failing(|| coherent::allocate(&DEVICES[device], bytes, sleep, NOBODY))
        });
        let mut buffer = Buffer { address: NOBODY, dma: DmaAddr::new(0) };
        let came = match made {
            Ok(made) => {
                buffer = made;
                Attempt::Made(vec![(made.dma.raw(), bytes)])
            }
            Err(_) if is_failing => Attempt::Failed,
            // What others have left of it may be little.
            Err(AllocateError::Pool(_)) => Attempt::Failed,
            Err(AllocateError::Iommu { error, .. }) if is_no_view(&error) => Attempt::NoView,
            Err(error) => panic!("{}: {error}", self.when),
        };
        let is_scattered = may && slot.is_some();
        let what = What::Buffer(buffer, is_scattered);
        let zeros = vec![0; bytes as usize];
        let mut new = self.unseen(device, what, Flow::Bidirectional, zeros);
        if matches!(came, Attempt::Made(_)) && sleep == Sleep::May {
            assert!(new.own(0, bytes as usize) == new.bytes, "{}: zeroed", self.when);
        }
        // The pool's memory is what it was.
        new.is_known = may;
        self.enter(foreseen, came, new);
    }
}
