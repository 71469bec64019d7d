//! One address space: its tables, its windows, and its life.
//!
//! ```text
//!   new ──▶ map_data, map_text ──▶ with_open: the CPU translates by it ──▶ unmap … ──▶ dropped: nothing is left
//! ```
//!
//! It is the kernel's own page table over a machine that invalidates under one number ([`super::asid`]). Unlike the kernel's,
//! its tables go when it goes: by then nobody else can walk them, for no CPU runs in it and no TLB remembers it.
//!
//! # Locks
//! That of the windows and that of the numbers have no other inside; that of the space's table memory stands where the
//! kernel's does, inside the making of tables and outside the frames.

use core::fmt;

use crate::addr::{PageRange, PhysAddr, VirtAddr};
use crate::descriptor::{SLOT_SIZE, l1};
use crate::frames::{AllocateError, FrameBlock, FrameOwner};
use crate::kernel_space::{FramesError, KernelSpace};
use crate::lock::{Class, Lock, Locks};
use crate::machine::Machine;
use crate::page_table::{PageTable, Released, Removal, Translation};
use crate::user::USER_PAGES;
use crate::user::asid::{Asid, Asids, SpaceId};
use crate::user::machine::{SpaceMachine, UserMachine};
use crate::user::tables::SpaceTables;
use crate::user::window::{Backing, CloseError, Source, Window};
use crate::user::windows::Windows;

/// The most CPUs that there can be.
pub const CPUS: usize = 4;
/// The most windows of one space.
pub const WINDOWS: usize = 16;

/// Slots of a first-level table for the lower half.
const L1_SLOTS: u32 = l1::TABLE_ALIGNMENT / SLOT_SIZE;
/// The order of the block that the table fills: 8 KiB.
const L1_ORDER: u32 = 1;

/// What all address spaces share.
#[expect(missing_debug_implementations, reason = "a lock shows nothing")]
pub struct Spaces<L: Locks> {
    pub(super) asids: L::Lock<Asids<CPUS>>,
    /// The table for the lower half while no program's is in use: all of its slots are empty.
    pub(super) empty: PhysAddr,
}

impl<L: Locks> Spaces<L> {
    /// No space yet; `empty` is a first-level table for the lower half in which nothing is mapped, and nothing ever will be.
    pub fn new(empty: PhysAddr) -> Self {
        Self { asids: Lock::new(Class::SpaceNumbers, Asids::new()), empty }
    }

    /// As [`Spaces::new`], with fewer numbers, the kernel's included, so that they change hands more often.
    ///
    /// # Panics
    /// If there are not more than CPUs, or more than the processor has.
    pub fn with_numbers(empty: PhysAddr, numbers: usize) -> Self {
        Self { asids: Lock::new(Class::SpaceNumbers, Asids::with_numbers(numbers)), empty }
    }

    /// How many numbers have an owner.
    pub fn numbers_taken(&self) -> usize {
        self.asids.with(|asids| asids.taken())
    }

    /// How often all numbers were taken away.
    pub fn rollovers(&self) -> u64 {
        self.asids.with(|asids| asids.rollovers())
    }
}

/// The lower half of the address space, as one program sees it.
///
/// All methods take `&self`, from any CPU, and may be called where one may sleep; none holds a lock when it returns.
pub struct UserSpace<'k, 's, M: UserMachine, L: Locks> {
    pub(super) kernel: &'k KernelSpace<'s, M, L>,
    spaces: &'k Spaces<L>,
    id: SpaceId,
    pub(super) table: PageTable<SpaceMachine<M>, L>,
    pub(super) windows: L::Lock<Windows<Window, WINDOWS>>,
    pub(super) tables: SpaceTables<L>,
    /// The frames of the first-level table; gone only while the space dies.
    root: Option<FrameBlock>,
}

impl<'k, 's, M: UserMachine, L: Locks> UserSpace<'k, 's, M, L> {
    /// A space with nothing in it.
    ///
    /// # Errors
    /// [`AllocateError`]: no memory for the first-level table; nothing was taken.
    pub fn new(
        kernel: &'k KernelSpace<'s, M, L>,
        spaces: &'k Spaces<L>,
    ) -> Result<Self, AllocateError> {
        L::might_sleep("making an address space");
        let root = kernel.zeroed_frames(L1_ORDER, FrameOwner::PageTable)?;
        let machine = kernel.table().machine().clone();
        // The walker may not look into the cache (S16a).
        machine.clean_descriptors(root.first().base(), L1_SLOTS);
        machine.barrier();
        let machine = SpaceMachine { machine, current: super::asid::Current::new() };
        let (table, whole) = PageTable::new(machine, root.first().base(), USER_PAGES);
        Ok(Self {
            kernel,
            spaces,
            id: spaces.asids.with(Asids::register),
            table,
            windows: Lock::new(Class::UserWindows, Windows::new(whole)),
            tables: SpaceTables::new(),
            root: Some(root),
        })
    }

    /// Runs `act` while this CPU translates the lower half by this space. May not be called in interrupt context, nor by
    /// `act`: there is one TTBR0 a CPU. Handlers of interrupts that come meanwhile must find it closed, which is
    /// the business of whoever runs them.
    ///
    /// # Panics
    /// In interrupt context, or if this CPU has a space open already.
    pub fn with_open<R>(&self, act: impl FnOnce() -> R) -> R {
        self.with_open_on(&self.table.machine().machine, act)
    }

    /// As [`UserSpace::with_open`], for machines each value of which is one CPU.
    ///
    /// # Panics
    /// In interrupt context, or if this CPU has a space open already.
    pub fn with_open_on<R>(&self, machine: &M, act: impl FnOnce() -> R) -> R {
        let current = &self.table.machine().current;
        self.spaces.with_open(machine, (self.id, current), self.table.root(), act)
    }

    /// Lends the processor, for what is written to frames of the caller's own.
    pub fn with_machine<R>(&self, act: impl FnOnce(&M) -> R) -> R {
        act(&self.table.machine().machine)
    }

    /// Its name.
    pub const fn id(&self) -> SpaceId {
        self.id
    }

    /// The number that it last ran under; the kernel's if it never ran.
    pub fn asid(&self) -> Asid {
        self.table.machine().current.asid()
    }

    /// Where its first-level table lies.
    pub const fn root(&self) -> PhysAddr {
        self.table.root()
    }

    /// Where `address` leads, by the tables; it says nothing of permissions, or of what a TLB remembers.
    pub fn translate(&self, address: VirtAddr) -> Option<Translation> {
        self.table.translate(address)
    }

    /// The live window that `address` lies in: its pages.
    pub fn window_of(&self, address: VirtAddr) -> Option<PageRange> {
        self.windows.with(|windows| windows.find(address).map(|(pages, _)| pages))
    }

    /// Ends the window that begins at `start`, and gives its memory back, after the flush on every CPU (S23).
    ///
    /// # Errors
    /// [`CloseError`].
    pub fn unmap(&self, start: VirtAddr) -> Result<(), CloseError> {
        L::might_sleep("unmapping user memory");
        let window = self.windows.with(|windows| windows.take(start))?;
        let Window { usable, backing, .. } = window;
        let Released { range, payload, removal } = self.table.unmap(usable, backing).flush();
        let freed = self.free(payload, removal);
        let released = self.windows.with(|windows| windows.release(range));
        debug_assert!(released.is_ok(), "a window's range was exchanged: {released:?}");
        freed.map_err(|error| CloseError::Frames { address: start, error })
    }

    /// Gives back what stood behind a window that no TLB remembers.
    fn free(&self, backing: Backing, removal: Removal) -> Result<(), FramesError> {
        if removal.left_alone != 0 {
            return Err(FramesError::StillMapped);
        }
        match backing {
            Backing::Nothing(_) => Ok(()),
            Backing::Shown { source, .. } => {
                self.let_go(source);
                Ok(())
            }
            Backing::Frames(list) => self.free_data(list),
            Backing::Text(absent) => self.kernel.take_back(absent),
        }
    }

    fn let_go(&self, source: Source) {
        match source {
            Source::Area { base, .. } => self.kernel.unpin(base),
            Source::Block(block) => self.kernel.hide_block(block),
        }
    }

    /// Empties the first level, and makes every TLB forget the space, upper levels included, before its tables go.
    fn forget_tables(&self) {
        let machine = self.table.machine();
        let slots = (0..L1_SLOTS).filter_map(|index| self.root().checked_add(index * SLOT_SIZE));
        for slot in slots.filter(|&slot| machine.read_descriptor(slot) != 0) {
            machine.write_descriptors(slot, core::iter::once(0));
            machine.clean_descriptors(slot, 1);
        }
        machine.barrier();
        machine.machine.invalidate_tlb_space(machine.current.asid());
        machine.barrier();
    }
}

/// 1. every window ends, its memory after its flush;
/// 2. the first level is emptied, and every TLB forgets the space;
/// 3. the tables go;
/// 4. the number is free.
impl<M: UserMachine, L: Locks> Drop for UserSpace<'_, '_, M, L> {
    fn drop(&mut self) {
        let mut sound = Ok(());
        while let Some(start) = self.windows.with(|windows| windows.first()) {
            sound = sound.and(self.unmap(start));
        }
        self.forget_tables();
        let zones = self.kernel.zones();
        let tables = zones.free_list(self.tables.take());
        let root = self.root.take().map(|root| zones.free(root));
        self.spaces.asids.with(|asids| asids.retire(self.id, &self.table.machine().current));
        // What could not be freed is out of use for good, and the audit names it.
        debug_assert!(sound.is_ok(), "{sound:?}");
        debug_assert!(
            tables.is_ok() && root.is_none_or(|root| root.is_ok()),
            "tables changed hands"
        );
    }
}

impl<M: UserMachine, L: Locks> fmt::Debug for UserSpace<'_, '_, M, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSpace")
            .field("id", &self.id)
            .field("root", &self.root())
            .field("asid", &self.asid())
            .finish_non_exhaustive()
    }
}
