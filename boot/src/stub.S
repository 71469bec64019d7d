@ From reset to Rust, the half that runs at physical addresses.
@
@ Every CPU enters here: MMU off, caches off, interrupts masked, in ARM state. An ELF loader starts all of them at once,
@ with zeros in r0 to r2. By Linux's boot protocol CPU 0 comes first, with zero, machine number and device tree or ATAGs
@ in r0 to r2, and the others when the kernel calls them out of the loader's pen. CPU 0 builds the first tables and turns
@ its MMU on; the others wait here until the kernel lets them in, and go the same way by the same tables.
@
@ Nothing here uses a stack, and nothing reads memory that it did not write, but for the image itself.
@ "ARM ARM" is ARM DDI 0406C, "A9 TRM" is ARM DDI 0388.

.equ LINEAR_OFFSET,     0x20000000          @ virtual minus physical, in the linear map
.equ LINEAR_BASE,       0x80000000
.equ RAM_BASE,          0x60000000

.equ CPU_MASK,          3                   @ MPIDR, affinity level 0: a Cortex-A9 cluster has up to four CPUs
.equ CPU_STACKS_SHIFT,  18                  @ 256 KiB of stacks a CPU (linker.ld)
.equ PER_CPU_SHIFT,     7                   @ 128 bytes of CPU_BLOCKS a CPU (kernel/arch/src/per_cpu.rs)

@ Small-page descriptors (ARM ARM B3.5.1). Normal memory, inner and outer write-back write-allocate (TEX=001, C=1,
@ B=1), shareable (S), global (nG=0), domain 0 by the first level. AP[2:0]: 001 privileged read/write, 101
@ privileged read-only; user mode has no access. XN for all but text.
.equ SMALL_PAGE,        0x002
.equ XN,                0x001
.equ NORMAL_WRITE_BACK, 0x04c               @ TEX=001 C B
.equ SHAREABLE,         0x400
.equ PRIVILEGED,        0x010               @ AP[1:0]=01
.equ READ_ONLY,         0x200               @ AP[2]
.equ PAGE_RX,           SMALL_PAGE | NORMAL_WRITE_BACK | SHAREABLE | PRIVILEGED | READ_ONLY
.equ PAGE_R,            PAGE_RX | XN
.equ PAGE_RW,           SMALL_PAGE | NORMAL_WRITE_BACK | SHAREABLE | PRIVILEGED | XN

.equ TABLE,             0x001               @ a first-level descriptor that points to a table, domain 0

@ How the walker reads tables: inner and outer write-back write-allocate, shareable (ARM ARM B4.1.154). These are
@ the attributes by which the kernel itself writes tables, so there is no mismatched alias. Whether the walker
@ then looks into the L1 data cache is ID_MMFR3's to say; the board's says no, so every descriptor that is written
@ with the cache on is cleaned to the point of unification (S16a), which is right on both kinds of walker.
.equ WALK_ATTRIBUTES,   0x04a               @ IRGN=01 (bit 6), RGN=01 (bit 3), S (bit 1)

@ SCTLR (ARM ARM B4.1.130). A=1: an unaligned access faults. The compiler is told never to make one, device memory
@ does not bear one, and an emulator that lets it pass there would hide the mistake.
.equ SCTLR_SET,         0x00001807          @ I, Z, C, A, M
.equ SCTLR_CLEAR,       0x72002000          @ TE (exceptions in Thumb), AFE, TRE, EE (big-endian), V (high vectors)

.equ TTBCR_N_1,         0x01                @ TTBR0 below 2 GiB, TTBR1 from 2 GiB up; short descriptors
.equ ACTLR_SMP_FW,      0x41                @ take part in coherency, broadcast maintenance (A9 TRM 4.3.10)

.cfi_sections .debug_frame
.section .boot.text, "ax", %progbits
.arm
.balign 4

.global _start
.type _start, %function
_start:
    .cfi_startproc
    .cfi_undefined lr                       @ nobody called: a backtrace ends here
    cpsid   aif, #0x13                      @ supervisor mode, everything masked
    mov     r8, r0                          @ what the loader gave, kept for kernel_main
    mov     r9, r1
    mov     r10, r2
    mrc     p15, 0, r11, c0, c0, 5          @ MPIDR
    and     r11, r11, #CPU_MASK

    @ Reset leaves caches, TLB and branch predictor with undefined contents (A9 TRM 5.3). They are off now and must
    @ be empty before they are turned on, and before this CPU's are looked into by the snoop control unit.
    mov     r0, #0
    mcr     p15, 0, r0, c8, c7, 0           @ TLBIALL
    mcr     p15, 0, r0, c7, c5, 0           @ ICIALLU
    mcr     p15, 0, r0, c7, c5, 6           @ BPIALL
    bl      invalidate_data_cache
    cmp     r11, #0
    bne     wait_for_boot_cpu

    @ Memory that is marked shareable is cached only by a CPU that takes part in coherency, and exclusive accesses
    @ to it work only there: the snoop control unit first, then each CPU's ACTLR.SMP (A9 TRM 2.1.1, 5.3.5).
    mrc     p15, 4, r3, c15, c0, 0          @ CBAR: the private peripherals, the SCU at their base
    movw    r0, #0xffff
    str     r0, [r3, #0x0c]                 @ invalidate the SCU's copies of all tags, of all CPUs
    ldr     r0, [r3]
    orr     r0, r0, #1
    str     r0, [r3]                        @ SCU on
    ldr     r7, [r3, #0x04]                 @ SCU configuration: bits 1 to 0 are the number of CPUs less one
    dsb
    bl      join_coherency

    @ With the data cache off, these stores go to memory itself, and the cache, just emptied, holds no older copy:
    @ what the walker and later the cache read is what is written here.
    ldr     r0, =__bss_start - LINEAR_OFFSET
    ldr     r1, =__bss_end - LINEAR_OFFSET
    bl      zero_physical
    ldr     r0, =__tables_start - LINEAR_OFFSET
    ldr     r1, =__tables_end - LINEAR_OFFSET
    bl      zero_physical
    and     r7, r7, #CPU_MASK
    add     r7, r7, #1
    ldr     r0, =boot_cpus - LINEAR_OFFSET
    str     r7, [r0]
    bl      build_tables

    @ The identity mapping, in a table of its own: the MiB of RAM that the image begins in, through the very table that
    @ maps it high, so that no page has other rights here than there. A CPU has it in TTBR0 until it has taken the next
    @ branch, and never again.
    ldr     r2, =__linear_tables - LINEAR_OFFSET
    orr     r2, r2, #TABLE
    ldr     r3, =__identity_l1 - LINEAR_OFFSET + (RAM_BASE >> 20) * 4
    str     r2, [r3]

turn_mmu_on:
    mov     r0, #TTBCR_N_1
    mcr     p15, 0, r0, c2, c0, 2           @ TTBCR
    ldr     r0, =__identity_l1 - LINEAR_OFFSET + WALK_ATTRIBUTES
    mcr     p15, 0, r0, c2, c0, 0           @ TTBR0
    ldr     r0, =__kernel_l1 - LINEAR_OFFSET + WALK_ATTRIBUTES
    mcr     p15, 0, r0, c2, c0, 1           @ TTBR1
    mov     r0, #0
    mcr     p15, 0, r0, c13, c0, 1          @ CONTEXTIDR: ASID 0
    mov     r0, #1
    mcr     p15, 0, r0, c3, c0, 0           @ DACR: domain 0 is checked, the other fifteen are shut
    dsb                                     @ the tables are in memory
    isb
    mrc     p15, 0, r0, c1, c0, 0
    ldr     r1, =SCTLR_CLEAR
    bic     r0, r0, r1
    ldr     r1, =SCTLR_SET
    orr     r0, r0, r1
    mcr     p15, 0, r0, c1, c0, 0           @ SCTLR: the MMU is on
    isb
    ldr     pc, =boot_high
    .cfi_endproc
.size _start, . - _start

@ The other CPUs, until the kernel on CPU 0 has said by a word that tables, SCU and memory are what they need. It is read
@ with the caches off, so whoever writes it has to clean it; and sends an event, lest it be waited for.
.type wait_for_boot_cpu, %function
wait_for_boot_cpu:
    .cfi_startproc
    .cfi_undefined lr
    ldr     r0, =boot_secondaries_may_enter - LINEAR_OFFSET
1:  ldr     r1, [r0]
    cmp     r1, #0
    bne     2f
    wfe
    b       1b
2:  bl      join_coherency
    b       turn_mmu_on
    .cfi_endproc
.size wait_for_boot_cpu, . - wait_for_boot_cpu

@ Takes part in coherency (SMP) and in everybody's maintenance (FW), before the MMU and the caches are on: without FW
@ this CPU's inner-shareable operations would not be broadcast (A9 TRM 4.3.10). One who enters without the right to
@ write ACTLR finds it set up by whoever took that right.
.type join_coherency, %function
join_coherency:
    .cfi_startproc
    mrc     p15, 0, r0, c1, c0, 1
    orr     r0, r0, #ACTLR_SMP_FW
    mcr     p15, 0, r0, c1, c0, 1
    isb
    bx      lr
    .cfi_endproc
.size join_coherency, . - join_coherency

@ Invalidates, and does not clean, this CPU's L1 data cache by set and way. It is the one place for such an
@ operation: the cache is off and nobody else uses it (ARM ARM B2.2.6). The A9's coherency ends at level 1 (CLIDR.LoC);
@ the outer cache controller is off and no CP15 operation reaches it.
.type invalidate_data_cache, %function
invalidate_data_cache:
    .cfi_startproc
    mov     r0, #0
    mcr     p15, 2, r0, c0, c0, 0           @ CSSELR: level 1, data
    isb
    mrc     p15, 1, r0, c0, c0, 0           @ CCSIDR
    and     r1, r0, #7
    add     r1, r1, #4                      @ log2 of a line's bytes: where the set's number begins
    ubfx    r2, r0, #3, #10                 @ ways - 1
    ubfx    r3, r0, #13, #15                @ sets - 1
    clz     r4, r2                          @ where the way's number begins
1:  mov     r5, r3
2:  lsl     r6, r2, r4
    orr     r6, r6, r5, lsl r1
    mcr     p15, 0, r6, c7, c6, 2           @ DCISW
    subs    r5, r5, #1
    bge     2b
    subs    r2, r2, #1
    bge     1b
    dsb
    isb
    bx      lr
    .cfi_endproc
.size invalidate_data_cache, . - invalidate_data_cache

@ Zeroes physical r0 up to r1, both multiples of 32.
.type zero_physical, %function
zero_physical:
    .cfi_startproc
    mov     r2, #0
    mov     r3, #0
    mov     r4, #0
    mov     r5, #0
1:  cmp     r0, r1
    bxhs    lr
    stmia   r0!, {r2-r5}
    stmia   r0!, {r2-r5}
    b       1b
    .cfi_endproc
.size zero_physical, . - zero_physical

@ Fills the second-level slots of the image's pages, then the first-level slots of the MiB they lie in.
@ Table k of __linear_tables maps MiB k, so all its slots together are one array, indexed by page.
.type build_tables, %function
build_tables:
    .cfi_startproc
    adr     r0, image_map
    ldr     r1, =__linear_tables - LINEAR_OFFSET
1:  ldmia   r0!, {r2, r3, r4}               @ first byte, end, attributes
    cmp     r2, #0
    beq     3f
    sub     r5, r2, #LINEAR_BASE
    add     r5, r1, r5, lsr #10             @ the slot of the first page: page number times four
    sub     r2, r2, #LINEAR_OFFSET
    sub     r3, r3, #LINEAR_OFFSET
2:  cmp     r2, r3
    bhs     1b
    orr     r6, r2, r4
    str     r6, [r5], #4
    add     r2, r2, #0x1000
    b       2b

3:  ldr     r0, =__kernel_l1 - LINEAR_OFFSET + (LINEAR_BASE >> 20) * 4
    orr     r1, r1, #TABLE
    ldr     r2, =LINEAR_BASE
    ldr     r3, =__image_end
4:  str     r1, [r0], #4
    add     r1, r1, #0x400
    add     r2, r2, #0x100000
    cmp     r2, r3
    blo     4b
    bx      lr
    .cfi_endproc
.size build_tables, . - build_tables

.macro stacks_of_cpu number
    .word   __fiq_stack_bottom + (\number << CPU_STACKS_SHIFT), __fiq_stack_top + (\number << CPU_STACKS_SHIFT), PAGE_RW
    .word   __irq_stack_bottom + (\number << CPU_STACKS_SHIFT), __irq_stack_top + (\number << CPU_STACKS_SHIFT), PAGE_RW
    .word   __abt_stack_bottom + (\number << CPU_STACKS_SHIFT), __abt_stack_top + (\number << CPU_STACKS_SHIFT), PAGE_RW
    .word   __und_stack_bottom + (\number << CPU_STACKS_SHIFT), __und_stack_top + (\number << CPU_STACKS_SHIFT), PAGE_RW
    .word   __svc_stack_bottom + (\number << CPU_STACKS_SHIFT), __svc_stack_top + (\number << CPU_STACKS_SHIFT), PAGE_RW
.endm

@ What is mapped, and how (S112). The pages between these are guards and stay unmapped.
.type image_map, %object
image_map:
    .word   __text_start,       __text_end,      PAGE_RX
    .word   __rodata_start,     __rodata_end,    PAGE_R
    .word   __data_start,       __data_end,      PAGE_RW
    stacks_of_cpu 0
    stacks_of_cpu 1
    stacks_of_cpu 2
    stacks_of_cpu 3
    .word   __tables_start,     __tables_end,    PAGE_RW
    .word   0, 0, 0
.size image_map, . - image_map
.ltorg

@ The half that runs at virtual addresses.
.section .text.boot_high, "ax", %progbits
.arm
.balign 4
.type boot_high, %function
boot_high:
    .cfi_startproc
    .cfi_undefined lr
    @ The identity mapping goes (S111): TTBR0 gets an empty table, then no walk goes through it at all, then TLB and
    @ branch predictor forget. A stray physical address faults from here on.
    ldr     r4, =__user_l1 - LINEAR_OFFSET + WALK_ATTRIBUTES
    mcr     p15, 0, r4, c2, c0, 0           @ TTBR0
    isb
    @ PD0: a miss below 2 GiB faults without a walk. A processor without the Security Extensions has no such bit
    @ and walks the table, which is empty.
    mov     r4, #TTBCR_N_1 | 0x10
    mcr     p15, 0, r4, c2, c0, 2           @ TTBCR
    isb
    mcr     p15, 0, r4, c8, c7, 0           @ TLBIALL: what this CPU alone has ever walked
    mcr     p15, 0, r4, c7, c5, 6           @ BPIALL
    dsb
    isb

    ldr     r3, =exception_vectors
    mcr     p15, 0, r3, c12, c0, 0          @ VBAR

    @ What this CPU has of its own: its block, and its stacks.
    mrc     p15, 0, r4, c0, c0, 5           @ MPIDR
    and     r4, r4, #CPU_MASK
    ldr     r3, =CPU_BLOCKS
    add     r3, r3, r4, lsl #PER_CPU_SHIFT
    mcr     p15, 0, r3, c13, c0, 4          @ TPIDRPRW
    lsl     r5, r4, #CPU_STACKS_SHIFT

    @ Each mode's own stack. FIQ mode has r8 to r12 of its own, so only r0 to r7 may be used between.
    .macro stack_of mode, top
    cps     #\mode
    ldr     r3, =\top
    add     sp, r3, r5
    .endm
    stack_of 0x11, __fiq_stack_top
    stack_of 0x12, __irq_stack_top
    stack_of 0x17, __abt_stack_top
    stack_of 0x1b, __und_stack_top
    stack_of 0x13, __svc_stack_top
    isb

    mov     r11, #0                         @ the chain of frames ends here
    cmp     r4, #0
    bne     1f
    mov     r0, r8
    mov     r1, r9
    mov     r2, r10
    bl      kernel_main
    udf     #0                              @ it does not return
1:  bl      kernel_secondary
    udf     #0                              @ nor does this
    .cfi_endproc
.size boot_high, . - boot_high
.ltorg

@ Two words that are read or written while the caches are off, in initialized data, which nobody clears, and on cache
@ lines of their own, which nobody else writes to.
.section .data.boot, "aw", %progbits
.balign 64
.global boot_secondaries_may_enter
.type boot_secondaries_may_enter, %object
boot_secondaries_may_enter:
    .word   0
.size boot_secondaries_may_enter, 4
.balign 64
.global boot_cpus
.type boot_cpus, %object
boot_cpus:
    .word   1
.size boot_cpus, 4
.balign 64

@ Keeps the section .data in being and writable, so that a writable section that has no entry in linker.ld is put
@ behind it, inside the image, and not behind the tables.
.section .data.anchor, "aw", %progbits
.balign 4
    .word   0
