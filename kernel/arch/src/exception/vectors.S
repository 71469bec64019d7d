@ The exception vectors, and the way into Rust and back.
@
@ Every exception is handled in its own mode, on that mode's own stack, with a Frame (exception/frame.rs) that holds
@ all of the interrupted state, so a handler may fault in turn. One thing is lost beyond saving: the LR of a mode that
@ interrupts itself, which the exception overwrites. Only what does without LR can go on then; probes do.
@
@ A stack slot is 32 KiB (abort, undefined, IRQ, FIQ) and aligned to its size; its lowest page is the guard. If
@ making room for a frame has led into that page, the push would fault, for ever in the case of abort mode. Bits 12
@ to 14 of the stack pointer tell, without a register to spare: the entry then starts over at the top of the slot and
@ reports an exhausted stack instead of the exception.

.equ FRAME_R8,          32
.equ FRAME_SP,          52
.equ FRAME_LR,          56
.equ FRAME_KIND,        68
.equ FRAME_PC,          72
.equ FRAME_CPSR,        76
.equ FRAME_SIZE,        80

.equ MODE_MASK,         0x1f
.equ MODE_USR,          0x10
.equ MODE_USR_TO_SYS,   0x0f                @ System mode shares User mode's registers and may leave itself

.equ KIND_UNDEFINED,        1
.equ KIND_SUPERVISOR_CALL,  2
.equ KIND_PREFETCH_ABORT,   3
.equ KIND_DATA_ABORT,       4
.equ KIND_IRQ,              6
.equ KIND_FIQ,              7

.cfi_sections .debug_frame

@ Entry of one exception: \kind, and by how much LR exceeds the address to report (ARM ARM B1.8.3).
@ \slot is set where the stack is a 32 KiB slot; supervisor mode's overflow is a data abort like any other.
.macro exception_entry name, kind, lr_offset, slot
.type \name, %function
\name:
    .cfi_startproc
    .cfi_signal_frame
    .cfi_return_column 15
    sub     sp, sp, #FRAME_SIZE
    .if \slot
    tst     sp, #0x7000
    beq     stack_exhausted
    .endif
    stmia   sp, {r0-r7}
    .if \lr_offset
    sub     r1, lr, #\lr_offset
    .else
    mov     r1, lr
    .endif
    mov     r2, #\kind
    b       exception_common
    .cfi_endproc
.size \name, . - \name
.endm

.section .text.vectors, "ax", %progbits
.arm
.balign 32
.global exception_vectors
.type exception_vectors, %function
exception_vectors:
    b       reset_vector                    @ 0x00 nobody branches here
    b       undefined_entry                 @ 0x04
    b       supervisor_call_entry           @ 0x08
    b       prefetch_abort_entry            @ 0x0c
    b       data_abort_entry                @ 0x10
    b       reset_vector                    @ 0x14 Hyp trap: not taken to this table
    b       irq_entry                       @ 0x18
    b       fiq_entry                       @ 0x1c
.size exception_vectors, . - exception_vectors

.type reset_vector, %function
reset_vector:
    b       reset_vector
.size reset_vector, . - reset_vector

@ An undefined instruction's LR exceeds its address by 4 in ARM state and by 2 in Thumb; exception_common, which has
@ a register to test with, corrects the latter.
exception_entry undefined_entry,        KIND_UNDEFINED,         4, 1
exception_entry supervisor_call_entry,  KIND_SUPERVISOR_CALL,   0, 0
exception_entry prefetch_abort_entry,   KIND_PREFETCH_ABORT,    4, 1
exception_entry data_abort_entry,       KIND_DATA_ABORT,        8, 1
exception_entry irq_entry,              KIND_IRQ,               4, 1
exception_entry fiq_entry,              KIND_FIQ,               4, 1

@ sp: the frame, r0 to r7 saved in it; r1: the address to report; r2: the kind.
.type exception_common, %function
exception_common:
    .cfi_startproc
    .cfi_signal_frame
    .cfi_return_column 15
    .cfi_def_cfa r13, FRAME_SIZE
    .cfi_offset r0, -80
    .cfi_offset r1, -76
    .cfi_offset r2, -72
    .cfi_offset r3, -68
    .cfi_offset r4, -64
    .cfi_offset r5, -60
    .cfi_offset r6, -56
    .cfi_offset r7, -52
    .cfi_offset r8, -48
    .cfi_offset r9, -44
    .cfi_offset r10, -40
    .cfi_offset r11, -36
    .cfi_offset r12, -32
    .cfi_offset r13, -28
    .cfi_offset r14, -24
    .cfi_offset r15, -8
    mrs     r3, spsr
    mrs     r6, cpsr
    mov     r0, sp
    cmp     r2, #KIND_UNDEFINED
    tsteq   r3, #0x20                       @ SPSR.T: ne now means "an undefined instruction in Thumb state" ...
    bne     1f                              @ ... or another exception; both are sorted out there
2:  str     r2, [r0, #FRAME_KIND]
    str     r1, [r0, #FRAME_PC]
    str     r3, [r0, #FRAME_CPSR]

    @ The banked registers of the interrupted mode are read in that mode, with interrupts as masked as here.
    and     r4, r3, #MODE_MASK
    and     r5, r6, #MODE_MASK
    add     r7, r0, #FRAME_R8
    cmp     r4, r5
    beq     3f
    bic     r5, r6, #MODE_MASK
    orr     r5, r5, r4
    cmp     r4, #MODE_USR
    orreq   r5, r5, #MODE_USR_TO_SYS
    msr     cpsr_c, r5
    stmia   r7, {r8-r12}                    @ FIQ mode has its own
    str     sp, [r0, #FRAME_SP]
    str     lr, [r0, #FRAME_LR]
    msr     cpsr_c, r6
    b       4f
3:  stmia   r7, {r8-r12}                    @ the mode interrupted itself: LR is lost, the frame is on the stack
    add     r5, r0, #FRAME_SIZE
    str     r5, [r0, #FRAME_SP]
    str     lr, [r0, #FRAME_LR]

    @ r4 to r11 survive the call. The frame may lie on a stack that was not aligned to 8 when it was interrupted.
4:  mov     r4, r0
    .cfi_def_cfa r4, FRAME_SIZE
    bic     sp, sp, #7
    bl      exception_dispatch
    mov     sp, r4
    .cfi_def_cfa r13, FRAME_SIZE

    @ Back: the frame as it is now. An open exclusive access of the interrupted code must not be completed by an
    @ address that the handler has touched (ARM ARM A3.4.5).
    clrex
    mov     r0, sp
    ldr     r3, [r0, #FRAME_CPSR]
    mrs     r6, cpsr
    and     r4, r3, #MODE_MASK
    and     r5, r6, #MODE_MASK
    add     r7, r0, #FRAME_R8
    cmp     r4, r5
    beq     5f
    bic     r5, r6, #MODE_MASK
    orr     r5, r5, r4
    cmp     r4, #MODE_USR
    orreq   r5, r5, #MODE_USR_TO_SYS
    msr     cpsr_c, r5
    ldmia   r7, {r8-r12}
    ldr     sp, [r0, #FRAME_SP]
    ldr     lr, [r0, #FRAME_LR]
    msr     cpsr_c, r6
    b       6f
5:  ldmia   r7, {r8-r12}
    ldr     lr, [r0, #FRAME_LR]
6:  ldmia   sp, {r0-r7}
    add     sp, sp, #FRAME_PC
    .cfi_def_cfa r13, FRAME_SIZE - FRAME_PC
    rfeia   sp!

    .cfi_def_cfa r13, FRAME_SIZE
1:  cmp     r2, #KIND_UNDEFINED
    addeq   r1, r1, #2
    b       2b
    .cfi_endproc
.size exception_common, . - exception_common

@ The interrupted mode has lost nothing, but this mode's stack is used up: say so, on that stack from its top.
.type stack_exhausted, %function
stack_exhausted:
    .cfi_startproc
    .cfi_undefined lr
    mov     r1, sp
    orr     sp, sp, #0x7f00
    orr     sp, sp, #0x00ff
    add     sp, sp, #1
    mrs     r2, spsr
    mov     r0, lr
    mov     r3, r11
    mov     r11, #0
    bl      exception_stack_exhausted
    udf     #0
    .cfi_endproc
.size stack_exhausted, . - stack_exhausted
