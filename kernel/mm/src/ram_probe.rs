//! RAM before it is anybody's: how much of it there is, if nobody can tell, and what a boot loader left in it.
//!
//! ```text
//!   LINEAR_PHYSICAL        image end ↑ MiB      MiB     MiB     MiB           what the linear map can hold
//!   ├──────────────────────────┼────────┼───────┼───────┼── … ─────────────────────┤
//!   ↑ is RAM: we run there       one word at the start of each is written, read back and restored
//!   the reference
//! ```
//!
//! Each page is mapped at a temporary address, uncached, so that a cache cannot answer for memory that is not
//! there. RAM is taken to end at the first MiB that does not keep what is written, that faults, or that is the first one
//! again (an address decoder that ignores high bits). The reference is RAM's first word, which lies below the image: where
//! RAM begins anew it is the first thing to come, before any write could land in the image.

use core::sync::atomic::AtomicU32;

use kerncore::addr::{PAGE_SIZE, Pfn, PhysAddr, SECTION_SIZE, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::descriptor::L2_SLOTS;
use kerncore::layout::{LINEAR_BYTES, LINEAR_PHYSICAL, linear_pages, linear_physical};
use kerncore::page_table::{TableSource, consecutive};

use crate::bring_up::EarlySpace;

/// A second-level table in the image.
#[repr(C, align(1024))]
pub(crate) struct SecondLevel([AtomicU32; L2_SLOTS as usize]);

/// That of the temporary region's first MiB, which is needed before there are frames.
static EARLY_TABLE: SecondLevel = SecondLevel::new();

impl SecondLevel {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; L2_SLOTS as usize])
    }
}

impl TableSource for &SecondLevel {
    fn take_table(&self) -> Option<PhysAddr> {
        let address = u32::try_from((&raw const self.0).addr()).ok()?;
        linear_physical(VirtAddr::new(address))
    }
}

/// Two words that differ in every bit, so that a bus that floats cannot keep both.
const PATTERNS: [u32; 2] = [0x5aa5_c33c, 0xa55a_3cc3];

/// The offset in RAM of the word that tells whether RAM has begun anew.
const REFERENCE: u32 = 0;

impl EarlySpace {
    /// Bytes of RAM from the start of the linear map, to the MiB, looked for up to `limit`. What the words hold is kept.
    pub fn probe_ram(&mut self, limit: u32) -> u32 {
        let limit = limit.min(LINEAR_BYTES);
        let image = boot::layout::image();
        let image_end = linear_physical(image.start())
            .and_then(|start| start.checked_add(image.bytes()))
            .and_then(|end| end.checked_sub(LINEAR_PHYSICAL))
            .unwrap_or(0);
        let mut bytes = image_end.next_multiple_of(SECTION_SIZE);
        while bytes < limit && self.is_new_ram(bytes) {
            bytes += SECTION_SIZE;
        }
        bytes
    }

    /// Whether the MiB at `offset` keeps what is written, and is not RAM's first one again.
    fn is_new_ram(&mut self, offset: u32) -> bool {
        let Some(old) = self.peek(offset) else { return false };
        let keeps = PATTERNS.into_iter().all(|pattern| {
            self.poke(offset, pattern);
            self.peek(offset) == Some(pattern)
        });
        let before = self.peek(REFERENCE);
        self.poke(offset, !PATTERNS[1]);
        let alias = before != self.peek(REFERENCE);
        self.poke(offset, old);
        keeps && !alias
    }

    fn peek(&mut self, offset: u32) -> Option<u32> {
        self.with_word(offset, |address| arch::probe::read_u32(address).ok()).flatten()
    }

    fn poke(&mut self, offset: u32, value: u32) {
        self.with_word(offset, |address| {
            // SAFETY: the word lies behind the image, in memory that nobody has been given yet, or nowhere; or it is RAM's
            // first one under another address, which nobody has been given either.
            let written = unsafe { arch::probe::write_u32(address, value) };
            // A fault means that there is no RAM, which the next read says too.
            written.is_ok()
        });
    }

    /// Shows `access` the `bytes` at `physical`, or does nothing if they do not lie where RAM can be, or lie in the image, or
    /// are more than the temporary table maps.
    pub fn with_ram<R>(
        &mut self,
        physical: PhysAddr,
        bytes: u32,
        access: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let last = physical.checked_add(bytes.checked_sub(1)?)?;
        let (first, last) = (physical.pfn(), last.pfn());
        let pages = last.checked_sub(first)? + 1;
        let linear = linear_pages(first, pages)?;
        let image = boot::layout::image();
        if linear.first() < image.end() && image.first() < linear.end() || pages > L2_SLOTS {
            return None;
        }
        self.with_pages(first, pages, |start| {
            let start = start.raw() + physical.raw() % PAGE_SIZE;
            let start = core::ptr::with_exposed_provenance(start as usize);
            // SAFETY: these pages were mapped just now and stay so while `access` runs. Their frames have no owner yet and no
            // other mapping, and this is the only CPU that runs, so nobody writes there; all bytes are valid.
            access(unsafe { core::slice::from_raw_parts(start, bytes as usize) })
        })
    }

    /// Maps the page at `offset` of RAM at a temporary address, uncached, for as long as `access` runs.
    fn with_word<R>(&mut self, offset: u32, access: impl FnOnce(VirtAddr) -> R) -> Option<R> {
        self.with_pages(LINEAR_PHYSICAL.checked_add(offset)?.pfn(), 1, access)
    }

    /// Maps `pages` frames from `first` at temporary addresses, uncached, for as long as `access` runs.
    fn with_pages<R>(
        &mut self,
        first: Pfn,
        pages: u32,
        access: impl FnOnce(VirtAddr) -> R,
    ) -> Option<R> {
        let frames = consecutive(first, pages)?;
        let Self { table, temporary, .. } = self;
        let attributes = Attributes::WRITE_COMBINE;
        table.map(temporary, 0, frames, attributes, &&EARLY_TABLE).ok()?;
        let result = access(temporary.start());
        table.unmap_part(temporary, 0, pages).ok()?;
        Some(result)
    }
}
