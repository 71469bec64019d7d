//! Where the linker put the image.
//!
//! ```text
//!   __image_start  text │ rodata (.ksyms) │ data, bss │ stacks, with guards │ tables  __image_end
//! ```
//!
//! The stub has mapped exactly these pages; the guards between them, and nothing else inside the image, are absent.

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

/// The mapped parts, in ascending order.
pub fn parts() -> [Part; 9] {
    let part = |name, usage, start, end| Part { name, usage, pages: pages(start, end) };
    [
        part("text", Use::Text, &raw const __text_start, &raw const __text_end),
        part("rodata", Use::ReadOnly, &raw const __rodata_start, &raw const __rodata_end),
        part("data", Use::Data, &raw const __data_start, &raw const __data_end),
        part("FIQ stack", Use::Stack, &raw const __fiq_stack_bottom, &raw const __fiq_stack_top),
        part("IRQ stack", Use::Stack, &raw const __irq_stack_bottom, &raw const __irq_stack_top),
        part("abort stack", Use::Stack, &raw const __abt_stack_bottom, &raw const __abt_stack_top),
        part(
            "undefined stack",
            Use::Stack,
            &raw const __und_stack_bottom,
            &raw const __und_stack_top,
        ),
        part(
            "supervisor stack",
            Use::Stack,
            &raw const __svc_stack_bottom,
            &raw const __svc_stack_top,
        ),
        part("tables", Use::Tables, &raw const __tables_start, &raw const __tables_end),
    ]
}
