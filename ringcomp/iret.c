/* IRET in all its forms (6.12.1, 7.3, 20.2.2; vol. 2 IRET). */
#include "ring.h"

enum { FRAME_EIP, FRAME_CS, FRAME_FLAGS, FRAME_ESP, FRAME_SS, FRAME_ES, FRAME_DS, FRAME_FS, FRAME_GS };

/*T:560 IRET, one instruction with seven meanings
 *
 * IRET decides by the current mode (real, V86, protected), by NT (return from a nested task), by the VM bit
 *of the EFLAGS image it pops, and by the RPL of the CS image (same ring or outwards) what it is. It is also
 *the instruction a kernel executes most of all those in the sensitive table: each interrupt and, on older
 * kernels, each system call ends with it. So the common two forms take one look at the stack and one or two
 *at the GDT, and everything rare branches away early.
 *
 * Nothing may be changed before the last check has passed, or a fault would leave a machine that never
 *existed.
 *:*/

/* Which flags a return may change is decided by the CPL *before* it. */
static void load_flags(struct rc_cpu *cpu, uint32_t image, unsigned opsize, unsigned old_cpl)
{
    uint32_t may_change = RC_ARITH | RC_TF | RC_DF | RC_NT;
    if (opsize == 4)
        may_change |= RC_RF | RC_AC | RC_ID;
    if (old_cpl <= rc_iopl(cpu))
        may_change |= RC_IF;
    if (old_cpl == 0)
        may_change |= RC_IOPL | (opsize == 4 ? RC_VIF | RC_VIP : 0);
    rc_set_eflags(cpu, (rc_eflags(cpu) & ~may_change) | (image & may_change));
}

static void pop_frame(struct rc_cpu *cpu, unsigned bytes)
{
    cpu->gpr[RC_ESP] = rc_stack_merge(&cpu->seg[RC_SS], cpu->gpr[RC_ESP], cpu->gpr[RC_ESP] + bytes);
}

/* Real mode, and virtual-8086 mode with IOPL 3. */
static enum rc_result iret_real(struct rc_cpu *cpu, const uint32_t *frame, unsigned opsize)
{
    uint32_t may_change = RC_ARITH | RC_TF | RC_IF | RC_DF | RC_NT;
    if (opsize == 4)
        may_change |= RC_RF | RC_AC | RC_ID;
    if (!rc_is_v86(cpu))
        may_change |= RC_IOPL;
    if (frame[FRAME_EIP] > cpu->seg[RC_CS].limit)
        return rc_raise_error(cpu, RC_GP, 0);
    pop_frame(cpu, 3 * opsize);
    rc_seg_real(cpu, RC_CS, (uint16_t)frame[FRAME_CS]);
    cpu->eip = frame[FRAME_EIP];
    rc_set_eflags(cpu, (rc_eflags(cpu) & ~may_change) | (frame[FRAME_FLAGS] & may_change));
    return RC_OK;
}

static enum rc_result iret_to_v86(struct rc_cpu *cpu, uint32_t *frame)
{
    static const uint8_t segs[] = {RC_ES, RC_DS, RC_FS, RC_GS};

    if (rc_stack_peek(cpu, 12, 6, 4, frame + FRAME_ESP) != RC_OK)
        return RC_FAULT;
    if (frame[FRAME_EIP] > 0xffff)
        return rc_raise_error(cpu, RC_GP, 0);
    rc_set_eflags(cpu, frame[FRAME_FLAGS]); /* VM: from here rc_seg_real makes virtual-8086 segments */
    cpu->cpl = 3;
    for (unsigned i = 0; i < sizeof segs; i++)
        rc_seg_real(cpu, segs[i], (uint16_t)frame[FRAME_ES + i]);
    rc_seg_real(cpu, RC_SS, (uint16_t)frame[FRAME_SS]);
    rc_seg_real(cpu, RC_CS, (uint16_t)frame[FRAME_CS]);
    cpu->gpr[RC_ESP] = frame[FRAME_ESP];
    cpu->eip = frame[FRAME_EIP];
    return RC_OK;
}

static enum rc_result iret_nested(struct rc_cpu *cpu, uint32_t next_eip)
{
    struct spt_info info;
    uint16_t link;
    if (!spt_read(cpu->spt, cpu->seg[RC_TR].base, &link, 2, SPT_READ, &info))
        return rc_raise_pf(cpu, &info);
    return rc_task_switch_by_insn(cpu, RC_SWITCH_IRET, link, next_eip);
}

static enum rc_result iret_outer(struct rc_cpu *cpu, uint32_t *frame, unsigned opsize, struct rc_desc *cs)
{
    const unsigned rpl = frame[FRAME_CS] & 3, old_cpl = cpu->cpl;
    struct rc_desc ss;

    if (rc_stack_peek(cpu, 3 * opsize, 2, opsize, frame + FRAME_ESP) != RC_OK)
        return RC_FAULT;
    const uint16_t ss_selector = (uint16_t)frame[FRAME_SS];
    if (rc_return_check_ss(cpu, ss_selector, rpl, &ss) != RC_OK)
        return RC_FAULT;
    if (frame[FRAME_EIP] > rc_desc_limit(cs))
        return rc_raise_error(cpu, RC_GP, 0);
    if (rc_desc_mark_accessed(cpu, cs) != RC_OK || rc_desc_mark_accessed(cpu, &ss) != RC_OK)
        return RC_FAULT;

    cpu->cpl = (uint8_t)rpl;
    rc_seg_fill(cpu, RC_CS, (uint16_t)frame[FRAME_CS], cs);
    rc_seg_fill(cpu, RC_SS, ss_selector, &ss);
    cpu->eip = frame[FRAME_EIP];
    /* A 16-bit stack gets 16 bits of ESP; the rest is what the inner ring left there. */
    cpu->gpr[RC_ESP] = rc_stack_merge(&cpu->seg[RC_SS], cpu->gpr[RC_ESP], frame[FRAME_ESP]);
    load_flags(cpu, frame[FRAME_FLAGS], opsize, old_cpl);
    rc_seg_drop_inner(cpu);
    return RC_OK;
}

static enum rc_result iret_same(struct rc_cpu *cpu, const uint32_t *frame, unsigned opsize,
                                struct rc_desc *cs)
{
    if (frame[FRAME_EIP] > rc_desc_limit(cs))
        return rc_raise_error(cpu, RC_GP, 0);
    if (rc_desc_mark_accessed(cpu, cs) != RC_OK)
        return RC_FAULT;
    pop_frame(cpu, 3 * opsize);
    rc_seg_fill(cpu, RC_CS, (uint16_t)frame[FRAME_CS], cs);
    cpu->eip = frame[FRAME_EIP];
    load_flags(cpu, frame[FRAME_FLAGS], opsize, cpu->cpl);
    return RC_OK;
}

enum rc_result rc_iret(struct rc_cpu *cpu, unsigned opsize, uint32_t next_eip)
{
    cpu->irets++;
    return RC_LIKELY(opsize == 4 && rc_flat_iret(cpu)) ? RC_OK : rc_general_iret(cpu, opsize, next_eip);
}

enum rc_result rc_general_iret(struct rc_cpu *cpu, unsigned opsize, uint32_t next_eip)
{
    struct rc_desc cs;
    uint32_t frame[9];

    if (RC_UNLIKELY(rc_is_v86(cpu)) && rc_iopl(cpu) < 3)
        return rc_raise_error(cpu, RC_GP, 0);
    if (RC_UNLIKELY(cpu->eflags & RC_NT) && rc_is_protected(cpu))
        return iret_nested(cpu, next_eip);
    if (rc_stack_peek(cpu, 0, 3, opsize, frame) != RC_OK)
        return RC_FAULT;
    if (RC_UNLIKELY(!rc_is_protected(cpu)))
        return iret_real(cpu, frame, opsize);
    if (RC_UNLIKELY(frame[FRAME_FLAGS] & RC_VM) && opsize == 4 && cpu->cpl == 0)
        return iret_to_v86(cpu, frame);
    if (rc_return_check_cs(cpu, (uint16_t)frame[FRAME_CS], &cs) != RC_OK)
        return RC_FAULT;
    return (frame[FRAME_CS] & 3) > cpu->cpl ? iret_outer(cpu, frame, opsize, &cs)
                                            : iret_same(cpu, frame, opsize, &cs);
}
