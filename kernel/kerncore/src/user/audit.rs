//! The audit of one space: who stands behind every descriptor of the lower half?
//!
//! As the kernel's ([`crate::audit`]): what an address should hold follows from the windows alone, and is compared with the
//! word in the table.

use core::fmt;

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::attributes::MemoryType;
use crate::descriptor::{l1, l2::SmallPages};
use crate::frames::FrameOwner;
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::{Level, consecutive};
use crate::user::USER_PAGES;
use crate::user::machine::UserMachine;
use crate::user::map::text_frames;
use crate::user::space::UserSpace;
use crate::user::window::{Backing, Source, Window};

/// One rule broken in a user address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserViolation {
    /// An entry is not the one that the window's page should have.
    Entry {
        /// The address that it translates.
        address: VirtAddr,
        /// What it should hold.
        wanted: u32,
        /// What it holds.
        had: u32,
    },
    /// Something is mapped in no window, or on page zero.
    Stray {
        /// The first address that it translates.
        address: VirtAddr,
        /// What the slot holds.
        had: u32,
    },
    /// A frame behind a window is not a program's.
    Owner {
        /// The address that leads to it.
        address: VirtAddr,
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        had: FrameOwner,
    },
    /// A frame that the linear map has is shown by another type than that has it by (S97).
    Types {
        /// Where the window begins.
        address: VirtAddr,
        /// The frame.
        frame: Pfn,
        /// The window's type.
        seen: MemoryType,
        /// The linear map's, if that has the frame.
        linear: Option<MemoryType>,
    },
    /// A first-level slot names a table in a frame that is no table's.
    ForeignTable {
        /// The first address below it.
        address: VirtAddr,
        /// The table.
        table: PhysAddr,
        /// Whose the frame is.
        had: FrameOwner,
    },
    /// The tables that first-level slots name are not those that were made.
    Tables {
        /// How many were made.
        made: u32,
        /// How many are named.
        found: u32,
    },
    /// Windows are being made or removed while nothing else was to happen.
    Unfinished {
        /// How many.
        windows: usize,
    },
}

/// What one space has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserSummary {
    /// Frames of [`FrameOwner::User`]: data.
    pub frames: u32,
    /// Frames of [`FrameOwner::PageTable`]: tables of both levels.
    pub table_frames: u32,
    /// Frames of [`FrameOwner::Text`].
    pub text_frames: u32,
    /// Live windows.
    pub windows: u32,
    /// Of them, those that show memory of the kernel's.
    pub shown: u32,
    /// Pages mapped.
    pub pages: u32,
}

impl<M: UserMachine, L: Locks> UserSpace<'_, '_, M, L> {
    /// Walks the tables and the windows and hands `report` every rule that is broken. Nothing may be mapped or unmapped in
    /// this space meanwhile. `report` is called with the lock of windows held.
    pub fn audit(&self, report: &mut dyn FnMut(UserViolation)) -> UserSummary {
        let mut audit = Audit { space: self, report, summary: UserSummary::default() };
        audit.tables();
        self.windows.with(|windows| {
            match windows.unfinished() {
                0 => {}
                windows => (audit.report)(UserViolation::Unfinished { windows }),
            }
            windows.live().for_each(|(_, window)| audit.window(window));
            audit.strays(&|address| windows.find(address).is_some());
        });
        audit.summary
    }
}

struct Audit<'a, 'k, 's, M: UserMachine, L: Locks> {
    space: &'a UserSpace<'k, 's, M, L>,
    report: &'a mut dyn FnMut(UserViolation),
    summary: UserSummary,
}

impl<M: UserMachine, L: Locks> Audit<'_, '_, '_, M, L> {
    fn tables(&mut self) {
        let space = self.space;
        let mut found = 0;
        space.table.for_each_section(USER_PAGES, |pages, above| {
            let Some(table) = l1::table(above) else { return };
            found += 1;
            let had = space.kernel.zones().table().owner_of(table.pfn());
            if had != FrameOwner::PageTable {
                let address = pages.start();
                (self.report)(UserViolation::ForeignTable { address, table, had });
            }
        });
        let (made, frames) = space.tables.made();
        if made != found {
            (self.report)(UserViolation::Tables { made, found });
        }
        self.summary.table_frames += frames + l1::TABLE_ALIGNMENT / PAGE_SIZE;
    }

    fn window(&mut self, window: &Window) {
        self.summary.windows += 1;
        let table = self.space.kernel.zones().table();
        match &window.backing {
            Backing::Nothing(_) => self.pages(window, None, core::iter::empty()),
            &Backing::Shown { ref source, offset, mapped } => {
                self.summary.shown += 1;
                let (kernel, owner) = (self.space.kernel, Some(source.owner()));
                match source {
                    Source::Area { base, .. } => {
                        let frames = kernel.shown_frames(*base, (offset, mapped)).flatten();
                        self.pages(window, owner, frames);
                    }
                    Source::Block(block) => {
                        let first = block.first().checked_add(offset);
                        let frames = first.and_then(|first| consecutive(first, mapped));
                        let frames = frames.into_iter().flatten();
                        self.types(window, frames.clone());
                        self.pages(window, owner, frames);
                    }
                }
            }
            Backing::Frames(list) => {
                self.summary.frames += list.pages();
                self.pages(window, Some(FrameOwner::User), list.frames(table));
            }
            Backing::Text(absent) => {
                self.summary.text_frames += absent.pages();
                let frames = text_frames(absent).into_iter().flatten();
                self.pages(window, Some(FrameOwner::Text), frames);
            }
        }
    }

    /// Each frame of the window has one type for the program and in the linear map (S97).
    fn types(&mut self, window: &Window, frames: impl Iterator<Item = Pfn>) {
        let seen = window.attributes.memory();
        for frame in frames {
            let linear = self.space.kernel.linear_type(frame);
            if linear != Some(seen) {
                let address = window.usable.start();
                (self.report)(UserViolation::Types { address, frame, seen, linear });
            }
        }
    }

    /// Each page of the window leads to its frame, which is `owner`'s, with the rights of the window; those beyond the last
    /// frame lead nowhere.
    fn pages(
        &mut self,
        window: &Window,
        owner: Option<FrameOwner>,
        mut frames: impl Iterator<Item = Pfn>,
    ) {
        let words = SmallPages::new(window.attributes);
        let space = self.space;
        space.table.for_each_slot(window.usable.pages(), |slot| {
            // Where no table is, one slot stands for many pages: none of them is mapped.
            let (address, had) = (slot.pages.start(), slot.descriptor);
            for _ in 0..slot.pages.count() {
                let Some(frame) = frames.next() else {
                    if had != 0 {
                        (self.report)(UserViolation::Entry { address, wanted: 0, had });
                    }
                    return;
                };
                let wanted = words.word(frame);
                if slot.level == Level::First || had != wanted {
                    (self.report)(UserViolation::Entry { address, wanted, had });
                }
                let had = space.kernel.zones().table().owner_of(frame);
                if Some(had) != owner {
                    (self.report)(UserViolation::Owner { address, frame, had });
                }
                self.summary.pages += 1;
            }
        });
    }

    /// Nothing is mapped outside the windows.
    fn strays(&mut self, in_window: &dyn Fn(VirtAddr) -> bool) {
        let space = self.space;
        space.table.for_each_slot(USER_PAGES, |slot| {
            let address = slot.pages.start();
            if slot.descriptor != 0 && !in_window(address) {
                (self.report)(UserViolation::Stray { address, had: slot.descriptor });
            }
        });
        // Page zero is not the table's to map, so it is looked at past it.
        let above = space.table.read_descriptor(space.root());
        if let Some(table) = l1::table(above) {
            let had = space.table.machine().read_descriptor(table);
            if had != 0 {
                (self.report)(UserViolation::Stray { address: VirtAddr::new(0), had });
            }
        }
    }
}

impl fmt::Display for UserViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry { address, wanted, had } => {
                write!(f, "{address} of a program holds {had:#010x}, not {wanted:#010x}")
            }
            Self::Stray { address, had } => {
                write!(f, "{address} of a program holds {had:#010x}, in no window")
            }
            Self::Owner { address, frame, had } => {
                write!(f, "{address} of a program leads to frame {frame}, which is {had}'s")
            }
            Self::Types { address, frame, seen, linear } => {
                write!(f, "the window at {address} of a program has frame {frame} as {seen}, ")?;
                match linear {
                    Some(linear) => write!(f, "the linear map as {linear}"),
                    None => f.write_str("the linear map not at all"),
                }
            }
            Self::ForeignTable { address, table, had } => {
                write!(f, "{address} of a program has its table at {table}, which is {had}'s")
            }
            Self::Tables { made, found } => {
                write!(f, "a program has {found} second-level tables, and {made} were made")
            }
            Self::Unfinished { windows } => {
                write!(f, "{windows} windows of a program are being made or removed")
            }
        }
    }
}
