//! Bounce buffers: memory that every device reaches, lent in slots to buffers that a device does not (S106).
//!
//! ```text
//!   base                                                slots of 2 KiB, a run of them for each buffer
//!   │ 0    │ 1    │ 2    │ 3    │ 4    │ …
//!   └ first ┴ more ┴ more ┘ free └ first ┘
//! ```
//! The first slot of a run knows the buffer: where its bytes are copied from and to, how many, which way, for whom. So whoever
//! has a device's address has the buffer. A slot begins and ends with whole cache lines, so that a device may write every one. What a
//! device sees through an IOMMU it sees in whole pages: its buffers have their pages alone, so that no other's bytes lie there (S109).

use core::fmt;

use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::streaming::Flow;

/// Bytes in a slot.
pub const SLOT: u32 = 2048;

/// Slots in a page, where the first of all begins one.
const SLOTS_PER_PAGE: u32 = PAGE_SIZE / SLOT;

/// What of memory a buffer has alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granule {
    /// Its slots: other buffers may lie in its first and last page.
    Slot,
    /// Its pages, as it must where a device sees whole ones.
    Page,
}

impl Granule {
    /// In slots.
    const fn slots(self) -> u32 {
        match self {
            Self::Slot => 1,
            Self::Page => SLOTS_PER_PAGE,
        }
    }
}

/// Where the bytes of a buffer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Original {
    /// At this address of the kernel's, which stays mapped.
    Address(VirtAddr),
    /// There on the bus; high memory has no other address.
    Physical(PhysAddr),
}

impl Original {
    /// What lies `bytes` further.
    pub const fn plus(self, bytes: u32) -> Self {
        match self {
            Self::Address(address) => {
                Self::Address(VirtAddr::new(address.raw().wrapping_add(bytes)))
            }
            Self::Physical(physical) => {
                Self::Physical(PhysAddr::new(physical.raw().wrapping_add(bytes)))
            }
        }
    }
}

impl fmt::Display for Original {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Physical(physical) => write!(f, "{physical} on the bus"),
        }
    }
}

/// A buffer that has slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loan {
    /// Where its bytes are.
    pub original: Original,
    /// How many.
    pub bytes: u32,
    /// Which way they go.
    pub flow: Flow,
    /// For which device.
    pub device: &'static str,
    /// What it has alone.
    pub granule: Granule,
}

impl Loan {
    /// Slots that it takes.
    pub const fn slots(&self) -> u32 {
        let slots = self.bytes.div_ceil(SLOT);
        let wanted = if slots == 0 { 1 } else { slots };
        wanted.next_multiple_of(self.granule.slots())
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free,
    /// The first of as many as the buffer takes.
    First(Loan),
    /// One behind the first, which is so many back.
    More(u32),
}

/// A slot's record.
#[derive(Clone, Copy, Debug)]
pub struct Slot(State);

impl Slot {
    /// Nobody's.
    pub const FREE: Self = Self(State::Free);
}

/// There is no run of slots that is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Who wants it.
    pub device: &'static str,
    /// How many bytes.
    pub bytes: u32,
    /// Slots that are free.
    pub free: u32,
    /// Slots of the longest free run.
    pub largest: u32,
    /// Slots there are.
    pub slots: u32,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kibibytes = |slots: u32| slots * (SLOT / 1024);
        let Self { device, bytes, free, largest, slots } = *self;
        write!(
            f,
            "{device} wants {bytes} bytes of bounce buffers: {} of {} KiB are free, {} KiB in one piece; swiotlb= sets how many \
             there are",
            kibibytes(free),
            kibibytes(slots),
            kibibytes(largest)
        )
    }
}

impl core::error::Error for Exhausted {}

/// Why slots were not given back. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveBackError {
    /// The address is not that of a slot.
    NotMine {
        /// It.
        physical: PhysAddr,
    },
    /// No buffer has a slot there.
    Free {
        /// The address.
        physical: PhysAddr,
    },
    /// A buffer has, which begins elsewhere.
    NotAStart {
        /// The address.
        physical: PhysAddr,
        /// Where it begins.
        first: PhysAddr,
    },
}

impl fmt::Display for GiveBackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMine { physical } => write!(f, "{physical} is no bounce buffer"),
            Self::Free { physical } => write!(f, "no buffer is bounced at {physical}"),
            Self::NotAStart { physical, first } => {
                write!(f, "the buffer that is bounced at {physical} begins at {first}")
            }
        }
    }
}

impl core::error::Error for GiveBackError {}

/// A buffer that was found by a device's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where its slots begin.
    pub first: PhysAddr,
    /// The buffer.
    pub loan: Loan,
    /// How far the address lies behind the first.
    pub offset: u32,
}

/// All slots.
#[derive(Debug)]
pub struct Bounce<'s> {
    base: PhysAddr,
    slots: &'s mut [Slot],
    taken: u32,
}

impl<'s> Bounce<'s> {
    /// None.
    pub const fn empty() -> Self {
        Self { base: PhysAddr::new(0), slots: &mut [], taken: 0 }
    }

    /// The memory from `base`, which begins a page, as many slots as there are records, which does not pass the top of the bus.
    pub fn new(base: PhysAddr, slots: &'s mut [Slot]) -> Self {
        slots.fill(Slot::FREE);
        Self { base, slots, taken: 0 }
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        // An address space has no more.
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// How many are taken.
    pub const fn taken(&self) -> u32 {
        self.taken
    }

    /// Takes slots for a buffer, which has some bytes, all of which lie at or below `last`: the lowest that are free.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn take(&mut self, loan: Loan, last: PhysAddr) -> Result<PhysAddr, Exhausted> {
        let Loan { bytes, device, .. } = loan;
        let (wanted, granule) = (loan.slots(), loan.granule.slots());
        let reached = self.reached(last);
        let (mut free, mut largest, mut run) = (0, 0, 0);
        for (index, slot) in (0_u32..).zip(self.slots.iter().take(reached as usize)) {
            let is_free = matches!(slot.0, State::Free);
            let begins = run != 0 || index.is_multiple_of(granule);
            run = if is_free && begins { run + 1 } else { 0 };
            free += u32::from(is_free);
            largest = largest.max(run);
            if run == wanted {
                return Ok(self.lend(index + 1 - wanted, wanted, loan));
            }
        }
        Err(Exhausted { device, bytes, free, largest, slots: self.slots() })
    }

    /// How many of the slots end at or below `last`.
    fn reached(&self, last: PhysAddr) -> u32 {
        match last.checked_sub(self.base) {
            Some(u32::MAX) => self.slots(),
            Some(behind) => ((behind + 1) / SLOT).min(self.slots()),
            None => 0,
        }
    }

    fn lend(&mut self, first: u32, count: u32, loan: Loan) -> PhysAddr {
        let slots = self.slots.iter_mut().skip(first as usize).take(count as usize);
        for (back, slot) in (0..).zip(slots) {
            *slot = Slot(if back == 0 { State::First(loan) } else { State::More(back) });
        }
        self.taken += count;
        self.address(first)
    }

    const fn address(&self, index: u32) -> PhysAddr {
        PhysAddr::new(self.base.raw() + index * SLOT)
    }

    /// The slot that `physical` lies in.
    fn index(&self, physical: PhysAddr) -> Option<u32> {
        let index = physical.checked_sub(self.base)? / SLOT;
        (index < self.slots()).then_some(index)
    }

    /// Whether `physical` lies in a slot, whether that is lent or not.
    pub fn contains(&self, physical: PhysAddr) -> bool {
        self.index(physical).is_some()
    }

    /// The buffer whose slots `physical` lies in.
    pub fn find(&self, physical: PhysAddr) -> Option<Found> {
        let index = self.index(physical)?;
        let first = match self.slots.get(index as usize)?.0 {
            State::Free => return None,
            State::First(_) => index,
            State::More(back) => index - back,
        };
        match self.slots.get(first as usize)?.0 {
            State::First(loan) => {
                let first = self.address(first);
                Some(Found { first, loan, offset: physical.raw() - first.raw() })
            }
            State::Free | State::More(_) => None,
        }
    }

    /// Gives the slots of the buffer back that begins at `physical`.
    ///
    /// # Errors
    /// [`GiveBackError`]; nothing has changed.
    pub fn give_back(&mut self, physical: PhysAddr) -> Result<Loan, GiveBackError> {
        let index = self.index(physical).ok_or(GiveBackError::NotMine { physical })?;
        let found = self.find(physical).ok_or(GiveBackError::Free { physical })?;
        if found.offset != 0 {
            return Err(GiveBackError::NotAStart { physical, first: found.first });
        }
        let count = found.loan.slots();
        self.slots.iter_mut().skip(index as usize).take(count as usize).for_each(|slot| {
            *slot = Slot::FREE;
        });
        self.taken -= count;
        Ok(found.loan)
    }

    /// The buffers that have slots.
    pub fn loans(&self) -> impl Iterator<Item = (PhysAddr, Loan)> + '_ {
        (0..).zip(self.slots.iter()).filter_map(|(index, slot)| match slot.0 {
            State::First(loan) => Some((self.address(index), loan)),
            State::Free | State::More(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: PhysAddr = PhysAddr::new(0x6080_0000);
    const TOP: PhysAddr = PhysAddr::new(u32::MAX);

    fn at(slot: u32) -> PhysAddr {
        PhysAddr::new(BASE.raw() + slot * SLOT)
    }

    fn loan(bytes: u32) -> Loan {
        let original = Original::Address(VirtAddr::new(0xc000_1004));
        Loan { original, bytes, flow: Flow::FromDevice, device: "a disk", granule: Granule::Slot }
    }

    /// S109: of a device that sees whole pages.
    #[test]
    fn a_buffer_that_has_its_pages_alone_shares_none_s109() {
        let mut records = [Slot::FREE; 9];
        let mut bounce = Bounce::new(BASE, &mut records);
        let whole = |bytes| Loan { granule: Granule::Page, ..loan(bytes) };
        assert_eq!(bounce.take(loan(1), TOP), Ok(at(0)));
        assert_eq!(bounce.take(whole(1), TOP), Ok(at(2)), "not beside it");
        assert_eq!(bounce.take(loan(SLOT + 1), TOP), Ok(at(4)), "not beside that, either");
        assert_eq!(bounce.take(whole(2 * SLOT), TOP), Ok(at(6)));
        assert_eq!(bounce.taken(), 7);
        let none = bounce.take(whole(1), TOP).expect_err("single slots alone");
        assert_eq!(
            (none.free, none.largest),
            (2, 1),
            "the last slot begins a page that has no other"
        );
        assert_eq!(bounce.take(loan(SLOT), TOP), Ok(at(1)));
        for (first, bytes) in [(2, 1), (6, 2 * SLOT)] {
            let inside = PhysAddr::new(at(first + 1).raw() + 5);
            assert_eq!(bounce.find(inside).map(|found| found.first), Some(at(first)));
            assert_eq!(bounce.give_back(at(first)), Ok(whole(bytes)));
        }
        assert_eq!(bounce.taken(), 4);
    }

    #[test]
    fn each_buffer_has_a_run_of_slots_and_is_found_by_every_byte_of_it_s106() {
        let mut records = [Slot::FREE; 8];
        let mut bounce = Bounce::new(BASE, &mut records);
        assert_eq!(bounce.take(loan(1), TOP), Ok(at(0)));
        assert_eq!(bounce.take(loan(2 * SLOT + 1), TOP), Ok(at(1)));
        assert_eq!(bounce.take(loan(SLOT), TOP), Ok(at(4)));
        assert_eq!(bounce.taken(), 5);
        for offset in [0, 1, SLOT - 1, SLOT, 3 * SLOT - 1] {
            let found = bounce.find(PhysAddr::new(at(1).raw() + offset));
            assert_eq!(found, Some(Found { first: at(1), loan: loan(2 * SLOT + 1), offset }));
        }
        for nobodys in [at(5), at(8), PhysAddr::new(BASE.raw() - 1), PhysAddr::new(0)] {
            assert_eq!(bounce.find(nobodys), None, "{nobodys}");
            assert_eq!(bounce.contains(nobodys), nobodys == at(5), "{nobodys}");
        }
        let last = PhysAddr::new(at(8).raw() - 1);
        assert!([at(0), at(1), last].into_iter().all(|slot| bounce.contains(slot)));
        let lent: Vec<_> = bounce.loans().map(|(first, loan)| (first, loan.bytes)).collect();
        assert_eq!(lent, [(at(0), 1), (at(1), 4097), (at(4), 2048)]);
    }

    #[test]
    fn what_was_given_back_is_lent_again_and_nothing_else_is_given_back_s106() {
        let mut records = [Slot::FREE; 4];
        let mut bounce = Bounce::new(BASE, &mut records);
        for slot in 0..4 {
            assert_eq!(bounce.take(loan(SLOT), TOP), Ok(at(slot)));
        }
        assert_eq!(bounce.give_back(at(1)), Ok(loan(SLOT)));
        assert_eq!(bounce.give_back(at(1)), Err(GiveBackError::Free { physical: at(1) }));
        assert_eq!(bounce.give_back(at(4)), Err(GiveBackError::NotMine { physical: at(4) }));
        assert_eq!(bounce.give_back(at(2)), Ok(loan(SLOT)));
        assert_eq!(bounce.take(loan(SLOT + 1), TOP), Ok(at(1)));
        let inside = PhysAddr::new(at(2).raw());
        let error = GiveBackError::NotAStart { physical: inside, first: at(1) };
        assert_eq!(bounce.give_back(inside), Err(error));
        assert_eq!(
            error.to_string(),
            "the buffer that is bounced at 0x60801000 begins at 0x60800800"
        );
        assert_eq!(bounce.taken(), 4);
        for slot in [0, 1, 3] {
            assert!(bounce.give_back(at(slot)).is_ok());
        }
        assert_eq!((bounce.taken(), bounce.loans().count()), (0, 0));
        assert_eq!(bounce.take(loan(4 * SLOT), TOP), Ok(at(0)));
    }

    #[test]
    fn who_finds_no_run_is_told_what_there_is_and_what_to_do_s106() {
        let mut records = [Slot::FREE; 8];
        let mut bounce = Bounce::new(BASE, &mut records);
        let taken: Vec<_> = (0..8).map(|_| bounce.take(loan(1), TOP)).collect();
        assert_eq!(taken.len(), 8);
        for slot in [1, 2, 5] {
            assert!(bounce.give_back(at(slot)).is_ok());
        }
        let error = bounce.take(loan(3 * SLOT), TOP).expect_err("no run of three");
        let told = "a disk wants 6144 bytes of bounce buffers: 6 of 16 KiB are free, 4 KiB in one piece; swiotlb= sets \
                    how many there are";
        assert_eq!(error.to_string(), told);
        assert_eq!(bounce.taken(), 5, "nothing has changed");
        assert!(Bounce::empty().take(loan(1), TOP).is_err());
        assert!(bounce.take(loan(u32::MAX), TOP).is_err());
    }

    #[test]
    fn slots_above_a_mask_are_no_help_s100_s106() {
        let mut records = [Slot::FREE; 8];
        let mut bounce = Bounce::new(BASE, &mut records);
        let last = |slot: u32| PhysAddr::new(at(slot).raw() - 1);
        assert_eq!(bounce.take(loan(2 * SLOT), last(2)), Ok(at(0)));
        assert!(bounce.take(loan(SLOT), last(2)).is_err());
        assert!(bounce.take(loan(SLOT), PhysAddr::new(at(3).raw() - 2)).is_err());
        assert!(bounce.take(loan(SLOT), PhysAddr::new(0)).is_err());
        assert_eq!(bounce.take(loan(SLOT), last(3)), Ok(at(2)));
    }
}
