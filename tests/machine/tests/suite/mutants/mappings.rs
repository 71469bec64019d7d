//! Mappings of registers that are almost what was asked for (S57 to S59, S94, S95, S97).

use super::{Goes, Verdict, board, same};
use histories::bed::{Bed, CALLER, RAM, RAM_PAGES};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    attributes::{Access, Attributes},
    bus::BusRange,
    kernel_space::StaticRequest,
};

const DEVICE: u32 = 0x2000_1000;
const STATIC: u32 = 0x1e00_a000;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slip {
    None,
    /// The address is the page's.
    OffsetLost,
    /// As many bytes as were asked for, from the page's first on.
    EndLost,
    /// Nothing is a byte.
    ZeroIsOne,
    /// What passes the top ends there.
    EndsAtTheTop,
    /// The last byte is not looked at: it may be RAM.
    LastNotLookedAt,
    /// Nor the first.
    FirstNotLookedAt,
    /// What others have is used, though it was not asked for.
    SharesUnasked,
    /// It is enough if the first byte is mapped.
    SharesByFirst,
    /// It is enough if the last byte is.
    SharesByLast,
    /// Whatever the type is.
    SharesOtherTypes,
    /// Whatever the rights are.
    SharesOtherRights,
    /// A pointer to where the shared mapping begins.
    DeltaLost,
    /// A mapping ends by its first page alone.
    EndsByItsBase,
    /// What is mapped for good answers for other types, too.
    StaticOfAnyType,
    /// What is mapped for good answers for what begins in it.
    StaticByFirst,
    /// What is mapped for good is unmapped by whoever is done.
    StaticUnmapped,
    /// Of what is to be mapped the first page alone is compared with what others have.
    FirstPageCompared,
}

type Mapped = Result<VirtAddr, String>;

/// Maps and unmaps, in some way.
trait Maps: Goes<Slip> {
    fn map(&self, bed: &Bed, physical: u32, bytes: u32, attributes: Attributes) -> Mapped {
        let (start, end) = (RAM * PAGE_SIZE, (RAM + RAM_PAGES) * PAGE_SIZE);
        let offset = physical % PAGE_SIZE;
        let map = |physical: u32, bytes: u32, attributes: Attributes| {
            let mapped = bed.space.ioremap(PhysAddr::new(physical), bytes, attributes, CALLER);
            mapped.map_err(|error| error.to_string())
        };
        match self.how() {
            Slip::OffsetLost => map(physical, bytes, attributes).map(VirtAddr::page_base),
            Slip::EndLost => map(physical - offset, bytes, attributes)
                .map(|address| VirtAddr::new(address.raw() + offset)),
            Slip::ZeroIsOne => map(physical, bytes.max(1), attributes),
            Slip::EndsAtTheTop if physical != 0 => {
                map(physical, bytes.min(physical.wrapping_neg()), attributes)
            }
            Slip::LastNotLookedAt if physical < start && bytes > 1 => {
                map(physical, bytes - 1, attributes)
            }
            Slip::FirstNotLookedAt if physical < end && bytes > 1 => {
                map(physical + 1, bytes - 1, attributes)
            }
            Slip::SharesUnasked => self.share(bed, physical, bytes, attributes),
            Slip::StaticOfAnyType if physical == STATIC => map(physical, bytes, Attributes::DEVICE),
            Slip::StaticByFirst if physical / PAGE_SIZE == STATIC / PAGE_SIZE => {
                map(physical, 1, attributes)
            }
            Slip::FirstPageCompared => map(physical, bytes.min(PAGE_SIZE - offset), attributes),
            _ => map(physical, bytes, attributes),
        }
    }

    fn share(&self, bed: &Bed, physical: u32, bytes: u32, attributes: Attributes) -> Mapped {
        let share = |physical: u32, bytes: u32, attributes: Attributes| {
            let physical = PhysAddr::new(physical);
            let mapped = bed.space.ioremap_shared(physical, bytes, attributes, CALLER);
            mapped.map_err(|error| error.to_string())
        };
        match self.how() {
            Slip::SharesByFirst => share(physical, 1, attributes),
            Slip::SharesByLast => share(physical + bytes - 1, 1, attributes)
                .map(|address| VirtAddr::new(address.raw() - (bytes - 1))),
            Slip::SharesOtherTypes if attributes.memory() != Attributes::DEVICE.memory() => {
                share(physical, bytes, Attributes::DEVICE)
            }
            Slip::SharesOtherRights if !attributes.is_writable() => {
                share(physical, bytes, Attributes::DEVICE)
            }
            Slip::DeltaLost => share(physical, bytes, attributes).map(|address| {
                let area = bed.space.find_containing(address).expect("a live area");
                VirtAddr::new(area.pages.start().raw() | address.page_offset())
            }),
            _ => share(physical, bytes, attributes),
        }
    }

    fn unmap(&self, bed: &Bed, address: VirtAddr) -> Verdict {
        let is_base = bed.space.find(address.page_base()).is_some();
        if self.how() == Slip::EndsByItsBase && !is_base {
            return Err(format!("no area begins at {address}"));
        }
        if self.how() == Slip::StaticUnmapped && bed.space.static_mapping_at(address).is_some() {
            bed.poke(bed.l2_slot(address), 0);
        }
        bed.space.iounmap((), address).map_err(|error| error.to_string())
    }
}

impl Maps for Slip {}

fn leads(bed: &Bed, address: VirtAddr, physical: u32) -> Verdict {
    let found = bed.space.table().translate(address).map(|entry| entry.physical);
    same(&format!("behind {address}"), &found, &Some(PhysAddr::new(physical)))
}

/// What was done, or must not be done, in words.
fn refused(what: &str, mapped: &Mapped) -> Verdict {
    match mapped {
        Ok(address) => Err(format!("{what} is mapped at {address}")),
        Err(_) => Ok(()),
    }
}

/// S94: the first byte and the last, wherever in their pages they lie.
fn registers_are_reached_from_the_first_byte_to_the_last(maps: &impl Maps) -> Verdict {
    let bed = Bed::warm();
    for (offset, bytes) in [(0, 0x1000), (0x404, 8), (0xffc, 8), (0x123, 0x2000)] {
        let physical = DEVICE + offset;
        let address = maps.map(&bed, physical, bytes, Attributes::DEVICE)?;
        leads(&bed, address, physical)?;
        leads(&bed, VirtAddr::new(address.raw() + (bytes - 1)), physical + (bytes - 1))?;
        maps.unmap(&bed, VirtAddr::new(address.raw() + (bytes - 1)))?;
    }
    Ok(())
}

/// S94: nothing, what passes the top, and what has a byte of RAM.
fn what_is_no_range_of_registers_is_refused(maps: &impl Maps) -> Verdict {
    let bed = Bed::warm();
    let (start, end) = (RAM * PAGE_SIZE, (RAM + RAM_PAGES) * PAGE_SIZE);
    for (what, physical, bytes) in [
        ("nothing", DEVICE, 0),
        ("what wraps", 0xffff_f000, 0x1001),
        ("the byte before RAM and RAM's first", start - 1, 2),
        ("RAM's last byte and the byte behind", end - 1, 2),
    ] {
        refused(what, &maps.map(&bed, physical, bytes, Attributes::DEVICE))?;
    }
    Ok(())
}

/// S57: two who map one block have two areas, and each ends his.
fn each_has_a_mapping_of_his_own(maps: &impl Maps) -> Verdict {
    let bed = Bed::warm();
    let map = || maps.map(&bed, DEVICE, 4, Attributes::DEVICE);
    let (one, two) = (map()?, map()?);
    same("areas", &bed.clean().areas[2], &2)?;
    maps.unmap(&bed, one)?;
    leads(&bed, two, DEVICE)
}

/// S58, S59: what lies wholly inside, of one type and with the same rights, is shared by a pointer as far in; nothing else is.
fn what_is_shared_is_what_was_asked_for(maps: &impl Maps) -> Verdict {
    let bed = Bed::warm();
    let share = |offset, bytes, way| maps.share(&bed, DEVICE + offset, bytes, way);
    let users = |address| bed.space.users_of(address);
    let whole = share(PAGE_SIZE, 2 * PAGE_SIZE, Attributes::DEVICE)?;
    for (offset, bytes, inside) in [
        (PAGE_SIZE, 4, true),
        (2 * PAGE_SIZE + 0x404, 8, true),
        (2 * PAGE_SIZE, PAGE_SIZE + 1, false),
        (PAGE_SIZE - 1, 2, false),
    ] {
        let user = share(offset, bytes, Attributes::DEVICE)?;
        leads(&bed, user, DEVICE + offset)?;
        leads(&bed, VirtAddr::new(user.raw() + (bytes - 1)), DEVICE + offset + (bytes - 1))?;
        same("users", &users(whole), &Some(1 + u32::from(inside)))?;
        maps.unmap(&bed, user)?;
    }
    refused("another type", &share(PAGE_SIZE, 4, Attributes::STRONGLY_ORDERED))?;
    let device = Attributes::DEVICE;
    let (memory, execute, scope) = (device.memory(), device.execute(), device.scope());
    let read_only = Attributes::new(memory, Access::KernelReadOnly, execute, scope);
    share(PAGE_SIZE, 4, read_only.expect("registers that are only read"))?;
    same("users", &users(whole), &Some(1))
}

/// S95: what is mapped for good answers for what lies inside it, of its type, and stays.
fn what_is_mapped_for_good_stays_and_answers_for_itself(maps: &impl Maps) -> Verdict {
    let mut bed = Bed::warm();
    let last = PhysAddr::new(STATIC + (PAGE_SIZE - 1));
    let range = BusRange { name: "l2", first: PhysAddr::new(STATIC), last };
    let request = StaticRequest { range, attributes: Attributes::DEVICE };
    bed.map_statics(&[request]).map_err(|error| error.to_string())?;
    for offset in [0, 0x404] {
        let address = maps.map(&bed, STATIC + offset, 4, Attributes::DEVICE)?;
        maps.unmap(&bed, address)?;
        leads(&bed, address, STATIC + offset)?;
    }
    refused("another type", &maps.map(&bed, STATIC, 4, Attributes::WRITE_COMBINE))?;
    let beyond = maps.map(&bed, STATIC + 0x404, PAGE_SIZE, Attributes::DEVICE)?;
    leads(&bed, VirtAddr::new(beyond.raw() + PAGE_SIZE), STATIC + 0x404 + PAGE_SIZE)
}

/// S97: a page of another type anywhere in the range is enough.
fn a_page_that_is_mapped_otherwise_is_in_the_way(maps: &impl Maps) -> Verdict {
    let bed = Bed::warm();
    let live = maps.map(&bed, DEVICE + PAGE_SIZE, 4, Attributes::DEVICE)?;
    for (offset, bytes) in [(PAGE_SIZE, 4), (0, 3 * PAGE_SIZE), (0, PAGE_SIZE + 1)] {
        let mapped = maps.map(&bed, DEVICE + offset, bytes, Attributes::WRITE_COMBINE);
        refused(&format!("what is mapped at {live}"), &mapped)?;
    }
    Ok(())
}

board! {
    registers_are_reached_from_the_first_byte_to_the_last(Slip::None) {
        registers_offset_in_the_page_lost: "S94", "the address is that of the page", Slip::OffsetLost;
        registers_last_page_not_mapped: "S94", "pages are counted from the size alone", Slip::EndLost;
        registers_end_by_their_base_alone: "S59", "a pointer into a later page ends nothing", Slip::EndsByItsBase;
    }
    what_is_no_range_of_registers_is_refused(Slip::None) {
        registers_of_no_size: "S94", "a size of zero is taken for a byte", Slip::ZeroIsOne;
        registers_that_wrap_end_at_the_top: "S94", "what passes the top of memory is mapped as far as that", Slip::EndsAtTheTop;
        registers_last_byte_may_be_ram: "S94", "whether the last byte is RAM is not looked at", Slip::LastNotLookedAt;
        registers_first_byte_may_be_ram: "S94", "whether the first byte is RAM is not looked at", Slip::FirstNotLookedAt;
    }
    each_has_a_mapping_of_his_own(Slip::None) {
        registers_shared_unasked: "S57", "two users get one mapping, though neither asked for that", Slip::SharesUnasked;
    }
    what_is_shared_is_what_was_asked_for(Slip::None) {
        shared_with_what_reaches_beyond: "S58", "a mapping is shared that has the first byte and not the last", Slip::SharesByFirst;
        shared_with_what_begins_before: "S58", "a mapping is shared that has the last byte and not the first", Slip::SharesByLast;
        shared_with_another_type: "S58", "a mapping of another memory type is shared", Slip::SharesOtherTypes;
        shared_with_other_rights: "S58", "a mapping with other rights is shared", Slip::SharesOtherRights;
        shared_without_the_pages_between: "S59", "the pointer of whoever shares is in the mapping's first page", Slip::DeltaLost;
    }
    what_is_mapped_for_good_stays_and_answers_for_itself(Slip::None) {
        static_mapping_unmapped: "S95", "whoever is done unmaps what is mapped for good", Slip::StaticUnmapped;
        static_mapping_of_any_type: "S95", "what is mapped for good is given to who wants another type", Slip::StaticOfAnyType;
        static_mapping_of_what_reaches_beyond: "S95", "what is mapped for good is given to who wants more than it has", Slip::StaticByFirst;
    }
    a_page_that_is_mapped_otherwise_is_in_the_way(Slip::None) {
        first_page_alone_compared: "S97", "of a range the first page alone is compared with what others have", Slip::FirstPageCompared;
    }
}
