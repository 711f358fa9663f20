/* Byte emitter into the code arena. Offsets are arena offsets; rel32 are computed from them. */
#ifndef BT_EMIT_H
#define BT_EMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    E_RAX,
    E_RCX,
    E_RDX,
    E_RBX,
    E_RSP,
    E_RBP,
    E_RSI,
    E_RDI,
    E_R8,
    E_R9,
    E_R10,
    E_R11,
    E_R12,
    E_R13,
    E_R14,
    E_R15
};

struct emit {
    uint8_t *rw; /* arena base, writable view */
    uint32_t at; /* next offset */
    uint8_t seg; /* prefix that names the window: 64 (FS) in user code, 65 (GS) in kernel code */
};

static inline void e8(struct emit *e, unsigned b)
{
    e->rw[e->at++] = (uint8_t)b;
}
static inline void e32(struct emit *e, uint32_t v)
{
    memcpy(e->rw + e->at, &v, 4);
    e->at += 4;
}
static inline void ebytes(struct emit *e, const void *p, unsigned n)
{
    memcpy(e->rw + e->at, p, n);
    e->at += n;
}
#define EB(e, ...) ebytes((e), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static inline void e_rel32(struct emit *e, uint32_t target)
{
    e32(e, target - (e->at + 4));
}
static inline void e_patch32(struct emit *e, uint32_t at, uint32_t target)
{
    uint32_t rel = target - (at + 4);
    memcpy(e->rw + at, &rel, 4);
}
static inline void e_jmp(struct emit *e, uint32_t target)
{
    e8(e, 0xe9);
    e_rel32(e, target);
}

/* op reg, [r15 + off] or op [r15 + off], reg; one opcode byte. wide: 64-bit. */
static inline void e_r15(struct emit *e, unsigned op, bool wide, unsigned reg, uint32_t off)
{
    e8(e, 0x41 | (wide ? 8 : 0) | (reg >= 8 ? 4 : 0));
    e8(e, op);
    if (off < 128) {
        e8(e, 0x47 | (reg & 7) << 3);
        e8(e, off);
    } else {
        e8(e, 0x87 | (reg & 7) << 3);
        e32(e, off);
    }
}
static inline void e_load(struct emit *e, bool wide, unsigned reg, size_t off)
{
    e_r15(e, 0x8b, wide, reg, (uint32_t)off);
}
static inline void e_store(struct emit *e, bool wide, unsigned reg, size_t off)
{
    e_r15(e, 0x89, wide, reg, (uint32_t)off);
}
/* mov dword [r15+off], imm32 */
static inline void e_store_imm(struct emit *e, size_t off, uint32_t imm)
{
    e_r15(e, 0xc7, false, 0, (uint32_t)off);
    e32(e, imm);
}
static inline void e_mov_imm(struct emit *e, unsigned reg, uint32_t imm) /* mov r32, imm32 */
{
    if (reg >= 8)
        e8(e, 0x41);
    e8(e, 0xb8 | (reg & 7));
    e32(e, imm);
}
/* mov dst, src (64-bit or 32-bit) */
static inline void e_mov(struct emit *e, bool wide, unsigned dst, unsigned src)
{
    unsigned rex = 0x40 | (wide ? 8 : 0) | (src >= 8 ? 4 : 0) | (dst >= 8 ? 1 : 0);
    if (rex != 0x40)
        e8(e, rex);
    e8(e, 0x89);
    e8(e, 0xc0 | (src & 7) << 3 | (dst & 7));
}
/* The arithmetic flags of an EFLAGS image in eax, which is lost: bt eax,11; mov ah,al; setc al; add al,127 (OF); sahf.
 * A fifth of what POPFQ costs. */
static inline void e_flags_from_eax(struct emit *e)
{
    EB(e, 0x0f, 0xba, 0xe0, 11, 0x88, 0xc4, 0x0f, 0x92, 0xc0, 0x04, 0x7f, 0x9e);
}
/* lea r12d, [r12 + d] : ESP arithmetic that leaves the flags alone */
static inline void e_esp_add(struct emit *e, int32_t d)
{
    if (d >= -128 && d < 128)
        EB(e, 0x45, 0x8d, 0x64, 0x24, (uint8_t)d);
    else {
        EB(e, 0x45, 0x8d, 0xa4, 0x24);
        e32(e, (uint32_t)d);
    }
}
/* The prefixes of an access to [r32] in the window. */
static inline void e_window(struct emit *e)
{
    EB(e, e->seg, 0x67);
}
/* mov window:[r12d + d8], reg32 / mov reg32, window:[r12d + d8] */
static inline void e_stack(struct emit *e, unsigned op, unsigned reg, int8_t d)
{
    e_window(e);
    EB(e, 0x41 | (reg >= 8 ? 4 : 0), op, 0x44 | (reg & 7) << 3, 0x24, (uint8_t)d);
}
static inline void e_cmp8(struct emit *e, uint32_t off, uint8_t imm) /* cmp byte [r15+off], imm */
{
    e_r15(e, 0x80, false, 7, off);
    e8(e, imm);
}
static inline void e_store8(struct emit *e, uint32_t off, uint8_t imm) /* mov byte [r15+off], imm */
{
    e_r15(e, 0xc6, false, 0, off);
    e8(e, imm);
}
/* wrfsbase reg, wrgsbase reg */
static inline void e_wrbase(struct emit *e, bool gs, unsigned reg)
{
    EB(e, 0xf3, 0x48 | reg >> 3, 0x0f, 0xae, (gs ? 0xd8 : 0xd0) | (reg & 7));
}
/* FS.base is to be the user window; rax is clobbered. The flag is set first: a signal in between finds it too true. */
static inline void e_fs_to_user(struct emit *e, uint32_t flag, uint32_t window)
{
    e_store8(e, flag, 1);
    e_load(e, true, E_RAX, window);
    e_wrbase(e, false, E_RAX);
}
enum { E_EXPECT_VALUE = 6, E_EXPECT_MISS = 16 }; /* where its imm32 and rel32 are */
/* host flags-neutral compare: falls through to `ok` when r8d == value, else jumps to miss.
 * mov r9,rcx; lea ecx,[r8-value]; jrcxz +n; mov rcx,r9; jmp miss; ok: mov rcx,r9 */
static inline void e_expect(struct emit *e, uint32_t value, uint32_t miss)
{
    EB(e, 0x49, 0x89, 0xc9);
    EB(e, 0x41, 0x8d, 0x88);
    e32(e, 0u - value);
    EB(e, 0xe3, 8);
    EB(e, 0x4c, 0x89, 0xc9);
    e_jmp(e, miss);
    EB(e, 0x4c, 0x89, 0xc9);
}
/* r9 = jump table target of r8d: rorx r9d,r8d,2; movzx r9d,r9w (without BMI2: movzx r9d,r8w); mov r9d,[r14+r9*4];
 * lea r9,[r9+r13]. See bt_jtab_index. */
static inline void e_jtab_lookup(struct emit *e, bool bmi2)
{
    if (bmi2)
        EB(e, 0xc4, 0x43, 0x7b, 0xf0, 0xc8, 0x02, 0x45, 0x0f, 0xb7, 0xc9);
    else
        EB(e, 0x45, 0x0f, 0xb7, 0xc8);
    EB(e, 0x47, 0x8b, 0x0c, 0x8e);
    EB(e, 0x4f, 0x8d, 0x0c, 0x29);
}
/* The same, and go there. */
static inline unsigned e_jtab_jump_length(bool bmi2)
{
    return (bmi2 ? 10 : 4) + 4 + 4 + 3;
}
static inline void e_jtab_jump(struct emit *e, bool bmi2)
{
    e_jtab_lookup(e, bmi2);
    EB(e, 0x41, 0xff, 0xe1); /* jmp r9 */
}

#endif
