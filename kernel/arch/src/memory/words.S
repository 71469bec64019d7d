@ Runs of words, for page arrays: written in steps, filled with zeros, joined. Eleven or twelve registers at a time; each word of a
@ load or store of several is atomic by itself (ARM DDI 0406C, A3.5.3).

.cfi_sections .debug_frame

.section .text.words, "ax", %progbits
.arm
.balign 32
.global memory_write_steps
.type memory_write_steps, %function
memory_write_steps:                         @ (first word, behind the last, value, step): a multiple of 32 words, not none
    .cfi_startproc
    push    {r4-r10, lr}
    .cfi_def_cfa_offset 32
    .cfi_offset lr, -4
    .cfi_offset r10, -8
    .cfi_offset r9, -12
    .cfi_offset r8, -16
    .cfi_offset r7, -20
    .cfi_offset r6, -24
    .cfi_offset r5, -28
    .cfi_offset r4, -32
    add     r4, r2, r3
    add     r5, r4, r3
    add     r6, r5, r3
    add     r7, r6, r3
    add     r8, r7, r3
    add     r9, r8, r3
    add     r10, r9, r3
    lsl     r3, r3, #3
1:
.rept 4
    stmia   r0!, {r2, r4-r10}
    add     r2, r2, r3
    add     r4, r4, r3
    add     r5, r5, r3
    add     r6, r6, r3
    add     r7, r7, r3
    add     r8, r8, r3
    add     r9, r9, r3
    add     r10, r10, r3
.endr
    cmp     r0, r1
    bne     1b
    pop     {r4-r10, pc}
    .cfi_endproc
.size memory_write_steps, . - memory_write_steps

.balign 32
.global memory_clear_words
.type memory_clear_words, %function
memory_clear_words:                         @ (first word, behind the last): a multiple of 32 words, not none
    .cfi_startproc
    push    {r4-r9}
    .cfi_def_cfa_offset 24
    mov     r2, #0
    mov     r3, #0
    mov     r4, #0
    mov     r5, #0
    mov     r6, #0
    mov     r7, #0
    mov     r8, #0
    mov     r9, #0
    sub     r12, r1, r0
    tst     r12, #128                       @ the blocks of 64 words, and one of 32 before them if there is one
    beq     2f
    stmia   r0!, {r2-r9}
    stmia   r0!, {r2-r9}
    stmia   r0!, {r2-r9}
    stmia   r0!, {r2-r9}
    b       3f
2:
.rept 8
    stmia   r0!, {r2-r9}
.endr
3:  cmp     r0, r1
    bne     2b
    pop     {r4-r9}
    .cfi_def_cfa_offset 0
    bx      lr
    .cfi_endproc
.size memory_clear_words, . - memory_clear_words

.balign 32
.global memory_common_bits
.type memory_common_bits, %function
memory_common_bits:                         @ (first word, behind the last) -> bits: a multiple of 32 words, not none
    .cfi_startproc
    push    {r4-r11, lr}
    .cfi_def_cfa_offset 36
    .cfi_offset lr, -4
    .cfi_offset r11, -8
    .cfi_offset r10, -12
    .cfi_offset r9, -16
    .cfi_offset r8, -20
    .cfi_offset r7, -24
    .cfi_offset r6, -28
    .cfi_offset r5, -32
    .cfi_offset r4, -36
    mvn     r12, #0
1:
.rept 2
    ldmia   r0!, {r2-r11, lr}
    and     r12, r12, r2
    and     r3, r3, r4
    and     r5, r5, r6
    and     r7, r7, r8
    and     r9, r9, r10
    and     r11, r11, lr
    and     r12, r12, r3
    and     r5, r5, r7
    and     r9, r9, r11
    and     r12, r12, r5
    and     r12, r12, r9
.endr
    ldmia   r0!, {r2-r11}
    and     r12, r12, r2
    and     r3, r3, r4
    and     r5, r5, r6
    and     r7, r7, r8
    and     r9, r9, r10
    and     r12, r12, r11
    and     r3, r3, r5
    and     r7, r7, r9
    and     r12, r12, r3
    and     r12, r12, r7
    cmp     r0, r1
    bne     1b
    mov     r0, r12
    pop     {r4-r11, pc}
    .cfi_endproc
.size memory_common_bits, . - memory_common_bits
