//! Large mappings that go wrong: flushed in part, of slots that disagree, split while they live, over a table that did not wait.

use super::{
    Verdict, board,
    flushes::{Drives, Flush, Right, Told},
    same,
};
use histories::bed::{Bed, CALLER, WINDOW_PAGES, frame};
use kerncore::{
    addr::{LARGE_PAGE_SIZE, PAGE_SIZE, PageRange, PhysAddr, SECTION_SIZE, VirtAddr},
    area::AreaFlags,
    attributes::Attributes,
    descriptor::{SLOT_SIZE, l1, l2},
    frames::{FrameOwner, FrameRequest},
    kernel_space::Fill,
    machine::Machine,
    va_space::Request,
};
use machine::{Behaviour, Fault, Kind, Privilege, SoftCpu, SoftMachine, pass_on};
use std::iter;

/// Two sections, two large pages, two small ones.
const BYTES: u32 = 2 * (SECTION_SIZE + LARGE_PAGE_SIZE + PAGE_SIZE);
/// Pages of them that are used and looked at.
const PLACES: [u32; 9] = [0, 1, 200, 256, 511, 512, 527, 530, 545];

/// A bed of each behaviour, warm.
fn on_all<D: Drives>(seeds: u64, drives: &D, judge: impl Fn(&Bed<D::Cpu>) -> Verdict) -> Verdict {
    Behaviour::all(seeds).try_for_each(|behaviour| {
        let bed = Bed::driven_by(behaviour, |machine| drives.drive(machine));
        bed.warm_up();
        judge(&bed).map_err(|saw| format!("{behaviour:?}: {saw}"))
    })
}

fn huge<M: Machine<Authority = ()> + Clone>(bed: &Bed<M>, bytes: u32) -> Result<PageRange, String> {
    let area = bed.space.vmalloc_huge(bytes, Fill::Uninitialised, CALLER);
    area.map(|area| area.pages).map_err(|error| error.to_string())
}

fn vfree<M: Machine<Authority = ()> + Clone>(bed: &Bed<M>, base: VirtAddr) -> Verdict {
    bed.space.vfree((), base).map_err(|error| error.to_string())
}

fn nth(area: PageRange, number: u32) -> VirtAddr {
    VirtAddr::new(area.start().raw() + number * PAGE_SIZE)
}

/// What each CPU says of each of `places`, by turns, must be what `wanted` says.
fn each_cpu<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    area: PageRange,
    places: &[u32],
    wanted: impl Fn(u32) -> Result<PhysAddr, Fault>,
) -> Verdict {
    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
        for &place in places {
            let reached = cpu.access(nth(area, place), Kind::Write, Privilege::Kernel);
            same(&format!("{cpu:?} at page {place}"), &reached, &wanted(place))?;
        }
    }
    Ok(())
}

/// S23, S90: after the free of sections and large pages no CPU reaches their frames.
fn no_cpu_reaches_freed_sections<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    on_all(3, drives, |bed| {
        let area = huge(bed, BYTES)?;
        let frames = PLACES.map(|place| bed.frame_at(nth(area, place)).base());
        let of = |place| PLACES.iter().position(|&other| other == place).map_or(0, |index| index);
        each_cpu(bed, area, &PLACES, |place| Ok(frames[of(place)]))?;
        bed.space.table().raw_machine(()).ends(area);
        vfree(bed, area.start())?;
        let gone = |place| Err(Fault::Translation(nth(area, place)));
        each_cpu(bed, area, &PLACES, gone)
    })
}

/// S23: as before, of a section whose frames waited, which is made and ended in one critical section.
fn no_cpu_reaches_a_section_ended_at_once<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    const PLACES: [u32; 3] = [0, 100, 255];
    on_all(3, drives, |bed| {
        // Above a living area, where no table stands yet.
        let _below = bed.space.vmalloc(PAGE_SIZE, Fill::Uninitialised, CALLER);
        let before = huge(bed, SECTION_SIZE)?;
        vfree(bed, before.start())?;
        let area = huge(bed, SECTION_SIZE)?;
        let first = bed.frame_at(area.start()).number();
        each_cpu(bed, area, &PLACES, |place| Ok(frame(first + place).base()))?;
        bed.space.table().raw_machine(()).ends(area);
        vfree(bed, area.start())?;
        each_cpu(bed, area, &PLACES, |place| Err(Fault::Translation(nth(area, place))))
    })
}

/// Who ends sections, and what he loses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Right,
    /// The frame of the page pointers is nobody's.
    LosesTheArray,
    /// The frames are nobody's.
    LosesTheFrames,
    /// The addresses are nobody's.
    LosesTheAddresses,
}

trait EndsSections {
    fn end(&self, bed: &Bed, base: VirtAddr) -> Verdict;
}

impl EndsSections for Ends {
    fn end(&self, bed: &Bed, base: VirtAddr) -> Verdict {
        vfree(bed, base)?;
        let take = |order| bed.space.zones().take_waiting(order, FrameOwner::Vmalloc);
        match self {
            Self::Right => {}
            Self::LosesTheArray => _ = take(0).ok_or("no frame waits")?,
            Self::LosesTheFrames => _ = take(8).ok_or("no block waits")?,
            Self::LosesTheAddresses => {
                let request = Request::of_bytes(SECTION_SIZE);
                let lost = bed.space.reserve_area(request, AreaFlags::NONE, CALLER);
                _ = lost.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

/// S14a, S33: whatever a section had is free when it is gone, and serves the next.
fn all_that_a_section_had_comes_back(ends: &impl EndsSections) -> Verdict {
    let bed = Bed::warm();
    let _below = bed.vmalloc(1);
    let free = || (bed.space.zones().free_pages(), bed.space.area_counts().pages_taken);
    let before = free();
    for _ in 0..3 {
        // The frames wait from one to the next: whoever counts them brings them home.
        for _ in 0..2 {
            let area = huge(&bed, SECTION_SIZE)?;
            same("addresses", &(area.first() % 256), &0)?;
            ends.end(&bed, area.start())?;
        }
        same("free frames, taken addresses", &free(), &before)?;
    }
    Ok(())
}

/// What goes wrong with descriptors on their way to the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slip {
    None,
    /// Of sixteen slots the last stays empty.
    Fifteen,
    /// One of sixteen does not allow what the others do.
    OneReadOnly,
    /// Sixteen slots, the first of which is not a multiple of sixteen.
    OneFurther,
    /// A table that a section displaces is somebody else's memory from then on.
    TableFreedAtOnce,
}

/// CPU 0 with a slip.
struct Slips {
    cpu: SoftCpu<'static>,
    slip: Slip,
}

impl Drives for Slip {
    type Cpu = &'static Slips;

    fn drive(&self, machine: &'static SoftMachine) -> &'static Slips {
        Box::leak(Box::new(Slips { cpu: machine.cpu(0), slip: *self }))
    }
}

impl Slips {
    /// What the next owner of a table's memory keeps there: by chance the descriptors of pages.
    fn use_otherwise(&self, table: PhysAddr) {
        let page = l2::Descriptor::SmallPage(frame(0x6_0400), Attributes::KERNEL_DATA);
        let word = page.encode().expect("a small page");
        self.cpu.write_descriptors(table, iter::repeat_n(word, 256));
        self.cpu.clean_descriptors(table, 256);
    }
}

impl Machine for Slips {
    type Authority = ();

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        let mut words: Vec<u32> = descriptors.collect();
        let before = self.cpu.read_descriptor(first);
        let is_large = words.len() == 16 && words[0] & 3 == 1;
        let mut from = first;
        match self.slip {
            Slip::Fifteen if is_large => _ = words.pop(),
            Slip::OneReadOnly if is_large => words[9] |= 1 << 9,
            Slip::OneFurther if is_large => from = PhysAddr::new(first.raw() + SLOT_SIZE),
            _ => {}
        }
        let displaced = words == [0] && before & 0x3ff == 1;
        self.cpu.write_descriptors(from, words.into_iter());
        if self.slip == Slip::TableFreedAtOnce && displaced {
            self.use_otherwise(PhysAddr::new(before & !0x3ff));
        }
    }

    pass_on!(cpu: read_descriptor clean_descriptors barrier invalidate_tlb clean_and_invalidate
        zero_pages in_interrupt cpu);
}

/// S90: whichever of a large page's pages is asked for, and in whatever order, it leads to its own frame, and may be written.
fn each_page_of_a_large_page_leads_to_its_frame<D: Drives>(drives: &D) -> Verdict {
    on_all(6, drives, |bed| {
        let area = huge(bed, 2 * LARGE_PAGE_SIZE)?;
        let list = bed.space.with_area(area.start(), |record| match &record.mapping {
            kerncore::area::Mapping::Large { list, .. } => {
                list.frames(bed.space.zones().table()).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        });
        let list = list.filter(|list| list.len() == 32).ok_or("two large pages")?;
        let mut places: Vec<u32> = (0..32).collect();
        each_cpu(bed, area, &places, |place| Ok(list[place as usize].base()))?;
        places.reverse();
        each_cpu(bed, area, &places, |place| Ok(list[place as usize].base()))
    })
}

/// S24: a table that a section displaces serves again after the free, as empty as it was.
fn a_displaced_table_comes_back_empty<D: Drives>(drives: &D) -> Verdict {
    on_all(2, drives, |bed| {
        let all = bed.vmalloc(WINDOW_PAGES - 1);
        vfree(bed, all)?;
        let area = huge(bed, SECTION_SIZE)?;
        vfree(bed, area.start())?;
        each_cpu(bed, area, &[0, 1, 100, 255], |place| Err(Fault::Translation(nth(area, place))))
    })
}

/// Who is asked to make a large mapping a page shorter.
trait Shortens {
    /// While it does so, others use the memory: by `meanwhile`.
    fn shorten(&self, bed: &Bed, area: PageRange, meanwhile: &mut dyn FnMut());
}

impl Shortens for Right {
    fn shorten(&self, bed: &Bed, area: PageRange, meanwhile: &mut dyn FnMut()) {
        let (bytes, fill) = (area.bytes() - PAGE_SIZE, Fill::Uninitialised);
        let shorter = bed.space.vrealloc((), area.start(), bytes, fill, FrameRequest::ANY, CALLER);
        assert!(shorter.is_err(), "it would be split");
        meanwhile();
    }
}

/// The frames stay where they are, behind small pages: each slot is changed while it is in use, and the last page is flushed.
struct SplitsWhileLive;

impl Shortens for SplitsWhileLive {
    fn shorten(&self, bed: &Bed, area: PageRange, meanwhile: &mut dyn FnMut()) {
        let cpu = bed.machine.cpu(0);
        let last = area.count() - 1;
        let words = (0..last).map(|place| {
            let frame = bed.frame_at(nth(area, place));
            let page = l2::Descriptor::SmallPage(frame, Attributes::KERNEL_DATA);
            page.encode().expect("a small page")
        });
        let words: Vec<u32> = words.chain([0]).collect();
        let count = area.count();
        let slot = if count == 256 {
            // A table of its own, linked in the place of the section.
            let table = PhysAddr::new(0x607f_0000);
            cpu.write_descriptors(table, words.into_iter());
            cpu.clean_descriptors(table, count);
            cpu.barrier();
            let link = l1::Descriptor::Table(table).encode().expect("aligned");
            bed.poke(histories::bed::l1_slot(area.start()), link);
            table
        } else {
            let slot = bed.l2_slot(area.start());
            cpu.write_descriptors(slot, words.into_iter());
            slot
        };
        cpu.clean_descriptors(slot, count);
        cpu.barrier();
        meanwhile();
        cpu.invalidate_tlb(PageRange::new(nth(area, last), 1).expect("a page"));
        cpu.barrier();
    }
}

/// S90: what is in use stays so, whatever is asked of a part of it.
fn a_live_large_page_is_not_split(shortens: &impl Shortens) -> Verdict {
    not_split(shortens, LARGE_PAGE_SIZE)
}

/// As before, of a section.
fn a_live_section_is_not_split(shortens: &impl Shortens) -> Verdict {
    not_split(shortens, SECTION_SIZE)
}

fn not_split(shortens: &impl Shortens, bytes: u32) -> Verdict {
    on_all(3, &Right, |bed| {
        let area = huge(bed, bytes)?;
        let last = area.count() - 2;
        let places = [0, 3, last];
        let frames = places.map(|place| bed.frame_at(nth(area, place)).base());
        let wanted = |place| Ok(frames[places.iter().position(|&at| at == place).unwrap_or(0)]);
        each_cpu(bed, area, &places, wanted)?;
        let mut seen = Ok(());
        shortens.shorten(bed, area, &mut || seen = each_cpu(bed, area, &places, wanted));
        seen.and_then(|()| each_cpu(bed, area, &places, wanted))
    })
}

board! {
    no_cpu_reaches_freed_sections(Right, Flush::Right) {
        sections_never_flushed: "S23", "sections go without a flush", Flush::Never;
        sections_released_before_their_flush: "S23", "sections are released, then flushed", Flush::Later;
        one_of_two_sections_flushed: "S90", "of two sections the first only is flushed", Flush::FirstRange;
        half_of_a_sections_range_flushed: "S90", "of the range of a large mapping the lower half is flushed", Flush::LowerHalf;
        sections_flushed_on_one_cpu: "S23", "sections are flushed in the TLB of one CPU", Flush::Local;
        sections_flushed_before_clear: "S23", "sections are flushed, then their slots are cleared", Flush::BeforeClear;
    }
    no_cpu_reaches_a_section_ended_at_once(Right, Flush::Right) {
        section_at_once_never_flushed: "S23", "a section ended at once goes without a flush", Flush::Never;
        section_at_once_released_before_its_flush: "S23", "a section ended at once is released, then flushed", Flush::Later;
        section_at_once_flushed_on_one_cpu: "S23", "a section ended at once is flushed in the TLB of one CPU", Flush::Local;
        section_at_once_flushed_before_clear: "S23", "a section ended at once is flushed, then its slot is cleared", Flush::BeforeClear;
    }
    all_that_a_section_had_comes_back(Ends::Right) {
        section_loses_its_arrays_frame: "S33", "the frame of a section's page pointers is lost", Ends::LosesTheArray;
        section_loses_its_frames: "S33", "a section's frames are lost", Ends::LosesTheFrames;
        section_loses_its_addresses: "S14a", "a section's addresses are lost", Ends::LosesTheAddresses;
    }
    each_page_of_a_large_page_leads_to_its_frame(Right, Slip::None) {
        fifteen_of_sixteen_descriptors: "S90", "of a large page's sixteen slots the last is left empty", Slip::Fifteen;
        sixteen_descriptors_not_identical: "S90", "one of a large page's sixteen slots has other attributes", Slip::OneReadOnly;
        large_page_at_an_unaligned_address: "S90", "a large page's slots begin one too far", Slip::OneFurther;
    }
    a_displaced_table_comes_back_empty(Right, Slip::None) {
        displaced_table_freed_at_once: "S24", "a displaced table is freed at once, and used by its next owner", Slip::TableFreedAtOnce;
    }
    a_live_large_page_is_not_split(Right) {
        large_page_split_while_live: "S90", "a live large page becomes small pages", SplitsWhileLive;
    }
    a_live_section_is_not_split(Right) {
        section_split_while_live: "S90", "a live section becomes a table of small pages", SplitsWhileLive;
    }
}
