@ From the kernel to a program, and back.
@
@ user_enter leaves this on the supervisor stack while the program runs, its lowest word where SP points, which is how the
@ way back is found on any CPU and from any exception's mode, without a register or a variable:
@
@       SP ─▶  the program's Frame   r4 … r11   lr
@
@ An exception from User mode that is no interrupt ends in user_return with that SP (user/mod.rs, leave).

.equ FRAME_SP,          52
.equ FRAME_PC,          72
.equ FRAME_CPSR,        76

.cfi_sections .debug_frame
.section .text.user_enter, "ax", %progbits
.arm
.balign 4

@ r0: the program's Frame, whose CPSR says User mode. In supervisor mode, with interrupts masked: SPSR is in use.
.global user_enter
.type user_enter, %function
user_enter:
    .cfi_startproc
    push    {r0, r4-r11, lr}
    .cfi_def_cfa_offset 40
    .cfi_offset lr, -4
    .cfi_offset r11, -8
    .cfi_offset r10, -12
    .cfi_offset r9, -16
    .cfi_offset r8, -20
    .cfi_offset r7, -24
    .cfi_offset r6, -28
    .cfi_offset r5, -32
    .cfi_offset r4, -36
    clrex                                   @ no exclusive access of the kernel's is the program's to complete
    ldr     r1, [r0, #FRAME_CPSR]
    msr     spsr_fsxc, r1
    ldr     lr, [r0, #FRAME_PC]
    add     r1, r0, #FRAME_SP
    ldmia   r1, {sp, lr}^                   @ User mode's own
    ldmia   r0, {r0-r12}
    movs    pc, lr

.global user_return
user_return:
    pop     {r0, r4-r11, pc}
    .cfi_endproc
.size user_enter, . - user_enter
