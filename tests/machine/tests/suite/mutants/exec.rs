//! Wrong ways to make memory executable: each machine forgets one thing that a seal asked of it.

use super::user::{Cpus, Right};
use super::{Verdict, board, same};
use histories::bed::{Bed, CALLER, page};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    machine::Machine,
    user::machine::UserMachine,
};
use machine::{Behaviour, Fault, SoftCpu, pass_on};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    NoClean,
    NoFlush,
    LocalFlush,
    LinearViewLeft,
    InstructionsStay,
}

#[derive(Clone)]
struct Wrong {
    cpu: SoftCpu<'static>,
    mistake: Mistake,
}

impl Cpus for Mistake {
    type Cpu = Wrong;

    fn of(&self, cpu: &SoftCpu<'static>) -> Wrong {
        Wrong { cpu: *cpu, mistake: *self }
    }
}

/// The linear map's second-level tables in the bed.
const LINEAR_TABLES: std::ops::Range<u32> = 0x6001_c000..0x6001_e000;

impl Machine for Wrong {
    type Authority = ();

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        let linear = LINEAR_TABLES.contains(&first.raw());
        let keeps = |&descriptor: &u32| {
            self.mistake != Mistake::LinearViewLeft || !linear || descriptor != 0
        };
        self.cpu.write_descriptors(first, descriptors.filter(keeps));
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        match self.mistake {
            Mistake::NoFlush => {}
            Mistake::LocalFlush => self.cpu.invalidate_tlb_local(pages),
            _ => self.cpu.invalidate_tlb(pages),
        }
    }

    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        if self.mistake != Mistake::NoClean {
            self.cpu.clean_and_invalidate(pages, first);
        }
    }

    pass_on!(cpu: cpu read_descriptor clean_descriptors barrier zero_pages in_interrupt);
}

impl UserMachine for Wrong {
    fn invalidate_instructions(&self) {
        if self.mistake != Mistake::InstructionsStay {
            self.cpu.invalidate_instructions();
        }
    }

    pass_on!(cpu: invalidate_tlb_in invalidate_tlb_space invalidate_tlb_everything set_user_table
        set_asid set_user_walks write_frames clean_instructions);
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

board! {
    sealed_memory_is_executed_and_written_by_nobody(Right, Mistake::None) {
        sealed_without_a_clean: "S30", "what was written stays in the data cache", Mistake::NoClean;
        sealed_without_a_flush: "S112", "CPUs remember the writable entries", Mistake::NoFlush;
        sealed_with_a_local_flush: "S112", "another CPU remembers the writable entries", Mistake::LocalFlush;
        sealed_beside_its_linear_view: "S112", "the linear map still writes the code", Mistake::LinearViewLeft;
        sealed_over_old_instructions: "S30", "the instruction cache keeps what was at the address", Mistake::InstructionsStay;
    }
}
