@ memset, the names that the run-time ABI for Arm gives it, and zeroing by blocks.

.cfi_sections .debug_frame

.section .text.memset, "ax", %progbits
.arm
.balign 32
.global __aeabi_memclr
.type __aeabi_memclr, %function
.global __aeabi_memclr4
.type __aeabi_memclr4, %function
.global __aeabi_memclr8
.type __aeabi_memclr8, %function
__aeabi_memclr:                             @ (destination, bytes)
__aeabi_memclr4:
__aeabi_memclr8:
    .cfi_startproc
    mov     r2, r1
    mov     r1, #0
    b       memset
    .cfi_endproc
.size __aeabi_memclr, . - __aeabi_memclr

.global __aeabi_memset
.type __aeabi_memset, %function
.global __aeabi_memset4
.type __aeabi_memset4, %function
.global __aeabi_memset8
.type __aeabi_memset8, %function
__aeabi_memset:                             @ (destination, bytes, value)
__aeabi_memset4:
__aeabi_memset8:
    .cfi_startproc
    mov     r3, r1
    mov     r1, r2
    mov     r2, r3
    .cfi_endproc
.size __aeabi_memset, . - __aeabi_memset
    @ falls through

.global memset
.type memset, %function
memset:                                     @ (destination, value, bytes) -> destination
    .cfi_startproc
    mov     r3, r0
    cmp     r2, #16
    bhs     2f
1:  subs    r2, r2, #1
    strbhs  r1, [r3], #1
    bhi     1b
    bx      lr

2:  tst     r3, #3                          @ to a word boundary
    beq     3f
    strb    r1, [r3], #1
    sub     r2, r2, #1
    b       2b
3:  and     r1, r1, #0xff
    orr     r1, r1, r1, lsl #8
    orr     r1, r1, r1, lsl #16
    push    {r4-r9}
    .cfi_def_cfa_offset 24
    mov     r4, r1
    mov     r5, r1
    mov     r6, r1
    mov     r7, r1
    mov     r8, r1
    mov     r9, r1
    mov     r12, r1
    subs    r2, r2, #128
    blo     5f
4:  stmia   r3!, {r1, r4-r9, r12}
    stmia   r3!, {r1, r4-r9, r12}
    stmia   r3!, {r1, r4-r9, r12}
    stmia   r3!, {r1, r4-r9, r12}
    subs    r2, r2, #128
    bhs     4b
5:  tst     r2, #64                         @ the low seven bits of the rest are still right
    stmiane r3!, {r1, r4-r9, r12}
    stmiane r3!, {r1, r4-r9, r12}
    tst     r2, #32
    stmiane r3!, {r1, r4-r9, r12}
    tst     r2, #16
    stmiane r3!, {r1, r4-r6}
    tst     r2, #8
    stmiane r3!, {r1, r4}
    tst     r2, #4
    strne   r1, [r3], #4
    pop     {r4-r9}
    .cfi_def_cfa_offset 0
    ands    r2, r2, #3
6:  bxeq    lr
    strb    r1, [r3], #1
    subs    r2, r2, #1
    b       6b
    .cfi_endproc
.size memset, . - memset

.section .text.zero_pages, "ax", %progbits
.arm
.balign 32
.global memory_zero_pages
.type memory_zero_pages, %function
memory_zero_pages:                          @ (first byte, bytes): both multiples of 4096, not none
    .cfi_startproc
    push    {r4-r8}
    .cfi_def_cfa_offset 20
    mov     r2, #0
    mov     r3, #0
    mov     r4, #0
    mov     r5, #0
    mov     r6, #0
    mov     r7, #0
    mov     r8, #0
    mov     r12, #0
1:
.rept 64                                    @ half a page
    stmia   r0!, {r2-r8, r12}
.endr
    subs    r1, r1, #2048
    bne     1b
    pop     {r4-r8}
    .cfi_def_cfa_offset 0
    bx      lr
    .cfi_endproc
.size memory_zero_pages, . - memory_zero_pages
