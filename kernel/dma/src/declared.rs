//! Memory of a device's own: what was declared for it answers before everything else (S102).
//!
//! ```text
//!   bus       ┌───┬───┬───────┬───────────────┬ … ┐   no RAM: on the device, or beside it
//!   kernel    └───┴───┴───────┴───────────────┴ … ┘   mapped uncached once, one bit a page, runs aligned to their order
//! ```
//! A device that has such memory gets its coherent buffers there and nowhere else, whoever asks and in any context; a free, and a
//! window of a program, look there first.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::{fmt, mem, ptr};

use arch::lock::IrqSpinLock;
use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr, pages_for};
use kerncore::attributes::Attributes;
use kerncore::holder::Holder;
use kerncore::kernel_space::{IoRemapError, RemoveError, ShareError};
use kerncore::lock::Class;
use kerncore::pool::{self, Pool, Run, Word};
use mm::report::dump_stack;

use crate::coherent::Buffer;
use crate::declared_claims::Claim;
use crate::device::Device;
use crate::error::{AllocateError, Found};

/// Why no memory was declared. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclareError {
    /// The device has such memory already.
    Again {
        /// The device.
        device: &'static str,
    },
    /// The device is behind an IOMMU: memory of its own would lie beside what it sees.
    Iommu {
        /// The device.
        device: &'static str,
    },
    /// It does not begin a page, on the bus or for the device.
    Misaligned {
        /// Where it lies on the bus.
        physical: PhysAddr,
        /// Where the device sees it.
        dma: DmaAddr,
    },
    /// Another device has some of it, which would have the same bytes for its buffers.
    Another {
        /// That device.
        device: &'static str,
        /// The first byte of what that has.
        first: PhysAddr,
        /// The last one.
        last: PhysAddr,
    },
    /// Where the device would see it, it sees RAM: a buffer would have the handle of what is mapped for a transfer.
    Ram {
        /// The device.
        device: &'static str,
        /// Where it was to see its memory.
        dma: DmaAddr,
        /// The size of that.
        bytes: u32,
        /// The first byte of RAM there.
        ram: PhysAddr,
    },
    /// For the device it passes the top of its addresses.
    Wraps {
        /// Where the device sees it.
        dma: DmaAddr,
        /// Its size.
        bytes: u32,
    },
    /// It holds no page.
    Pages(pool::NewError),
    /// It cannot be mapped: it is RAM, or another's, or passes the top of memory.
    Map(IoRemapError),
    /// No memory for its books.
    NoBooks,
}

impl fmt::Display for DeclareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again { device } => write!(f, "{device} has memory of its own already"),
            Self::Iommu { device } => {
                write!(f, "{device} is behind an IOMMU and has no memory of its own beside that")
            }
            Self::Misaligned { physical, dma } => {
                write!(f, "{physical}, for the device {dma}, does not begin a page")
            }
            Self::Another { device, first, last } => {
                write!(f, "{first}-{last} is the memory of {device}")
            }
            Self::Ram { device, dma, bytes, ram } => {
                write!(f, "of {bytes:#x} bytes at {dma}, {device} sees RAM at {ram}")
            }
            Self::Wraps { dma, bytes } => {
                write!(f, "{bytes:#x} bytes at {dma} pass the top of the device's addresses")
            }
            Self::Pages(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::NoBooks => f.write_str("no memory for its books"),
        }
    }
}

impl core::error::Error for DeclareError {}

/// Why the memory is not taken away from its device. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseError {
    /// It has none.
    None {
        /// The device.
        device: &'static str,
    },
    /// Buffers lie in it.
    InUse {
        /// The device.
        device: &'static str,
        /// Pages of buffers.
        pages: u32,
    },
    /// Its mapping does not go.
    Unmap(RemoveError),
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None { device } => write!(f, "{device} has no memory of its own"),
            Self::InUse { device, pages } => {
                write!(f, "{pages} pages of the memory of {device} are in use")
            }
            Self::Unmap(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ReleaseError {}

/// Which pages are taken, and for each the note of the run that it is the first of.
struct Books {
    pool: Pool<'static>,
    notes: Box<[Note]>,
}

/// What is noted of a buffer.
#[derive(Clone, Copy)]
struct Note {
    holder: Holder,
    /// A program was shown some of it.
    was_shown: bool,
    /// It is being freed, and shown to nobody any more.
    going: bool,
}

impl Note {
    const fn of(holder: Holder) -> Self {
        Self { holder, was_shown: false, going: false }
    }
}

impl Books {
    /// The note of the buffer of so many pages that begins at `address`.
    fn note_of(&mut self, address: VirtAddr, pages: u32) -> Option<&mut Note> {
        let run = self.pool.runs().find(|run| (run.start, run.pages) == (address, pages))?;
        self.notes.get_mut(run.first as usize)
    }
}

/// The memory that was declared for a device.
pub(crate) struct Declared {
    base: VirtAddr,
    physical: PhysAddr,
    dma: DmaAddr,
    pages: IrqSpinLock<Books>,
    /// That it is nobody else's.
    pub(crate) claim: Claim,
}

impl Declared {
    /// Maps it for `device`, which is behind no IOMMU. Where one may sleep.
    pub(crate) fn new(
        device: &Device,
        (physical, dma): (PhysAddr, DmaAddr),
        bytes: u32,
        caller: VirtAddr,
    ) -> Result<Box<Self>, DeclareError> {
        if !physical.is_page_aligned() || !dma.is_page_aligned() {
            return Err(DeclareError::Misaligned { physical, dma });
        }
        // A tail that is no whole page is not used.
        let usable = bytes / PAGE_SIZE * PAGE_SIZE;
        if usable == 0 {
            return Err(DeclareError::Pages(pool::NewError::NoPages { bytes }));
        }
        if dma.checked_add(usable - 1).is_none() {
            return Err(DeclareError::Wraps { dma, bytes });
        }
        let wraps = DeclareError::Map(IoRemapError::Wraps { physical, bytes });
        let last = physical.checked_add(usable - 1).ok_or(wraps)?;
        let seen = device.physical_address(dma);
        // On the bus as for the device it does not wrap.
        let seen_last = device.physical_address(DmaAddr::new(dma.raw() + (usable - 1)));
        if let Some(ram) = mm::kernel().zones().ram_within(seen, seen_last) {
            return Err(DeclareError::Ram { device: device.name(), dma, bytes, ram });
        }
        let mut words = Vec::new();
        let wanted = Pool::words_for(usable);
        words.try_reserve_exact(wanted).map_err(|_| DeclareError::NoBooks)?;
        words.resize(wanted, Word::FREE);
        let mut notes = Vec::new();
        let pages = (usable / PAGE_SIZE) as usize;
        notes.try_reserve_exact(pages).map_err(|_| DeclareError::NoBooks)?;
        notes.resize(pages, Note::of(Holder::NOBODY));
        let mut own = Vec::new();
        own.try_reserve_exact(1).map_err(|_| DeclareError::NoBooks)?;
        let claim = Claim::new(device.name(), (physical, last))?;
        let base = mm::kernel()
            .ioremap_own(physical, usable, Attributes::WRITE_COMBINE, caller)
            .map_err(DeclareError::Map)?;
        // As many words as were asked for, a base that begins a page, a page at least.
        let pool = Pool::new(base, usable, Box::leak(words.into_boxed_slice()))
            .map_err(DeclareError::Pages)?;
        let books = Books { pool, notes: notes.into_boxed_slice() };
        let pages = IrqSpinLock::new(Class::DeclaredMemory, books);
        own.push(Self { base, physical, dma, pages, claim });
        let own: Box<[Self; 1]> =
            own.into_boxed_slice().try_into().map_err(|_| DeclareError::NoBooks)?;
        // SAFETY: an array of one has its element's layout, and the pointer is the box's own.
        Ok(unsafe { Box::from_raw(Box::into_raw(own).cast()) })
    }

    /// Whether a buffer there is the device's own memory.
    pub(crate) fn contains(&self, address: VirtAddr) -> bool {
        self.pages.with(|books| books.pool.contains(address))
    }

    /// Where `address`, which is inside, lies on the bus, and the device's view of it.
    fn view(&self, address: VirtAddr) -> (PhysAddr, DmaAddr) {
        // Neither wraps; see `new`.
        let offset = address.raw().wrapping_sub(self.base.raw());
        let physical = PhysAddr::new(self.physical.raw().wrapping_add(offset));
        (physical, DmaAddr::new(self.dma.raw().wrapping_add(offset)))
    }

    /// A zeroed run of pages, at least a byte, that the device reaches. Any context.
    pub(crate) fn allocate(
        &self,
        device: &Device,
        bytes: u32,
        holder: Holder,
    ) -> Result<Buffer, AllocateError> {
        let (name, mask) = (device.name(), device.coherent_mask());
        let run = self.pages.with(|books| {
            let run = books.pool.allocate(bytes);
            let run = run.map_err(|error| AllocateError::Declared { device: name, error })?;
            let lowest = self.view(run.start).1;
            if !mask.reaches(lowest, bytes) {
                // The pool gave the lowest that it has.
                let returned = books.pool.free(run.start, bytes);
                debug_assert_eq!(returned, Ok(()), "taken under this very lock");
                let found = Found::Declared { lowest, region: self.dma, pages: books.pool.pages() };
                return Err(AllocateError::OutOfReach { device: name, mask, bytes, found });
            }
            if let Some(note) = books.notes.get_mut(run.first as usize) {
                *note = Note::of(holder);
            }
            Ok(run)
        })?;
        let memory: *mut u8 = ptr::with_exposed_provenance_mut(run.start.raw() as usize);
        // SAFETY: the run is mapped, writable, and was given to nobody else.
        unsafe { memory.write_bytes(0, (run.pages * PAGE_SIZE) as usize) };
        Ok(Buffer { address: run.start, dma: self.view(run.start).1 })
    }

    /// Gives a run back that lies inside, if the device sees it there. Any context; of what a program was shown, where one may sleep.
    pub(crate) fn free(
        &self,
        address: VirtAddr,
        bytes: u32,
        dma: DmaAddr,
    ) -> Result<(), DeclaredFreeError> {
        let wanted = self.view(address).1;
        if wanted != dma {
            return Err(DeclaredFreeError::Handle { wanted });
        }
        let pages = pages_for(bytes);
        // What nobody is shown goes under the lock under which it would begin to be.
        let freed = self.pages.with(|books| {
            let was_shown = books.note_of(address, pages).is_some_and(|note| note.was_shown);
            (!was_shown).then(|| books.pool.free(address, bytes))
        });
        let freed = if let Some(freed) = freed {
            freed
        } else {
            match self.hide(address, pages) {
                Ok(()) => self.pages.with(|books| books.pool.free(address, bytes)),
                Err(DeclaredFreeError::Pages(gone)) => Err(gone),
                Err(error) => return Err(error),
            }
        };
        freed.map_err(|error| {
            log::error!("DMA: a free of a device's own memory was refused: {error}");
            dump_stack();
            DeclaredFreeError::Pages(error)
        })
    }

    /// Sees to it that the buffer is shown to nobody any more, if no window shows it now.
    #[cold]
    fn hide(&self, address: VirtAddr, pages: u32) -> Result<(), DeclaredFreeError> {
        arch::lock::might_sleep("freeing what programs were shown");
        if !arch::cpu::may_sleep() {
            // What would be waited for may lie below, on this very CPU.
            return Err(DeclaredFreeError::Busy);
        }
        let gone = pool::FreeError::NotAllocated { start: address };
        // Another call that frees it leaves nothing to free.
        self.pages.with(|books| {
            let note = books.note_of(address, pages).filter(|note| !note.going);
            note.ok_or(DeclaredFreeError::Pages(gone))?.going = true;
            Ok(())
        })?;
        let (base, _, first) = self.place_of(address);
        // Whoever was told before that it may be shown has begun a window, and ends that, or has made it, soon.
        let windows = loop {
            match mm::user::windows_onto(base, (first, pages)) {
                Some(windows) => break windows,
                None => arch::cpu::relax(),
            }
        };
        if windows == 0 {
            return Ok(());
        }
        self.pages.with(|books| {
            if let Some(note) = books.note_of(address, pages) {
                note.going = false;
            }
        });
        Err(DeclaredFreeError::Shown { windows })
    }

    /// Whether the buffer of so many pages at `address` may be shown, by a window that waits for the answer and that [`Declared::hide`]
    /// then waits for.
    pub(crate) fn may_be_shown(&self, address: VirtAddr, pages: u32) -> Result<(), ShareError> {
        self.pages.with(|books| {
            let note = books.note_of(address, pages).filter(|note| !note.going);
            note.ok_or(ShareError::Unknown { address })?.was_shown = true;
            Ok(())
        })
    }

    /// Where the mapping that programs are shown begins, and how many pages of it lie before `address`.
    pub(crate) fn place_of(&self, address: VirtAddr) -> (VirtAddr, PhysAddr, u32) {
        let offset = address.raw().wrapping_sub(self.base.raw());
        (self.base, self.physical, offset / PAGE_SIZE)
    }

    /// The first run that begins at `page` or behind it.
    pub(crate) fn next_run(&self, page: u32) -> Option<Taken> {
        let (run, holder) = self.pages.with(|books| {
            let run = books.pool.runs_from(page).next()?;
            Some((run, books.notes.get(run.first as usize)?.holder))
        })?;
        let (physical, dma) = self.view(run.start);
        Some(Taken { run, physical, dma, holder })
    }

    /// Pages of buffers.
    pub(crate) fn taken(&self) -> u32 {
        self.pages.with(|books| books.pool.taken_pages())
    }

    /// Ends the mapping.
    ///
    /// # Safety
    /// Nobody uses it any more: it was taken from its device, and no buffer lies in it.
    pub(crate) unsafe fn release(self: Box<Self>) -> Result<(), (RemoveError, Box<Self>)> {
        // SAFETY: by the caller's promise nobody has a pointer into it.
        let authority = unsafe { Authority::claim() };
        if let Err(error) = mm::kernel().iounmap(authority, self.base) {
            return Err((error, self));
        }
        let pool = self.pages.with(|books| mem::replace(&mut books.pool, Pool::empty()));
        // SAFETY: `new` leaked a box of the words, all of which the pool had borrowed, and that is gone.
        drop(unsafe { Box::from_raw(ptr::from_mut(pool.into_words())) });
        Ok(())
    }
}

/// Why a run was not taken back.
pub(crate) enum DeclaredFreeError {
    /// The device sees it elsewhere.
    Handle {
        /// There.
        wanted: DmaAddr,
    },
    /// Programs see it in so many windows, which must end first (S46).
    Shown {
        /// So many.
        windows: u32,
    },
    /// A program was shown it, and here it cannot be waited until no window is being made or ended.
    Busy,
    /// The books say otherwise. It was printed, with a backtrace.
    Pages(pool::FreeError),
}

/// A buffer in a device's own memory.
pub(crate) struct Taken {
    pub(crate) run: Run,
    pub(crate) physical: PhysAddr,
    pub(crate) dma: DmaAddr,
    pub(crate) holder: Holder,
}
