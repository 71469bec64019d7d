//! What a device has at the moment: a page, a list or a coherent buffer, and what both sides should find there.

use alloc::vec;
use alloc::vec::Vec;
use core::ptr;

use dma::coherent::Buffer;
use dma::streaming::{Call, Memory};
use kerncore::addr::{DmaAddr, PAGE_SIZE, Pfn, VirtAddr, pages_for};
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use mm::page_alloc::Pages;

use super::model::{DEVICES, Run, memory_for};
use crate::suites::iommu::Engine;
use crate::suites::iommu_lists::Scattered;
use crate::suites::witness::{NOBODY, frame_at};

/// The memory.
pub(super) enum What {
    /// Adjacent pages, from an offset in the first on.
    Pages(Pages, u32),
    /// Pages of which no two are adjacent.
    List(Scattered),
    /// A coherent buffer, and whether its frames may be scattered.
    Buffer(Buffer, bool),
}

/// What a device has.
pub(super) struct Held {
    pub(super) device: usize,
    /// Behind which mapping, if it is behind one.
    pub(super) slot: Option<usize>,
    pub(super) what: What,
    pub(super) flow: Flow,
    /// What is there, as far as it is known: nobody knows what lies where a device writes and has not written.
    pub(super) bytes: Vec<u8>,
    pub(super) is_known: bool,
    /// Where the device sees it, and how many bytes in a row.
    pub(super) segments: Vec<(u32, u32)>,
}

impl What {
    /// Its bytes, as the processor sees them.
    pub(super) fn pieces(&mut self, bytes: u32) -> Vec<&mut [u8]> {
        match self {
            Self::Pages(pages, offset) => {
                let (first, end) = (*offset as usize, (*offset + bytes) as usize);
                vec![&mut pages[first..end]]
            }
            Self::List(list) => {
                let pieces = list.pages.iter_mut().zip(&list.pieces);
                let piece = |(page, &(first, bytes)): (_, &(u32, u32))| {
                    let page: &mut Pages = page;
                    &mut page[first as usize..(first + bytes) as usize]
                };
                pieces.map(piece).collect()
            }
            Self::Buffer(buffer, _) => {
                let start = ptr::with_exposed_provenance_mut(buffer.address.raw() as usize);
                // SAFETY: a live buffer of so many bytes, of which nobody else has a reference; no device is at work meanwhile.
                vec![unsafe { core::slice::from_raw_parts_mut(start, bytes as usize) }]
            }
        }
    }

    /// Where its pages are, in the order in which a device should see them.
    fn frames(&self, bytes: u32) -> Vec<Pfn> {
        match self {
            Self::Pages(pages, offset) => {
                pages.frames().take(pages_for(offset + bytes) as usize).collect()
            }
            Self::List(list) => list.pages.iter().map(Pages::first).collect(),
            Self::Buffer(buffer, _) => (0..pages_for(bytes))
                .map(|page| frame_at(VirtAddr::new(buffer.address.raw() + page * PAGE_SIZE)))
                .collect(),
        }
    }

    /// What `streaming::map` is told of pages.
    pub(super) fn memory(&self) -> Option<Memory> {
        match self {
            Self::Pages(pages, offset) => {
                Some(Memory::Linear(VirtAddr::new(pages.address().raw() + offset)))
            }
            _ => None,
        }
    }

    pub(super) const fn is_streamed(&self) -> bool {
        !matches!(self, Self::Buffer(..))
    }
}

/// Which of `bytes` are what, whichever piece they lie in: `visit` is told of each stretch from `from` on.
fn each_part(pieces: Vec<&mut [u8]>, from: usize, count: usize, mut visit: impl FnMut(&mut [u8])) {
    let (mut skip, mut left) = (from, count);
    for piece in pieces {
        let first = skip.min(piece.len());
        let here = left.min(piece.len() - first);
        visit(&mut piece[first..first + here]);
        (skip, left) = (skip - first, left - here);
    }
    assert_eq!(left, 0, "so many bytes are there");
}

impl Held {
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a few pages")
    }

    pub(super) fn call(&self) -> Call<'static> {
        call_for(self.device, self.flow)
    }

    /// What the processor finds in `count` bytes from `from` on.
    pub(super) fn own(&mut self, from: usize, count: usize) -> Vec<u8> {
        let (mut found, bytes) = (Vec::with_capacity(count), self.count());
        each_part(self.what.pieces(bytes), from, count, |part| found.extend_from_slice(part));
        found
    }

    /// The processor writes there.
    pub(super) fn write(&mut self, from: usize, new: &[u8]) {
        let (mut rest, bytes) = (new, self.count());
        each_part(self.what.pieces(bytes), from, new.len(), |part| {
            let (here, behind) = rest.split_at(part.len());
            part.copy_from_slice(here);
            rest = behind;
        });
        self.bytes[from..from + new.len()].copy_from_slice(new);
    }

    /// What the device finds, wherever it sees it.
    pub(super) fn seen(&self) -> Vec<u8> {
        let mut found = vec![0; self.bytes.len()];
        let mut rest = &mut found[..];
        for &(dma, bytes) in &self.segments {
            let (here, behind) = rest.split_at_mut(bytes as usize);
            assert_eq!(Engine(&DEVICES[self.device]).read(dma, here), Ok(()));
            rest = behind;
        }
        found
    }

    /// The device writes all of it.
    pub(super) fn device_writes(&mut self, new: Vec<u8>) {
        let mut rest = &new[..];
        for &(dma, bytes) in &self.segments {
            let (here, behind) = rest.split_at(bytes as usize);
            assert_eq!(Engine(&DEVICES[self.device]).write(dma, here), Ok(()));
            rest = behind;
        }
        (self.bytes, self.is_known) = (new, true);
    }

    /// What is taken of the mapping's addresses: where each run begins, and what it is.
    pub(super) fn runs(&self) -> Vec<(u32, Run)> {
        let (mut frames, is_writable) = (self.what.frames(self.count()), self.flow.device_writes());
        let run = |&(dma, bytes): &(u32, u32)| {
            let behind = frames.split_off(pages_for(dma % PAGE_SIZE + bytes) as usize);
            let own = core::mem::replace(&mut frames, behind);
            (dma / PAGE_SIZE, Run { frames: own, is_writable, memory: memory_for(self.device) })
        };
        self.segments.iter().map(run).collect()
    }

    /// Where the device sees it.
    pub(super) fn start(&self) -> DmaAddr {
        DmaAddr::new(self.segments[0].0)
    }
}

/// A call for one of the devices.
pub(super) fn call_for(device: usize, flow: Flow) -> Call<'static> {
    let device = &DEVICES[device];
    Call { name: "a history", device, flow, caller: NOBODY, family: Family::Single }
}
