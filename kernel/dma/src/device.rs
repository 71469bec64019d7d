//! What DMA needs to know of a device.

use alloc::boxed::Box;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32};

use arch::lock::IrqSpinLock;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::coherent::Coherency;
use kerncore::dma_mask::{DmaMask, DmaMasks, MaskError};
use kerncore::holder::Tag;
use kerncore::iommu::{DeviceSegments, SegmentLimits};
use kerncore::lock::Class;

use crate::debug;
use crate::declared::{DeclareError, Declared, ReleaseError};
use crate::declared_claims;
use crate::iommu::{IommuMapping, Shared};
use crate::names::Number;

/// A bus master.
#[derive(Debug)]
#[repr(C)] // with what the shortest ways ask at the start
pub struct Device {
    /// Its tag, if the atomic pool serves it without another question: it does not snoop, reaches all memory, has none of its own,
    /// and has asked before. Else zero.
    any_pool_memory: AtomicU32,
    coherency: Coherency,
    name: &'static str,
    number: Number,
    masks: DmaMasks,
    /// Memory of its own, or null (S102).
    declared: AtomicPtr<Declared>,
    /// The IOMMU mapping that it is attached to, of which it is a holder, or null (S108).
    iommu: AtomicPtr<Shared>,
    /// What of a list it takes as one piece, behind an IOMMU.
    segments: DeviceSegments,
    /// Held while it is found out whether the pool serves it without a question, from the look at what decides that to the word that
    /// says so. What decides it is changed before: so whoever has it last has seen every change that has returned.
    finding: IrqSpinLock<()>,
}

impl Device {
    /// A device that does not snoop the processor's caches, as every device of the board. It reaches all memory until it is told
    /// otherwise.
    pub const fn new(name: &'static str) -> Self {
        Self::of(name, Coherency::NonCoherent)
    }

    /// A device that snoops.
    pub const fn coherent(name: &'static str) -> Self {
        Self::of(name, Coherency::Coherent)
    }

    const fn of(name: &'static str, coherency: Coherency) -> Self {
        Self {
            any_pool_memory: AtomicU32::new(0),
            coherency,
            name,
            number: Number::none(),
            masks: DmaMasks::new(),
            declared: AtomicPtr::new(ptr::null_mut()),
            iommu: AtomicPtr::new(ptr::null_mut()),
            segments: DeviceSegments::new(),
            finding: IrqSpinLock::new(Class::ShortestWay, ()),
        }
    }

    /// Its name, for messages.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it snoops.
    pub const fn coherency(&self) -> Coherency {
        self.coherency
    }

    /// What is mapped for it lies no higher (S100).
    pub fn mask(&self) -> DmaMask {
        self.masks.streaming()
    }

    /// Its coherent buffers lie no higher (S100).
    pub fn coherent_mask(&self) -> DmaMask {
        self.masks.coherent()
    }

    /// The last address on the bus that its coherent buffers may have.
    pub(crate) fn coherent_reach(&self) -> PhysAddr {
        // Behind an IOMMU it is their device addresses that must be within reach.
        let last = if self.iommu().is_some() { DmaMask::ALL } else { self.coherent_mask() }.last();
        PhysAddr::new(last.raw())
    }

    /// Says how high it reaches in memory that is mapped for it (S100). What is mapped already stays. Any context.
    ///
    /// # Errors
    /// [`MaskError`] if that is below all RAM, or below all addresses of the IOMMU that it is behind; the mask is what it was.
    pub fn set_mask(&self, mask: DmaMask) -> Result<(), MaskError> {
        self.masks.set_streaming(self.judged(mask)?);
        Ok(())
    }

    /// Says how high its coherent buffers may lie (S100). Those that it has stay where they are. Any context.
    ///
    /// # Errors
    /// [`MaskError`] if that is below all RAM, or below all addresses of the IOMMU that it is behind; the mask is what it was.
    pub fn set_coherent_mask(&self, mask: DmaMask) -> Result<(), MaskError> {
        self.masks.set_coherent(self.judged(mask)?);
        self.find_short_cut();
        Ok(())
    }

    /// Both at once, or neither (S100). Any context.
    ///
    /// # Errors
    /// [`MaskError`] if that is below all RAM, or below all addresses of the IOMMU that it is behind; both masks are what they were.
    pub fn set_mask_and_coherent(&self, mask: DmaMask) -> Result<(), MaskError> {
        self.set_mask(mask)?;
        self.set_coherent_mask(mask)
    }

    /// What it takes as one piece where the pieces of a list are joined for it.
    pub fn segment_limits(&self) -> SegmentLimits {
        self.segments.limits()
    }

    /// Says that. What is mapped already stays. One at a time; any context.
    pub fn set_segment_limits(&self, limits: SegmentLimits) {
        self.segments.set(limits);
    }

    /// The mask, if there is a whole page that it reaches: a frame of RAM, or, behind an IOMMU, of the addresses there.
    fn judged(&self, mask: DmaMask) -> Result<DmaMask, MaskError> {
        let first = match self.iommu() {
            None => self.dma_address(mm::kernel().zones().table().first().base()),
            Some(iommu) => DmaAddr::new(iommu.domain().window().start().raw()),
        };
        // Neither ends in its first page.
        mask.checked(DmaAddr::new(first.raw() | (PAGE_SIZE - 1)))
    }

    /// Its tag, if any memory of the atomic pool will do for it, as for most.
    #[inline(always)]
    pub(crate) fn takes_any_pool_memory(&self) -> Option<Tag> {
        match self.any_pool_memory.load(Relaxed) {
            0 => None,
            word => Some(Tag::from_word(word)),
        }
    }

    /// Its tag, for notes of what it has. Any context.
    pub(crate) fn tag(&self) -> Tag {
        match self.number.known() {
            Some(tag) => tag,
            None => self.tag_at_first(),
        }
    }

    /// Whoever changes what decides about the short cut looks for it; so does the first who asks, since maybe nobody changes anything.
    #[cold]
    #[inline(never)]
    fn tag_at_first(&self) -> Tag {
        self.find_short_cut();
        self.number.tag(self.name)
    }

    /// Its tag, if anything was ever noted of it.
    pub(crate) fn known_tag(&self) -> Option<Tag> {
        self.number.known()
    }

    #[cold]
    #[inline(never)]
    fn find_short_cut(&self) {
        // Not under the lock: a name may be new.
        let own = self.number.tag(self.name);
        // Two CPUs may come from changes of their own, a mask and memory of the device's own, say. One that stored what it found before
        // the other's change would leave the short cut open for good.
        self.finding.with(|()| {
            // Who checks looks whose each buffer is that goes back (S107).
            let any = !debug::is_on()
                && self.coherency == Coherency::NonCoherent
                && self.coherent_mask() == DmaMask::ALL
                && self.declared.load(Acquire).is_null()
                && self.iommu.load(Relaxed).is_null();
            let tag = if any { own } else { Tag::NONE };
            self.any_pool_memory.store(tag.word(), Relaxed);
        });
    }

    /// Declares the `bytes` at `physical`, which the device sees at `dma`, to be memory of its own: from now on its coherent buffers
    /// lie there and nowhere else, in any context (S102). It is no RAM, on the bus or for the device, no other device's, and nobody may
    /// have mapped it in another way (S97). Where one may sleep, in the name of `caller`.
    ///
    /// # Errors
    /// [`DeclareError`]; nothing was taken.
    pub fn declare_memory(
        &self,
        (physical, dma): (PhysAddr, DmaAddr),
        bytes: u32,
        caller: VirtAddr,
    ) -> Result<(), DeclareError> {
        let again = DeclareError::Again { device: self.name };
        if self.declared().is_some() {
            return Err(again);
        }
        if self.iommu().is_some() {
            return Err(DeclareError::Iommu { device: self.name });
        }
        let new = Box::into_raw(Declared::new(self, (physical, dma), bytes, caller)?);
        // SAFETY: the pointer was made of a box; what is freed is listed no more before that.
        declared_claims::list(unsafe { &*new });
        if self.declared.compare_exchange(ptr::null_mut(), new, AcqRel, Acquire).is_err() {
            // SAFETY: as above.
            declared_claims::unlist(unsafe { &*new });
            // SAFETY: the pointer was made of a box, and nobody else has seen it, or sees it any more.
            let own = unsafe { Box::from_raw(new) };
            // SAFETY: as above.
            let released = unsafe { own.release() };
            debug_assert!(released.is_ok(), "mapped by this call alone");
            return Err(again);
        }
        self.find_short_cut();
        Ok(())
    }

    /// Takes the memory away that [`Device::declare_memory`] gave. Where one may sleep.
    ///
    /// # Errors
    /// [`ReleaseError`]; nothing has changed.
    ///
    /// # Safety
    /// Nobody allocates, frees or shows buffers of this device meanwhile.
    pub unsafe fn release_memory(&self) -> Result<(), ReleaseError> {
        let device = self.name;
        let Some(declared) = self.declared() else { return Err(ReleaseError::None { device }) };
        match declared.taken() {
            0 => {}
            pages => return Err(ReleaseError::InUse { device, pages }),
        }
        declared_claims::unlist(declared);
        let old = self.declared.swap(ptr::null_mut(), AcqRel);
        // SAFETY: `declare_memory` made it of a box, and by the caller's promise nobody uses it.
        let own = unsafe { Box::from_raw(old) };
        // SAFETY: as above; no buffer lies in it.
        let released = unsafe { own.release() };
        let released = released.map_err(|(error, own)| {
            let own = Box::into_raw(own);
            // SAFETY: as in `declare_memory`.
            declared_claims::list(unsafe { &*own });
            self.declared.store(own, Release);
            ReleaseError::Unmap(error)
        });
        self.find_short_cut();
        released
    }

    /// Memory of its own, if some was declared.
    pub(crate) fn declared(&self) -> Option<&Declared> {
        let declared = self.declared.load(Acquire);
        // SAFETY: it is null, or what `declare_memory` made of a box; that goes in `release_memory` alone, while nobody asks.
        unsafe { declared.as_ref() }
    }

    /// The mapping that it is attached to, if it is behind an IOMMU. Lent until it is detached.
    #[inline]
    pub fn iommu(&self) -> Option<&Shared> {
        // Relaxed: who attaches or detaches promises that nobody asks meanwhile, and so has told those who do later.
        let iommu = self.iommu.load(Relaxed);
        // SAFETY: it is null, or a mapping of which this device is a holder until `take_iommu`, when nobody asks.
        unsafe { iommu.as_ref() }
    }

    /// Where that lies.
    #[inline]
    pub(crate) fn iommu_pointer(&self) -> Option<NonNull<Shared>> {
        NonNull::new(self.iommu.load(Relaxed))
    }

    /// What `visit` says of a device as this one where it is behind `iommu`, or behind none, and has no memory of its own: for memory that
    /// was its own there.
    pub(crate) fn elsewhere<R>(
        &self,
        iommu: Option<&IommuMapping>,
        visit: impl FnOnce(&Self) -> R,
    ) -> R {
        let mut device = Self::of(self.name, self.coherency);
        // What it has is this one's.
        device.number = self.number.same();
        if let Some(iommu) = iommu {
            // No holder: who lent it is one for as long.
            device.set_iommu(iommu.pointer().as_ptr());
        }
        visit(&device)
    }

    /// Makes it a holder of `iommu`, if it is none yet. Says whether.
    pub(crate) fn set_iommu(&self, iommu: *mut Shared) -> bool {
        let null = ptr::null_mut();
        let was_null = self.iommu.compare_exchange(null, iommu, AcqRel, Acquire).is_ok();
        self.find_short_cut();
        was_null
    }

    /// Takes out what it is a holder of, or null.
    pub(crate) fn take_iommu(&self) -> *mut Shared {
        let iommu = self.iommu.swap(ptr::null_mut(), AcqRel);
        self.find_short_cut();
        iommu
    }

    /// The address of `physical` on the bus, at which it sees it unless it is behind an IOMMU: on this board the same.
    #[expect(clippy::unused_self, reason = "on other boards devices have buses of their own")]
    pub const fn dma_address(&self, physical: PhysAddr) -> DmaAddr {
        DmaAddr::new(physical.raw())
    }

    /// What lies at `address` as it sees it; the very last address, where nothing is, if that leads nowhere.
    #[inline]
    pub fn physical_address(&self, address: DmaAddr) -> PhysAddr {
        match self.iommu() {
            None => PhysAddr::new(address.raw()),
            Some(iommu) => iommu.on_bus(address).unwrap_or(PhysAddr::new(u32::MAX)),
        }
    }
}
