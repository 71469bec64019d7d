//! Where the linker put the image.
//!
//! ```text
//!   __image_start  text │ rodata (.ksyms) │ data, bss │ stacks, with guards │ tables  __image_end
//! ```
//!
//! The stub has mapped exactly these pages; the guards between them, and nothing else inside the image, are absent.

use arch::cpu::MAX_CPUS;
use kerncore::addr::{PageRange, VirtAddr};

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __tables_start: u8;
    static __tables_end: u8;
    static __kernel_l1: u8;
    static __user_l1: u8;
    static __linear_tables: u8;
    static __fiq_stack_bottom: u8;
    static __fiq_stack_top: u8;
    static __irq_stack_bottom: u8;
    static __irq_stack_top: u8;
    static __abt_stack_bottom: u8;
    static __abt_stack_top: u8;
    static __und_stack_bottom: u8;
    static __und_stack_top: u8;
    static __svc_stack_bottom: u8;
    static __svc_stack_top: u8;
    /// Not a place: a number, as an address.
    static __cpu_stacks_size: u8;
}

/// What the pages of a part of the image may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Read and executed.
    Text,
    /// Read.
    ReadOnly,
    /// Read and written.
    Data,
    /// Read and written; the page below is a guard.
    Stack,
    /// Read and written: the first-level tables and the linear map's second-level tables.
    Tables,
}

/// A run of mapped pages of the image.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What it is called in a listing.
    pub name: &'static str,
    /// What for.
    pub usage: Use,
    /// Where.
    pub pages: PageRange,
}

/// The pages from `start` up to `end`, which the linker script promises to be page boundaries in this order.
fn pages(start: *const u8, end: *const u8) -> PageRange {
    let first = VirtAddr::new(start as u32);
    let count = VirtAddr::new(end as u32).checked_sub(first).map(kerncore::addr::pages_for);
    count
        .and_then(|count| PageRange::new(first, count))
        .expect("linker.ld asserts that every boundary is a page boundary")
}

/// All of the image, guards included: memory that is nobody else's.
pub fn image() -> PageRange {
    pages(&raw const __image_start, &raw const __image_end)
}

/// Whether what lies at `address` is the image's data or a stack, where callers have buffers, and neither text, constants, tables nor a guard.
pub fn holds_data(address: VirtAddr) -> bool {
    pages(&raw const __data_start, &raw const __data_end).contains(address)
        || parts().iter().any(|part| part.usage == Use::Stack && part.pages.contains(address))
}

/// The first-level table behind TTBR1.
pub fn kernel_l1() -> VirtAddr {
    VirtAddr::new((&raw const __kernel_l1) as u32)
}

/// The first-level table behind TTBR0, empty since the identity mapping went.
pub fn user_l1() -> VirtAddr {
    VirtAddr::new((&raw const __user_l1) as u32)
}

/// The linear map's second-level tables: 1024 of them, of which table `k` maps the MiB number `k`.
pub fn linear_tables() -> VirtAddr {
    VirtAddr::new((&raw const __linear_tables) as u32)
}

/// The stacks of one CPU, in ascending order.
const MODES: usize = 5;
/// What they are called. A listing has no memory to put names together.
const STACKS: [[&str; MODES]; MAX_CPUS] = [
    [
        "FIQ stack of CPU 0",
        "IRQ stack of CPU 0",
        "abort stack of CPU 0",
        "undefined stack of CPU 0",
        "supervisor stack of CPU 0",
    ],
    [
        "FIQ stack of CPU 1",
        "IRQ stack of CPU 1",
        "abort stack of CPU 1",
        "undefined stack of CPU 1",
        "supervisor stack of CPU 1",
    ],
    [
        "FIQ stack of CPU 2",
        "IRQ stack of CPU 2",
        "abort stack of CPU 2",
        "undefined stack of CPU 2",
        "supervisor stack of CPU 2",
    ],
    [
        "FIQ stack of CPU 3",
        "IRQ stack of CPU 3",
        "abort stack of CPU 3",
        "undefined stack of CPU 3",
        "supervisor stack of CPU 3",
    ],
];

/// The stack of a mode, in the order of [`STACKS`], of a CPU.
fn stack(cpu: usize, mode: usize) -> Part {
    let (bottom, top) = match mode {
        0 => (&raw const __fiq_stack_bottom, &raw const __fiq_stack_top),
        1 => (&raw const __irq_stack_bottom, &raw const __irq_stack_top),
        2 => (&raw const __abt_stack_bottom, &raw const __abt_stack_top),
        3 => (&raw const __und_stack_bottom, &raw const __und_stack_top),
        _ => (&raw const __svc_stack_bottom, &raw const __svc_stack_top),
    };
    let offset = cpu * (&raw const __cpu_stacks_size).addr();
    let of_cpu = |stack: *const u8| stack.wrapping_add(offset);
    Part { name: STACKS[cpu][mode], usage: Use::Stack, pages: pages(of_cpu(bottom), of_cpu(top)) }
}

/// How many parts there are.
pub const PARTS: usize = 4 + MODES * MAX_CPUS;

/// The mapped parts, in ascending order.
pub fn parts() -> [Part; PARTS] {
    let part = |name, usage, start, end| Part { name, usage, pages: pages(start, end) };
    let [text, rodata, data, tables] = [
        part("text", Use::Text, &raw const __text_start, &raw const __text_end),
        part("rodata", Use::ReadOnly, &raw const __rodata_start, &raw const __rodata_end),
        part("data", Use::Data, &raw const __data_start, &raw const __data_end),
        part("tables", Use::Tables, &raw const __tables_start, &raw const __tables_end),
    ];
    core::array::from_fn(|index| match index {
        0 => text,
        1 => rodata,
        2 => data,
        _ if index == PARTS - 1 => tables,
        _ => stack((index - 3) / MODES, (index - 3) % MODES),
    })
}
