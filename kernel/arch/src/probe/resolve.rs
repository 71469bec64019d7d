//! Turning a probe's fault into its result.

use crate::exception::{Frame, IT_STATE, Kind, THUMB};

/// "If this instruction faults, go on there": what `probe.S`, and any other routine whose accesses may fault, leaves
/// in the section `.exception_table`.
#[repr(C)]
struct Entry {
    instruction: u32,
    fixup: u32,
}

unsafe extern "C" {
    static __exception_table_start: [Entry; 0];
    static __exception_table_end: [Entry; 0];
    static probe_execute_fixup: u8;
}

fn table() -> &'static [Entry] {
    let start = (&raw const __exception_table_start).cast::<Entry>();
    let bytes = (&raw const __exception_table_end).addr() - start.addr();
    // SAFETY: the linker script puts both symbols around the section, whose entries are words in pairs, aligned,
    // in read-only memory that lives for ever.
    unsafe { core::slice::from_raw_parts(start, bytes / size_of::<Entry>()) }
}

/// Where to go on if `frame` is the fault of an access that may fault.
fn fixup(frame: &Frame) -> Option<u32> {
    match frame.kind() {
        Kind::DataAbort => {
            let entry = table().iter().find(|entry| entry.instruction == frame.pc);
            entry.map(|entry| entry.fixup)
        }
        // `probe_execute` keeps its target in r4 and its fixup in r5: the target's first instruction did not execute.
        Kind::PrefetchAbort | Kind::Undefined => {
            let fixup = (&raw const probe_execute_fixup) as u32;
            let tried = frame.pc == frame.registers[4] && fixup == frame.registers[5];
            tried.then_some(fixup)
        }
        Kind::SupervisorCall | Kind::Irq | Kind::Fiq => None,
    }
}

/// Makes `frame` resume at its fixup, if it has one, with the fault in r0 to r3 as [`super::Outcome`] expects it.
pub(crate) fn resolve(frame: &mut Frame) -> bool {
    let Some(fixup) = fixup(frame) else { return false };
    frame.registers[0] = frame.fault_status;
    frame.registers[1] = frame.kind() as u32;
    frame.registers[2] = frame.fault_address;
    frame.registers[3] = frame.pc;
    frame.pc = fixup;
    // Fixups are ARM code; what was to be executed may have been Thumb code.
    frame.cpsr &= !(THUMB | IT_STATE);
    true
}
