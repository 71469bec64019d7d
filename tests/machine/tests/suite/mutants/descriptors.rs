//! Areas by descriptor that go wrong: whoever holds one maps, unmaps, removes and frees by it, and believes what it says.

use super::{
    Verdict, board,
    flushes::{Drives, Flush, Right, Told, touch},
    same,
};
use histories::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    area::{AreaFlags, VmStruct},
    attributes::Attributes,
    kernel_space::{BareArea, MapAreaError, VmapError},
    machine::Machine,
    page_table::MapError,
    va_space::Request,
};
use machine::{Behaviour, Fault, SoftCpu, SoftMachine, pass_on};
use std::cell::Cell;

const PAGES: u32 = 4;
const DATA: Attributes = Attributes::KERNEL_DATA;

fn words<T, E: ToString>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn nth(base: VirtAddr, number: u32) -> VirtAddr {
    VirtAddr::new(base.raw() + number * PAGE_SIZE)
}

fn reserve<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    pages: u32,
) -> Result<BareArea, String> {
    let request = Request::of_bytes(pages * PAGE_SIZE);
    words(bed.space.reserve_area(request, AreaFlags::NONE, CALLER))
}

fn map<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    base: VirtAddr,
    frames: &[Pfn],
) -> Result<u32, MapAreaError> {
    let table = *bed.space.zones().table();
    let items = frames.iter().map(|&frame| Some(table.belonging(frame))).collect::<Vec<_>>();
    bed.space.map_area(base, items.into_iter(), DATA)
}

/// No CPU reaches the pages of `pages`.
fn none_reached<M: Machine<Authority = ()> + Clone>(bed: &Bed<M>, pages: PageRange) -> Verdict {
    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
        for number in 0..pages.count() {
            let address = nth(pages.start(), number);
            let gone = Err(Fault::Translation(address));
            same(&format!("{cpu:?} at page {number}"), &cpu.load(address), &gone)?;
        }
    }
    Ok(())
}

/// Two pages within an area are unmapped, and then the rest goes with the area.
fn what_was_unmapped_is_reached_by_nobody<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    Behaviour::all(3).try_for_each(|behaviour| {
        let bed = Bed::driven_by(behaviour, |machine| drives.drive(machine));
        bed.warm_up();
        let (_list, frames) = bed.frames(PAGES);
        let BareArea { area, descriptor } = reserve(&bed, PAGES)?;
        words(map(&bed, area.pages.start(), &frames))?;
        touch(bed.machine.cpu(0), area.pages);
        touch(bed.machine.cpu(1), area.pages);
        let part = area.pages.sub_range(1, 2).ok_or("inside")?;
        bed.space.table().raw_machine(()).ends(part);
        words(bed.space.unmap_area((), part))?;
        let seen = none_reached(&bed, part);
        for number in [0, 3] {
            let reached = bed.machine.cpu(1).load(nth(area.pages.start(), number)).is_ok();
            same("what stays is reached", &reached, &true)?;
        }
        words(bed.space.free_area((), area.pages.start(), descriptor))?;
        seen.and_then(|()| none_reached(&bed, area.pages))
    })
}

/// What goes wrong at the slots of an area.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slip {
    None,
    /// Slots that are in use look empty.
    Overwrites,
    /// The slots of what ends keep their words.
    KeepsWords,
    /// The last of the pages to be mapped is not.
    OneLess,
    /// From the second on each page leads to the frame before its own.
    OneBehind,
}

/// CPU 0 with a slip, from the moment that it is told of pages.
struct Slips {
    cpu: SoftCpu<'static>,
    slip: Slip,
    told: Cell<bool>,
}

impl Drives for Slip {
    type Cpu = &'static Slips;

    fn drive(&self, machine: &'static SoftMachine) -> &'static Slips {
        let told = Cell::new(false);
        Box::leak(Box::new(Slips { cpu: machine.cpu(0), slip: *self, told }))
    }
}

impl Told for &'static Slips {
    fn ends(&self, _pages: PageRange) {
        self.told.set(!self.told.get());
    }
}

impl Machine for Slips {
    type Authority = ();

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        let word = self.cpu.read_descriptor(slot);
        // A link to a table is no page.
        let is_page = word & 3 > 1;
        if self.told.get() && self.slip == Slip::Overwrites && is_page { 0 } else { word }
    }

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        let mut words: Vec<u32> = descriptors.collect();
        if self.told.get() {
            match self.slip {
                Slip::KeepsWords if words.iter().all(|&word| word == 0) => return,
                Slip::OneLess if words.len() > 1 => _ = words.pop(),
                Slip::OneBehind if words.len() > 1 => {
                    words.insert(1, words[0]);
                    words.pop();
                }
                _ => {}
            }
        }
        self.cpu.write_descriptors(first, words.into_iter());
    }

    pass_on!(cpu: clean_descriptors barrier invalidate_tlb clean_and_invalidate zero_pages
        in_interrupt cpu);
}

/// S17: a page that is mapped is not mapped over, and what stood there stays.
fn what_is_mapped_is_not_mapped_over<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    let bed = Bed::driven_by(Behaviour::Forgetful, |machine| drives.drive(machine));
    bed.warm_up();
    let (_list, frames) = bed.frames(2);
    let BareArea { area, .. } = reserve(&bed, 1)?;
    let base = area.pages.start();
    words(map(&bed, base, &frames[..1]))?;
    bed.space.table().raw_machine(()).ends(area.pages);
    let again = map(&bed, base, &frames[1..]);
    bed.space.table().raw_machine(()).ends(area.pages);
    same("it leads to", &bed.frame_at(base), &frames[0])?;
    let occupied = |error: &MapAreaError| {
        let reason = VmapError::Map(MapError::Occupied {
            address: base,
            descriptor: bed.machine.cpu(0).read_descriptor(bed.l2_slot(base)),
            mapped: 0,
        });
        *error == MapAreaError::Map { reason, mapped: 0 }
    };
    same("refused by name", &again.as_ref().is_err_and(occupied), &true)
}

/// S16: one page for each slot, in their order, and as many as was said.
fn each_page_leads_to_its_own<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    let bed = Bed::driven_by(Behaviour::Forgetful, |machine| drives.drive(machine));
    bed.warm_up();
    let (_list, mut frames) = bed.frames(PAGES);
    frames.reverse();
    let BareArea { area, .. } = reserve(&bed, PAGES)?;
    bed.space.table().raw_machine(()).ends(area.pages);
    same("mapped", &words(map(&bed, area.pages.start(), &frames)), &Ok(PAGES))?;
    for (number, frame) in (0..).zip(&frames) {
        let found = bed.space.table().translate(nth(area.pages.start(), number));
        let found = found.map(|found| found.physical.pfn());
        same(&format!("page {number}"), &found, &Some(*frame))?;
    }
    Ok(())
}

/// S25, S55: after the end nothing is left in the tables.
fn the_end_of_an_area_ends_its_pages<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    let bed = Bed::driven_by(Behaviour::Forgetful, |machine| drives.drive(machine));
    bed.warm_up();
    let (_list, frames) = bed.frames(PAGES);
    let BareArea { area, .. } = reserve(&bed, PAGES)?;
    words(map(&bed, area.pages.start(), &frames))?;
    bed.space.table().raw_machine(()).ends(area.pages);
    words(bed.space.remove_area((), area.pages.start()))?;
    none_reached(&bed, area.pages)
}

/// How an area is made and ended by whoever holds its descriptor.
trait Holds {
    fn reserve(&self, bed: &Bed, pages: u32) -> Result<(PageRange, *const VmStruct), String> {
        let BareArea { area, descriptor } = reserve(bed, pages)?;
        Ok((area.pages, descriptor))
    }

    fn remove(&self, bed: &Bed, base: VirtAddr) -> Result<*const VmStruct, String> {
        words(bed.space.remove_area((), base))
    }

    fn free(&self, bed: &Bed, base: VirtAddr, descriptor: *const VmStruct) -> Verdict {
        words(bed.space.free_area((), base, descriptor))
    }
}

impl Holds for Right {}

/// The last page asked for is the guard.
struct NoGuard;

impl Holds for NoGuard {
    fn reserve(&self, bed: &Bed, pages: u32) -> Result<(PageRange, *const VmStruct), String> {
        let BareArea { area, descriptor } = reserve(bed, pages - 1)?;
        Ok((PageRange::new(area.pages.start(), pages).ok_or("pages")?, descriptor))
    }
}

/// The descriptor's place is free as soon as the area is.
struct FreesWithTheArea;

impl Holds for FreesWithTheArea {
    fn remove(&self, bed: &Bed, base: VirtAddr) -> Result<*const VmStruct, String> {
        let descriptor = Right.remove(bed, base)?;
        bed.space.free_removed((), descriptor);
        Ok(descriptor)
    }
}

/// A removed area's descriptor counts the guard.
struct CountsTheGuard;

impl Holds for CountsTheGuard {
    fn remove(&self, bed: &Bed, base: VirtAddr) -> Result<*const VmStruct, String> {
        let descriptor = Right.remove(bed, base)?;
        // SAFETY: the caller's until it frees it, and a descriptor's memory is never given back.
        let vm = unsafe { &*descriptor };
        vm.set_size(vm.size() + PAGE_SIZE);
        Ok(descriptor)
    }
}

/// Only the base is looked at.
struct BelievesTheBase;

impl Holds for BelievesTheBase {
    fn free(&self, bed: &Bed, base: VirtAddr, _descriptor: *const VmStruct) -> Verdict {
        let own = bed.space.with_area(base, |record| &raw const record.vm).ok_or("none")?;
        Right.free(bed, base, own)
    }
}

/// The area goes, and its descriptor's place is never given back.
struct KeepsThePlace;

impl Holds for KeepsThePlace {
    fn free(&self, bed: &Bed, base: VirtAddr, _descriptor: *const VmStruct) -> Verdict {
        words(bed.space.remove_area((), base)).map(drop)
    }
}

/// S2: the page behind the last is nobody's.
fn a_guard_lies_behind(holds: &impl Holds) -> Verdict {
    let bed = Bed::warm();
    let (pages, _) = holds.reserve(&bed, PAGES)?;
    let (next, _) = holds.reserve(&bed, PAGES)?;
    let behind = next.first().wrapping_sub(pages.end());
    same("pages between them", &behind, &1)
}

/// S2, S14: what a removed area's descriptor says stays true until it is freed, and counts no guard.
fn a_removed_area_s_descriptor_stays_as_it_is(holds: &impl Holds) -> Verdict {
    let bed = Bed::warm();
    let (pages, _) = holds.reserve(&bed, PAGES)?;
    let descriptor = holds.remove(&bed, pages.start())?;
    // SAFETY: the caller's until it frees it, and a descriptor's memory is never given back.
    let vm = unsafe { &*descriptor };
    same("bytes", &vm.size(), &pages.bytes())?;
    // Whoever comes next is at the same addresses, and larger.
    let (next, _) = holds.reserve(&bed, 2 * PAGES)?;
    same("the next", &next.start(), &pages.start())?;
    let said = (vm.addr(), vm.size());
    same("afterwards", &said, &(pages.start(), pages.bytes()))?;
    same("its place", &bed.space.free_removed((), descriptor), &true)
}

/// S48: an area is freed by its own descriptor, and by no other.
fn an_area_goes_by_its_own_descriptor(holds: &impl Holds) -> Verdict {
    let bed = Bed::warm();
    let (one, _) = holds.reserve(&bed, 1)?;
    let (_, other) = holds.reserve(&bed, 1)?;
    same("by another's", &holds.free(&bed, one.start(), other).is_err(), &true)?;
    same("it lives", &bed.space.find(one.start()).is_some(), &true)
}

/// S48: with the area its descriptor's place comes back.
fn nothing_is_left_of_a_freed_area(holds: &impl Holds) -> Verdict {
    let bed = Bed::warm();
    let before = bed.ledger();
    let (pages, descriptor) = holds.reserve(&bed, 1)?;
    holds.free(&bed, pages.start(), descriptor)?;
    let leaks: Vec<String> = before.leaks(&bed.ledger()).map(|leak| leak.to_string()).collect();
    same("lost", &leaks, &Vec::new())
}

board! {
    what_was_unmapped_is_reached_by_nobody(Right, Flush::Right) {
        unmapped_part_never_flushed: "S55", "a part of a bare area is unmapped without a flush", Flush::Never;
        unmapped_part_flushed_later: "S55", "a part of a bare area is flushed with the next mapping", Flush::Later;
        unmapped_part_flushed_one_page: "S55", "of a part that is unmapped the first page is flushed", Flush::FirstPage;
        unmapped_part_flushed_beside: "S55", "a part that is unmapped is flushed one page further up", Flush::Beside;
        unmapped_part_flushed_on_one_cpu: "S55", "a part is flushed in the TLB of one CPU", Flush::Local;
        unmapped_part_flushed_before_clear: "S21", "a part is flushed, then its slots are cleared", Flush::BeforeClear;
    }
    what_is_mapped_is_not_mapped_over(Slip::None) {
        map_vm_area_overwrites: "S17", "map_vm_area writes over a slot that is in use", Slip::Overwrites;
    }
    each_page_leads_to_its_own(Slip::None) {
        map_vm_area_leaves_out_the_last: "S16", "map_vm_area leaves out the last page and counts it", Slip::OneLess;
        map_vm_area_is_one_behind: "S16", "map_vm_area maps the first page twice", Slip::OneBehind;
    }
    the_end_of_an_area_ends_its_pages(Slip::None) {
        remove_vm_area_leaves_mappings: "S55", "remove_vm_area flushes, and clears no slot", Slip::KeepsWords;
    }
    a_guard_lies_behind(Right) {
        get_vm_area_without_a_guard: "S2", "the last page asked for is the guard", NoGuard;
    }
    a_removed_area_s_descriptor_stays_as_it_is(Right) {
        removed_descriptor_reused_at_once: "S14", "a removed area's descriptor describes the next one", FreesWithTheArea;
        removed_descriptor_counts_its_guard: "S14", "a removed area's descriptor counts a guard that is gone", CountsTheGuard;
    }
    an_area_goes_by_its_own_descriptor(Right) {
        free_vm_area_believes_the_base: "S48", "free_vm_area looks at the base alone", BelievesTheBase;
    }
    nothing_is_left_of_a_freed_area(Right) {
        free_vm_area_keeps_the_descriptor: "S48", "free_vm_area removes the area and forgets its descriptor", KeepsThePlace;
    }
}
