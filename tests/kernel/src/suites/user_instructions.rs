//! What a program may execute, and what of its state is its own between two calls (S118).

extern crate alloc;

use alloc::vec::Vec;

use arch::exception::FaultStatus;
use arch::lock::IrqSpinLock;
use board::vexpress_a9::{TIMER_23, TIMER_23_INTERRUPT};
use drivers::interrupts;
use drivers::sp804::{DualTimer, Repeat, Which};
use kerncore::lock::Class;
use ktest::ktest;
use mm::io_mem::IoMem;
use mm::user::{Call, End, Program};

use super::user::{DATA, STACK_TOP, TEXT, all_is_well, at, space_of};

/// `svc #0`.
const CALL: u32 = 0xef00_0000;

/// MCR or MRC of r0, by the numbers of the register.
const fn move_to(coprocessor: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    0xee00_0010 | op1 << 21 | crn << 16 | coprocessor << 8 | op2 << 5 | crm
}

const fn move_from(coprocessor: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    move_to(coprocessor, op1, crn, crm, op2) | 1 << 20
}

/// The program of these instructions, which may read and write at r0.
fn program(instructions: &[u32]) -> Program {
    let text: Vec<u8> = instructions.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut program = Program::new(space_of(&text), at(TEXT), at(STACK_TOP));
    program.registers_mut()[0] = DATA;
    program
}

/// How it goes until its first call.
fn first_call(instructions: &[u32]) -> Result<Call, End> {
    program(instructions).resume()
}

/// Hints, barriers of both kinds, and the registers that are programs' own.
#[ktest]
fn what_is_harmless_is_executed_s118() {
    let harmless = [
        0xe320_f001,              // YIELD
        0xe320_f002,              // WFE
        0xe320_f004,              // SEV
        0xf57f_f01f,              // CLREX
        0xf57f_f04f,              // DSB
        0xf57f_f05f,              // DMB
        0xf57f_f06f,              // ISB
        0xf5d0_f000,              // PLD [r0]
        0xe10f_0000,              // MRS r0, CPSR
        0xf102_001f,              // CPS to System mode: ignored
        move_to(15, 0, 7, 5, 4),  // CP15ISB
        move_to(15, 0, 7, 10, 4), // CP15DSB
        move_to(15, 0, 7, 10, 5), // CP15DMB
        move_to(15, 0, 13, 0, 2), // TPIDRURW
        move_from(15, 0, 13, 0, 2),
        move_from(15, 0, 13, 0, 3), // TPIDRURO
    ];
    for instruction in harmless {
        let end = first_call(&[instruction, CALL]);
        assert!(end.is_ok(), "{instruction:#010x}: {end:?}");
    }
}

/// Registers of the system, the modes' and the host's: no program comes to them.
#[ktest]
fn what_is_the_kernels_is_undefined_s118() {
    let forbidden = [
        0xe7f0_00f0,                // UDF
        0xe160_0070,                // SMC
        0xe14f_0000,                // MRS r0, SPSR
        0xe1b0_f00e,                // MOVS pc, lr
        0xe8dd_8000,                // LDM sp, {pc}^
        0xf890_0a00,                // RFEIA r0
        0xf8cd_0513,                // SRSIA sp, to Supervisor mode's stack
        0xeef1_0a10,                // VMRS r0, FPSCR
        0xeef8_0a10,                // VMRS r0, FPEXC
        0xeee8_0a10,                // VMSR FPEXC, r0
        0xee30_0a00,                // VADD.F32 s0, s0, s0
        0xed90_0a00,                // VLDR s0, [r0]
        0xf220_0150,                // VORR q0, q0, q0
        move_from(15, 0, 0, 0, 5),  // MPIDR
        move_from(15, 0, 1, 0, 1),  // ACTLR
        move_to(15, 0, 1, 0, 2),    // CPACR
        move_to(15, 0, 3, 0, 0),    // DACR
        move_to(15, 0, 7, 1, 0),    // ICIALLUIS
        move_to(15, 0, 7, 5, 0),    // ICIALLU
        move_to(15, 0, 7, 6, 2),    // DCISW
        move_to(15, 0, 7, 8, 0),    // ATS1CPR
        move_to(15, 0, 7, 10, 1),   // DCCMVAC
        move_to(15, 0, 8, 3, 0),    // TLBIALLIS
        move_from(15, 0, 9, 12, 0), // PMCR
        move_from(15, 0, 9, 13, 0), // PMCCNTR
        move_to(15, 0, 9, 14, 0),   // PMUSERENR
        move_to(15, 0, 12, 0, 0),   // VBAR
        move_to(15, 0, 13, 0, 1),   // CONTEXTIDR
        move_to(15, 0, 13, 0, 3),   // TPIDRURO
        move_from(15, 0, 13, 0, 4), // TPIDRPRW
        move_from(15, 4, 15, 0, 0), // CBAR
        move_from(14, 6, 0, 0, 0),  // TEECR
        move_to(14, 7, 1, 0, 0),    // JOSCR
    ];
    for instruction in forbidden {
        let end = first_call(&[instruction, CALL]);
        let Err(End::Killed(fault)) = end else { panic!("{instruction:#010x}: {end:?}") };
        assert_eq!(fault.status, FaultStatus::UndefinedInstruction, "{instruction:#010x}");
        assert_eq!(fault.instruction, at(TEXT));
    }
    all_is_well();
}

/// BKPT has nobody to stop for.
#[ktest]
fn a_breakpoint_kills_s118() {
    const BKPT: u32 = 0xe120_0070;
    let end = first_call(&[BKPT, CALL]);
    let Err(End::Killed(fault)) = end else { panic!("{end:?}") };
    assert_eq!(fault.status, FaultStatus::DebugEvent, "{fault}");
    all_is_well();
}

/// A program that waits for an interrupt goes on after it.
#[ktest]
fn a_program_may_wait_for_an_interrupt_s115_s118() {
    const WFI: u32 = 0xe320_f003;
    static TIMERS: IrqSpinLock<Option<DualTimer>> = IrqSpinLock::new(Class::OuterTest(0), None);
    fn tick() {
        TIMERS.with(|timers| timers.as_mut().map(|timers| timers.acknowledge(Which::First)));
    }
    let timers = DualTimer::new(IoMem::map(TIMER_23.base).expect("addresses")).expect("an SP804");
    TIMERS.with(|slot| *slot = Some(timers));
    interrupts::register(TIMER_23_INTERRUPT.id(), &tick).expect("a line without a handler");
    let start = |timers: &mut DualTimer| timers.start(Which::First, 500, Repeat::Periodic);
    TIMERS.with(|timers| timers.as_mut().map(start));
    let end = first_call(&[WFI, WFI, CALL]);
    // The handler needs them until there are no more interrupts.
    TIMERS.with(|timers| timers.as_mut().map(|timers| timers.stop(Which::First)));
    interrupts::unregister(TIMER_23_INTERRUPT.id()).expect("registered above");
    drop(TIMERS.with(Option::take));
    assert!(end.is_ok(), "{end:?}");
}

/// An exclusive access that a program has begun is completed by nobody: not by itself after a call, nor by the next program.
#[ktest]
fn an_exclusive_access_does_not_outlive_a_call_s118() {
    const LDREX: u32 = 0xe190_1f9f; // ldrex r1, [r0]
    const STREX: u32 = 0xe180_2f91; // strex r2, r1, [r0]
    const ANSWER: u32 = 0xe1a0_0002; // mov r0, r2
    let alone = first_call(&[LDREX, STREX, ANSWER, CALL]);
    assert_eq!(alone.map(|call| call.arguments[0]), Ok(0), "nothing comes between");
    let mut calls = program(&[LDREX, CALL, STREX, ANSWER, CALL]);
    assert_eq!(second_call(&mut calls).arguments[0], 1);
    // The first is killed in the middle of it; the second has the same address, and the same memory, which it fell heir to.
    let killed = first_call(&[LDREX, 0xe7f0_00f0]);
    assert!(matches!(killed, Err(End::Killed(_))), "{killed:?}");
    let heir = first_call(&[STREX, ANSWER, CALL]);
    assert_eq!(heir.map(|call| call.arguments[0]), Ok(1));
}

/// Runs it on behind its first call, with its registers as they were.
fn second_call(program: &mut Program) -> Call {
    program.resume().expect("it calls");
    program.resume().expect("it calls again")
}

/// Flags, saturation, the GE bits and the order of bytes are a program's own over a call, and no other's, the kernel included.
#[ktest]
fn the_status_bits_of_a_program_are_its_own_s118() {
    const SETEND_BE: u32 = 0xf101_0200;
    const SET_STATUS: u32 = 0xe12c_f001; // msr cpsr_fs, r1
    const READ_STATUS: u32 = 0xe10f_0000; // mrs r0, cpsr
    const OWN: u32 = 0xf80f_0200;
    let mut sets = program(&[SETEND_BE, SET_STATUS, CALL, READ_STATUS, CALL]);
    sets.registers_mut()[1] = OWN;
    let status = second_call(&mut sets).arguments[0];
    assert_eq!(status & OWN, OWN, "{status:#010x}");
    assert_eq!(status & 0x1f, 0x10, "in User mode");
    let other = first_call(&[READ_STATUS, CALL]).expect("it calls").arguments[0];
    assert_eq!(other & OWN, 0, "{other:#010x}");
    // A program of the other order is copied from and to in the kernel's, as everybody is.
    let mut stores = program(&[SETEND_BE, 0xe580_1000, CALL]);
    stores.registers_mut()[1] = 0x0102_0304;
    assert!(stores.resume().is_ok());
    let mut bytes = [0; 4];
    stores.space().copy_from(&mut bytes, at(DATA)).expect("its own");
    assert_eq!(bytes, [1, 2, 3, 4]);
}

/// A stack pointer that leads nowhere, or to the kernel, is a program's own affair: no exception uses it.
#[ktest]
fn a_stack_pointer_is_only_the_programs_s118() {
    const SET_SP: u32 = 0xe1a0_d000; // mov sp, r0
    const READ_SP: u32 = 0xe1a0_000d; // mov r0, sp
    for pointer in [0, 1, 0x4000_0003, 0x8000_0000, 0xffff_fffd] {
        let mut program = program(&[SET_SP, CALL, READ_SP, CALL, 0xe92d_4000]);
        program.registers_mut()[0] = pointer;
        assert_eq!(second_call(&mut program).arguments[0], pointer);
        let end = program.resume();
        assert!(matches!(end, Err(End::Killed(_))), "{end:?}");
    }
    all_is_well();
}
