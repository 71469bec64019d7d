//! The address space of a program, and the register of all of them.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arch::exception::{Fault, FaultStatus};
use arch::lock::IrqLocks;
use arch::machine::CortexA9;
use arch::user::{CopyFault, copy_from, copy_to};
use kerncore::addr::{PageRange, Pfn, PhysAddr, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::contiguous::Unmovable;
use kerncore::frames::{AllocateError, FrameBlock, ShownBlock};
use kerncore::iommu::SeenAt;
use kerncore::kernel_space::ShareError;
use kerncore::layout::linear_physical;
use kerncore::page_table::MapError;
use kerncore::user::asid::{Asid, SpaceId};
use kerncore::user::{
    CloseError, PlaceError, Protection, ShowError, Spaces, UserSpace, UserSummary, UserViolation,
    last_byte,
};
use spin::Once;

use super::register::{self, Registered};
use crate::{kernel, reserve};

pub(super) type Space = UserSpace<'static, 'static, CortexA9, IrqLocks>;

/// What all spaces share. The stub's table for the lower half, which is empty, is in use while no program's is.
pub(crate) fn spaces() -> &'static Spaces<IrqLocks> {
    static SPACES: Once<Spaces<IrqLocks>> = Once::new();
    SPACES.call_once(|| {
        let empty = linear_physical(boot::layout::user_l1());
        Spaces::new(empty.expect("the image lies in the linear map"))
    })
}

/// Why there is no address space. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceError {
    /// No memory for its table.
    Frames(AllocateError),
    /// No memory of the heap's for what the kernel notes of it.
    Heap,
    /// There are as many as there can be.
    TooMany {
        /// How many.
        most: usize,
    },
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames(error) => error.fmt(f),
            Self::Heap => f.write_str("the heap has no memory for an address space"),
            Self::TooMany { most } => write!(f, "there are {most} address spaces, the most"),
        }
    }
}

impl core::error::Error for SpaceError {}

/// Why a copy from or to a program's memory ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyError {
    /// Not all of it is a program's to name: page zero, the kernel's half, round the top. Nothing was copied.
    NotUsers {
        /// Where it was to begin.
        address: VirtAddr,
        /// How many bytes it was to have.
        bytes: usize,
    },
    /// The program may not access this itself.
    Fault(CopyFault),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUsers { address, bytes } => {
                write!(f, "{bytes} bytes from {address} are not a program's")
            }
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl core::error::Error for CopyError {}

/// One program's half of the addresses. Dropping it gives back all of its memory, its tables and its number.
///
/// Made, changed and dropped where one may sleep.
#[derive(Debug)]
pub struct AddressSpace {
    space: Registered,
}

impl AddressSpace {
    /// A space with nothing in it.
    ///
    /// # Errors
    /// [`SpaceError`]; nothing was taken.
    pub fn new() -> Result<Self, SpaceError> {
        let new = || Space::new(kernel(), spaces());
        let space = new().or_else(|error| reserve::unless_short(error, new));
        let space = space.map_err(SpaceError::Frames)?;
        Ok(Self { space: Registered::new(space)? })
    }

    /// Zeroed memory at `pages`.
    ///
    /// # Errors
    /// [`PlaceError`]; nothing was taken.
    pub fn map_data(&self, pages: PageRange, protection: Protection) -> Result<(), PlaceError> {
        unless_short(|| self.space.map_data(pages, protection))
    }

    /// `program` at the start of `pages`, zeros behind it, to be read and executed, and to be written by nobody.
    ///
    /// # Errors
    /// [`PlaceError`]; nothing was taken.
    pub fn map_text(&self, pages: PageRange, program: &[u8]) -> Result<(), PlaceError> {
        unless_short(|| self.space.map_text(pages, program))
    }

    /// A window at `pages` in which nothing is mapped yet, for memory of the kernel's to be shown in.
    ///
    /// # Errors
    /// [`PlaceError`]; nothing was taken.
    pub fn reserve(&self, pages: PageRange, protection: Protection) -> Result<(), PlaceError> {
        self.space.reserve(pages, protection)
    }

    /// Shows the memory of vmalloc at `base`, which must be tagged for programs, from its page `offset` on, in all of the
    /// reserved window that begins at `start` (S43 to S46). Until that window ends, the area cannot be freed.
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show_vmalloc(
        &self,
        start: VirtAddr,
        base: VirtAddr,
        offset: u32,
    ) -> Result<(), ShowError> {
        self.space.show_vmalloc(start, base, offset)
    }

    /// Shows the coherent buffer at `base`, which lies at `physical` on the bus, in the same way (S78).
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show_coherent(
        &self,
        start: VirtAddr,
        base: VirtAddr,
        physical: PhysAddr,
        offset: u32,
    ) -> Result<(), ShowError> {
        self.space.show_coherent(start, base, physical, offset)
    }

    /// Shows the coherent buffer of scattered frames at `base`, which a device sees at `at`, in the same way (S82).
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show_seen(
        &self,
        start: VirtAddr,
        base: VirtAddr,
        at: SeenAt,
        offset: u32,
    ) -> Result<(), ShowError> {
        self.space.show_seen(start, base, at, offset)
    }

    /// Shows memory of a device's own, whose uncached mapping by ioremap begins at `base`, and at `physical` on the bus, if `may_be`
    /// agrees, in the same way (S102). From before that is asked until it is shown, or not, [`windows_onto`] has no answer.
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show_device_memory(
        &self,
        start: VirtAddr,
        (base, physical): (VirtAddr, PhysAddr),
        offset: u32,
        may_be: impl FnOnce() -> Result<(), ShareError>,
    ) -> Result<(), ShowError> {
        self.space.show_device_memory(start, (base, physical), offset, may_be)
    }

    /// Shows the block of frames that `pin` gives for a window of so many pages, which had it of [`kerncore::kernel_space::KernelSpace::show_block`], as the
    /// linear map has it, in the same way (S78, S97). Until the window ends, the block cannot be freed.
    ///
    /// # Errors
    /// [`ShowError`], also what `pin` says.
    pub fn show_block(
        &self,
        start: VirtAddr,
        offset: u32,
        pin: impl FnOnce(u32) -> Result<ShownBlock, ShareError>,
    ) -> Result<(), ShowError> {
        self.space.show_block(start, offset, pin)
    }

    /// What the tables promise at `address`, if something is mapped there.
    pub fn attributes_at(&self, address: VirtAddr) -> Option<Attributes> {
        self.space.translate(address)?.attributes().ok()
    }

    /// Ends the window that begins at `start`.
    ///
    /// # Errors
    /// [`CloseError`].
    pub fn unmap(&self, start: VirtAddr) -> Result<(), CloseError> {
        self.space.unmap(start)
    }

    /// The pages of the window that `address` lies in.
    pub fn window_of(&self, address: VirtAddr) -> Option<PageRange> {
        self.space.window_of(address)
    }

    /// Fills `to` from the program's memory at `from`, with the program's rights (`copy_from_user`). Not in interrupt context.
    ///
    /// # Errors
    /// [`CopyError`]; what was copied before a fault is in `to`.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn copy_from(&self, to: &mut [u8], from: VirtAddr) -> Result<(), CopyError> {
        arch::lock::might_sleep("copy_from_user");
        check(from, to.len())?;
        self.unless_moved(|| copy_from(to, from))
    }

    /// Writes `from` to the program's memory at `to`, with the program's rights (`copy_to_user`). Not in interrupt context.
    ///
    /// # Errors
    /// [`CopyError`]; what was copied before a fault is there.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn copy_to(&self, to: VirtAddr, from: &[u8]) -> Result<(), CopyError> {
        arch::lock::might_sleep("copy_to_user");
        check(to, from.len())?;
        self.unless_moved(|| copy_to(to, from))
    }

    /// Copies, and once more if it met a page that was just being moved: then it is there now.
    fn unless_moved(
        &self,
        mut copy: impl FnMut() -> Result<(), CopyFault>,
    ) -> Result<(), CopyError> {
        loop {
            match self.space.with_open(&mut copy) {
                Err(CopyFault { fault, .. }) if self.is_over(&fault) => {}
                copied => return copied.map_err(CopyError::Fault),
            }
        }
    }

    /// Whether the program may go on that met `fault`: for want of a page that was just being moved, and is there now (S101).
    pub(super) fn is_over(&self, fault: &Fault) -> bool {
        let is_missing = matches!(fault.status, FaultStatus::Translation(_));
        let is_over =
            is_missing && fault.address.is_some_and(|address| self.space.is_there(address));
        WAITS.fetch_add(u32::from(is_over), Relaxed);
        is_over
    }

    /// The number that it last ran under.
    pub fn asid(&self) -> Asid {
        self.space.asid()
    }

    /// The space itself.
    pub(super) fn space(&self) -> &Space {
        &self.space
    }
}

/// What comes of `place`, made again for as long as it lacks frames, be it for a table, and somebody has some in reserve.
fn unless_short(place: impl Fn() -> Result<(), PlaceError>) -> Result<(), PlaceError> {
    loop {
        let placed = place();
        let lacks_frames = matches!(
            placed,
            Err(PlaceError::Frames(AllocateError::Exhausted { .. })
                | PlaceError::Map(MapError::Table { .. }))
        );
        if !lacks_frames || reserve::give_back() == 0 {
            return placed;
        }
    }
}

fn check(address: VirtAddr, bytes: usize) -> Result<(), CopyError> {
    let last = u32::try_from(bytes).ok().and_then(|bytes| last_byte(address, bytes));
    last.map(drop).ok_or(CopyError::NotUsers { address, bytes })
}

/// Moves a program's page out of the lent `frame`.
pub(crate) fn move_out(id: SpaceId, page: u32, frame: Pfn) -> Result<FrameBlock, Unmovable> {
    // A space that is gone gave its frames back.
    register::with_space(id, |space| space.move_out(page, frame)).unwrap_or(Err(Unmovable::Busy))
}

/// How often somebody waited for a page that was just being moved.
static WAITS: AtomicU32 = AtomicU32::new(0);

/// How often a program, or a copy from or to its memory, waited for a page that was just being moved (S101).
pub fn waits() -> u32 {
    WAITS.load(Relaxed)
}

/// How many windows of programs show any of the `pages` (a first one and a count) of the kernel's mapping at `base`. `None` while
/// somebody makes or ends one. Where one may sleep.
pub fn windows_onto(base: VirtAddr, pages: (u32, u32)) -> Option<u32> {
    arch::lock::might_sleep("looking for programs' windows");
    let mut all = Some(0_u32);
    register::visit(|space| {
        all = all.zip(space.windows_onto(base, pages)).map(|(all, more)| all + more);
    });
    all
}

/// How many spaces live.
pub fn live() -> usize {
    register::count()
}

/// How many numbers of address spaces have an owner.
pub fn numbers_taken() -> usize {
    spaces().numbers_taken()
}

/// How often all numbers were taken away.
pub fn rollovers() -> u64 {
    spaces().rollovers()
}

/// Audits every space that lives; each rule that is broken goes to `report`. What they have, all together.
///
/// Nothing else may map or unmap meanwhile.
pub fn audit(report: &mut dyn FnMut(UserViolation)) -> UserSummary {
    let mut all = UserSummary::default();
    register::visit(|space| {
        let UserSummary { frames, table_frames, text_frames, windows, shown, pages } =
            space.audit(report);
        all.frames += frames;
        all.table_frames += table_frames;
        all.text_frames += text_frames;
        all.windows += windows;
        all.shown += shown;
        all.pages += pages;
    });
    all
}
