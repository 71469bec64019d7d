//! vrealloc that goes wrong: what stays, what comes on top, what comes back, and who can still reach it (S86).

use super::{
    Verdict, board,
    flushes::{Drives, Flush, Right, Told, touch},
    same,
};
use histories::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, VirtAddr},
    frames::{FrameOwner, FrameRequest},
    kernel_space::Fill,
    machine::Machine,
};
use machine::{Behaviour, Fault};

fn words<T, E: ToString>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn nth(base: VirtAddr, number: u32) -> VirtAddr {
    VirtAddr::new(base.raw() + number * PAGE_SIZE)
}

fn resized<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    base: VirtAddr,
    pages: u32,
    fill: Fill,
) -> Result<VirtAddr, String> {
    let bytes = pages * PAGE_SIZE;
    let area = bed.space.vrealloc((), base, bytes, fill, FrameRequest::ANY, CALLER);
    Ok(words(area)?.pages.start())
}

/// Who changes the size of memory of vmalloc.
trait Resizes {
    fn resize(&self, bed: &Bed, base: VirtAddr, had: u32, pages: u32) -> Result<VirtAddr, String>;
}

impl Resizes for Right {
    fn resize(&self, bed: &Bed, base: VirtAddr, _had: u32, pages: u32) -> Result<VirtAddr, String> {
        resized(bed, base, pages, Fill::Zeroed)
    }
}

/// A way to get it wrong that somebody could have written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// A smaller size is the caller's to remember.
    NeverShorter,
    /// New memory, the bytes copied, the old memory freed: right but for the frames.
    Copies,
    /// The same, one page short.
    CopiesOneLess,
    /// The same, and nothing is copied.
    Forgets,
    /// The same, and the old memory stays.
    KeepsTheOld,
    /// What comes on top holds what its frames held.
    NotZeroed,
    /// Zeros begin a page too early.
    ZeroesTooMuch,
    /// The last of the new pages holds what its frame held.
    ZeroesTooLittle,
}

impl Resizes for Wrong {
    fn resize(&self, bed: &Bed, base: VirtAddr, had: u32, pages: u32) -> Result<VirtAddr, String> {
        let cpu = bed.machine.cpu(0);
        let fault = |fault: Fault| format!("{fault:?}");
        let copied = match self {
            Self::NeverShorter if pages < had => return Ok(base),
            Self::NeverShorter => return Right.resize(bed, base, had, pages),
            Self::Copies | Self::KeepsTheOld => had.min(pages),
            Self::CopiesOneLess => had.min(pages) - 1,
            Self::Forgets => 0,
            Self::NotZeroed => return resized(bed, base, pages, Fill::Uninitialised),
            Self::ZeroesTooMuch | Self::ZeroesTooLittle => {
                let moved = Right.resize(bed, base, had, pages)?;
                let (page, word) =
                    if *self == Self::ZeroesTooMuch { (had - 1, 0) } else { (pages - 1, 0xbad) };
                cpu.store(nth(moved, page), word).map_err(fault)?;
                return Ok(moved);
            }
        };
        let area = words(bed.space.vmalloc(pages * PAGE_SIZE, Fill::Zeroed, CALLER))?;
        let moved = area.pages.start();
        for number in 0..copied {
            let word = cpu.load(nth(base, number)).map_err(fault)?;
            cpu.store(nth(moved, number), word).map_err(fault)?;
        }
        if *self != Self::KeepsTheOld {
            words(bed.space.vfree((), base))?;
        }
        Ok(moved)
    }
}

/// Memory that is marked page by page, all free frames being dirty.
fn marked(bed: &Bed, pages: u32) -> Result<(VirtAddr, Vec<Pfn>), String> {
    let all = bed.starve(0);
    for frame in all.frames(bed.space.zones().table()) {
        bed.machine.device_write(frame.base(), 0xbad);
    }
    bed.feed(all);
    let base = bed.vmalloc(pages);
    for number in 0..pages {
        let stored = bed.machine.cpu(0).store(nth(base, number), 100 + number);
        stored.map_err(|fault| format!("{fault:?}"))?;
    }
    Ok((base, (0..pages).map(|number| bed.frame_at(nth(base, number))).collect()))
}

/// In place, where there is room behind; elsewhere, where a neighbour lies.
fn at_both_places(judge: impl Fn(&Bed, bool) -> Verdict) -> Verdict {
    [true, false].into_iter().try_for_each(|in_place| {
        judge(&Bed::warm_on(Behaviour::Hoarding), in_place)
            .map_err(|saw| format!("{}: {saw}", if in_place { "in place" } else { "elsewhere" }))
    })
}

/// The tail of shorter memory comes back, and nothing of the rest changes.
fn shorter_memory_gives_its_tail_back(resizes: &impl Resizes) -> Verdict {
    let bed = Bed::warm_on(Behaviour::Hoarding);
    let (base, frames) = marked(&bed, 6)?;
    let free = bed.space.zones().free_pages();
    same("it stays", &resizes.resize(&bed, base, 6, 2)?, &base)?;
    same("frames that are free", &bed.space.zones().free_pages(), &(free + 4))?;
    for (number, frame) in (0..6).zip(frames) {
        let owner = bed.space.zones().table().owner_of(frame);
        let wanted = if number < 2 { FrameOwner::Vmalloc } else { FrameOwner::Free };
        same(&format!("page {number}"), &owner, &wanted)?;
    }
    let next = bed.vmalloc(1);
    same("the next area", &next, &nth(base, 3))
}

/// Longer memory is the same memory: its frames and what they hold, and zeros behind them.
fn longer_memory_keeps_what_it_holds(resizes: &impl Resizes) -> Verdict {
    at_both_places(|bed, in_place| {
        let (base, frames) = marked(bed, 3)?;
        let _fence = if in_place { None } else { Some(bed.vmalloc(1)) };
        let moved = resizes.resize(bed, base, 3, 7)?;
        same("it stays", &(moved == base), &in_place)?;
        for number in 0..7 {
            let wanted = if number < 3 { 100 + number } else { 0 };
            let found = bed.machine.cpu(1).load(nth(moved, number));
            same(&format!("page {number}"), &found, &Ok(wanted))?;
        }
        for (number, frame) in (0..).zip(frames) {
            let found = bed.frame_at(nth(moved, number));
            same(&format!("the frame of page {number}"), &found, &frame)?;
        }
        Ok(())
    })
}

/// When it is freed, everything is back.
fn resized_memory_comes_back_whole(resizes: &impl Resizes) -> Verdict {
    at_both_places(|bed, in_place| {
        let before = bed.ledger();
        let (base, _) = marked(bed, 3)?;
        let fence = if in_place { None } else { Some(bed.vmalloc(1)) };
        let moved = resizes.resize(bed, base, 3, 7)?;
        let moved = resizes.resize(bed, moved, 7, 5)?;
        words(bed.space.vfree((), moved))?;
        fence.map_or(Ok(()), |fence| words(bed.space.vfree((), fence)))?;
        let leaks: Vec<String> = before.leaks(&bed.ledger()).map(|leak| leak.to_string()).collect();
        same("lost", &leaks, &Vec::new())
    })
}

/// What was given up is reached by nobody: the tail, and the old addresses.
fn what_was_given_up_is_reached_by_nobody<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    Behaviour::all(3).try_for_each(|behaviour| {
        let bed = Bed::driven_by(behaviour, |machine| drives.drive(machine));
        bed.warm_up();
        let gone = |pages: PageRange| {
            for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                for number in 0..pages.count() {
                    let address = nth(pages.start(), number);
                    let gone = Err(Fault::Translation(address));
                    same(&format!("{cpu:?} at {address}"), &cpu.load(address), &gone)?;
                }
            }
            Ok(())
        };
        let (base, _fence) = (bed.vmalloc(5), bed.vmalloc(1));
        let pages = PageRange::new(base, 5).ok_or("pages")?;
        let (keep, tail) =
            (pages.sub_range(0, 2).ok_or("two")?, pages.sub_range(2, 3).ok_or("three")?);
        touch(bed.machine.cpu(0), pages);
        touch(bed.machine.cpu(1), pages);
        bed.space.table().raw_machine(()).ends(tail);
        resized(&bed, base, 2, Fill::Zeroed)?;
        gone(tail)?;
        touch(bed.machine.cpu(1), keep);
        bed.space.table().raw_machine(()).ends(keep);
        let moved = resized(&bed, base, 9, Fill::Zeroed)?;
        same("it moves", &(moved != base), &true)?;
        gone(keep)
    })
}

board! {
    shorter_memory_gives_its_tail_back(Right) {
        vrealloc_never_shrinks: "S86", "a smaller size gives nothing back", Wrong::NeverShorter;
        vrealloc_shrinks_by_copying: "S86", "a smaller size is new memory", Wrong::Copies;
    }
    longer_memory_keeps_what_it_holds(Right) {
        vrealloc_copies: "S86", "longer memory is other frames, with the bytes copied", Wrong::Copies;
        vrealloc_copies_a_page_less: "S86", "of what it held the last page is lost", Wrong::CopiesOneLess;
        vrealloc_forgets: "S86", "what it held is lost", Wrong::Forgets;
        vrealloc_not_zeroed: "S86", "what comes on top is not zeroed", Wrong::NotZeroed;
        vrealloc_zeroes_too_much: "S86", "zeros begin a page before the old end", Wrong::ZeroesTooMuch;
        vrealloc_zeroes_too_little: "S86", "the last new page is not zeroed", Wrong::ZeroesTooLittle;
    }
    resized_memory_comes_back_whole(Right) {
        vrealloc_keeps_the_old: "S86", "longer memory leaves the old behind", Wrong::KeepsTheOld;
        vrealloc_loses_the_tail: "S86", "the tail of shorter memory is nobody's", Forgetful;
    }
    what_was_given_up_is_reached_by_nobody(Right, Flush::Right) {
        vrealloc_never_flushes: "S23", "what was given up is not flushed", Flush::Never;
        vrealloc_flushes_later: "S23", "what was given up is flushed with the next mapping", Flush::Later;
        vrealloc_flushes_one_page: "S23", "of what was given up the first page is flushed", Flush::FirstPage;
        vrealloc_flushes_on_one_cpu: "S23", "what was given up is flushed in the TLB of one CPU", Flush::Local;
        vrealloc_flushes_before_clear: "S21", "what is given up is flushed, then its slots are cleared", Flush::BeforeClear;
    }
}

/// The frames of the tail are out of the list, and in no other.
struct Forgetful;

impl Resizes for Forgetful {
    fn resize(&self, bed: &Bed, base: VirtAddr, had: u32, pages: u32) -> Result<VirtAddr, String> {
        let moved = Right.resize(bed, base, had, pages)?;
        let gone = had.saturating_sub(pages);
        if gone != 0 {
            words(bed.space.zones().allocate_list(gone, FrameOwner::Vmalloc))?.leak();
        }
        Ok(moved)
    }
}
