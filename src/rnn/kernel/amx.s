# Sums of sixteen rows by some panels, in int8: see amx.rs for the registers. amx_program.rs runs this text, too.
    ldtilecfg [rdi]
2:
    tilezero tmm0
    tilezero tmm1
    mov r12, rsi
    mov r13, rcx
    jmp 4f
3:
    tileloadd tmm2, [r12 + 1*rdx]
    tileloadd tmm3, [r8 + 1*r11]
    tileloadd tmm4, [r8 + 1*r11 + 64]
    tdpbusd tmm0, tmm2, tmm3
    tdpbusd tmm1, tmm2, tmm4
    add r12, 64
    add r8, 2048
4:
    sub r13, 1
    jnc 3b
    tileloadd tmm5, [r12 + 1*rdx]
    tileloadd tmm6, [r8 + 1*r11]
    tileloadd tmm7, [r8 + 1*r11 + 64]
    tdpbusd tmm0, tmm5, tmm6
    tdpbusd tmm1, tmm5, tmm7
    add r8, rax
    tilestored [r10 + 1*r11], tmm0
    tilestored [r10 + 1*r11 + 64], tmm1
    add r10, 2048
    sub r9, 1
    jnz 2b
    tilerelease
