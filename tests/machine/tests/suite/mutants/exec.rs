//! Wrong ways to make memory executable: each machine forgets one thing that a seal asked of it.

use super::user::{Cpus, Right};
use super::{Verdict, board, same};
use histories::bed::{Bed, CALLER, WINDOW, page};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    attributes::MemoryType,
    bus::BusRange,
    machine::Machine,
    user::machine::UserMachine,
};
use machine::{Behaviour, Event, Fault, Scope, SoftCpu, pass_on};
use std::{cell::Cell, rc::Rc};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    NoClean,
    NoFlush,
    LocalFlush,
    LinearViewLeft,
    InstructionsStay,
    SomeLinearViewsLeft,
    FirstCleanOnly,
    LateFlush,
}

#[derive(Clone)]
pub(crate) struct Wrong {
    cpu: SoftCpu<'static>,
    mistake: Mistake,
    /// Whether anything was cleaned since the last barrier.
    cleaned: Rc<Cell<bool>>,
    /// What is to be flushed later.
    late: Rc<Cell<Option<PageRange>>>,
}

impl Cpus for Mistake {
    type Cpu = Wrong;

    fn of(&self, cpu: &SoftCpu<'static>) -> Wrong {
        Wrong { cpu: *cpu, mistake: *self, cleaned: Rc::default(), late: Rc::default() }
    }
}

/// The linear map's second-level tables in the bed.
pub(crate) const LINEAR_TABLES: std::ops::Range<u32> = 0x6001_c000..0x6001_e000;

impl Machine for Wrong {
    type Authority = ();

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        let linear = LINEAR_TABLES.contains(&first.raw());
        let stays = match self.mistake {
            Mistake::LinearViewLeft => linear,
            // Every other frame is free, and so every other slot is another block's: of three blocks, one.
            Mistake::SomeLinearViewsLeft => linear && first.raw() / 8 % 3 == 1,
            _ => false,
        };
        self.cpu
            .write_descriptors(first, descriptors.filter(|&descriptor| !stays || descriptor != 0));
        if linear && let Some(pages) = self.late.take() {
            self.cpu.barrier();
            self.cpu.invalidate_tlb(pages);
        }
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        match self.mistake {
            Mistake::NoFlush => {}
            Mistake::LocalFlush => self.cpu.invalidate_tlb_local(pages),
            Mistake::LateFlush if pages.first() >= WINDOW => self.late.set(Some(pages)),
            _ => self.cpu.invalidate_tlb(pages),
        }
    }

    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        let skips = match self.mistake {
            Mistake::NoClean => true,
            Mistake::FirstCleanOnly => self.cleaned.replace(true),
            _ => false,
        };
        if !skips {
            self.cpu.clean_and_invalidate(pages, first);
        }
    }

    fn barrier(&self) {
        self.cleaned.set(false);
        self.cpu.barrier();
    }

    pass_on!(cpu: cpu read_descriptor clean_descriptors zero_pages in_interrupt);
}

impl UserMachine for Wrong {
    fn invalidate_instructions(&self) {
        if self.mistake != Mistake::InstructionsStay {
            self.cpu.invalidate_instructions();
        }
    }

    pass_on!(cpu: invalidate_tlb_in invalidate_tlb_space invalidate_tlb_everything set_user_table
        set_asid set_user_walks write_frames copy_frame clean_instructions);
}

/// The linear address of what lies at `address`.
pub(crate) fn linear_of<M: Machine<Authority = ()> + Clone>(
    bed: &Bed<M>,
    address: VirtAddr,
) -> VirtAddr {
    page(bed.frame_at(address).number() + 0x2_0000)
}

/// S30, S112: what was written before the seal is executed after it, on either CPU, and neither can write there any more, at
/// whichever address; twice, at the same addresses and in the same frames.
fn sealed_memory_is_executed_and_written_by_nobody(cpus: &impl Cpus) -> Verdict {
    for behaviour in Behaviour::all(4) {
        let bed = Bed::driven_by(behaviour, |machine| cpus.of(&machine.cpu(0)));
        bed.warm_up();
        let both = [0, 1].map(|number| bed.machine.cpu(number));
        for code in [0xe3a0_0001, 0xe3a0_0002] {
            let made = bed.space.vmalloc_exec(2 * PAGE_SIZE, CALLER);
            let base = made.map_err(|error| error.to_string())?.pages.start();
            let second = page(base.page_number() + 1);
            let (forbidden, linear) = (Err(Fault::Permission(base)), linear_of(&bed, base));
            for cpu in both {
                same("executed before", &cpu.fetch(base), &forbidden)?;
                same("written", &cpu.store(base, code), &Ok(()))?;
                let absent = Err(Fault::Translation(linear));
                same("written, past the area", &cpu.store(linear, 0), &absent)?;
            }
            same("written", &both[1].store(second, !code), &Ok(()))?;
            bed.space.seal((), base, 2).map_err(|error| error.to_string())?;
            for cpu in both {
                same("executed", &cpu.fetch(base), &Ok(code))?;
                same("executed", &cpu.fetch(second), &Ok(!code))?;
                same("read", &cpu.load(base), &Ok(code))?;
                same("written after the seal", &cpu.store(base, 0).is_err(), &true)?;
                same("written past the area", &cpu.store(linear, 0).is_err(), &true)?;
            }
            bed.space.vfree((), base).map_err(|error| error.to_string())?;
            for cpu in both {
                same("executed after the free", &cpu.fetch(base).is_err(), &true)?;
                same("written to the linear map", &cpu.store(linear, 0), &Ok(()))?;
            }
        }
    }
    Ok(())
}

/// The same of frames that are not adjacent, each by itself: all of them leave the linear map, all are cleaned, all come back.
fn scattered_frames_are_sealed_one_and_all(cpus: &impl Cpus) -> Verdict {
    for behaviour in Behaviour::all(4) {
        let bed = Bed::driven_by(behaviour, |machine| cpus.of(&machine.cpu(0)));
        bed.warm_up();
        let _kept = [bed.scatter(), bed.starve(12)];
        let both = [0, 1].map(|number| bed.machine.cpu(number));
        for round in [0x1000, 0x2000] {
            let made = bed.space.vmalloc_exec(7 * PAGE_SIZE, CALLER);
            let base = made.map_err(|error| error.to_string())?.pages.start();
            let pages: Vec<(u32, VirtAddr, VirtAddr)> = (0..7)
                .map(|index| (index, page(base.page_number() + index)))
                .map(|(index, address)| (index, address, linear_of(&bed, address)))
                .collect();
            for &(index, address, linear) in &pages {
                let cpu = both[(index % 2) as usize];
                same("written", &cpu.store(address, round + index), &Ok(()))?;
                for cpu in both {
                    let absent = Err(Fault::Translation(linear));
                    same("written, past the area", &cpu.store(linear, 0), &absent)?;
                }
            }
            bed.space.seal((), base, 7).map_err(|error| error.to_string())?;
            for &(index, address, linear) in &pages {
                for cpu in both {
                    same("executed", &cpu.fetch(address), &Ok(round + index))?;
                    same("written after the seal", &cpu.store(address, 0).is_err(), &true)?;
                    same("written past the area", &cpu.store(linear, 0).is_err(), &true)?;
                }
            }
            bed.space.vfree((), base).map_err(|error| error.to_string())?;
            for &(_, address, linear) in &pages {
                for cpu in both {
                    same("executed after the free", &cpu.fetch(address).is_err(), &true)?;
                    same("written to the linear map", &cpu.store(linear, 0), &Ok(()))?;
                }
            }
        }
    }
    Ok(())
}

/// S14a, S112: when the first linear entry is back, which can be written, no CPU remembers where the code was executed.
fn linear_entries_come_back_behind_the_flush(cpus: &impl Cpus) -> Verdict {
    let bed = Bed::driven_by(Behaviour::Hoarding, |machine| cpus.of(&machine.cpu(0)));
    bed.warm_up();
    let _kept = [bed.scatter(), bed.starve(12)];
    let made = bed.space.vmalloc_exec(3 * PAGE_SIZE, CALLER);
    let pages = made.map_err(|error| error.to_string())?.pages;
    bed.space.seal((), pages.start(), 3).map_err(|error| error.to_string())?;
    drop(bed.machine.take_log());
    bed.space.vfree((), pages.start()).map_err(|error| error.to_string())?;
    let log: Vec<Event> = bed.machine.take_log().into_iter().map(|(_, event)| event).collect();
    let is_flush = |event: &Event| matches!(event, Event::Invalidate(Scope::Pages(flushed), _) if *flushed == pages);
    let is_linear = |event: &Event| matches!(event, Event::Write(slot, _) if LINEAR_TABLES.contains(&slot.raw()));
    let flushed = log.iter().position(is_flush).ok_or("never flushed")?;
    let restored = log.iter().position(is_linear).ok_or("never restored")?;
    let completed = log.get(flushed + 1) == Some(&Event::Barrier);
    same("flushed before the entries are back", &(flushed < restored, completed), &(true, true))
}

/// S93, S112: in on-chip memory what was written last, through a mapping of any type, is executed, on either CPU; neither can write
/// there meanwhile, nor reach it afterwards.
fn on_chip_code_is_what_was_written_last(cpus: &impl Cpus) -> Verdict {
    const ON_CHIP: [BusRange; 1] = [BusRange {
        name: "sram",
        first: PhysAddr::new(0x4800_0000),
        last: PhysAddr::new(0x4800_ffff),
    }];
    let physical = PhysAddr::new(0x4800_2404);
    let types = [
        MemoryType::NormalNonCacheable,
        MemoryType::NormalWriteThrough,
        MemoryType::NormalWriteBack,
    ];
    for behaviour in Behaviour::all(4) {
        let bed = Bed::driven_by(behaviour, |machine| cpus.of(&machine.cpu(0)));
        bed.warm_up();
        let both = [0, 1].map(|number| bed.machine.cpu(number));
        for (round, memory) in types.into_iter().chain(types).enumerate() {
            let code = 0xe3a0_0000 | u32::try_from(round).map_err(|error| error.to_string())?;
            let written = bed.space.memremap(physical, 4, memory, CALLER);
            let written = written.map_err(|error| error.to_string())?;
            same("written", &both[round % 2].store(written, code), &Ok(()))?;
            bed.space.memunmap((), written).map_err(|error| error.to_string())?;
            let mapped = bed.space.ioremap_exec((physical, 4), &ON_CHIP, CALLER);
            let mapped = mapped.map_err(|error| error.to_string())?;
            for cpu in both {
                same("executed", &cpu.fetch(mapped), &Ok(code))?;
                let forbidden = Err(Fault::Permission(mapped));
                same("written while it is executed", &cpu.store(mapped, 0), &forbidden)?;
            }
            bed.space.iounmap((), mapped).map_err(|error| error.to_string())?;
            for cpu in both {
                let gone = Err(Fault::Translation(mapped));
                same("executed after the end", &cpu.fetch(mapped), &gone)?;
            }
        }
    }
    Ok(())
}

board! {
    on_chip_code_is_what_was_written_last(Right, Mistake::None) {
        on_chip_code_over_old_instructions: "S93", "the instruction cache keeps what was at the address", Mistake::InstructionsStay;
        on_chip_code_without_a_clean: "S93", "what was written stays in the data cache", Mistake::NoClean;
        on_chip_code_ends_without_a_flush: "S93", "CPUs remember the executable entries", Mistake::NoFlush;
        on_chip_code_ends_with_a_local_flush: "S93", "another CPU remembers the executable entries", Mistake::LocalFlush;
    }

    sealed_memory_is_executed_and_written_by_nobody(Right, Mistake::None) {
        sealed_without_a_clean: "S30", "what was written stays in the data cache", Mistake::NoClean;
        sealed_without_a_flush: "S112", "CPUs remember the writable entries", Mistake::NoFlush;
        sealed_with_a_local_flush: "S112", "another CPU remembers the writable entries", Mistake::LocalFlush;
        sealed_beside_its_linear_view: "S112", "the linear map still writes the code", Mistake::LinearViewLeft;
        sealed_over_old_instructions: "S30", "the instruction cache keeps what was at the address", Mistake::InstructionsStay;
    }
    scattered_frames_are_sealed_one_and_all(Right, Mistake::None) {
        one_scattered_frame_stays_in_the_linear_map: "S112", "of a list, the linear map still writes some frames", Mistake::SomeLinearViewsLeft;
        only_the_first_scattered_frame_is_cleaned: "S30", "what was written to the others stays in the data cache", Mistake::FirstCleanOnly;
        scattered_frames_leave_without_a_flush: "S112", "CPUs remember linear entries", Mistake::NoFlush;
    }

    linear_entries_come_back_behind_the_flush(Right, Mistake::None) {
        linear_entries_back_before_the_flush: "S14a", "code is executed while its frames can be written", Mistake::LateFlush;
    }
}
