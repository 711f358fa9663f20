/* LAR, LSL, VERR, VERW: questions about a selector that answer through ZF instead of a fault (5.10; vol. 2).
 */
#include "ring.h"

#define TYPE_BIT(t) (1u << (t))
enum {
    LAR_SYSTEM_TYPES = TYPE_BIT(RC_TYPE_TSS16) | TYPE_BIT(RC_TYPE_LDT) | TYPE_BIT(RC_TYPE_TSS16_BUSY) |
                       TYPE_BIT(RC_TYPE_CALL16) | TYPE_BIT(RC_TYPE_TASK) | TYPE_BIT(RC_TYPE_TSS32) |
                       TYPE_BIT(RC_TYPE_TSS32_BUSY) | TYPE_BIT(RC_TYPE_CALL32),
    LSL_SYSTEM_TYPES = TYPE_BIT(RC_TYPE_TSS16) | TYPE_BIT(RC_TYPE_LDT) | TYPE_BIT(RC_TYPE_TSS16_BUSY) |
                       TYPE_BIT(RC_TYPE_TSS32) | TYPE_BIT(RC_TYPE_TSS32_BUSY),
    LAR_MASK = 0x00f0ff00,
};

/* Beyond the table is an answer here, not a fault; only paging may interrupt the question. */
static bool is_in_table(const struct rc_cpu *cpu, uint16_t selector)
{
    if (rc_is_null(selector))
        return false;
    if (!(selector & 4))
        return (selector | 7u) <= cpu->gdtr.limit;
    return (cpu->seg[RC_LDTR].attr & RC_ATTR_P) && (selector | 7u) <= cpu->seg[RC_LDTR].limit;
}

/* *found: the descriptor exists and CPL and RPL may know of it. */
static enum rc_result look_up(struct rc_cpu *cpu, uint16_t selector, struct rc_desc *d, bool *found)
{
    *found = false;
    if (!rc_is_protected(cpu))
        return rc_raise(cpu, RC_UD);
    if (!is_in_table(cpu, selector))
        return RC_OK;
    if (rc_desc_read(cpu, selector, RC_GP, 0, d) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(d), dpl = rc_attr_dpl(attr);
    *found = rc_attr_is_conforming(attr) || (cpu->cpl <= dpl && (selector & 3u) <= dpl);
    return RC_OK;
}

static bool is_system_outside(const struct rc_desc *d, unsigned types)
{
    const unsigned attr = rc_desc_attr(d);
    return !(attr & RC_ATTR_S) && !(types >> rc_attr_type(attr) & 1);
}

enum rc_result rc_lar(struct rc_cpu *cpu, uint16_t sel, uint32_t *value, bool *zf)
{
    struct rc_desc d;
    if (look_up(cpu, sel, &d, zf) != RC_OK)
        return RC_FAULT;
    if (*zf && is_system_outside(&d, LAR_SYSTEM_TYPES))
        *zf = false;
    if (*zf)
        *value = d.hi & LAR_MASK;
    return RC_OK;
}

enum rc_result rc_lsl(struct rc_cpu *cpu, uint16_t sel, uint32_t *value, bool *zf)
{
    struct rc_desc d;
    if (look_up(cpu, sel, &d, zf) != RC_OK)
        return RC_FAULT;
    if (*zf && is_system_outside(&d, LSL_SYSTEM_TYPES))
        *zf = false;
    if (*zf)
        *value = rc_desc_limit(&d);
    return RC_OK;
}

enum rc_result rc_verr(struct rc_cpu *cpu, uint16_t sel, bool write, bool *zf)
{
    struct rc_desc d;
    if (look_up(cpu, sel, &d, zf) != RC_OK)
        return RC_FAULT;
    if (*zf)
        *zf = write ? rc_attr_is_stack(rc_desc_attr(&d)) : rc_attr_is_readable(rc_desc_attr(&d));
    return RC_OK;
}
