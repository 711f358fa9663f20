/* SYSENTER and SYSEXIT between flat rings, in assembly. */
#include <stddef.h>
#include "impl.h"
#include "emit.h"

#define OFF(field)    ((uint32_t)offsetof(struct bt_vcpu, field))
#define CPU(field)    ((uint32_t)offsetof(struct rc_cpu, field))
#define SEG(s, field) (CPU(seg) + (uint32_t)((s) * sizeof(struct rc_seg) + offsetof(struct rc_seg, field)))
#define SIDE(user, field)                                                                                    \
    (OFF(side) + (uint32_t)((user) * sizeof(struct bt_side) + offsetof(struct bt_side, field)))

_Static_assert(offsetof(struct rc_seg, limit) == offsetof(struct rc_seg, base) + 4, "stored as one");
_Static_assert(offsetof(struct rc_cpu, halted) == offsetof(struct rc_cpu, iflag) + 3, "stored as one");

struct slow { /* branches to where the callout takes over */
    uint32_t at[12];
    unsigned count;
};

enum { JE = 0x84, JNE = 0x85, JL = 0x8c };

static void jcc_slow(struct emit *e, struct slow *s, unsigned cc)
{
    EB(e, 0x0f, cc);
    s->at[s->count++] = e->at;
    e32(e, 0);
}

static void cmp32(struct emit *e, uint32_t off, uint8_t imm)
{
    e_r15(e, 0x83, false, 7, off);
    e8(e, imm);
}

/* The arithmetic flags are the guest's: r10, with r11 for RAX. A quarter of what PUSHFQ and POPFQ cost. */
static void flags_save(struct emit *e)
{
    e_mov(e, true, E_R11, E_RAX);
    EB(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    e_mov(e, true, E_R10, E_RAX);
}

static void flags_load(struct emit *e)
{
    e_mov(e, true, E_RAX, E_R10);
    EB(e, 0x04, 0x7f, 0x9e); /* add al, 127: OF again; sahf */
    e_mov(e, true, E_RAX, E_R11);
}

/* What both ways need: nothing pending, this visit not timed, SYSENTER_CS loaded; eax: the mode to be. */
static void check(struct emit *e, struct slow *s, bool to_user)
{
    cmp32(e, CPU(request), 0);
    jcc_slow(e, s, JNE);
    e_cmp8(e, OFF(cross_fast), 0);
    jcc_slow(e, s, JE);
    e_r15(e, 0xf7, false, 0, CPU(sysenter_cs)); /* test dword [sysenter_cs], 0xfffc */
    e32(e, 0xfffc);
    jcc_slow(e, s, JE);
    cmp32(e, OFF(crossings_left), 2);
    jcc_slow(e, s, JL);
    e_r15(e, 0x8d, true, E_RAX, OFF(unsampled)); /* lea rax, [r15+unsampled] */
    e_r15(e, 0x39, true, E_RAX, OFF(bucket));    /* cmp [r15+bucket], rax */
    jcc_slow(e, s, JNE);
    e_load(e, false, E_RAX, OFF(entered_mode));
    if (to_user) {
        e_cmp8(e, CPU(cpl), 0);
        jcc_slow(e, s, JNE);
        e_cmp8(e, OFF(irq_waiting), 0);
        jcc_slow(e, s, JNE);
        e8(e, 0xa9); /* test eax, odd: IOPL and AC would count */
        e32(e, BT_MODE_FLAGS_ODD);
        jcc_slow(e, s, JNE);
    } else {
        e_cmp8(e, OFF(entered_user), 0);
        jcc_slow(e, s, JE);
    }
    e8(e, 0x25); /* and eax */
    e32(e, ~(uint32_t)(RC_MODE_USER | RC_MODE_SS_ODD | RC_MODE_IOPL));
    e8(e, 0x0d); /* or eax */
    e32(e, to_user ? RC_MODE_USER : RC_MODE_IOPL);
    e_r15(e, 0x3b, false, E_RAX, SIDE(to_user, mode)); /* cmp eax, [side.mode] */
    jcc_slow(e, s, JNE);
}

/* A flat segment, selector SYSENTER_CS (in eax) + more; r9: base 0, limit 4 GiB - 1. */
static void flat_segment(struct emit *e, unsigned seg, unsigned more, unsigned attr)
{
    e_store(e, true, E_R9, SEG(seg, base));
    EB(e, 0x44, 0x8d, 0x80); /* lea r8d, [rax+more] */
    e32(e, more);
    e8(e, 0x66);
    e_store(e, false, E_R8, SEG(seg, selector));
    e8(e, 0x66);
    e_r15(e, 0xc7, false, 0, SEG(seg, attr)); /* mov word [attr], imm16 */
    EB(e, attr & 0xff, attr >> 8);
    e_store_imm(e, SEG(seg, soft), 0);
    e_store_imm(e, SEG(seg, soft) + 4, seg == RC_CS ? (uint32_t)RC_SOFT_ODD : 0);
}

static void segments(struct emit *e, bool to_user)
{
    enum { FLAT = RC_ATTR_P | RC_ATTR_S | RC_ATTR_W | RC_ATTR_A | RC_ATTR_DB | RC_ATTR_G };
    unsigned dpl = to_user ? 3 << 5 : 0, cs = to_user ? 16 + 3 : 0;
    e_load(e, false, E_RAX, CPU(sysenter_cs));
    e8(e, 0x25);
    e32(e, 0xfffc);
    EB(e, 0x41, 0xb9); /* mov r9d, -1 */
    e32(e, UINT32_MAX);
    EB(e, 0x49, 0xc1, 0xe1, 32); /* shl r9, 32 */
    flat_segment(e, RC_CS, cs, FLAT | RC_ATTR_CODE | dpl);
    flat_segment(e, RC_SS, cs + 8, FLAT | dpl);
}

static void to_other_side(struct emit *e, bool user, bool bmi2)
{
    if (user) { /* FS may have been the host's in between */
        e_cmp8(e, OFF(fs_guest), 0);
        EB(e, 0x75, 0); /* jne past */
        uint32_t past = e->at;
        e_fs_to_user(e, OFF(fs_guest), OFF(window_u));
        e->rw[past - 1] = (uint8_t)(e->at - past);
    }
    e_load(e, true, E_R14, SIDE(user, jtab));
    e_store(e, true, E_R14, OFF(jtab));
    e_load(e, false, E_RAX, SIDE(user, mode));
    e_store(e, false, E_RAX, OFF(entered_mode));
    e_store8(e, OFF(entered_user), user);
    e_r15(e, 0x83, false, 5, OFF(crossings_left)); /* sub dword, 1 */
    e8(e, 1);
    e_r15(e, 0x83, true, 0, OFF(counts.dispatched)); /* add qword, 1 */
    e8(e, 1);
    flags_load(e);
    e_jtab_jump(e, bmi2);
}

static void slow_path(struct emit *e, const struct slow *s, uint32_t cross)
{
    for (unsigned i = 0; i < s->count; i++)
        e_patch32(e, s->at[i], e->at);
    flags_load(e);
    e_jmp(e, cross);
}

/*T:314 The shortest way into a kernel
 *
 * SYSENTER reads no descriptor and no memory, so nothing can go wrong but what a dozen comparisons tell: both sides'
 * modes follow from each other, and windows, jump tables and return stacks of both are known from the last crossing by
 * bt_dispatch_cross. The site is in r8d: whenever something is not as usual this becomes a callout. A
 * kick in here walks on to the other side's first instruction.
:*/
void bt_stubs_fast(struct bt_vcpu *v, struct emit *e)
{
    struct bt_stubs *s = &v->stubs;
    struct slow slow = {.count = 0};
    s->sysenter = e->at;
    flags_save(e);
    check(e, &slow, false);
    segments(e, false);
    e_store_imm(e, CPU(iflag), 0); /* and CPL, irq_shadow, halted */
    e_load(e, false, E_R12, CPU(sysenter_esp));
    e_load(e, false, E_R8, CPU(sysenter_eip));
    e_store(e, true, E_RSP, OFF(hstack_user));
    e_load(e, true, E_RSP, OFF(hstack_top));
    to_other_side(e, false, v->bmi2);
    slow_path(e, &slow, s->cross);

    slow.count = 0;
    s->sysexit = e->at;
    flags_save(e);
    check(e, &slow, true);
    segments(e, true);
    e_store8(e, CPU(cpl), 3);
    e_store8(e, CPU(irq_shadow), 0);
    e_mov(e, false, E_R12, E_RCX);
    e_mov(e, false, E_R8, E_RDX);
    e_load(e, true, E_RSP, OFF(hstack_user));
    to_other_side(e, true, v->bmi2);
    slow_path(e, &slow, s->cross);
}
