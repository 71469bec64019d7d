//! Registers under large entries that go wrong: of a supersection's sixteen slots one is forgotten, of what is flushed
//! a part.

use super::{
    Verdict, board,
    flushes::{self, Drives, Flush, Right},
    same,
};
use histories::bed::{Bed, CALLER, Furniture, LowMemory};
use kerncore::{
    addr::{PAGE_SIZE, PAGES_PER_SECTION, PageRange, PhysAddr, VirtAddr},
    attributes::Attributes,
    machine::Machine,
};
use machine::{Behaviour, Fault, Kind, Privilege, SoftCpu, SoftMachine, pass_on};
use std::cell::Cell;

const DEVICE: u32 = 0x4000_0000;
const MIB: u32 = 1 << 20;
/// Two supersections, a section, a large page and a small one.
const BYTES: u32 = 33 * MIB + 0x1_1000;
/// Pages of them that are looked at: the first and the last of each entry among them.
const PLACES: [u32; 13] =
    [0, 300, 2400, 3839, 3840, 4095, 4096, 8191, 8192, 8447, 8448, 8463, 8464];

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slip {
    None,
    /// Of sixteen slots the last stays empty.
    FifteenWritten,
    /// One of sixteen does not allow what the others do.
    OneReadOnly,
    /// Of sixteen slots the last stays as it was.
    FifteenCleared,
    /// What lies behind the first MiB is not flushed.
    FirstMibFlushed,
    /// Nothing is.
    NothingFlushed,
}

/// CPU 0 with a slip.
struct Slips {
    cpu: SoftCpu<'static>,
    slip: Slip,
    /// The first page of the mapping that ends.
    ends: Cell<Option<u32>>,
}

impl Drives for Slip {
    type Cpu = &'static Slips;

    fn drive(&self, machine: &'static SoftMachine) -> &'static Slips {
        let (cpu, ends) = (machine.cpu(0), Cell::new(None));
        Box::leak(Box::new(Slips { cpu, slip: *self, ends }))
    }
}

/// Whoever is told which mapping ends next.
trait Told {
    fn ends(&self, first: u32);
}

impl Told for SoftCpu<'static> {
    fn ends(&self, _first: u32) {}
}

impl Told for &'static Slips {
    fn ends(&self, first: u32) {
        self.ends.set(Some(first));
    }
}

const fn is_supersection(word: u32) -> bool {
    word & 0x4_0003 == 0x4_0002
}

impl Machine for Slips {
    type Authority = ();

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        let mut words: Vec<u32> = descriptors.collect();
        let sixteen = words.len() == 16;
        let made = sixteen && is_supersection(words[0]);
        let ended = words == [0; 16] && is_supersection(self.cpu.read_descriptor(first));
        match self.slip {
            Slip::FifteenWritten if made => _ = words.pop(),
            Slip::OneReadOnly if made => words[9] |= 1 << 15,
            Slip::FifteenCleared if ended => _ = words.pop(),
            _ => {}
        }
        self.cpu.write_descriptors(first, words.into_iter());
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        let behind = |first: u32| pages.first().wrapping_sub(first) >= PAGES_PER_SECTION;
        let is_left_out = match (self.slip, self.ends.get()) {
            (Slip::FirstMibFlushed, Some(first)) => behind(first),
            (Slip::NothingFlushed, Some(_)) => true,
            _ => false,
        };
        if !is_left_out {
            self.cpu.invalidate_tlb(pages);
        }
    }

    pass_on!(cpu: read_descriptor clean_descriptors barrier clean_and_invalidate zero_pages
        in_interrupt cpu);
}

/// A kernel with room for supersections, of each behaviour.
fn on_all<D: Drives>(drives: &D, judge: impl Fn(&Bed<D::Cpu>) -> Verdict) -> Verdict {
    Behaviour::all(3).try_for_each(|behaviour| {
        let furniture = Furniture { window_pages: 48 << 8, ..Furniture::with(LowMemory::All) };
        let bed = Bed::furnished(behaviour, furniture, |machine| drives.drive(machine));
        bed.warm_up();
        judge(&bed).map_err(|saw| format!("{behaviour:?}: {saw}"))
    })
}

fn map<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    physical: u32,
    bytes: u32,
) -> Result<VirtAddr, String> {
    let mapped = bed.space.ioremap(PhysAddr::new(physical), bytes, Attributes::DEVICE, CALLER);
    mapped.map_err(|error| error.to_string())
}

fn unmap<M: Machine<Authority = ()> + Clone>(bed: &Bed<M>, address: VirtAddr) -> Verdict {
    bed.space.iounmap((), address).map_err(|error| error.to_string())
}

/// In which order the places are looked at.
#[derive(Clone, Copy)]
enum Order {
    Upwards,
    Downwards,
}

/// What each CPU says of each of the places, by turns, must be what `wanted` says.
fn each_cpu<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    base: VirtAddr,
    order: Order,
    wanted: impl Fn(u32, VirtAddr) -> Result<PhysAddr, Fault>,
) -> Verdict {
    let mut places = PLACES;
    if matches!(order, Order::Downwards) {
        places.reverse();
    }
    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
        for place in places {
            let address = VirtAddr::new(base.raw() + place * PAGE_SIZE);
            let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
            same(&format!("{cpu:?} at page {place}"), &reached, &wanted(place, address))?;
        }
    }
    Ok(())
}

/// To the pages from `physical` on.
fn led(physical: u32) -> impl Fn(u32, VirtAddr) -> Result<PhysAddr, Fault> {
    move |place, _| Ok(PhysAddr::new(physical + place * PAGE_SIZE))
}

/// S96: whichever page is asked for, and in whatever order, it leads to its own, and may be written.
fn each_page_of_large_registers_leads_to_its_own<D: Drives>(drives: &D) -> Verdict {
    on_all(drives, |bed| {
        let base = map(bed, DEVICE, BYTES)?;
        each_cpu(bed, base, Order::Downwards, led(DEVICE))?;
        each_cpu(bed, base, Order::Upwards, led(DEVICE))
    })
}

/// S22, S23, S96: after iounmap no CPU reaches them.
fn no_cpu_reaches_large_registers_that_are_gone<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    on_all(drives, |bed| {
        let base = map(bed, DEVICE, BYTES)?;
        each_cpu(bed, base, Order::Upwards, led(DEVICE))?;
        bed.space.table().raw_machine(()).ends(base.page_number());
        unmap(bed, base)?;
        let gone = |_, address| Err(Fault::Translation(address));
        each_cpu(bed, base, Order::Upwards, gone)?;
        // And what comes next is as it should be.
        let base = map(bed, DEVICE + 0x1000, BYTES)?;
        each_cpu(bed, base, Order::Upwards, led(DEVICE + 0x1000))
    })
}

/// S23, S96: as before, of entries of one size, which are made and ended in one critical section.
fn no_cpu_reaches_registers_ended_at_once<D: Drives<Cpu: flushes::Told>>(drives: &D) -> Verdict {
    use flushes::Told;
    on_all(drives, |bed| {
        // Where it lies there is a table, and behind it none.
        map(bed, DEVICE, 1)?;
        for bytes in [16 * MIB, 3 * MIB, 0x1_0000, 0x3000] {
            let base = map(bed, DEVICE, bytes)?;
            let pages = PageRange::new(base, bytes / PAGE_SIZE).ok_or("a range")?;
            let whole = pages.count();
            let places = [0, 1, whole / 2, whole - PAGES_PER_SECTION.min(whole), whole - 1];
            let look = |is_led: bool| -> Verdict {
                for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                    for place in places {
                        let address = VirtAddr::new(base.raw() + place * PAGE_SIZE);
                        let reached = cpu.access(address, Kind::Read, Privilege::Kernel);
                        let led = Ok(PhysAddr::new(DEVICE + place * PAGE_SIZE));
                        let wanted = if is_led { led } else { Err(Fault::Translation(address)) };
                        same(&format!("{cpu:?}, {bytes:#x} bytes, {address}"), &reached, &wanted)?;
                    }
                }
                Ok(())
            };
            look(true)?;
            bed.space.table().raw_machine(()).ends(pages);
            unmap(bed, base)?;
            look(false)?;
        }
        Ok(())
    })
}

board! {
    each_page_of_large_registers_leads_to_its_own(Right, Slip::None) {
        fifteen_of_sixteen_slots_of_a_supersection: "S96", "of a supersection's sixteen slots the last is left empty", Slip::FifteenWritten;
        supersections_slots_not_identical: "S96", "one of a supersection's sixteen slots has other attributes", Slip::OneReadOnly;
    }
    no_cpu_reaches_large_registers_that_are_gone(Right, Slip::None) {
        supersection_teardown_leaves_an_entry: "S22", "of a supersection's sixteen slots the last is not cleared", Slip::FifteenCleared;
        flush_of_the_first_mib_only: "S96", "of large registers the first MiB alone is flushed", Slip::FirstMibFlushed;
        large_registers_never_flushed: "S23", "large registers go without a flush", Slip::NothingFlushed;
    }
    no_cpu_reaches_registers_ended_at_once(Right, Flush::Right) {
        registers_at_once_never_flushed: "S23", "registers ended at once go without a flush", Flush::Never;
        registers_at_once_released_before_their_flush: "S23", "registers ended at once are released, then flushed", Flush::Later;
        registers_at_once_flushed_on_one_cpu: "S23", "registers ended at once are flushed in the TLB of one CPU", Flush::Local;
        registers_at_once_flushed_before_clear: "S23", "registers ended at once are flushed, then their slots are cleared", Flush::BeforeClear;
        registers_at_once_first_section_flushed: "S96", "of sections ended at once the first only is flushed", Flush::FirstRange;
    }
}
