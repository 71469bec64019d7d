@ memcpy and memmove, and the names that the run-time ABI for Arm gives them.
@
@ No access is unaligned (SCTLR.A is set) and none touches a word that holds no byte of the source. Copies of less
@ than 16 bytes go by bytes. Otherwise the destination is brought to a word boundary; then, if the source is on one
@ too, blocks of 64 bytes by load and store multiple, else words put together from two neighbours.
@
@ Copying upwards is right for overlapping memory, too, if the destination lies below: each step has read what it
@ and every step before it overwrite.

.cfi_sections .debug_frame

.macro alias name, target
.global \name
.type \name, %function
.set \name, \target
.endm

.section .text.memcpy, "ax", %progbits
.arm
.balign 32
alias   __aeabi_memcpy, memcpy
alias   __aeabi_memcpy4, memcpy
alias   __aeabi_memcpy8, memcpy
.global memcpy
.type memcpy, %function
memcpy:                                     @ (destination, source, bytes) -> destination
    .cfi_startproc
    cmp     r2, #16
    bhs     2f
    mov     r3, r0
1:  subs    r2, r2, #1
    ldrbhs  r12, [r1], #1
    strbhs  r12, [r3], #1
    bhi     1b
    bx      lr

2:  push    {r0, r4-r10, lr}
    .cfi_def_cfa_offset 36
    .cfi_offset lr, -4
    .cfi_offset r10, -8
    .cfi_offset r9, -12
    .cfi_offset r8, -16
    .cfi_offset r7, -20
    .cfi_offset r6, -24
    .cfi_offset r5, -28
    .cfi_offset r4, -32
    ands    r3, r0, #3
    beq     4f
    rsb     r3, r3, #4
    sub     r2, r2, r3
3:  ldrb    r12, [r1], #1
    strb    r12, [r0], #1
    subs    r3, r3, #1
    bne     3b
4:  ands    r3, r1, #3
    bne     20f

    @ Both on word boundaries.
    subs    r2, r2, #64
    blo     6f
5:  ldmia   r1!, {r3-r10}
    stmia   r0!, {r3-r10}
    ldmia   r1!, {r3-r10}
    stmia   r0!, {r3-r10}
    subs    r2, r2, #64
    bhs     5b
6:  tst     r2, #32                         @ the low six bits of the rest are still right
    ldmiane r1!, {r3-r10}
    stmiane r0!, {r3-r10}
    tst     r2, #16
    ldmiane r1!, {r3-r6}
    stmiane r0!, {r3-r6}
    tst     r2, #8
    ldmiane r1!, {r3-r4}
    stmiane r0!, {r3-r4}
    tst     r2, #4
    ldrne   r3, [r1], #4
    strne   r3, [r0], #4
7:  ands    r2, r2, #3                      @ the last bytes
    beq     9f
8:  ldrb    r3, [r1], #1
    strb    r3, [r0], #1
    subs    r2, r2, #1
    bne     8b
9:  pop     {r0, r4-r10, pc}

    @ The source is r3 bytes behind a word boundary: a word of the destination is the upper part of one word (little
    @ endian: shifted right) and the lower part of the next. r12 holds the word that is half used.
20: mov     r9, r3, lsl #3
    rsb     r10, r9, #32
    bic     r1, r1, #3
    ldr     r12, [r1], #4
    subs    r2, r2, #16
    blo     22f
21: ldmia   r1!, {r5-r8}
    mov     r3, r12, lsr r9
    orr     r3, r3, r5, lsl r10
    mov     r4, r5, lsr r9
    orr     r4, r4, r6, lsl r10
    mov     r5, r6, lsr r9
    orr     r5, r5, r7, lsl r10
    mov     r6, r7, lsr r9
    orr     r6, r6, r8, lsl r10
    mov     r12, r8
    stmia   r0!, {r3-r6}
    subs    r2, r2, #16
    bhs     21b
22: adds    r2, r2, #12                     @ at least one word left?
    bmi     24f
23: ldr     r5, [r1], #4
    mov     r3, r12, lsr r9
    orr     r3, r3, r5, lsl r10
    mov     r12, r5
    str     r3, [r0], #4
    subs    r2, r2, #4
    bpl     23b
24: sub     r1, r1, r10, lsr #3             @ back to the first byte not copied
    b       7b                              @ r2 is the rest minus 4: the low two bits are right
    .cfi_endproc
.size memcpy, . - memcpy

.section .text.memmove, "ax", %progbits
.arm
.balign 32
alias   __aeabi_memmove, memmove
alias   __aeabi_memmove4, memmove
alias   __aeabi_memmove8, memmove
.global memmove
.type memmove, %function
memmove:                                    @ (destination, source, bytes) -> destination
    .cfi_startproc
    sub     r3, r0, r1
    cmp     r3, r2
    bhs     memcpy                          @ below the source, or behind its end
    @ Downwards, from the ends.
    add     r1, r1, r2
    add     r3, r0, r2
    cmp     r2, #16
    bhs     2f
1:  subs    r2, r2, #1
    ldrbhs  r12, [r1, #-1]!
    strbhs  r12, [r3, #-1]!
    bhi     1b
    bx      lr

2:  push    {r0, r4-r10, lr}
    .cfi_def_cfa_offset 36
    .cfi_offset lr, -4
    .cfi_offset r10, -8
    .cfi_offset r9, -12
    .cfi_offset r8, -16
    .cfi_offset r7, -20
    .cfi_offset r6, -24
    .cfi_offset r5, -28
    .cfi_offset r4, -32
    mov     r0, r3
    ands    r3, r0, #3
    beq     4f
    sub     r2, r2, r3
3:  ldrb    r12, [r1, #-1]!
    strb    r12, [r0, #-1]!
    subs    r3, r3, #1
    bne     3b
4:  ands    r3, r1, #3
    bne     20f

    subs    r2, r2, #64
    blo     6f
5:  ldmdb   r1!, {r3-r10}
    stmdb   r0!, {r3-r10}
    ldmdb   r1!, {r3-r10}
    stmdb   r0!, {r3-r10}
    subs    r2, r2, #64
    bhs     5b
6:  tst     r2, #32
    ldmdbne r1!, {r3-r10}
    stmdbne r0!, {r3-r10}
    tst     r2, #16
    ldmdbne r1!, {r3-r6}
    stmdbne r0!, {r3-r6}
    tst     r2, #8
    ldmdbne r1!, {r3-r4}
    stmdbne r0!, {r3-r4}
    tst     r2, #4
    ldrne   r3, [r1, #-4]!
    strne   r3, [r0, #-4]!
7:  ands    r2, r2, #3
    beq     9f
8:  ldrb    r3, [r1, #-1]!
    strb    r3, [r0, #-1]!
    subs    r2, r2, #1
    bne     8b
9:  pop     {r0, r4-r10, pc}

    @ The source ends r3 bytes behind a word boundary. r12 holds the word whose lower part is still to be used.
20: mov     r9, r3, lsl #3
    rsb     r10, r9, #32
    bic     r1, r1, #3
    ldr     r12, [r1]
    subs    r2, r2, #4
    blo     22f
21: ldr     r5, [r1, #-4]!
    mov     r3, r12, lsl r10
    orr     r3, r3, r5, lsr r9
    mov     r12, r5
    str     r3, [r0, #-4]!
    subs    r2, r2, #4
    bhs     21b
22: add     r1, r1, r9, lsr #3              @ back to the end of what is not copied
    b       7b
    .cfi_endproc
.size memmove, . - memmove
