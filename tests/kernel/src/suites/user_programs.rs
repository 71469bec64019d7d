//! Programs for the tests of user mode, in assembly, to be copied to wherever they run.
//!
//! They begin at their first instruction, with their arguments in r0 and up, and end by `exit` (r7 = 1, status in r0).

use core::slice;

/// Assembles a program, and makes a function that gives its bytes.
macro_rules! programs {
    ($($(#[$meta:meta])* $name:ident: $text:literal;)+) => {$(
        core::arch::global_asm!(
            ".pushsection .rodata.user_programs, \"a\"",
            ".arm",
            ".balign 4",
            concat!(".global user_program_", stringify!($name)),
            concat!("user_program_", stringify!($name), ":"),
            $text,
            ".balign 4",
            ".ltorg",
            concat!(".global user_program_", stringify!($name), "_end"),
            concat!("user_program_", stringify!($name), "_end:"),
            ".arm",
            ".popsection",
            options(raw)
        );

        $(#[$meta])*
        pub(crate) fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("user_program_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("user_program_", stringify!($name), "_end")]
                static END: u8;
            }
            let start = &raw const START;
            let bytes = (&raw const END).addr() - start.addr();
            // SAFETY: the assembler put both symbols around the program, which lies in read-only data.
            unsafe { slice::from_raw_parts(start, bytes) }
        }
    )+};
}

programs! {
    /// Ends with what it was given.
    exits: "
        mov     r7, #1
        svc     #0";
    /// The same in Thumb state.
    exits_in_thumb: "
        .thumb
        movs    r7, #1
        svc     #0
        .arm";
    /// Makes the call 100 in the first place of an IT block, whose other places are then skipped, run, and skipped, and ends
    /// with 0x10.
    calls_in_an_it_block: "
        .thumb
        movs    r4, #0
        movs    r7, #100
        cmp     r4, #0
        itete   eq
        svceq   #0
        addne   r4, r4, #1
        addeq   r4, r4, #16
        addne   r4, r4, #2
        mov     r0, r4
        movs    r7, #1
        svc     #0
        .arm";
    /// Prints, and ends with what the kernel said to that.
    greets: "
        mov     r0, #1
        adr     r1, 1f
        mov     r2, #23
        mov     r7, #4
        svc     #0
        mov     r7, #1
        svc     #0
    1:  .ascii  \"# hello from a program\\n\"";
    /// Makes r0 its thread's word, makes the call 100, and ends with the word.
    keeps_a_thread_word: "
        mcr     p15, 0, r0, c13, c0, 2
        mov     r7, #100
        svc     #0
        mrc     p15, 0, r0, c13, c0, 2
        mov     r7, #1
        svc     #0";
    /// Ends with whatever bits are set in its thread's two words.
    reads_thread_words: "
        mrc     p15, 0, r0, c13, c0, 2
        mrc     p15, 0, r1, c13, c0, 3
        orr     r0, r0, r1
        mov     r7, #1
        svc     #0";
    /// Writes the base register of `ThumbEE`.
    writes_the_thumbee_base: "
        mcr     p14, 6, r0, c1, c0, 0
        mov     r7, #1
        svc     #0";
    /// Makes the call r6 with r0 to r5 as they are, and ends with the answer.
    calls: "
        mov     r7, r6
        svc     #0
        mov     r7, #1
        svc     #0";
    /// Reads the word at r0 and ends with it.
    loads: "
        ldr     r0, [r0]
        mov     r7, #1
        svc     #0";
    /// Reads the two words at r0, by an instruction that always wants them aligned, and ends with the first.
    loads_two: "
        ldmia   r0, {r0, r1}
        mov     r7, #1
        svc     #0";
    /// Writes r1 to the word at r0, and ends with 0.
    stores: "
        str     r1, [r0]
        mov     r0, #0
        mov     r7, #1
        svc     #0";
    /// Goes to r0.
    jumps: "
        bx      r0";
    /// Pushes until the stack ends.
    overflows: "
    1:  push    {r0-r7}
        b       1b";
    /// Reads the system control register.
    reads_sctlr: "
        mrc     p15, 0, r0, c1, c0, 0
        mov     r7, #1
        svc     #0";
    /// Makes the kernel's table its own.
    writes_ttbr0: "
        mcr     p15, 0, r0, c2, c0, 0
        mov     r7, #1
        svc     #0";
    /// Empties the TLB.
    flushes_the_tlb: "
        mcr     p15, 0, r0, c8, c7, 0
        mov     r7, #1
        svc     #0";
    /// Tries to come to supervisor mode in the ways that are ignored, and ends with its mode.
    climbs: "
        cps     #0x13
        mrs     r0, cpsr
        bic     r0, r0, #0xdf
        orr     r0, r0, #0x13
        msr     cpsr_cxsf, r0
        cpsid   aif
        mrs     r0, cpsr
        and     r0, r0, #0x1f
        mov     r7, #1
        svc     #0";
    /// Calls the host by SVC: r0 and r1 are the operation and its argument.
    calls_the_host_by_svc: "
        svc     #0x123456
        mov     r7, #1
        svc     #0";
    /// The same by the instruction that the kernel itself uses: HLT 0xF000.
    calls_the_host_by_hlt: "
        .inst   0xe10f0070
        mov     r7, #1
        svc     #0";
    /// The same in Thumb state: SVC 0xAB.
    calls_the_host_in_thumb: "
        .thumb
        svc     #0xab
        movs    r7, #1
        svc     #0
        .arm";
    /// The same: HLT 0x3C.
    calls_the_host_in_thumb_by_hlt: "
        .thumb
        .inst.n 0xbabc
        movs    r7, #1
        svc     #0
        .arm";
    /// Goes to r0 with the registers of a probe of the kernel's that does so: target in r4, its way back, r1, in r5.
    poses_as_a_probe: "
        mov     r4, r0
        mov     r5, r1
        bx      r4";
    /// Ends with 0 if a call has changed no register but r0, the flags included.
    keeps_its_registers: "
        mov     r1, #1
        mov     r2, #2
        mov     r3, #3
        mov     r4, #4
        mov     r5, #5
        mov     r6, #6
        mvn     r7, #0
        mov     r8, #8
        mov     r9, #9
        mov     r10, #10
        mov     r11, #11
        mov     r12, #12
        mov     lr, #14
        mov     r0, sp
        cmp     r1, r2
        svc     #0
        movge   r1, #99
        mov     r0, #0
        cmp     r1, #1
        cmpeq   r2, #2
        cmpeq   r3, #3
        cmpeq   r4, #4
        cmpeq   r5, #5
        cmpeq   r6, #6
        cmneq   r7, #1
        cmpeq   r8, #8
        cmpeq   r9, #9
        cmpeq   r10, #10
        cmpeq   r11, #11
        cmpeq   r12, #12
        cmpeq   lr, #14
        movne   r0, #1
        mov     r7, #1
        svc     #0";
    /// Counts r0 down in r1 rounds, asking the kernel after each by call 100 whether to end, and then does with the count.
    spins: "
        mov     r4, r0
        mov     r6, #0
    1:  mov     r5, r4
    2:  subs    r5, r5, #1
        bne     2b
        add     r6, r6, #1
        mov     r7, #100
        svc     #0
        cmp     r0, #0
        beq     1b
        mov     r0, r6
        mov     r7, #1
        svc     #0";
    /// Writes r1 to each of r2 words from r0 on, then reads them all, and ends with how many were not so.
    fills: "
        mov     r3, r0
        mov     r4, r2
    1:  str     r1, [r3], #4
        subs    r4, r4, #1
        bne     1b
        mov     r5, #0
    2:  ldr     r3, [r0], #4
        cmp     r3, r1
        addne   r5, r5, #1
        subs    r2, r2, #1
        bne     2b
        mov     r0, r5
        mov     r7, #1
        svc     #0";
}
