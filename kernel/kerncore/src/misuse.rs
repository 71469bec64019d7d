//! The misuse checker of streaming mappings (S107): what was mapped, by whom, and what does not go with it.
//!
//! Every mapping has an entry from its beginning to its end. A call that does not fit one is a [`Misuse`], which has both parties in
//! it: the mapping as it was made, and the call.

use crate::addr::{DmaAddr, PhysAddr, VirtAddr};
use crate::streaming::Flow;

/// By which family of functions a mapping was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// One buffer, by its address.
    Single,
    /// Part of a page.
    Page,
    /// An entry of a scatter list.
    Scatter,
}

/// A device, as the checker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// What tells it from all others: where its record lies.
    pub id: usize,
    /// Its name.
    pub name: &'static str,
}

/// A mapping, or what a call says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// For which device.
    pub device: Party,
    /// By which functions.
    pub family: Family,
    /// Whose addresses those are at which the device sees it: nought for the bus, and else what tells the domain from all others.
    pub space: usize,
    /// Where the device sees it.
    pub dma: DmaAddr,
    /// Where it begins on the bus, and how many bytes follow each other there: what lies elsewhere is not watched for lines that two
    /// mappings have in common, nor for buffers that are freed.
    pub memory: (PhysAddr, u32),
    /// How many bytes.
    pub bytes: u32,
    /// Which way they go.
    pub flow: Flow,
    /// Who called.
    pub caller: VirtAddr,
}

impl Mapping {
    const fn last(&self) -> u32 {
        self.dma.raw().saturating_add(self.bytes.saturating_sub(1))
    }

    fn has(&self, dma: DmaAddr) -> bool {
        (self.dma.raw()..=self.last()).contains(&dma.raw())
    }

    /// Whether both have bytes in one line of so many: in memory, wherever their devices see it.
    const fn shares_lines(&self, other: &Self, line: u32) -> bool {
        let (first, last) = self.lines(line);
        let (others_first, others_last) = other.lines(line);
        first <= others_last && others_first <= last
    }

    const fn lines(&self, line: u32) -> (u32, u32) {
        let (first, bytes) = (self.memory.0.raw(), self.memory.1);
        (first / line, first.saturating_add(bytes.saturating_sub(1)) / line)
    }
}

/// Whether the driver has asked if the mapping failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Yes,
    NotYet,
}

/// A place for a mapping.
#[derive(Clone, Copy, Debug)]
pub struct Entry(Option<(Mapping, Asked)>);

impl Entry {
    /// None.
    pub const FREE: Self = Self(None);
}

/// A coherent buffer that is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Who frees it.
    pub device: Party,
    /// Where it begins, as the kernel sees it.
    pub address: VirtAddr,
    /// Where it begins on the bus, and how many bytes it has.
    pub memory: (PhysAddr, u32),
    /// Who allocated it.
    pub caller: VirtAddr,
}

/// A misuse, with the two parties to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// Ended or synchronised, and never mapped.
    NeverMapped {
        /// The call.
        call: Mapping,
    },
    /// Ended from an address inside it, or synchronised beyond its end.
    OtherAddress {
        /// The mapping.
        mapped: Mapping,
        /// The call.
        call: Mapping,
    },
    /// With another size.
    OtherSize {
        /// The mapping.
        mapped: Mapping,
        /// The call.
        call: Mapping,
    },
    /// With another direction.
    OtherFlow {
        /// The mapping.
        mapped: Mapping,
        /// The call.
        call: Mapping,
    },
    /// By functions of another family.
    OtherFamily {
        /// The mapping.
        mapped: Mapping,
        /// The call.
        call: Mapping,
    },
    /// For another device.
    OtherDevice {
        /// The mapping.
        mapped: Mapping,
        /// The call.
        call: Mapping,
    },
    /// Nobody has asked whether the mapping failed.
    Unchecked {
        /// The mapping.
        mapped: Mapping,
        /// The call that ends it.
        call: Mapping,
    },
    /// Two mappings, one of which at least is written by its device, have a cache line in common.
    SharedLine {
        /// The first.
        mapped: Mapping,
        /// The second.
        call: Mapping,
    },
    /// A coherent buffer was freed that is mapped, for whatever device.
    Freed {
        /// The mapping.
        mapped: Mapping,
        /// The buffer.
        buffer: Buffer,
    },
    /// A coherent buffer was freed by another device than the one that it was allocated for.
    FreedByAnother {
        /// The buffer, and who freed it.
        buffer: Buffer,
        /// Whose it was, by name.
        owner: &'static str,
    },
    /// A device went, and mappings were left.
    Leak {
        /// One of them.
        mapped: Mapping,
        /// How many there were.
        count: u32,
    },
    /// A space of device addresses ended, and mappings in it were left.
    SpaceEnded {
        /// One of them.
        mapped: Mapping,
        /// How many there were.
        count: u32,
    },
    /// There are more mappings than places: from now on nothing is checked, and nothing is listed.
    NoRoom {
        /// How many places there are.
        places: usize,
    },
}

/// All mappings.
#[derive(Debug)]
pub struct Checker<'s> {
    entries: &'s mut [Entry],
    line: u32,
    blind: bool,
}

impl<'s> Checker<'s> {
    /// Checks nothing.
    pub const fn off() -> Self {
        Self { entries: &mut [], line: 32, blind: true }
    }

    /// Of as many mappings as there are places, on a machine with cache lines of `line` bytes, a power of two.
    pub fn new(entries: &'s mut [Entry], line: u32) -> Self {
        entries.fill(Entry::FREE);
        Self { entries, line, blind: false }
    }

    /// Checks again, if it ended: from nothing, so that what is mapped already was never mapped. Not without places.
    pub fn begin_again(&mut self) {
        self.blind = self.entries.is_empty();
    }

    /// Whether it checks.
    pub const fn is_on(&self) -> bool {
        !self.blind
    }

    /// How many mappings there are.
    pub fn mappings(&self) -> usize {
        self.listed().count()
    }

    /// How many mappings `device` has, of those that it sees by the addresses of `space`.
    pub fn mappings_of(&self, device: Party, space: usize) -> usize {
        let is_its = |mapping: &&Mapping| (mapping.device, mapping.space) == (device, space);
        self.listed().filter(is_its).count()
    }

    fn listed(&self) -> impl Iterator<Item = &Mapping> {
        self.entries.iter().filter_map(|entry| entry.0.as_ref().map(|(mapping, _)| mapping))
    }

    /// A mapping begins.
    ///
    /// # Errors
    /// [`Misuse::SharedLine`], and the mapping is entered; [`Misuse::NoRoom`].
    pub fn mapped(&mut self, mapping: Mapping) -> Result<(), Misuse> {
        if self.blind {
            return Ok(());
        }
        let line = self.line;
        let clashes = |other: &&Mapping| {
            (other.flow.device_writes() || mapping.flow.device_writes())
                && other.shares_lines(&mapping, line)
        };
        let shared = self.listed().find(clashes).copied();
        let Some(place) = self.entries.iter_mut().find(|entry| entry.0.is_none()) else {
            // Who is blind accuses nobody, also of what was listed before.
            self.blind = true;
            self.entries.fill(Entry::FREE);
            return Err(Misuse::NoRoom { places: self.entries.len() });
        };
        place.0 = Some((mapping, Asked::NotYet));
        shared.map_or(Ok(()), |mapped| Err(Misuse::SharedLine { mapped, call: mapping }))
    }

    /// Somebody has asked whether mapping what lies at `dma` of a space failed.
    pub fn asked(&mut self, device: Party, (space, dma): (usize, DmaAddr)) {
        let entries = self.entries.iter_mut().filter_map(|entry| entry.0.as_mut());
        entries
            .filter(|(mapping, _)| {
                (mapping.device, mapping.space, mapping.dma) == (device, space, dma)
            })
            .for_each(|(_, asked)| *asked = Asked::Yes);
    }

    /// A mapping ends, as `call` says. What is wrong only in part has ended.
    ///
    /// # Errors
    /// [`Misuse`].
    pub fn unmapped(&mut self, call: Mapping) -> Result<(), Misuse> {
        if self.blind {
            return Ok(());
        }
        let meant = self.meant(&call).and_then(|index| self.entries.get_mut(index));
        let Some((mapped, asked)) = meant.and_then(|entry| entry.0.take()) else {
            return Err(self.misses(call));
        };
        Self::compare(mapped, call)?;
        if asked == Asked::NotYet && mapped.family != Family::Scatter {
            Err(Misuse::Unchecked { mapped, call })
        } else {
            Ok(())
        }
    }

    /// A mapping was to end, as `call` says, and that was refused: what is mapped stands.
    ///
    /// # Errors
    /// [`Misuse`].
    pub fn refused(&self, call: Mapping) -> Result<(), Misuse> {
        if self.blind {
            return Ok(());
        }
        let meant = self.meant(&call).and_then(|index| self.entries.get(index));
        match meant.and_then(|entry| entry.0) {
            Some((mapped, _)) => Self::compare(mapped, call),
            None => Err(self.misses(call)),
        }
    }

    /// Whose end `call` means, of what its device sees at its address.
    fn meant(&self, call: &Mapping) -> Option<usize> {
        // Of several that begin there, the one that is meant.
        let fits = |mapping: &Mapping| {
            (mapping.device, mapping.space, mapping.dma) == (call.device, call.space, call.dma)
        };
        let alike = |mapping: &Mapping| {
            fits(mapping) && (mapping.bytes, mapping.flow) == (call.bytes, call.flow)
        };
        let same = |mapping: &Mapping| alike(mapping) && mapping.family == call.family;
        self.place(same).or_else(|| self.place(alike)).or_else(|| self.place(fits))
    }

    /// Whether `call` ends `mapped` as it was made.
    fn compare(mapped: Mapping, call: Mapping) -> Result<(), Misuse> {
        if mapped.family != call.family {
            Err(Misuse::OtherFamily { mapped, call })
        } else if mapped.bytes != call.bytes {
            Err(Misuse::OtherSize { mapped, call })
        } else if mapped.flow != call.flow {
            Err(Misuse::OtherFlow { mapped, call })
        } else {
            Ok(())
        }
    }

    fn place(&self, is_it: impl Fn(&Mapping) -> bool) -> Option<usize> {
        self.entries.iter().position(|entry| entry.0.is_some_and(|(mapping, _)| is_it(&mapping)))
    }

    /// What is wrong with a call whose address no mapping of its device begins at.
    fn misses(&self, call: Mapping) -> Misuse {
        let has = |mapping: &&Mapping| mapping.space == call.space && mapping.has(call.dma);
        let of_device = self.listed().filter(|mapping| mapping.device == call.device).find(has);
        if let Some(&mapped) = of_device {
            return Misuse::OtherAddress { mapped, call };
        }
        match self.listed().find(has) {
            Some(&mapped) => Misuse::OtherDevice { mapped, call },
            None => Misuse::NeverMapped { call },
        }
    }

    /// Part of a mapping changes hands, as `call` says.
    ///
    /// # Errors
    /// [`Misuse`].
    pub fn synced(&self, call: Mapping) -> Result<(), Misuse> {
        if self.blind {
            return Ok(());
        }
        let of_device = |mapping: &&Mapping| {
            (mapping.device, mapping.space) == (call.device, call.space) && mapping.has(call.dma)
        };
        // Readers may overlap: of several mappings that have the address, the one that is meant.
        let alike = |mapping: &&Mapping| of_device(mapping) && mapping.flow == call.flow;
        let all = self.listed().filter(alike).find(|mapping| call.last() <= mapping.last());
        let one = all.or_else(|| self.listed().find(alike));
        match one.or_else(|| self.listed().find(of_device)) {
            None => Err(self.misses(call)),
            Some(&mapped) if call.last() > mapped.last() => Err(Misuse::OtherSize { mapped, call }),
            Some(&mapped) if mapped.flow != call.flow => Err(Misuse::OtherFlow { mapped, call }),
            Some(_) => Ok(()),
        }
    }

    /// `buffer` is freed, and nobody else's yet.
    ///
    /// # Errors
    /// [`Misuse::Freed`] if any of it is mapped, as far as it is known where mappings lie.
    pub fn freed(&self, buffer: Buffer) -> Result<(), Misuse> {
        let (first, bytes) = buffer.memory;
        let end = first.raw().saturating_add(bytes);
        let is_there = |mapping: &&Mapping| {
            let (start, bytes) = mapping.memory;
            start.raw() < end && first.raw() < start.raw().saturating_add(bytes)
        };
        let mapped = self.listed().find(is_there);
        mapped.map_or(Ok(()), |&mapped| Err(Misuse::Freed { mapped, buffer }))
    }

    /// A device goes; its mappings are forgotten.
    ///
    /// # Errors
    /// [`Misuse::Leak`] if there were any.
    pub fn gone(&mut self, device: Party) -> Result<(), Misuse> {
        let left = self.forget(|mapping| mapping.device == device);
        left.map_or(Ok(()), |(mapped, count)| Err(Misuse::Leak { mapped, count }))
    }

    /// The space of device addresses that `space` told from all others ends; the mappings in it are forgotten, and another may be told so.
    ///
    /// # Errors
    /// [`Misuse::SpaceEnded`] if there were any.
    pub fn space_ended(&mut self, space: usize) -> Result<(), Misuse> {
        let left = self.forget(|mapping| mapping.space == space);
        left.map_or(Ok(()), |(mapped, count)| Err(Misuse::SpaceEnded { mapped, count }))
    }

    /// Forgets the mappings that `is_one`: the first of them, and how many there were.
    fn forget(&mut self, is_one: impl Fn(&Mapping) -> bool) -> Option<(Mapping, u32)> {
        let mut left = None;
        for entry in self.entries.iter_mut() {
            if let Some((mapping, _)) = entry.0.take_if(|(mapping, _)| is_one(mapping)) {
                let (_, count) = left.get_or_insert((mapping, 0));
                *count += 1;
            }
        }
        left
    }
}

mod told;

#[cfg(test)]
mod tests;
