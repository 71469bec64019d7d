//! Wrong ways to keep programs apart: each machine forgets one thing that an address space asked of it.

use super::{Verdict, board, same};
use histories::bed::{Bed, page, pages};
use kerncore::{
    addr::{PageRange, VirtAddr},
    frames::{AllocateError, FrameOwner, FreeError},
    machine::Machine,
    user::{
        Protection, Spaces, UserSpace, UserSummary,
        asid::Asid,
        machine::{UserMachine, Walks},
    },
};
use machine::{Behaviour, Fault, HostLocks, Kind, Privilege, Reach, Scope, SoftCpu, pass_on};

/// What drives the CPUs of a bed.
pub(crate) trait Cpus {
    type Cpu: UserMachine<Authority = ()>;

    fn of(&self, cpu: &SoftCpu<'static>) -> Self::Cpu;
}

/// CPUs that do as they are told.
pub(crate) struct Right;

impl Cpus for Right {
    type Cpu = SoftCpu<'static>;

    fn of(&self, cpu: &SoftCpu<'static>) -> SoftCpu<'static> {
        *cpu
    }
}

/// So few that they change hands often: the kernel's and four for programs.
pub(crate) const NUMBERS: usize = 5;

/// A kernel that runs programs. Its lower half, while none is open, is that of the kernel's own table, which is empty.
pub(crate) struct Programs<'b, C: Cpus> {
    pub(crate) bed: &'b Bed<C::Cpu>,
    pub(crate) spaces: Spaces<HostLocks>,
}

pub(crate) type Space<'p, C> = UserSpace<'p, 'static, <C as Cpus>::Cpu, HostLocks>;

impl<'b, C: Cpus> Programs<'b, C> {
    pub(crate) fn new(bed: &'b Bed<C::Cpu>, _cpus: &C) -> Self {
        let root = bed.space.table().root();
        for number in [0, 1] {
            bed.machine.cpu(number).split(root, root);
        }
        Self { bed, spaces: Spaces::with_numbers(root, NUMBERS) }
    }

    pub(crate) fn cpu(&self, number: usize) -> SoftCpu<'static> {
        self.bed.machine.cpu(number)
    }

    /// A space with nothing in it.
    pub(crate) fn space(&self) -> Space<'_, C> {
        self.try_space().expect("memory")
    }

    /// As [`Programs::space`], where memory may be short.
    pub(crate) fn try_space(&self) -> Result<Space<'_, C>, AllocateError> {
        UserSpace::new(&self.bed.space, &self.spaces)
    }
}

/// The audit of `space` finds nothing.
#[track_caller]
pub(crate) fn audit<M: UserMachine>(space: &UserSpace<'_, '_, M, HostLocks>) -> UserSummary {
    space.audit(&mut |violation| panic!("{violation}"))
}

/// A page at page number 1, with `mark` as its first word.
pub(crate) fn own_page<M: UserMachine>(space: &UserSpace<'_, '_, M, HostLocks>, mark: u32) {
    space.map_data(pages(1, 1), Protection::ReadWrite).expect("memory");
    write(space, page(1), mark);
}

/// Writes a word through the memory's own address, as the kernel does that loads a program.
fn write<M: UserMachine>(space: &UserSpace<'_, '_, M, HostLocks>, at: VirtAddr, word: u32) {
    let frame = space.translate(at).expect("mapped").physical.pfn();
    space.with_machine(|machine| machine.write_frames(frame, &word.to_le_bytes()));
}

/// How many pages the window has that `number` lies in.
pub(crate) fn pages_of<M: UserMachine>(
    space: &UserSpace<'_, '_, M, HostLocks>,
    number: u32,
) -> u32 {
    space.window_of(page(number)).map_or(0, PageRange::count)
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    NoFlush,
    LocalFlush,
    FlushUnderTheKernelsNumber,
    NothingForgottenAtRollover,
    OneCpuForgetsAtRollover,
    WalksStayAllowed,
    NumberStays,
}

impl Cpus for Mistake {
    type Cpu = Wrong;

    fn of(&self, cpu: &SoftCpu<'static>) -> Wrong {
        Wrong { cpu: *cpu, mistake: *self }
    }
}

#[derive(Clone)]
struct Wrong {
    cpu: SoftCpu<'static>,
    mistake: Mistake,
}

impl Machine for Wrong {
    type Authority = ();

    pass_on!(cpu: read_descriptor write_descriptors clean_descriptors barrier invalidate_tlb
        clean_and_invalidate zero_pages in_interrupt cpu);
}

impl UserMachine for Wrong {
    fn invalidate_tlb_in(&self, space: Asid, pages: PageRange) {
        match self.mistake {
            Mistake::NoFlush => {}
            Mistake::LocalFlush => self.cpu.invalidate_tlb_local(pages),
            Mistake::FlushUnderTheKernelsNumber => self.cpu.invalidate_tlb_in(Asid::KERNEL, pages),
            _ => self.cpu.invalidate_tlb_in(space, pages),
        }
    }

    fn invalidate_tlb_everything(&self) {
        match self.mistake {
            Mistake::NothingForgottenAtRollover => {}
            Mistake::OneCpuForgetsAtRollover => self.cpu.invalidate(Scope::All, Reach::Local),
            _ => self.cpu.invalidate_tlb_everything(),
        }
    }

    fn set_asid(&self, asid: Asid) {
        if self.mistake != Mistake::NumberStays || asid != Asid::KERNEL {
            self.cpu.set_asid(asid);
        }
    }

    fn set_user_walks(&self, walks: Walks) {
        let walks = if self.mistake == Mistake::WalksStayAllowed { Walks::Allowed } else { walks };
        self.cpu.set_user_walks(walks);
    }

    pass_on!(cpu: invalidate_tlb_space set_user_table write_frames copy_frame clean_instructions
        invalidate_instructions);
}

fn hoarding<C: Cpus>(cpus: &C) -> Bed<C::Cpu> {
    let bed = Bed::driven_by(Behaviour::Hoarding, |machine| cpus.of(&machine.cpu(0)));
    bed.warm_up();
    bed
}

/// S23, S118: what was unmapped in an open space is gone on both CPUs before its frames go to somebody else.
fn an_unmapped_window_is_gone_on_every_cpu(cpus: &impl Cpus) -> Verdict {
    let bed = hoarding(cpus);
    let programs = Programs::new(&bed, cpus);
    let space = programs.space();
    own_page(&space, 1);
    let there = |number| programs.cpu(number).access(page(1), Kind::Read, Privilege::User);
    let cpu = |number| cpus.of(&programs.cpu(number));
    space.with_open_on(&cpu(0), || {
        space.with_open_on(&cpu(1), || {
            let before = [there(0).is_ok(), there(1).is_ok()];
            same("before", &before, &[true, true])?;
            space.unmap(page(1)).map_err(|error| error.to_string())?;
            let gone = Err(Fault::Translation(page(1)));
            same("after", &[there(0), there(1)], &[gone, gone])
        })
    })
}

/// S23, S46: a block that was shown is out of both CPUs' reach before it is somebody else's.
fn a_block_is_gone_on_every_cpu_before_it_is_free(cpus: &impl Cpus) -> Verdict {
    let bed = hoarding(cpus);
    let programs = Programs::new(&bed, cpus);
    let space = programs.space();
    let owner = FrameOwner::Pages;
    let first = bed.space.zeroed_frames(0, owner).expect("memory").leak().0;
    space.reserve(pages(1, 1), Protection::ReadWrite).expect("free addresses");
    let shown = space.show_block(page(1), 0, |_| bed.space.show_block((), first, owner));
    same("shown", &shown, &Ok(()))?;
    let there = |number| programs.cpu(number).access(page(1), Kind::Write, Privilege::User);
    let cpu = |number| cpus.of(&programs.cpu(number));
    space.with_open_on(&cpu(0), || {
        space.with_open_on(&cpu(1), || {
            let before = [there(0).is_ok(), there(1).is_ok()];
            same("before", &before, &[true, true])?;
            let free = || bed.space.free_frames_at((), first, 0, owner);
            let in_use = Err(FreeError::Shown { frame: first, owner, windows: 1 });
            same("the first free", &free(), &in_use)?;
            space.unmap(page(1)).map_err(|error| error.to_string())?;
            same("the second free", &free(), &Ok(()))?;
            let gone = Err(Fault::Translation(page(1)));
            same("after", &[there(0), there(1)], &[gone, gone])
        })
    })
}

/// S118: two programs have different pages at one address, and each CPU goes from one to the other.
fn two_programs_never_see_each_other(cpus: &impl Cpus) -> Verdict {
    let bed = hoarding(cpus);
    let programs = Programs::new(&bed, cpus);
    let marks = [1, 2];
    let spaces = marks.map(|mark| {
        let space = programs.space();
        own_page(&space, mark);
        space
    });
    for round in 0..4 {
        for number in [0, 1] {
            let (cpu, own) = (programs.cpu(number), (round + number) % 2);
            let found = spaces[own].with_open_on(&cpus.of(&cpu), || cpu.load(page(1)));
            same("its own mark", &found, &Ok(marks[own]))?;
            let closed = cpu.load(page(1));
            same("the kernel's view", &closed, &Err(Fault::Translation(page(1))))?;
        }
    }
    Ok(())
}

/// S118: a number that changes hands takes no translation along, on either CPU.
fn numbers_roll_over_without_a_trace(cpus: &impl Cpus) -> Verdict {
    let bed = hoarding(cpus);
    let programs = Programs::new(&bed, cpus);
    let spaces: Vec<_> = (0..6).map(|_| programs.space()).collect();
    for (mark, space) in (0..).zip(&spaces) {
        own_page(space, mark);
    }
    let mark_of = |place: u32, number| {
        let cpu = programs.cpu(number);
        spaces[place as usize].with_open_on(&cpus.of(&cpu), || cpu.load(page(1)))
    };
    // On CPU 1 the first few run; on CPU 0 all do, so that their numbers go to the last.
    for place in 0..2 {
        same("on CPU 1", &mark_of(place, 1), &Ok(place))?;
    }
    for place in 0..6 {
        same("on CPU 0", &mark_of(place, 0), &Ok(place))?;
    }
    for place in 4..6 {
        same("on CPU 1, later", &mark_of(place, 1), &Ok(place))?;
    }
    Ok(())
}

board! {
    an_unmapped_window_is_gone_on_every_cpu(Right, Mistake::None) {
        forgets_to_flush_a_program: "S23", "a program's pages are not invalidated", Mistake::NoFlush;
        flushes_a_program_on_one_cpu: "S23", "the other CPU keeps its entry", Mistake::LocalFlush;
        flushes_under_the_kernels_number: "S23", "entries are tagged with another number", Mistake::FlushUnderTheKernelsNumber;
    }
    a_block_is_gone_on_every_cpu_before_it_is_free(Right, Mistake::None) {
        frees_a_shown_block_without_a_flush: "S46", "a block goes while TLBs lead to it", Mistake::NoFlush;
        flushes_a_shown_block_on_one_cpu: "S46", "the other CPU keeps its entry of a block", Mistake::LocalFlush;
    }
    two_programs_never_see_each_other(Right, Mistake::None) {
        walks_while_the_number_changes: "S118", "one program's table is walked under another's number", Mistake::WalksStayAllowed;
        keeps_the_number_in_the_kernel: "S118", "walks are forbidden, but the TLB serves on", Mistake::NumberStays;
    }
    numbers_roll_over_without_a_trace(Right, Mistake::None) {
        forgets_nothing_at_a_rollover: "S118", "a number changes hands with its entries", Mistake::NothingForgottenAtRollover;
        one_cpu_forgets_at_a_rollover: "S118", "the other CPU keeps its entries", Mistake::OneCpuForgetsAtRollover;
    }
}
