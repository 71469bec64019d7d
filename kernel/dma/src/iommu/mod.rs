//! Devices behind an IOMMU (S108, S109): who is attached to which mapping, and the device's view of what it is given.
//!
//! ```text
//!   IommuMapping::new ──attach──▶ device ──▶ every buffer and mapping of its goes through the domain
//!         │                         │
//!         └─ drop: its reference    └─detach──▶ the device sees the bus again
//! ```
//! Whoever makes buffers (but those of `scattered`) and mappings asks [`Device::iommu`] last of all, when the memory lies where it lies on the bus, and
//! first of all on the way back. So there is one way to each, with and without an IOMMU, and a driver cannot tell.
//!
//! A mapping lives as long as its maker, a device, a buffer of scattered frames or the memory of a pool of blocks holds it.

pub(crate) mod at_hand;
pub(crate) mod buffers;
pub(crate) mod coherent;
mod left;
mod lender;
pub(crate) mod list;
pub(crate) mod listed;
pub mod scattered;
pub(crate) mod single;
pub(crate) mod view;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Relaxed};

use kerncore::addr::DmaAddr;
use mm::domain::{DeviceDomain, DomainError};

use crate::device::Device;

/// What devices and makers hold together.
#[derive(Debug)]
pub struct Shared {
    domain: DeviceDomain,
    holders: AtomicU32,
    /// How many devices are attached.
    devices: AtomicU32,
    views: buffers::Views,
}

impl Shared {
    /// Its addresses and tables.
    pub const fn domain(&self) -> &DeviceDomain {
        &self.domain
    }

    /// How many hold it: its maker, until that lets it go, each device that is attached, and each buffer of scattered frames.
    pub fn holders(&self) -> u32 {
        self.holders.load(Relaxed)
    }

    /// A buffer of a device that is attached holds it, too.
    fn hold(&self) {
        self.holders.fetch_add(1, Relaxed);
    }

    /// Such a buffer is gone; its device, which is attached, is a holder still.
    fn let_go(&self) {
        let before = self.holders.fetch_sub(1, AcqRel);
        debug_assert!(before > 1, "nobody is left to end the mapping");
    }
}

/// One holder's part of a mapping for devices. Dropped, it goes if nobody else holds it.
pub struct IommuMapping(NonNull<Shared>);

/// What is shared may be used by any CPU.
const fn shared<T: Send + Sync>() {}
const _: () = shared::<Shared>();

// SAFETY: as a reference to what any CPU may use (`shared`), whose holders are counted by an atomic.
unsafe impl Send for IommuMapping {}
// SAFETY: as above.
unsafe impl Sync for IommuMapping {}

/// Why a device was not attached. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// It is attached to a mapping already, this one or another.
    Again {
        /// The device.
        device: &'static str,
    },
    /// It has memory of its own, which no IOMMU translates (S102).
    Declared {
        /// The device.
        device: &'static str,
    },
}

/// The device is attached to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAttached {
    /// The device.
    pub device: &'static str,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again { device } => write!(f, "{device} is attached to an IOMMU mapping already"),
            Self::Declared { device } => {
                write!(f, "{device} has memory of its own, which no IOMMU translates")
            }
        }
    }
}

impl fmt::Display for NotAttached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is attached to no IOMMU mapping", self.device)
    }
}

impl core::error::Error for AttachError {}
impl core::error::Error for NotAttached {}

impl IommuMapping {
    /// A mapping of the device addresses `bytes` from `base` on, a page's, with nothing in it and no device attached
    /// (`arm_iommu_create_mapping`). Where one may sleep.
    ///
    /// # Errors
    /// [`DomainError`]; nothing was taken.
    pub fn new(base: DmaAddr, bytes: u32) -> Result<Self, DomainError> {
        let domain = DeviceDomain::new(base, bytes)?;
        let mut memory = Vec::new();
        let heap = DomainError::Heap { pages: domain.window().count() };
        memory.try_reserve_exact(1).map_err(|_| heap)?;
        let (holders, devices) = (AtomicU32::new(1), AtomicU32::new(0));
        memory.push(Shared { domain, holders, devices, views: buffers::Views::new() });
        Ok(Self(NonNull::from(Box::leak(memory.into_boxed_slice())).cast::<Shared>()))
    }

    /// Another holder.
    fn another(&self) -> Self {
        self.holders.fetch_add(1, Relaxed);
        Self(self.0)
    }

    /// Puts `device` behind the IOMMU: from now on its buffers and mappings are seen by this one's addresses (`arm_iommu_attach_device`).
    ///
    /// # Errors
    /// [`AttachError`].
    ///
    /// # Safety
    /// Nobody makes or ends buffers or mappings for the device meanwhile, and it has none.
    pub unsafe fn attach(&self, device: &Device) -> Result<(), AttachError> {
        let name = device.name();
        if device.declared().is_some() {
            return Err(AttachError::Declared { device: name });
        }
        let holder = self.another();
        let own = holder.0.as_ptr();
        if device.set_iommu(own) {
            self.devices.fetch_add(1, Relaxed);
            core::mem::forget(holder);
            Ok(())
        } else {
            Err(AttachError::Again { device: name })
        }
    }

    /// A holder of what `device` is behind, if it is behind an IOMMU.
    pub(crate) fn of(device: &Device) -> Option<Self> {
        let pointer = device.iommu_pointer()?;
        device.iommu()?.hold();
        Some(Self(pointer))
    }

    /// Where what is held together lies: no other is there as long as this one lives.
    pub(crate) const fn pointer(&self) -> NonNull<Shared> {
        self.0
    }

    /// As a C caller holds it.
    pub fn into_raw(self) -> *mut Shared {
        let raw = self.0.as_ptr();
        core::mem::forget(self);
        raw
    }

    /// What [`IommuMapping::into_raw`] gave.
    ///
    /// # Safety
    /// It gave that, and each is made back once.
    pub const unsafe fn from_raw(raw: NonNull<Shared>) -> Self {
        Self(raw)
    }
}

/// Puts `device` on the bus again (`arm_iommu_detach_device`): it sees nothing of the mapping any more, which goes if nobody else holds
/// it. Where one may sleep.
///
/// # Errors
/// [`NotAttached`].
///
/// # Safety
/// Nobody makes or ends buffers or mappings for the device meanwhile; it has none, or they are lost. What it leaves is counted and told of;
/// buffers come back when the device is attached to the same mapping again. Nobody holds what [`Device::iommu`] lent, unless the mapping has
/// another holder for as long.
pub unsafe fn detach(device: &Device) -> Result<(), NotAttached> {
    if let Some(iommu) = device.iommu() {
        left::tell(device, iommu);
        iommu.devices.fetch_sub(1, Relaxed);
    }
    match NonNull::new(device.take_iommu()) {
        // SAFETY: `attach` has put it there, and it was taken out once.
        Some(raw) => {
            // SAFETY: as said above.
            drop(unsafe { IommuMapping::from_raw(raw) });
            Ok(())
        }
        None => Err(NotAttached { device: device.name() }),
    }
}

impl core::ops::Deref for IommuMapping {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        // SAFETY: this is a holder, and it lives as long as one.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for IommuMapping {
    fn drop(&mut self) {
        if self.holders.fetch_sub(1, AcqRel) == 1 {
            buffers::forget(self.domain.root());
            // SAFETY: made of a box in `new`; the last holder is going, and nobody else can become one.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl fmt::Debug for IommuMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shared::fmt(self, f)
    }
}
