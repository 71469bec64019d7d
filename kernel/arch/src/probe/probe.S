@ Accesses that may fault.
@
@ On a fault the dispatcher looks the instruction up in the exception table and resumes at probe_fixup with
@ r0 = the fault status register, r1 = the vector's number, r2 = the fault address, r3 = the instruction. Otherwise
@ r0 = the value read and r1 = 0. There is no stack frame and no state.
@
@ A fault in abort mode, while an abort is handled, is taken to abort mode and overwrites its LR. So LR is not
@ used across an access: the way back is in r12, which the frame preserves.

.cfi_sections .debug_frame

.macro probe name, access
.global \name
.type \name, %function
\name:
    .cfi_startproc
    mov     r12, lr
    .cfi_register lr, r12
1:  \access
    mov     r1, #0
    bx      r12
    .cfi_endproc
.size \name, . - \name
.pushsection .exception_table, "a", %progbits
    .word   1b, probe_fixup
.popsection
.endm

.section .text.probe, "ax", %progbits
.arm
.balign 4
probe   probe_read_u8,      "ldrb r0, [r0]"
probe   probe_read_u32,     "ldr r0, [r0]"
probe   probe_write_u8,     "strb r1, [r0]"
probe   probe_write_u32,    "str r1, [r0]"

.type probe_fixup, %function
probe_fixup:
    .cfi_startproc
    .cfi_register lr, r12
    bx      r12
    .cfi_endproc
.size probe_fixup, . - probe_fixup

@ Calls r0. If not even the first instruction there could be executed, the frame shows it: pc is the target, which r4
@ holds, and r5 marks this call. The target keeps to the procedure call standard.
.global probe_execute
.type probe_execute, %function
probe_execute:
    .cfi_startproc
    push    {r4, r5, r12, lr}
    .cfi_def_cfa_offset 16
    .cfi_offset lr, -4
    .cfi_offset r5, -12
    .cfi_offset r4, -16
    bic     r4, r0, #1
    adr     r5, probe_execute_fixup
    blx     r0
    mov     r1, #0
.global probe_execute_fixup
probe_execute_fixup:
    pop     {r4, r5, r12, pc}
    .cfi_endproc
.size probe_execute, . - probe_execute
