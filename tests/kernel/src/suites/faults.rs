//! Faults: every kind that can be provoked, exact to the bit (S113).
//!
//! `assert_fault` is what the other suites prove a refusal with: never "some fault", always this one, there.

use core::arch::global_asm;

use arch::exception::{Access, Fault, FaultStatus, Level, Mode};
use arch::{irq, probe, symbols};
use boot::layout::{Use, parts};
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::layout::{HEAP_END, STATIC_START};
use ktest::{Completion, ktest};
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::witness::ask_host;

const NO_SECOND_LEVEL: FaultStatus = FaultStatus::Translation(Level::First);
const NO_PAGE: FaultStatus = FaultStatus::Translation(Level::Second);
const NO_RIGHT: FaultStatus = FaultStatus::Permission(Level::Second);

/// Asserts that a probe was refused for just this reason, at just this address.
#[track_caller]
pub(super) fn assert_fault<T>(
    result: Result<T, Fault>,
    status: FaultStatus,
    access: Access,
    address: VirtAddr,
) {
    let Some(fault) = result.err() else {
        panic!("{access:?} at {address} was not refused: {status}")
    };
    let wanted = Fault { status, access, address: Some(address), ..fault };
    assert_eq!(fault, wanted, "{access:?} at {address}");
    assert_eq!(fault.mode, Mode::Supervisor, "{access:?} at {address}");
    match access {
        Access::Execute => assert_eq!(fault.instruction, address),
        Access::Read | Access::Write => {
            let [text, ..] = parts();
            assert!(text.pages.contains(fault.instruction), "by {}", fault.instruction);
        }
    }
}

/// Asserts that `address` can neither be read, nor written, nor executed, for lack of an entry in the table of `level`.
#[track_caller]
pub(super) fn assert_unmapped(address: VirtAddr, level: Level) {
    let status = FaultStatus::Translation(level);
    assert_fault(probe::read_u8(address), status, Access::Read, address);
    // SAFETY: expected to be refused; if it is not, the test fails and the boot ends.
    assert_fault(unsafe { probe::write_u8(address, 0) }, status, Access::Write, address);
    let word = VirtAddr::new(address.raw() & !3);
    // SAFETY: as above.
    assert_fault(unsafe { probe::execute(word) }, status, Access::Execute, word);
    ask_host(address);
}

global_asm!(
    "
    .section .text.suite_faults, \"ax\", %progbits
    .arm
    .balign 4
    @ Code that returns, and code that is none.
    .global suite_return
    .type suite_return, %function
    suite_return:
        bx      lr
    .global suite_undefined
    suite_undefined:
        udf     #0x123
    .global suite_breakpoint
    suite_breakpoint:
        bkpt    #0
    .thumb
    .global suite_thumb_return
    .type suite_thumb_return, %function
    .thumb_func
    suite_thumb_return:
        bx      lr
    .global suite_thumb_undefined
    .type suite_thumb_undefined, %function
    .thumb_func
    suite_thumb_undefined:
        udf     #0x12
    .arm
    .balign 4

    @ (address, results: 4 words, mode bits): probe_read_u32 in another mode, as a handler there would.
    .global suite_read_in_mode
    .type suite_read_in_mode, %function
    suite_read_in_mode:
        push    {{r4, r5, r6, lr}}
        mrs     r4, cpsr
        mov     r5, r1
        bic     r3, r4, #0x1f
        orr     r3, r3, r2
        orr     r3, r3, #0xc0
        msr     cpsr_c, r3
        bl      probe_read_u32
        msr     cpsr_c, r4
        stmia   r5, {{r0-r3}}
        pop     {{r4, r5, r6, pc}}

    @ (address, results: 12 words): every register that a call must keep, and the flags, after a probe that faults.
    .global suite_registers_after_fault
    .type suite_registers_after_fault, %function
    suite_registers_after_fault:
        push    {{r4-r11, lr}}
        push    {{r1}}
        str     sp, [r1]
        movw    r4, #0x4444
        movw    r5, #0x5555
        movw    r6, #0x6666
        movw    r7, #0x7777
        movw    r8, #0x8888
        movw    r9, #0x9999
        movw    r10, #0xaaaa
        movw    r11, #0xbbbb
        msr     cpsr_f, #0xa0000000
        bl      probe_read_u32
        mrs     r12, cpsr
        ldr     r2, [sp]
        add     r2, r2, #4
        stmia   r2!, {{r4-r11}}
        str     sp, [r2], #4
        str     r12, [r2], #4
        str     r1, [r2]
        pop     {{r1}}
        pop     {{r4-r11, pc}}
    "
);

unsafe extern "C" {
    static suite_return: u8;
    static suite_undefined: u8;
    static suite_breakpoint: u8;
    static suite_thumb_return: u8;
    static suite_thumb_undefined: u8;
    fn suite_read_in_mode(address: u32, results: *mut u32, mode: u32);
    fn suite_registers_after_fault(address: u32, results: *mut u32);
}

fn at(symbol: *const u8) -> VirtAddr {
    VirtAddr::new(symbol as u32)
}

/// The page below the supervisor stack.
fn guard() -> VirtAddr {
    let stack = parts().into_iter().find(|part| part.name == "supervisor stack of CPU 0");
    let bottom = stack.expect("there is such a stack").pages.start();
    VirtAddr::new(bottom.raw() - PAGE_SIZE)
}

/// The first byte of the text.
fn text() -> VirtAddr {
    let [text, ..] = parts();
    assert_eq!(text.usage, Use::Text);
    text.pages.start()
}

#[ktest]
fn an_address_without_a_second_level_table_faults_at_the_first_level() {
    for raw in
        [0x1234_5678, 0x7fff_fffc, 0x6001_0000, HEAP_END.raw() - 4, STATIC_START.raw() + (1 << 20)]
    {
        assert_unmapped(VirtAddr::new(raw), Level::First);
    }
}

#[ktest]
fn an_address_without_a_page_faults_at_the_second_level() {
    for offset in [0, 1, 0x7fe, 0xffc, 0xfff] {
        assert_unmapped(VirtAddr::new(guard().raw() + offset), Level::Second);
    }
}

#[ktest]
fn a_write_to_text_is_a_permission_fault_and_changes_nothing() {
    let last = parts()[0].pages.bytes() - 4;
    for address in [text(), VirtAddr::new(text().raw() + last)] {
        let before = probe::read_u32(address).expect("text is readable");
        // SAFETY: expected to be refused; if it is not, the test fails and the boot ends.
        let written = unsafe { probe::write_u32(address, !before) };
        assert_fault(written, NO_RIGHT, Access::Write, address);
        // SAFETY: as above.
        let written = unsafe { probe::write_u8(address, !before.to_le_bytes()[0]) };
        assert_fault(written, NO_RIGHT, Access::Write, address);
        assert_eq!(probe::read_u32(address), Ok(before));
    }
}

#[ktest]
fn execution_of_data_is_a_permission_fault_even_of_a_valid_instruction() {
    /// BX LR: were it executed, it would come back.
    const RETURN: u32 = 0xe12f_ff1e;
    static IN_RODATA: u32 = RETURN;
    let on_stack = core::hint::black_box(RETURN);
    let mut pages = Pages::new(0).expect("a page");
    pages[..4].copy_from_slice(&RETURN.to_le_bytes());
    arch::cache::synchronize_instructions(pages.address(), 4);
    for address in
        [at((&raw const IN_RODATA).cast()), at((&raw const on_stack).cast()), pages.address()]
    {
        assert_eq!(probe::read_u32(address), Ok(RETURN), "{address}");
        // SAFETY: the code there returns at once.
        let executed = unsafe { probe::execute(address) };
        assert_fault(executed, NO_RIGHT, Access::Execute, address);
    }
}

#[ktest]
fn code_that_returns_is_executed_in_either_instruction_set() {
    // SAFETY: the code there returns at once.
    assert_eq!(unsafe { probe::execute(at(&raw const suite_return)) }, Ok(()));
    // SAFETY: as above.
    assert_eq!(unsafe { probe::execute(at(&raw const suite_thumb_return)) }, Ok(()));
    assert_eq!(at(&raw const suite_thumb_return).raw() & 1, 1, "or it was no Thumb code");
}

#[ktest]
fn an_undefined_instruction_names_its_own_address_in_either_instruction_set() {
    let arm = at(&raw const suite_undefined);
    // SAFETY: the instruction has no effect but its exception.
    let executed = unsafe { probe::execute(arm) };
    assert_fault(executed, FaultStatus::UndefinedInstruction, Access::Execute, arm);
    let thumb = at(&raw const suite_thumb_undefined);
    // SAFETY: as above.
    let executed = unsafe { probe::execute(thumb) };
    let place = VirtAddr::new(thumb.raw() & !1);
    assert_fault(executed, FaultStatus::UndefinedInstruction, Access::Execute, place);
}

#[ktest]
fn a_breakpoint_is_a_debug_event_without_an_address() {
    let place = at(&raw const suite_breakpoint);
    // SAFETY: the instruction has no effect but its exception.
    let fault = unsafe { probe::execute(place) }.expect_err("a breakpoint is taken");
    assert_eq!(fault.status, FaultStatus::DebugEvent);
    assert_eq!((fault.access, fault.address), (Access::Execute, None));
    assert_eq!(fault.instruction, place);
}

#[ktest]
fn an_unaligned_word_is_refused_where_bytes_are_not() {
    let mut pages = Pages::new(0).expect("a page");
    pages.fill(0xa5);
    for offset in 1..4 {
        let address = VirtAddr::new(pages.address().raw() + offset);
        assert_fault(probe::read_u32(address), FaultStatus::Alignment, Access::Read, address);
        // SAFETY: in a page of ours.
        let written = unsafe { probe::write_u32(address, 0) };
        assert_fault(written, FaultStatus::Alignment, Access::Write, address);
        assert_eq!(probe::read_u8(address), Ok(0xa5));
    }
    assert!(pages.iter().all(|&byte| byte == 0xa5), "a refused store wrote something");
}

/// The architecture ranks alignment before translation (ARM ARM B3.12.3).
#[ktest]
fn an_unaligned_word_that_is_not_there_is_refused_as_unaligned() {
    let address = VirtAddr::new(guard().raw() + 2);
    assert_fault(probe::read_u32(address), FaultStatus::Alignment, Access::Read, address);
}

#[ktest]
fn a_byte_is_written_alone() {
    let mut pages = Pages::new(0).expect("a page");
    pages.fill(0);
    let address = VirtAddr::new(pages.address().raw() + 0x101);
    // SAFETY: in a page of ours.
    assert_eq!(unsafe { probe::write_u8(address, 0xff) }, Ok(()));
    assert_eq!(probe::read_u8(address), Ok(0xff));
    for (offset, &byte) in pages.iter().enumerate() {
        assert_eq!(byte, if offset == 0x101 { 0xff } else { 0 }, "at {offset:#x}");
    }
}

#[ktest]
fn a_word_is_written_whole_and_read_back() {
    let pages = Pages::new(0).expect("a page");
    let last = VirtAddr::new(pages.address().raw() + PAGE_SIZE - 4);
    // SAFETY: in a page of ours.
    assert_eq!(unsafe { probe::write_u32(last, 0xfedc_ba98) }, Ok(()));
    assert_eq!(probe::read_u32(last), Ok(0xfedc_ba98));
    assert_eq!(probe::read_u8(VirtAddr::new(last.raw() + 3)), Ok(0xfe), "little endian");
    assert_eq!(pages[4092..], [0x98, 0xba, 0xdc, 0xfe]);
}

/// One of each kind.
pub(super) fn mixed_faults(round: u32) {
    let offset = (round * 52) & 0xffc;
    let below = VirtAddr::new(0x4000_0000 + (round << 20) + offset);
    let in_guard = VirtAddr::new(guard().raw() + offset);
    let in_text = VirtAddr::new(text().raw() + offset);
    let undefined = at(&raw const suite_undefined);
    assert_fault(probe::read_u32(below), NO_SECOND_LEVEL, Access::Read, below);
    assert_fault(probe::read_u8(in_guard), NO_PAGE, Access::Read, in_guard);
    // SAFETY: expected to be refused.
    assert_fault(unsafe { probe::write_u32(in_guard, round) }, NO_PAGE, Access::Write, in_guard);
    // SAFETY: as above.
    assert_fault(unsafe { probe::write_u8(in_text, 0) }, NO_RIGHT, Access::Write, in_text);
    // SAFETY: as above.
    assert_fault(unsafe { probe::execute(below) }, NO_SECOND_LEVEL, Access::Execute, below);
    // SAFETY: an undefined instruction has no effect but its exception.
    let executed = unsafe { probe::execute(undefined) };
    assert_fault(executed, FaultStatus::UndefinedInstruction, Access::Execute, undefined);
}

/// The stack pointer of a mode.
pub(super) fn stack_pointer_of(mode: u32) -> u32 {
    let sp;
    // SAFETY: interrupts are masked while the mode is another one; r0 to r3 are the same in all modes, and the way back is
    // by the CPSR as it was.
    unsafe {
        core::arch::asm!(
            "mrs r1, cpsr",
            "bic r2, r1, #0x1f",
            "orr r2, r2, r0",
            "orr r2, r2, #0xc0",
            "msr cpsr_c, r2",
            "mov r0, sp",
            "msr cpsr_c, r1",
            inout("r0") mode => sp, out("r1") _, out("r2") _,
            options(nostack)
        );
    }
    sp
}

/// S113: in the same boot, any number of times. The exceptions' stacks hold 350 frames, which a frame left behind in each
/// of 600 would exhaust.
#[ktest]
fn hundreds_of_faults_in_a_row_leave_nothing_behind() {
    let state = || ([0x11, 0x12, 0x13, 0x17, 0x1b].map(stack_pointer_of), irq::are_masked());
    let before = state();
    mixed_faults(0);
    assert_eq!(state(), before, "a stack has lost something");
    (0..200).for_each(mixed_faults);
    assert_eq!(state(), before);
}

#[ktest]
fn a_fault_leaves_the_interrupt_mask_as_it_was() {
    irq::masked(|| {
        for round in 0..100 {
            mixed_faults(round);
            assert!(irq::are_masked());
        }
    });
    let saved = irq::save_and_mask();
    // SAFETY: no source of interrupts is enabled, no lock is held.
    unsafe { irq::unmask() };
    for round in 0..100 {
        mixed_faults(round);
        assert!(!irq::are_masked());
    }
    saved.restore();
}

#[ktest]
fn a_fault_keeps_every_register_that_a_call_keeps_and_the_flags() {
    let mut results = [0; 12];
    // SAFETY: the routine keeps to the procedure call standard, and writes twelve words.
    unsafe { suite_registers_after_fault(guard().raw(), results.as_mut_ptr()) };
    let [sp_before, kept @ .., sp_after, cpsr, vector] = results;
    assert_eq!(vector, 4, "no data abort was taken");
    assert_eq!(sp_before, sp_after);
    assert_eq!(kept, [0x4444, 0x5555, 0x6666, 0x7777, 0x8888, 0x9999, 0xaaaa, 0xbbbb]);
    assert_eq!(cpsr & 0xf000_0000, 0xa000_0000, "the flags");
}

/// A handler may probe, in whichever mode it runs: in abort mode this is an abort that interrupts abort mode.
#[ktest]
fn a_probe_works_in_every_mode() {
    let readable = text();
    let word = probe::read_u32(readable).expect("text is readable");
    for mode in [0x11, 0x12, 0x13, 0x17, 0x1b, 0x1f] {
        for _ in 0..20 {
            let mut results = [0; 4];
            // SAFETY: the routine comes back in the mode it was called in; the other modes' registers are not in use.
            unsafe { suite_read_in_mode(guard().raw(), results.as_mut_ptr(), mode) };
            let [status, vector, address, instruction] = results;
            assert_eq!((status & 0xc0f, vector), (7, 4), "in mode {mode:#x}");
            assert_eq!(address, guard().raw(), "in mode {mode:#x}");
            assert!(parts()[0].pages.contains(VirtAddr::new(instruction)), "in mode {mode:#x}");
            // SAFETY: as above.
            unsafe { suite_read_in_mode(readable.raw(), results.as_mut_ptr(), mode) };
            assert_eq!(results[..2], [word, 0], "in mode {mode:#x}");
        }
    }
}

#[ktest]
fn the_instruction_of_a_refused_access_is_the_probe_s() -> Completion {
    if !super::symbols::has_symbols() {
        return Completion::Skipped("the image has no symbols");
    }
    let fault = probe::read_u32(guard()).expect_err("the guard is unmapped");
    let symbol = symbols::lookup(fault.instruction).expect("it lies in a function");
    assert_eq!(symbol.name, "probe_read_u32");
    Completion::Ran
}

#[ktest(
    fatal = "unexpected DataAbort exception: translation fault, first level: read at 0x00000000"
)]
fn a_read_through_null_ends_the_kernel() {
    let null: *const u32 = core::hint::black_box(core::ptr::null());
    // SAFETY: none: this is the mistake that must not go unnoticed. As assembly, it is one to the compiler as well.
    unsafe { core::arch::asm!("ldr {0}, [{0}]", inout(reg) null => _, options(nostack)) };
}

#[ktest(fatal = "permission fault, second level: write at 0x80010000")]
fn a_write_to_text_ends_the_kernel() {
    // SAFETY: none, as above.
    unsafe { core::arch::asm!("str {0}, [{0}]", in(reg) text().raw(), options(nostack)) };
}

#[ktest(
    fatal = "unexpected PrefetchAbort exception: translation fault, first level: execute at 0x00000000"
)]
fn a_jump_through_null_ends_the_kernel() {
    // SAFETY: none, as above.
    unsafe { core::arch::asm!("blx {}", in(reg) 0, out("lr") _, options(nostack)) };
}

#[ktest(fatal = "unexpected Undefined exception: undefined instruction: execute at 0x8")]
fn an_undefined_instruction_ends_the_kernel() {
    // SAFETY: none, as above.
    unsafe { core::arch::asm!("udf #1", options(nostack)) };
}

#[ktest(fatal = "unexpected DataAbort exception: alignment fault: read at 0x80010002")]
fn an_unaligned_access_ends_the_kernel() {
    // SAFETY: none, as above.
    unsafe {
        core::arch::asm!("ldr {0}, [{0}]", inout(reg) text().raw() + 2 => _, options(nostack));
    };
}

#[ktest(fatal = "unexpected SupervisorCall exception")]
fn a_system_call_from_the_kernel_ends_it() {
    // SAFETY: the exception overwrites LR.
    unsafe { core::arch::asm!("svc #0x42", out("lr") _, options(nostack)) };
}

#[ktest(fatal = "seventeen of a kind")]
fn a_panic_ends_the_kernel_with_its_message() {
    panic!("{} of a kind", core::hint::black_box("seventeen"));
}

#[ktest(fatal = "unexpected DataAbort exception: translation fault, second level: write at 0x80")]
fn a_stack_that_overflows_meets_its_guard() {
    /// Uses a little stack, and more by calling itself.
    fn descend(depth: u32) -> u32 {
        let here = core::hint::black_box([depth; 16]);
        if depth == u32::MAX { depth } else { descend(depth + 1) ^ here[depth as usize % 16] }
    }
    assert_ne!(descend(0), u32::MAX);
}

/// The report names the nearest area, but must not wait for the lock that says which: the faulting code may hold it, and
/// a report that waits is a kernel that hangs.
#[ktest(fatal = "unexpected DataAbort exception: translation fault, second level: read at 0xc0")]
fn a_fault_under_the_lock_of_areas_is_reported() {
    let area = VmArea::new(1).expect("memory for one page");
    let guard = area.address().checked_add(PAGE_SIZE).expect("a guard lies behind");
    mm::kernel().with_area(area.address(), |_| {
        // SAFETY: none, as above.
        unsafe {
            core::arch::asm!("ldr {0}, [{0}]", inout(reg) guard.raw() => _, options(nostack));
        };
    });
}
