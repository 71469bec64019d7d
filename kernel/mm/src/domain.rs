//! The domains of devices behind an IOMMU: the register of all, for the audit, and the processor in the place of a device (S110).
//!
//! The board has no IOMMU, but its processors' walkers read the same tables. So what remembers a domain's translations here is the
//! TLBs, under a number of the domain's own; and [`DeviceDomain::with_open`] lets this CPU see what the device would, by accesses without
//! privilege ([`arch::user`]): a device has no more rights than a program.

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::NonNull;

use arch::lock::{IrqLocks, IrqSpinLock};
use arch::machine::{Authority, CortexA9};
use kerncore::addr::DmaAddr;
use kerncore::iommu::iova::IovaSpace;
use kerncore::iommu::machine::CpuIotlb;
use kerncore::iommu::{CreateError, Domain, DomainSummary, DomainViolation};
use kerncore::lock::Class;
use kerncore::pool::Word;

use crate::kernel;
use crate::user::spaces;

/// The most domains that there can be at once.
const MOST: usize = 32;

/// A domain on this processor.
pub type Live = Domain<'static, 'static, CortexA9, CpuIotlb<'static, CortexA9, IrqLocks>, IrqLocks>;

/// Why there is no domain. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainError {
    /// Its window, or the memory of its first table.
    Create(CreateError),
    /// No memory of the heap's for its bitmaps, or for what the kernel notes of it.
    Heap {
        /// How many pages the window has.
        pages: u32,
    },
    /// There are as many as there can be.
    TooMany {
        /// How many.
        most: usize,
    },
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(error) => error.fmt(f),
            Self::Heap { pages } => {
                write!(f, "the heap has no memory for a domain of {pages} pages")
            }
            Self::TooMany { most } => write!(f, "there are {most} domains, the most"),
        }
    }
}

impl core::error::Error for DomainError {}

/// A domain that its owner keeps alive as long as it stands in the register.
#[derive(Clone, Copy)]
struct Entry(NonNull<Live>);

// SAFETY: it leads to a domain, which any CPU may use (`shared` below), and owns nothing.
unsafe impl Send for Entry {}

const fn shared<T: Send + Sync>() {}
const _: () = shared::<Live>();

static REGISTER: IrqSpinLock<[Option<Entry>; MOST]> =
    IrqSpinLock::new(Class::Domains, [const { None }; MOST]);

/// Owns a domain, which stands in the register. Dropping it gives back its tables and its number; what is still mapped there no
/// device sees any more.
///
/// Made and dropped where one may sleep.
pub struct DeviceDomain {
    /// In memory as a `Box` has it, which it is made into when this is dropped.
    live: NonNull<Live>,
    /// Its bitmaps, likewise.
    words: NonNull<[Word]>,
    place: usize,
}

// SAFETY: as a `Box<Live>` has them, of a domain that may be sent (`shared`); the words are the domain's.
unsafe impl Send for DeviceDomain {}
// SAFETY: as a `Box<Live>` has them, of a domain that may be shared (`shared`); nobody reaches the words but through it.
unsafe impl Sync for DeviceDomain {}

/// The TLBs of all CPUs as the IOTLB of one domain, under a number of its own.
pub fn iotlb() -> CpuIotlb<'static, CortexA9, IrqLocks> {
    // SAFETY: the machine is only cloned: it invalidates what the domain asks.
    let authority = unsafe { Authority::claim() };
    CpuIotlb::new(*kernel().table().raw_machine(authority), spaces())
}

/// Memory of the heap's for bitmaps, which comes back unless it is kept.
struct Words(NonNull<[Word]>);

impl Words {
    fn new(count: usize) -> Option<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(count).ok()?;
        memory.resize(count, Word::FREE);
        Some(Self(NonNull::from(Box::leak(memory.into_boxed_slice()))))
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: a boxed slice, leaked in `new`, which nobody else has any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl DeviceDomain {
    /// A domain of the `bytes` from `base`, in which nothing is mapped (S108). The window must begin with a page.
    ///
    /// # Errors
    /// [`DomainError`]; nothing was taken.
    pub fn new(base: DmaAddr, bytes: u32) -> Result<Self, DomainError> {
        arch::lock::might_sleep("arm_iommu_create_mapping");
        let window = Live::window_of(base, bytes).map_err(DomainError::Create)?;
        let heap = DomainError::Heap { pages: window.count() };
        let mut words = Words::new(IovaSpace::words_for(window)).ok_or(heap)?;
        let mut memory = Vec::new();
        memory.try_reserve_exact(1).map_err(|_| heap)?;
        // SAFETY: the words are nobody's but the domain's until `drop` has ended that.
        let lent: &'static mut [Word] = unsafe { words.0.as_mut() };
        let live = Live::new(kernel(), iotlb(), window, lent).map_err(DomainError::Create)?;
        memory.push(live);
        let live = NonNull::from(Box::leak(memory.into_boxed_slice())).cast::<Live>();
        let place = REGISTER.with(|register| {
            let place = register.iter().position(Option::is_none)?;
            register[place] = Some(Entry(live));
            Some(place)
        });
        let Some(place) = place else {
            // SAFETY: a domain in memory of its own, as a `Box` of one has it, which nobody else knows.
            drop(unsafe { Box::from_raw(live.as_ptr()) });
            return Err(DomainError::TooMany { most: MOST });
        };
        Ok(Self { live, words: ManuallyDrop::new(words).0, place })
    }

    /// Runs `act` while this CPU sees below 2 GiB what the device does (S110): by accesses without privilege, as [`arch::user`] makes
    /// them. Not in interrupt context, and not by `act`.
    ///
    /// # Panics
    /// In interrupt context, or if this CPU has the lower half open already.
    pub fn with_open<R>(&self, act: impl FnOnce() -> R) -> R {
        self.iotlb().with_open(self.root(), act)
    }
}

impl Deref for DeviceDomain {
    type Target = Live;

    fn deref(&self) -> &Live {
        // SAFETY: it lives as long as this, and nobody has an exclusive reference to it meanwhile.
        unsafe { self.live.as_ref() }
    }
}

/// Out of the register, then out of the world, and then its bitmaps.
impl Drop for DeviceDomain {
    fn drop(&mut self) {
        arch::lock::might_sleep("ending an IOMMU domain");
        REGISTER.with(|register| register[self.place] = None);
        // SAFETY: a domain in memory of its own, as a `Box` of one has it; what the register knew of it is gone, and this is going.
        drop(unsafe { Box::from_raw(self.live.as_ptr()) });
        drop(Words(self.words));
    }
}

impl fmt::Debug for DeviceDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Live::fmt(self, f)
    }
}

/// What all domains have, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllDomains {
    /// How many live.
    pub domains: u32,
    /// What they have together.
    pub summary: DomainSummary,
}

/// Audits every domain that lives; each rule that is broken goes to `report`. Nothing else may map or unmap meanwhile.
pub fn audit(report: &mut dyn FnMut(DomainViolation)) -> AllDomains {
    let mut all = AllDomains::default();
    for place in 0..MOST {
        REGISTER.with(|register| {
            let Some(Entry(live)) = register[place] else { return };
            // SAFETY: its owner takes it out of the register, under this lock, before it goes.
            let summary = unsafe { live.as_ref() }.audit(report);
            let DomainSummary { table_frames, runs, pages } = summary;
            all.domains += 1;
            all.summary.table_frames += table_frames;
            all.summary.runs += runs;
            all.summary.pages += pages;
        });
    }
    all
}

/// How many domains live, and how many of their pages are taken, for the ledger.
pub fn usage() -> (u32, u32) {
    let mut usage = (0, 0);
    for place in 0..MOST {
        REGISTER.with(|register| {
            if let Some(Entry(live)) = register[place] {
                usage.0 += 1;
                // SAFETY: as in `audit`.
                usage.1 += unsafe { live.as_ref() }.usage().taken;
            }
        });
    }
    usage
}
