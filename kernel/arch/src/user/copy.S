@ Copies between the kernel's memory and a program's.
@
@ A program's memory is accessed with a program's rights (LDRT, STRT), whatever the kernel may do there. On a fault the
@ dispatcher looks the instruction up in the exception table and resumes at the fixup with r0 = the fault status register,
@ r1 = the vector's number, r2 = the fault address, r3 = the instruction; otherwise r1 = 0. Either way r12 = the bytes that
@ were not copied: the base register of an access that faults has not moved.

.cfi_sections .debug_frame

@ r0: the kernel's, r1: the program's, r2: how many bytes. Words if both are aligned: SCTLR.A is set.
.macro copy name, load_word, store_word, load_byte, store_byte, faults_load
.global \name
.type \name, %function
\name:
    .cfi_startproc
    push    {r4, r5, r6, lr}
    .cfi_def_cfa_offset 16
    .cfi_offset lr, -4
    .cfi_offset r6, -8
    .cfi_offset r5, -12
    .cfi_offset r4, -16
    mov     r4, r0
    mov     r5, r1
    mov     r6, r2
    orr     r3, r4, r5
    tst     r3, #3
    bne     4f
1:  cmp     r6, #4
    blo     4f
2:  \load_word
3:  \store_word
    sub     r6, r6, #4
    b       1b
4:  cmp     r6, #0
    beq     7f
5:  \load_byte
6:  \store_byte
    sub     r6, r6, #1
    b       4b
7:  mov     r1, #0
\name\()_fixup:
    mov     r12, r6
    pop     {r4, r5, r6, pc}
    .cfi_endproc
.size \name, . - \name
.pushsection .exception_table, "a", %progbits
    .if \faults_load
    .word   2b, \name\()_fixup
    .word   5b, \name\()_fixup
    .else
    .word   3b, \name\()_fixup
    .word   6b, \name\()_fixup
    .endif
.popsection
.endm

.section .text.user_copy, "ax", %progbits
.arm
.balign 4
copy user_copy_from, "ldrt r3, [r5], #4", "str r3, [r4], #4", "ldrbt r3, [r5], #1", "strb r3, [r4], #1", 1
copy user_copy_to,   "ldr r3, [r4], #4",  "strt r3, [r5], #4", "ldrb r3, [r4], #1",  "strbt r3, [r5], #1", 0
