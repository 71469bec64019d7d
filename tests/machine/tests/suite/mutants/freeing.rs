//! Frames that come back before the flush.

use super::{Verdict, board, same};
use histories::bed::Bed;
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    frames::FrameOwner,
    kernel_space::MOST_AT_ONCE,
    machine::Machine,
};
use machine::{Behaviour, Fault, Kind, Privilege, SoftCpu, SoftMachine, pass_on};
use std::cell::{Cell, OnceCell, RefCell};

/// Pages of the area that goes: one, so that its frame is a block of its own.
const PAGES: u32 = 1;

/// What drives the tables.
trait Drives {
    type Cpu: Machine<Authority = ()> + Clone;

    fn drive(&self, machine: &'static SoftMachine) -> Self::Cpu;
}

/// CPU 0 itself.
struct Right;

impl Drives for Right {
    type Cpu = SoftCpu<'static>;

    fn drive(&self, machine: &'static SoftMachine) -> SoftCpu<'static> {
        machine.cpu(0)
    }
}

/// CPU 0, which tells what it is asked to invalidate before it does, and may put it off.
struct Watched {
    cpu: SoftCpu<'static>,
    when: When,
    /// What happens elsewhere at the moment of the next invalidation.
    meanwhile: RefCell<Option<Box<dyn FnOnce()>>>,
    put_off: Cell<Option<PageRange>>,
}

/// When an invalidation is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    AtOnce,
    /// With the next writing of a descriptor: after whoever waited for it went on.
    Later,
}

impl Drives for When {
    type Cpu = &'static Watched;

    fn drive(&self, machine: &'static SoftMachine) -> &'static Watched {
        let (meanwhile, put_off) = (RefCell::new(None), Cell::new(None));
        Box::leak(Box::new(Watched { cpu: machine.cpu(0), when: *self, meanwhile, put_off }))
    }
}

impl Machine for Watched {
    type Authority = ();

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        if let Some(pages) = self.put_off.take() {
            self.cpu.invalidate_tlb(pages);
            self.cpu.barrier();
        }
        self.cpu.write_descriptors(first, descriptors);
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        match self.when {
            When::AtOnce => self.cpu.invalidate_tlb(pages),
            When::Later => self.put_off.set(Some(pages)),
        }
    }

    pass_on!(cpu: read_descriptor clean_descriptors barrier clean_and_invalidate zero_pages
        in_interrupt cpu);
}

/// How an area and its frames are freed.
trait Frees {
    fn free(&self, bed: &Bed<&'static Watched>, base: VirtAddr);
}

/// As the kernel does it.
struct Vfree;

impl Frees for Vfree {
    fn free(&self, bed: &Bed<&'static Watched>, base: VirtAddr) {
        bed.space.vfree((), base).expect("a live area");
    }
}

/// The frames first, then the mapping.
struct FramesFirst;

impl Frees for FramesFirst {
    fn free(&self, bed: &Bed<&'static Watched>, base: VirtAddr) {
        let freed = bed.space.free_frames_at((), bed.frame_at(base), 0, FrameOwner::Vmalloc);
        freed.expect("the area's frame");
        // It then finds its frame gone.
        let _complaint = bed.space.vfree((), base);
    }
}

/// S23: when the flush begins, another CPU finds none of the area's frames free, and none of its addresses: it waits for these as
/// long as a few pages take, which are flushed under the lock of areas.
fn nothing_is_free_before_the_flush(how: &impl Frees) -> Verdict {
    for pages in [PAGES, MOST_AT_ONCE + 1] {
        let bed = Bed::driven_by(Behaviour::Hoarding, |machine| When::AtOnce.drive(machine));
        let bed: &'static Bed<&'static Watched> = Box::leak(Box::new(bed));
        bed.warm_up();
        let base = bed.vmalloc(pages);
        let area =
            PageRange::from_numbers(base.page_number(), pages + 1).ok_or("with its guard")?;
        let frames: Vec<Pfn> = area.sub_range(0, pages).map_or(vec![], |usable| {
            (usable.first()..usable.end())
                .map(|number| bed.frame_at(VirtAddr::new(number * PAGE_SIZE)))
                .collect()
        });
        let seen: &'static OnceCell<(bool, bool)> = Box::leak(Box::new(OnceCell::new()));
        let meanwhile = move || {
            let address_reused = pages > MOST_AT_ONCE && area.contains(bed.vmalloc(1));
            let table = bed.space.zones().table();
            let frame_reused = bed.starve(0).frames(table).any(|taken| frames.contains(&taken));
            seen.set((frame_reused, address_reused)).expect("only the first flush is watched");
        };
        bed.space.table().raw_machine(()).meanwhile.replace(Some(Box::new(meanwhile)));
        how.free(bed, base);
        let (frame_reused, address_reused) = seen.get().ok_or("no flush was asked for")?;
        same("another CPU was given one of the area's frames", frame_reused, &false)?;
        same("another CPU was given one of the area's addresses", address_reused, &false)?;
    }
    Ok(())
}

/// S23: once an area is freed, no stale translation reaches the frames that it had.
fn no_cpu_reaches_a_freed_frame(drives: &impl Drives) -> Verdict {
    for behaviour in Behaviour::all(8) {
        let bed = Bed::driven_by(behaviour, |machine| drives.drive(machine));
        bed.warm_up();
        let base = bed.vmalloc(PAGES);
        let cpus = [bed.machine.cpu(0), bed.machine.cpu(1)];
        for cpu in cpus {
            cpu.load(base).map_err(|fault| format!("{behaviour:?}: {fault:?}"))?;
        }
        bed.space.vfree((), base).map_err(|error| error.to_string())?;
        // The frame goes to somebody else.
        let (_list, _) = bed.frames(PAGES);
        for cpu in cpus {
            let reached = cpu.access(base, Kind::Write, Privilege::Kernel);
            same(&format!("{behaviour:?}: {cpu:?}"), &reached, &Err(Fault::Translation(base)))?;
        }
    }
    Ok(())
}

board! {
    nothing_is_free_before_the_flush(Vfree) {
        frames_freed_before_the_flush: "S23", "the frames go back first, the mapping after them", FramesFirst;
    }
    no_cpu_reaches_a_freed_frame(Right, When::AtOnce) {
        flush_after_the_free: "S23", "the flush is put off until the next mapping is made", When::Later;
    }
}
