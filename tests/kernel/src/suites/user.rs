//! User mode (S118): programs run unprivileged, call, end, and are killed alone.

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use arch::cp15::Ttbcr;
use arch::exception::{Access, FaultStatus, Level, Mode};
use arch::lock::IrqSpinLock;
use arch::probe;
use board::vexpress_a9::{PRIVATE_TIMER, PRIVATE_TIMER_INTERRUPT};
use drivers::interrupts;
use drivers::private_timer::{PrivateTimer, Repeat};
use image::programs::{self, EBADF, EFAULT, ENOSYS, WRITE};
use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use kerncore::frames::{FrameOwner, FrameRequest};
use kerncore::layout::{HEAP_START, LINEAR_START};
use kerncore::lock::Class;
use kerncore::user::Protection;
use ktest::ktest;
use mm::io_mem::IoMem;
use mm::kernel;
use mm::user::{AddressSpace, Answer, CopyError, End, Program, SpaceError};

use super::user_programs as code;

pub(super) const TEXT: u32 = 0x0001_0000;
pub(super) const DATA: u32 = 0x0002_0000;
const CONSTANTS: u32 = 0x0003_0000;
/// The lowest byte of the stack, of two pages.
const STACK: u32 = 0x7000_0000;
pub(super) const STACK_TOP: u32 = STACK + 2 * PAGE_SIZE;
/// Nothing is there.
pub(super) const HOLE: u32 = 0x4000_0000;

pub(super) fn at(address: u32) -> VirtAddr {
    VirtAddr::new(address)
}

pub(super) fn pages(start: u32, count: u32) -> PageRange {
    PageRange::new(at(start), count).expect("a range")
}

/// A space with `text`, a page of data, a page of constants, and a stack.
pub(super) fn space_of(text: &[u8]) -> AddressSpace {
    let space = AddressSpace::new().expect("memory");
    space.map_text(pages(TEXT, 1), text).expect("memory");
    space.map_data(pages(DATA, 1), Protection::ReadWrite).expect("memory");
    space.map_data(pages(CONSTANTS, 1), Protection::ReadOnly).expect("memory");
    space.map_data(pages(STACK, 2), Protection::ReadWrite).expect("memory");
    space
}

/// The program `text` in a space of its own, with `arguments` in its first registers.
pub(super) fn program(text: &[u8], arguments: &[u32]) -> Program {
    program_in(space_of(text), arguments)
}

/// The program whose text lies in `space`, with `arguments` in its first registers.
pub(super) fn program_in(space: AddressSpace, arguments: &[u32]) -> Program {
    with_arguments(Program::new(space, at(TEXT), at(STACK_TOP)), arguments)
}

fn with_arguments(mut program: Program, arguments: &[u32]) -> Program {
    program.registers_mut()[..arguments.len()].copy_from_slice(arguments);
    program
}

/// Runs `text` to its end.
pub(super) fn end_of(text: &[u8], arguments: &[u32]) -> End {
    program(text, arguments).run(programs::answer)
}

/// The kernel goes on: another program runs as ever.
#[track_caller]
pub(super) fn all_is_well() {
    assert_eq!(end_of(code::exits(), &[7]), End::Exited(7));
}

/// `end` is the fault of an access in User mode, as `status` and `access` say, at `address`, by the instruction at `offset`.
#[track_caller]
pub(super) fn assert_killed(
    end: End,
    status: FaultStatus,
    access: Access,
    address: u32,
    instruction: u32,
) {
    let End::Killed(fault) = end else { panic!("not killed: {end}") };
    assert_eq!((fault.status, fault.access), (status, access), "{fault}");
    assert_eq!(fault.address, Some(at(address)), "{fault}");
    assert_eq!(fault.instruction, at(instruction), "{fault}");
    assert_eq!(fault.mode, Mode::User);
    all_is_well();
}

const NOTHING: FaultStatus = FaultStatus::Translation(Level::First);
pub(super) const NO_PAGE: FaultStatus = FaultStatus::Translation(Level::Second);
pub(super) const FORBIDDEN: FaultStatus = FaultStatus::Permission(Level::Second);

#[ktest]
fn a_program_runs_calls_and_ends_s118() {
    assert_eq!(end_of(code::exits(), &[42]), End::Exited(42));
    assert_eq!(end_of(code::greets(), &[]), End::Exited(23), "so many letters");
    let thumb = Program::new(space_of(code::exits_in_thumb()), at(TEXT + 1), at(STACK_TOP));
    assert_eq!(with_arguments(thumb, &[43]).run(programs::answer), End::Exited(43));
}

#[ktest]
fn a_call_changes_no_register_but_its_answer() {
    let mut stack = 0;
    let mut program = program(code::keeps_its_registers(), &[]);
    let end = program.run(|space, call| {
        if call.number != u32::MAX {
            return programs::answer(space, call);
        }
        stack = call.arguments[0];
        assert_eq!(call.arguments[1..], [1, 2, 3, 4, 5]);
        Answer::Return(0xdead_beef)
    });
    assert_eq!((end, stack), (End::Exited(0), STACK_TOP));
}

/// What an IT block has yet to skip is as much a program's state as its flags are.
#[ktest]
fn a_call_in_an_it_block_goes_on_in_it() {
    let thumb = Program::new(space_of(code::calls_in_an_it_block()), at(TEXT + 1), at(STACK_TOP));
    assert_eq!(with_arguments(thumb, &[]).run(programs::answer), End::Exited(16));
}

/// A call with a bad pointer, or one that there is not, is answered, and the program goes on.
#[ktest]
fn bad_calls_are_answered() {
    let answer = |number, arguments: [u32; 3]| {
        let [first, second, third] = arguments;
        end_of(code::calls(), &[first, second, third, 0, 0, 0, number])
    };
    let error = |number: u32| End::Exited(number.wrapping_neg());
    assert_eq!(answer(1234, [0, 0, 0]), error(ENOSYS));
    assert_eq!(answer(WRITE, [3, TEXT, 1]), error(EBADF));
    assert_eq!(answer(WRITE, [1, DATA, 0]), End::Exited(0));
    for bad in [0, PAGE_SIZE, HOLE, LINEAR_START.raw(), HEAP_START.raw(), u32::MAX] {
        assert_eq!(answer(WRITE, [1, bad, 4]), error(EFAULT), "{bad:#x}");
    }
    let last = DATA + PAGE_SIZE - 2;
    let mut prints = program(code::calls(), &[1, last, 2, 0, 0, 0, WRITE]);
    // A diagnostic without words, for whoever reads the report.
    prints.space().copy_to(at(last), b"#\n").expect("its own");
    assert_eq!(prints.run(programs::answer), End::Exited(2));
    assert_eq!(answer(WRITE, [1, DATA + PAGE_SIZE, 1]), error(EFAULT), "just past the end");
}

/// S118: whatever a program may not touch kills it at that very address, and only it.
#[ktest]
fn a_bad_access_kills_with_its_address_and_status_s118() {
    let load = |address| end_of(code::loads(), &[address]);
    let store = |address| end_of(code::stores(), &[address, 1]);
    // Page zero lies in a section with windows.
    assert_killed(load(0), NO_PAGE, Access::Read, 0, TEXT);
    assert_killed(store(4), NO_PAGE, Access::Write, 4, TEXT);
    assert_killed(load(HOLE), NOTHING, Access::Read, HOLE, TEXT);
    assert_killed(store(DATA + PAGE_SIZE), NO_PAGE, Access::Write, DATA + PAGE_SIZE, TEXT);
    assert_killed(store(CONSTANTS + 8), FORBIDDEN, Access::Write, CONSTANTS + 8, TEXT);
    assert_killed(store(TEXT), FORBIDDEN, Access::Write, TEXT, TEXT);
    // (Of single loads the emulator does not see in User mode that SCTLR.A is set.)
    let unaligned = end_of(code::loads_two(), &[DATA + 2]);
    assert_killed(unaligned, FaultStatus::Alignment, Access::Read, DATA + 2, TEXT);
    assert_eq!(load(CONSTANTS), End::Exited(0));
    assert_eq!(store(DATA), End::Exited(0));
}

/// S118: the kernel's half is there for the kernel alone, text, data, tables and devices alike.
#[ktest]
fn the_kernels_memory_kills_who_touches_it_s118() {
    let area = mm::vm_area::VmArea::new(1).expect("memory");
    let image = boot::layout::parts().map(|part| part.pages.start().raw());
    for kernel in image.into_iter().chain([area.address().raw(), HEAP_START.raw()]) {
        let load = end_of(code::loads(), &[kernel]);
        assert_killed(load, FORBIDDEN, Access::Read, kernel, TEXT);
        let store = end_of(code::stores(), &[kernel, 0]);
        assert_killed(store, FORBIDDEN, Access::Write, kernel, TEXT);
        let jump = end_of(code::jumps(), &[kernel]);
        assert_killed(jump, FORBIDDEN, Access::Execute, kernel, kernel);
    }
}

#[ktest]
fn only_text_is_executed_s112_s118() {
    for address in [DATA, CONSTANTS, STACK] {
        let end = end_of(code::jumps(), &[address]);
        assert_killed(end, FORBIDDEN, Access::Execute, address, address);
    }
    assert_killed(end_of(code::jumps(), &[0]), NO_PAGE, Access::Execute, 0, 0);
    assert_killed(end_of(code::jumps(), &[HOLE]), NOTHING, Access::Execute, HOLE, HOLE);
}

#[ktest]
fn a_stack_that_overflows_kills_below_its_last_page() {
    let below = STACK - 8 * 4;
    assert_killed(end_of(code::overflows(), &[]), NOTHING, Access::Write, below, TEXT);
}

#[ktest]
fn a_privileged_instruction_kills() {
    let privileged = [code::reads_sctlr(), code::writes_ttbr0(), code::flushes_the_tlb()];
    for text in privileged.into_iter().chain([code::writes_the_thumbee_base()]) {
        let end = end_of(text, &[]);
        assert_killed(end, FaultStatus::UndefinedInstruction, Access::Execute, TEXT, TEXT);
    }
    // These are ignored in User mode.
    assert_eq!(end_of(code::climbs(), &[]), End::Exited(0x10));
}

/// A program that calls the host reaches nothing: the file that it would remove, the line that it would print, the end of the
/// emulation that it asks for do not come.
#[ktest]
fn a_semihosting_call_kills_and_reaches_nobody() {
    const WRITE0: u32 = 4;
    const EXIT: u32 = 0x18;
    const STOPPED: u32 = 0x2_0026;
    for (operation, argument) in [(WRITE0, TEXT), (EXIT, STOPPED)] {
        let end = end_of(code::calls_the_host_by_svc(), &[operation, argument]);
        assert_eq!(end, End::NoCall { instruction: at(TEXT), immediate: 0x12_3456 });
        let end = end_of(code::calls_the_host_by_hlt(), &[operation, argument]);
        assert_killed(end, FaultStatus::UndefinedInstruction, Access::Execute, TEXT, TEXT);
        let thumb = |text| {
            let program = Program::new(space_of(text), at(TEXT + 1), at(STACK_TOP));
            with_arguments(program, &[operation, argument]).run(programs::answer)
        };
        let end = thumb(code::calls_the_host_in_thumb());
        assert_eq!(end, End::NoCall { instruction: at(TEXT), immediate: 0xab });
        let end = thumb(code::calls_the_host_in_thumb_by_hlt());
        assert_killed(end, FaultStatus::UndefinedInstruction, Access::Execute, TEXT, TEXT);
    }
}

/// A program that knows where the kernel's probes go on after a fault gains nothing by that.
#[ktest]
fn a_program_cannot_pass_for_a_probe() {
    unsafe extern "C" {
        static probe_execute_fixup: u8;
    }
    let fixup = u32::try_from((&raw const probe_execute_fixup).addr()).expect("32 bits");
    let end = end_of(code::poses_as_a_probe(), &[HOLE, fixup]);
    assert_killed(end, NOTHING, Access::Execute, HOLE, HOLE);
}

/// What one program has, another at the same addresses does not see, whichever runs in between.
#[ktest]
fn programs_have_memory_of_their_own_s118() {
    let mut all: Vec<Program> =
        (1..=3).map(|mark| program(code::fills(), &[DATA, mark, PAGE_SIZE / 4])).collect();
    for program in &mut all {
        assert_eq!(program.run(programs::answer), End::Exited(0));
    }
    for (mark, program) in (1_u32..).zip(&all) {
        let mut found = vec![0; PAGE_SIZE as usize];
        program.space().copy_from(&mut found, at(DATA)).expect("its own");
        assert!(found.chunks(4).all(|word| word == mark.to_le_bytes()), "program {mark}");
    }
}

/// What a program leaves in a register that no exception stores is its own when it goes on, and nobody else's before.
#[ktest]
fn a_programs_thread_word_is_its_own_s118() {
    let inner = || end_of(code::reads_thread_words(), &[]);
    let mut kept = program(code::keeps_a_thread_word(), &[0x1234]);
    let end = kept.run(|space, call| match call.number {
        100 => {
            assert_eq!(inner(), End::Exited(0), "another program's is seen");
            Answer::Return(0)
        }
        _ => programs::answer(space, call),
    });
    assert_eq!(end, End::Exited(0x1234));
    assert_eq!(inner(), End::Exited(0));
}

/// More programs than the processor has numbers: each keeps its own memory, and all numbers come back.
#[ktest]
fn more_spaces_than_numbers_live_side_by_side_s118() {
    let before = mm::user::rollovers();
    let spaces: Vec<AddressSpace> = (0..300_u32)
        .map(|mark| {
            let space = AddressSpace::new().expect("memory");
            space.map_data(pages(DATA, 1), Protection::ReadWrite).expect("memory");
            space.copy_to(at(DATA), &mark.to_le_bytes()).expect("its own");
            space
        })
        .collect();
    for (mark, space) in (0_u32..).zip(&spaces) {
        let mut found = [0; 4];
        space.copy_from(&mut found, at(DATA)).expect("its own");
        assert_eq!(u32::from_le_bytes(found), mark);
    }
    assert!(mm::user::rollovers() >= before + 2, "numbers were taken away, and more than once");
    assert_eq!(mm::user::live(), spaces.len());
}

/// Takes whatever the heap can still give without growing.
fn fill_the_heap(room: &mut Vec<Vec<u8>>) {
    let mut bytes = 1 << 20;
    while bytes >= 16 && room.len() < room.capacity() {
        let mut piece = Vec::new();
        match piece.try_reserve_exact(bytes) {
            Ok(()) => room.push(piece),
            Err(_) => bytes /= 2,
        }
    }
}

/// However little memory is left, there is a space, or an error and nothing taken.
#[ktest]
fn without_memory_there_is_no_space_and_nothing_is_taken_s118() {
    let zone = kernel().zones();
    let there = || zone.free_pages();
    let mut pieces = Vec::with_capacity(1000);
    let first_level = zone.allocate(1, FrameOwner::Test).expect("two adjacent frames");
    let all = zone.allocate_list_from(FrameRequest::ANY, there(), FrameOwner::Test);
    let all = all.expect("all of it");
    fill_the_heap(&mut pieces);
    let none = AddressSpace::new().map(drop);
    assert!(matches!(none, Err(SpaceError::Frames(_))), "{none:?}");
    zone.free(first_level).expect("it was ours");
    assert_eq!(AddressSpace::new().map(drop), Err(SpaceError::Heap));
    assert_eq!(there(), 2, "what was taken came back");
    drop(pieces);
    assert_eq!(AddressSpace::new().map(drop), Ok(()));
    assert_eq!(there(), 2);
    zone.free_list(all).expect("it was ours");
}

/// Copies keep to what the program itself may do, and say where they stopped.
#[ktest]
fn copies_stop_where_the_program_may_not_go_s118() {
    let space = space_of(code::exits());
    let page = PAGE_SIZE as usize;
    let pattern: Vec<u8> =
        (0..2 * PAGE_SIZE).map(|index| (index * 7 + index / 256).to_le_bytes()[0]).collect();
    // Every alignment of the two, and lengths that words do not fill.
    for offset in 0..4 {
        for start in 0..4 {
            for bytes in [0, 1, 3, 4, 5, 64, 67] {
                let from = &pattern[start..start + bytes];
                space.copy_to(at(DATA + offset), from).expect("its own");
                let mut back = vec![0xa5; bytes];
                space.copy_from(&mut back, at(DATA + offset)).expect("its own");
                assert_eq!(back, from);
            }
        }
    }
    let fault = |copied: Result<(), CopyError>| match copied {
        Err(CopyError::Fault(fault)) => (fault.fault.address, fault.copied),
        other => panic!("{other:?}"),
    };
    // Over the end of the window, by words and by bytes.
    for (start, inside) in [(8, page - 8), (PAGE_SIZE - 3, 3)] {
        let first = at(DATA + start);
        let beyond = Some(at(DATA + PAGE_SIZE));
        assert_eq!(fault(space.copy_to(first, &pattern[..page + 4])), (beyond, inside));
        let mut found = vec![0; page + 4];
        assert_eq!(fault(space.copy_from(&mut found, first)), (beyond, inside));
        assert_eq!(found[..inside], pattern[..inside]);
        assert!(found[inside..].iter().all(|&byte| byte == 0));
    }
    assert_eq!(fault(space.copy_to(at(CONSTANTS), b"word")), (Some(at(CONSTANTS)), 0));
    assert_eq!(fault(space.copy_to(at(TEXT), b"word")), (Some(at(TEXT)), 0));
    assert_eq!(space.copy_from(&mut [0; 4], at(TEXT)), Ok(()));
    assert_eq!(fault(space.copy_from(&mut [0; 4], at(HOLE))), (Some(at(HOLE)), 0));
    let kernel = LINEAR_START.raw();
    for (address, bytes) in [(0, 1), (kernel, 1), (kernel - 1, 2), (u32::MAX, 2), (DATA, 1 << 31)] {
        let refused = Err(CopyError::NotUsers { address: at(address), bytes });
        if bytes < page {
            assert_eq!(space.copy_from(&mut vec![0; bytes], at(address)), refused);
            assert_eq!(space.copy_to(at(address), &pattern[..bytes]), refused);
        }
    }
    all_is_well();
}

/// S118: the kernel has no other way to a program's memory, not even to a page that the TLB has just seen.
#[ktest]
fn the_kernel_reaches_no_user_memory_but_by_copying_s118() {
    let space = space_of(code::exits());
    let closed = |address: u32| {
        let refused = probe::read_u32(at(address)).expect_err("closed").status;
        assert_eq!(refused, NOTHING, "{address:#x}");
        // SAFETY: it does not succeed, and were the program's memory to change, nobody relied on it.
        let refused = unsafe { probe::write_u32(at(address), 0) }.expect_err("closed").status;
        assert_eq!(refused, NOTHING, "{address:#x}");
    };
    closed(DATA);
    space.copy_to(at(DATA), b"word").expect("its own");
    closed(DATA);
    closed(TEXT);
    let mut program = with_arguments(Program::new(space, at(TEXT), at(STACK_TOP)), &[5]);
    assert_eq!(program.run(programs::answer), End::Exited(5));
    closed(DATA);
    closed(TEXT);
}

/// What the handler of the tests' timer has seen.
struct Seen {
    interrupts: AtomicU32,
    /// Of them, those of a program.
    in_user_mode: AtomicU32,
    /// How often the program's memory could be reached.
    reached: AtomicU32,
}

static SEEN: Seen = Seen {
    interrupts: AtomicU32::new(0),
    in_user_mode: AtomicU32::new(0),
    reached: AtomicU32::new(0),
};
static TIMER: IrqSpinLock<Option<PrivateTimer>> = IrqSpinLock::new(Class::OuterTest(0), None);

fn on_timer() {
    let spsr: u32;
    // SAFETY: reads a register: what was interrupted.
    unsafe { core::arch::asm!("mrs {spsr}, spsr", spsr = out(reg) spsr, options(nomem, nostack)) };
    TIMER.with(|timer| timer.as_mut().map(PrivateTimer::acknowledge));
    SEEN.interrupts.fetch_add(1, SeqCst);
    SEEN.in_user_mode.fetch_add(u32::from(Mode::from_cpsr(spsr) == Mode::User), SeqCst);
    let is_open = probe::read_u32(at(DATA)).is_ok() || !Ttbcr::read().pd0();
    SEEN.reached.fetch_add(u32::from(is_open), SeqCst);
}

/// S115, S118: a program is interrupted and goes on, and so does a copy; the handler reaches nothing of what they have open.
#[ktest]
fn a_handler_finds_the_memory_of_a_program_closed_s115_s118() {
    const ENOUGH: u32 = 4;
    for count in [&SEEN.interrupts, &SEEN.in_user_mode, &SEEN.reached] {
        count.store(0, SeqCst);
    }
    let timer = PrivateTimer::new(IoMem::map(PRIVATE_TIMER.base).expect("addresses"));
    TIMER.with(|slot| *slot = Some(timer));
    interrupts::register(PRIVATE_TIMER_INTERRUPT.id(), &on_timer).expect("nobody else's");
    // Once a round, so that on however slow a host the rounds go on; after another time in each, of which some end while the
    // program runs, however fast the host is.
    let start = |round: u32| {
        let ticks = 1_250 << (round % 8);
        TIMER.with(|timer| timer.as_mut().map(|timer| timer.start(ticks, Repeat::Once)))
    };
    let mut rounds = 0;
    let mut program = program(code::spins(), &[50_000]);
    let end = program.run(|space, call| match call.number {
        100 => {
            rounds += 1;
            start(rounds);
            Answer::Return(u32::from(SEEN.in_user_mode.load(SeqCst) >= ENOUGH))
        }
        _ => programs::answer(space, call),
    });
    let mut buffer = vec![0x5a; PAGE_SIZE as usize];
    // Long enough to be in the middle of it.
    for round in 4..4 + ENOUGH {
        let before = SEEN.interrupts.load(SeqCst);
        start(round);
        while SEEN.interrupts.load(SeqCst) == before {
            program.space().copy_to(at(DATA), &buffer).expect("its own");
            program.space().copy_from(&mut buffer, at(DATA)).expect("its own");
            assert!(buffer.iter().all(|&byte| byte == 0x5a));
        }
    }
    // With the timer, outside of the lock, go its registers.
    let mut timer = TIMER.with(Option::take).expect("put there above");
    timer.stop();
    interrupts::unregister(PRIVATE_TIMER_INTERRUPT.id()).expect("registered above");
    assert_eq!(end, End::Exited(rounds));
    assert_eq!(SEEN.reached.load(SeqCst), 0);
}
