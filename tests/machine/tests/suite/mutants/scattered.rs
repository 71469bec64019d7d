//! Wrong ways to make and to free a buffer of scattered frames: steps in another order, or left out (S79, S81).

use super::exec::{LINEAR_TABLES, Mistake as Forgotten};
use super::iommu::{Devices, Mistake, Of, domain_of, with_open};
use super::user::{Cpus, Right};
use super::{Goes, Verdict, board, same};
use histories::bed::{Bed, CALLER, WINDOW, WINDOW_PAGES};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, PageRange, VirtAddr},
    attributes::MemoryType,
    coherent::Coherency,
    dma_mask::DmaMask,
    frames::{FrameList, FrameOwner},
    iommu::Grant,
    kernel_space::Viewer,
    machine::Machine,
};
use machine::{Behaviour, Event, Fault, Scope, SoftCpu};

const PAGES: u32 = 3;
const BYTES: u32 = PAGES * PAGE_SIZE;

const fn viewer(coherency: Coherency) -> Viewer {
    Viewer { coherency, mask: DmaMask::ALL }
}

/// How a buffer goes that both see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As the kernel frees one of scattered frames.
    Real,
    /// As it frees one of a page, where all is at hand.
    Page,
    /// One of adjacent frames, by hand, in the right order.
    ByHand,
    /// The device's view goes first.
    DeviceFirst,
    /// The frames go when the processor does not see them any more.
    FramesFirst,
    /// The device's entries go, and then the frames; the IOTLB comes last.
    FlushLast,
}

/// How large a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// Some pages.
    Some,
    /// A page, for which all is at hand.
    Page,
}

/// Makes a buffer, frees it, and says what was done meanwhile; where it was.
fn log_of_a_free(
    order: Order,
    devices: &Devices<'_>,
    domain: &Of<'_>,
) -> Result<Vec<Event>, String> {
    let (bed, space) = (devices.bed, &devices.bed.space);
    let taken = |log: Vec<(usize, Event)>| log.into_iter().map(|(_, event)| event).collect();
    if order == Order::Real {
        let how = viewer(Coherency::NonCoherent);
        let made = space.scattered_alloc(domain, BYTES, how, CALLER);
        let (area, at) = made.map_err(|error| error.to_string())?;
        drop(bed.machine.take_log());
        let freed = space.scattered_free((), domain, (area.pages.start(), at.start));
        freed.map_err(|error| error.to_string())?;
        return Ok(taken(bed.machine.take_log()));
    }
    if order == Order::Page {
        let (base, start) = page_of(bed, domain, Coherency::NonCoherent)?;
        drop(bed.machine.take_log());
        free_page(bed, domain, (base, start))?;
        return Ok(taken(bed.machine.take_log()));
    }
    let made = space.coherent_alloc(BYTES, FrameOwner::Dma, CALLER);
    let area = made.map_err(|error| error.to_string())?;
    let run = [(area.physical.pfn(), PAGES)].into_iter();
    let iova = domain.map((), run, Grant::ReadWrite, MemoryType::NormalNonCacheable);
    let iova = iova.map_err(|error| error.to_string())?;
    let (base, physical) = (area.pages.start(), area.physical);
    drop(bed.machine.take_log());
    match order {
        Order::DeviceFirst => {
            domain.unmap(iova, ()).flush();
            space.coherent_free_at((), base, physical, BYTES).map(drop)
        }
        Order::FramesFirst => {
            let freed = space.coherent_free_at((), base, physical, BYTES);
            domain.unmap(iova, ()).flush();
            freed.map(drop)
        }
        Order::FlushLast => {
            let mut unmapped = None;
            let between = || {
                unmapped = Some(domain.unmap(iova, ()));
                Ok(())
            };
            let freed = space.coherent_free_between((), base, physical, BYTES, between);
            unmapped.map(kerncore::iommu::UnmappedIova::flush);
            freed.map(drop)
        }
        Order::Real | Order::Page | Order::ByHand => {
            let between = || {
                domain.unmap(iova, ()).flush();
                Ok(())
            };
            space.coherent_free_between((), base, physical, BYTES, between).map(drop)
        }
    }
    .map_err(|error| error.to_string())?;
    Ok(taken(bed.machine.take_log()))
}

/// A buffer of one page, made where all is at hand, the tables of both sides too.
fn page_of<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    domain: &Of<'_, M>,
    coherency: Coherency,
) -> Result<(VirtAddr, DmaAddr), String> {
    let made = bed.space.scattered_alloc(domain, PAGE_SIZE, viewer(coherency), CALLER);
    let (area, at) = made.map_err(|error| error.to_string())?;
    let freed = bed.space.scattered_free((), domain, (area.pages.start(), at.start));
    freed.map_err(|error| error.to_string())?;
    let page = bed.space.scattered_page(domain, viewer(coherency), CALLER.into());
    page.ok_or_else(|| "no page is at hand".into())
}

fn free_page<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    domain: &Of<'_, M>,
    buffer: (VirtAddr, DmaAddr),
) -> Result<(), String> {
    let freed = bed.space.scattered_free_page((), domain, buffer).ok_or("not at hand")?;
    freed.map(drop).map_err(|error| error.to_string())
}

/// Whether an event is of a step.
type IsIt<'a> = &'a dyn Fn(&Event) -> bool;

/// S81: the processor's entries and their flush, the device's and theirs, and only then the frames' own entries, before which nobody
/// else can have them.
fn the_processor_then_the_device_then_the_frames(order: &impl Goes<Order>) -> Verdict {
    for behaviour in Behaviour::all(2) {
        let bed = Bed::on(behaviour);
        bed.warm_up();
        let devices = Devices::new(&bed);
        let domain = domain_of(&devices, 0, 1 << 20);
        let made = bed.space.vmalloc(BYTES, kerncore::kernel_space::Fill::Zeroed, CALLER);
        let base = made.map_err(|error| error.to_string())?.pages.start();
        let window_slots = bed.l2_slot(base).raw() & !0x3ff;
        bed.space.vfree((), base).map_err(|error| error.to_string())?;
        let log = log_of_a_free(order.how(), &devices, &domain)?;
        let window = PageRange::from_numbers(WINDOW, WINDOW_PAGES).ok_or("a range")?;
        let is_processors = |event: &Event| matches!(event, Event::Write(slot, _) if slot.raw() & !0x3ff == window_slots);
        let is_processors_flush = |event: &Event| matches!(event, Event::Invalidate(Scope::Pages(pages), _) if window.contains(pages.start()));
        let is_linear = |event: &Event| matches!(event, Event::Write(slot, _) if LINEAR_TABLES.contains(&slot.raw()));
        let is_devices = |event: &Event| {
            matches!(event, Event::Write(..)) && !is_processors(event) && !is_linear(event)
        };
        let is_devices_flush =
            |event: &Event| matches!(event, Event::Invalidate(Scope::PagesOf(..), _));
        let steps: [(&str, IsIt<'_>); 5] = [
            ("the processor's entries", &is_processors),
            ("their flush", &is_processors_flush),
            ("the device's entries", &is_devices),
            ("their flush", &is_devices_flush),
            ("the linear map's entries", &is_linear),
        ];
        let mut before = 0;
        for (name, is_it) in steps {
            let first = log.iter().position(is_it).ok_or_else(|| format!("{name}: never"))?;
            let last = log.iter().rposition(is_it).unwrap_or(first);
            same(&format!("{name} behind the step before"), &(first >= before), &true)?;
            if name == "their flush" {
                let waits = log.get(last + 1);
                same("what follows a flush", &waits, &Some(&Event::Barrier))?;
            }
            before = last;
        }
    }
    Ok(())
}

/// S23, S79, S81, S85: what is made of dirty memory is zero to both sides; what was freed is seen by nobody, on either CPU, at any
/// page, when its frames are somebody else's.
fn nobody_sees_more_than_he_has(cpus: &impl Cpus, mistake: Mistake, size: Size) -> Verdict {
    for coherency in [Coherency::NonCoherent, Coherency::Coherent] {
        for behaviour in Behaviour::all(4) {
            let bed = Bed::driven_by(behaviour, |machine| cpus.of(&machine.cpu(0)));
            bed.warm_up();
            let devices = Devices::with(&bed, mistake);
            let domain = domain_of(&devices, 0, 1 << 20);
            let both = [0, 1].map(|number| devices.cpu(number));
            let _pieces = dirty_pieces(&bed, &both);
            let (count, (base, start)) = match size {
                Size::Page => (1, page_of(&bed, &domain, coherency)?),
                Size::Some => {
                    let made = bed.space.scattered_alloc(&domain, BYTES, viewer(coherency), CALLER);
                    let (area, at) = made.map_err(|error| error.to_string())?;
                    (PAGES, (area.pages.start(), at.start))
                }
            };
            let pages: Vec<(VirtAddr, VirtAddr, VirtAddr)> = (0..count)
                .map(|index| VirtAddr::new(base.raw() + index * PAGE_SIZE))
                .zip((0..count).map(|index| seen_at(start, index)))
                .map(|(own, seen)| (own, seen, super::exec::linear_of(&bed, own)))
                .collect();
            for (&(own, seen, linear), mark) in pages.iter().zip(1..) {
                for cpu in both {
                    let found = with_open(&domain, &cpu, || cpu.load(seen));
                    same("what the device finds", &found, &Ok(0))?;
                    same("a second view", &cpu.load(linear), &Err(Fault::Translation(linear)))?;
                }
                same("written", &both[1].store(own, mark), &Ok(()))?;
                let found = with_open(&domain, &both[0], || both[0].load(seen));
                same("what the device reads", &found, &Ok(mark))?;
            }
            match size {
                Size::Page => free_page(&bed, &domain, (base, start))?,
                Size::Some => {
                    let freed = bed.space.scattered_free((), &domain, (base, start));
                    freed.map_err(|error| error.to_string())?;
                }
            }
            for (own, seen, linear) in pages {
                for cpu in both {
                    same("the processor", &cpu.load(own), &Err(Fault::Translation(own)))?;
                    let found = with_open(&domain, &cpu, || cpu.load(seen));
                    same("the device", &found, &Err(Fault::Translation(seen)))?;
                    same("the next owner", &cpu.store(linear, 9), &Ok(()))?;
                }
            }
        }
    }
    Ok(())
}

const fn seen_at(start: DmaAddr, index: u32) -> VirtAddr {
    VirtAddr::new(start.raw() + index * PAGE_SIZE)
}

/// Every other frame is free, and full of what somebody wrote there. What is taken is never given back: the bed goes.
fn dirty_pieces<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    both: &[SoftCpu<'static>; 2],
) -> [FrameList; 2] {
    let rest = bed.starve(32);
    let all = bed.starve(0);
    for (index, frame) in all.frames(bed.space.zones().table()).enumerate() {
        let linear = VirtAddr::new(frame.base().raw() + 0x2000_0000);
        assert_eq!(both[index % 2].store(linear, 0xdead_beef), Ok(()));
    }
    bed.feed(all);
    [rest, bed.scatter()]
}

/// A machine that forgets something, or an IOTLB that does.
struct Way<C>(C, Mistake);

fn nobody_sees_more<C: Cpus>(Way(cpus, mistake): &Way<C>) -> Verdict {
    nobody_sees_more_than_he_has(cpus, *mistake, Size::Some)
}

fn nobody_sees_more_of_a_page<C: Cpus>(Way(cpus, mistake): &Way<C>) -> Verdict {
    nobody_sees_more_than_he_has(cpus, *mistake, Size::Page)
}

board! {
    the_processor_then_the_device_then_the_frames(Order::Real, Order::Page, Order::ByHand) {
        the_devices_view_goes_before_the_processors: "S81", "the processor sees what the device does not any more", Order::DeviceFirst;
        frames_go_while_the_device_sees_them: "S81", "the frames go with the processor's view", Order::FramesFirst;
        frames_go_before_the_iotlb_forgets_them: "S81", "the device's entries are gone, and its IOTLB has them", Order::FlushLast;
    }
    nobody_sees_more(Way(Right, Mistake::None), Way(Forgotten::None, Mistake::None)) {
        scattered_frames_with_dirty_lines: "S85", "zeros stay in the data cache", Way(Forgotten::NoClean, Mistake::None);
        scattered_frames_of_which_the_first_is_cleaned: "S85", "zeros of all but the first block stay in the data cache", Way(Forgotten::FirstCleanOnly, Mistake::None);
        scattered_frames_freed_without_a_flush: "S81", "CPUs remember where the buffer was", Way(Forgotten::NoFlush, Mistake::None);
        scattered_frames_freed_with_a_local_flush: "S81", "another CPU remembers where the buffer was", Way(Forgotten::LocalFlush, Mistake::None);
        scattered_frames_beside_their_linear_view: "S97", "the linear map still leads to some of the frames", Way(Forgotten::SomeLinearViewsLeft, Mistake::None);
        scattered_frames_freed_and_remembered_by_the_device: "S81", "the IOTLB is told nothing", Way(Right, Mistake::NothingInvalidated);
        scattered_frames_of_which_the_device_forgets_the_first: "S81", "the IOTLB is told of the first page", Way(Right, Mistake::FirstPageAlone);
    }
    nobody_sees_more_of_a_page(Way(Right, Mistake::None), Way(Forgotten::None, Mistake::None)) {
        a_scattered_page_at_hand_with_dirty_lines: "S85", "zeros stay in the data cache", Way(Forgotten::NoClean, Mistake::None);
        a_scattered_page_at_hand_freed_without_a_flush: "S81", "CPUs remember where the buffer was", Way(Forgotten::NoFlush, Mistake::None);
        a_scattered_page_at_hand_freed_with_a_local_flush: "S81", "another CPU remembers where the buffer was", Way(Forgotten::LocalFlush, Mistake::None);
        a_scattered_page_at_hand_that_the_device_remembers: "S81", "the IOTLB is told nothing", Way(Right, Mistake::NothingInvalidated);
    }
}
