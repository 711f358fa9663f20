/* C code that translated code calls: one guest instruction through the interpreter. */
#include "impl.h"

/* Where a soft site is about to touch memory: its operand, EDI and ESI, or the stack. */
static uint32_t operand_at(const struct bt_vcpu *v, const struct bt_insn *i)
{
    const uint32_t *r = v->cpu.gpr;
    return (i->base == BT_NOREG ? 0 : r[i->base]) + (i->index == BT_NOREG ? 0 : r[i->index] * i->scale) +
           (uint32_t)i->disp + v->cpu.seg[i->seg].base;
}

static struct bt_soft_use soft_use(const struct bt_vcpu *v, const struct bt_insn *i)
{
    const uint32_t *r = v->cpu.gpr;
    struct bt_soft_use u = {0};
    if (i->is_mem) {
        u.gva = operand_at(v, i);
        u.write = i->mem_written;
    } else if (i->map == ZYDIS_OPCODE_MAP_DEFAULT && bt_is_string(i->opcode)) {
        u.gva = r[RC_EDI];
        u.gva2 = r[RC_ESI];
        u.more = i->rep || i->repne ? r[RC_ECX] / (HOST_PAGE / 4) : 0;
        u.write = (i->opcode & 0xfe) == 0xa4 || (i->opcode & 0xfe) == 0xaa; /* MOVS, STOS */
    } else
        u.gva = r[RC_ESP] - 4;
    return u;
}

/* Where a soft site that probes has looked. */
static struct bt_soft_use probed_use(const struct bt_vcpu *v, const struct bt_site *site)
{
    const uint32_t *r = v->cpu.gpr;
    switch (site->probe) {
    case BT_PROBE_PUSH:
        return (struct bt_soft_use){.gva = r[RC_ESP] - 4, .write = true};
    case BT_PROBE_POP:
        return (struct bt_soft_use){.gva = r[RC_ESP]};
    case BT_PROBE_FRAME:
        return (struct bt_soft_use){.gva = r[RC_EBP]};
    default:
        return (struct bt_soft_use){.gva = operand_at(v, &site->insn), .write = site->insn.mem_written};
    }
}

/* Pages are told apart by where they are in RAM: a kmap slot shows another one each time at the same address. With
 * `protections` one that has been a page table meanwhile is another one, too: no window shows it writable any more. */
static uint32_t soft_frame(struct bt_vcpu *v, uint32_t gva, bool protections)
{
    const uint8_t *p = gva ? spt_ptr(v->spt, gva, 1, v->cpu.cpl == 3 ? SPT_USER : SPT_READ) : NULL;
    if (!p)
        return 0;
    uint64_t gpa = (uint64_t)(p - v->cfg.ram->base);
    return (uint32_t)(gpa / HOST_PAGE + 1) ^ (protections ? spt_protections(v->spt, gpa) * 2246822519u : 0);
}

static void translate_anew(struct bt_vcpu *v, const struct bt_site *site)
{
    v->drop_block = site->block;
    v->leave_pending = true;
}

/* Has this site met a page that it did not know? What a program that runs for long knows is asked page by page, for all of
 * its sites, and there may be many. In a young one each site speaks for itself, as in the kernel: what another one has
 * met does not make it worth a window. */
static bool soft_news(struct bt_vcpu *v, const struct bt_site *site, struct bt_soft_use *u)
{
    bool implied = !site->insn.is_mem && !site->looks; /* operands of string and stack instructions */
    uint32_t frame = soft_frame(v, u->gva, implied);
    bool user = v->cpu.cpl == 3, first = user && bt_probe_touched(v, u->gva, frame, u->write, site->probe);
    if (site->probe || (user && site->looks && !bt_probe_young(v)))
        return first;
    u->frames = frame ^ soft_frame(v, u->gva2, implied) * 2654435761u;
    return bt_form_soft_news(v, site, u);
}

/* Would a window have done? What is pushed needs a page that may be written; what is popped is asked the same. */
static enum bt_met interp_met(const struct bt_vcpu *v, const struct bt_site *site,
                              const struct bt_soft_use *u)
{
    const struct bt_insn *i = &site->insn;
    bool stack = !i->is_mem && !(i->map == ZYDIS_OPCODE_MAP_DEFAULT && bt_is_string(i->opcode));
    if (spt_grants(v->spt, u->gva, u->write || stack) && (!u->gva2 || spt_grants(v->spt, u->gva2, false)))
        return BT_MET_SHOWN;
    return spt_ptr(v->spt, u->gva, 1, SPT_READ) ? BT_MET_RAM : BT_MET_DEVICE;
}

static void soft_account(struct bt_vcpu *v, const struct bt_site *site, struct bt_soft_use *u)
{
    if (site->interp) {
        if (bt_form_met(v, site, interp_met(v, site, u)))
            translate_anew(v, site);
        return;
    }
    bool news = soft_news(v, site, u);
    if (site->probe)
        bt_form_soft_right(v, site->soft);
    else if (bt_form_soft_used(v, site, u, news))
        translate_anew(v, site);
}

static void divide_account(struct bt_vcpu *v, const struct bt_site *site, bool faulted)
{
    const struct bt_block *blk = &v->block[site->block];
    if (bt_form_divided(v, blk->gpa + (site->eip - blk->eip), faulted))
        translate_anew(v, site);
}

/* Lock step and traces see each crossing by itself; alignment checks, single-stepping and breakpoints are the interpreter's. */
static bool may_cross(const struct bt_vcpu *v)
{
    return !v->unchained && !v->trace && !(v->cpu.eflags & (RC_TF | RC_RF | RC_AC));
}

/* The way out of a crossing; of a quick one that met something unusual. */
uint64_t bt_quick_crossed(struct bt_vcpu *v)
{
    uint64_t to = bt_dispatch_cross(v);
    if (to)
        return to;
    bt_flags_to_host(v);
    return BT_GO_OUT;
}

/* The instructions that go from ring to ring, without the interpreter around them: nothing it does between
 * instructions concerns translated code, but for AC (see may_cross). */
static uint64_t cross(struct bt_vcpu *v, const struct bt_site *site)
{
    struct rc_cpu *cpu = &v->cpu;
    const uint32_t next = site->eip + site->insn.length;
    enum rc_result r = RC_FAULT;
    bt_flags_from_host(v);
    cpu->eip = site->eip;
    cpu->irq_shadow = 0;
    v->counts.callouts++;
    switch (site->cross) {
    case BT_CROSS_INT:
        r = rc_software_int(cpu, (uint8_t)site->insn.imm, true, next);
        break;
    case BT_CROSS_IRET:
        r = rc_iret(cpu, site->insn.osz, next);
        break;
    case BT_CROSS_SYSENTER:
        r = rc_sysenter(cpu);
        break;
    case BT_CROSS_SYSEXIT:
        r = rc_sysexit(cpu);
        break;
    }
    if (r != RC_OK)
        rc_deliver_fault(cpu);
    return bt_quick_crossed(v);
}

/* The same for INT n and IRET between flat rings, quick. BT_GO_ON: nothing was done, a callout is to do it.
 * BT_GO_DISPATCH: it is done, and bt_dispatch is to find out where to go on. */
uint64_t bt_quick_cross(struct bt_vcpu *v, uint32_t n)
{
    struct rc_cpu *cpu = &v->cpu;
    const struct bt_site *site = &v->site[n];
    if (!may_cross(v))
        return BT_GO_ON;
    bt_flags_from_host(v);
    bool done = site->cross == BT_CROSS_INT
                    ? rc_quick_int(cpu, (uint8_t)site->insn.imm, site->eip + site->insn.length)
                : site->cross == BT_CROSS_IRET ? site->insn.osz == 4 && rc_quick_iret(cpu)
                                               : false;
    if (!done)
        return BT_GO_ON;
    cpu->irq_shadow = 0;
    v->counts.callouts++;
    return bt_dispatch_quick(v);
}

/* Of the executions of interpreted sites one in so many is looked at: a device access costs little more than the look. A store
 * to a page table that a light call does costs less, and is made a callout to be looked at. */
enum { INTERP_ASKED = 8, LIGHT_ASKED = 32 * INTERP_ASKED };

static bool is_asked(struct bt_vcpu *v, const struct bt_site *site)
{
    return site->soft && (!site->interp || ++v->interpreted % INTERP_ASKED == 0);
}

/*T:350 Callouts
 *
 * Whatever may not be copied is executed here by the interpreter, while the block waits. The block goes on
 * only if everything it was translated for still holds: the next instruction is the expected one, the mode
 * key is the same, no interrupt has become deliverable, and nothing it relied on was dropped meanwhile.
:*/
uint64_t bt_callout_insn(struct bt_vcpu *v, uint32_t n)
{
    struct rc_cpu *cpu = &v->cpu;
    struct bt_site *site = &v->site[n];
    const struct bt_block *blk = &v->block[site->block];
    uint32_t space = spt_user_space(v->spt);
    if (site->cross && may_cross(v))
        return cross(v, site);
    bt_flags_from_host(v);
    cpu->eip = site->eip;
    v->counts.callouts++;
    if (site->insn.class != BT_CLASS_INT || v->trace)
        bt_fpu_park(v);
    bool asked = is_asked(v, site);
    struct bt_soft_use use;
    if (asked)
        use = site->probe ? probed_use(v, site) : soft_use(v, &site->insn);
    enum bt_step step = bt_interp_insn(v->interp, &site->insn);
    if (asked && step == BT_STEP_OK)
        soft_account(v, site, &use);
    if (bt_is_divide(&site->insn))
        divide_account(v, site, step != BT_STEP_OK);
    bt_flags_to_host(v);
    v->leave_block = site->block;
    v->leave_index = site->index + (step == BT_STEP_OK || step == BT_STEP_HALT);
    if (cpu->irq_shadow)
        v->shadow_eip = cpu->eip;
    if (step == BT_STEP_OK && !site->cross && !v->leave_pending && !v->flush_wanted && !cpu->shutdown &&
        cpu->eip == site->eip + site->insn.length && bt_mode(v) == blk->mode &&
        spt_user_space(v->spt) == space)
        return cpu->iflag && v->cfg.ops.intr(v->cfg.ops.ctx) ? BT_GO_OUT : BT_GO_ON;
    uint64_t to = step == BT_STEP_OK || step == BT_STEP_FAULT ? bt_dispatch(v) : 0;
    return to ? to : BT_GO_OUT;
}

/* The same answers for a store into a page table that is known to be one. Sites come here with supervisor rights only. */
uint32_t bt_light_store(struct bt_vcpu *v, uint32_t gva, uint32_t value, struct bt_light *regs)
{
    (void)regs;
    bool asked = ++v->interpreted % LIGHT_ASKED == LIGHT_ASKED - 1; /* the callout will look */
    return v->trace || !spt_write_entry(v->spt, gva, value) || asked || v->leave_pending || v->flush_wanted;
}

uint32_t bt_light_invlpg(struct bt_vcpu *v, uint32_t gva, uint32_t unused, struct bt_light *regs)
{
    (void)unused;
    (void)regs;
    if (v->trace || v->cpu.cpl)
        return 1;
    spt_invlpg(v->spt, gva);
    return v->leave_pending || v->flush_wanted;
}

/* MOV to and POP of a data segment register; quick. Nonzero: not done, or not with the block's assumptions: the instruction
 * is to be executed again by a callout (loading the same selector twice is the same as once). */
uint32_t bt_light_seg(struct bt_vcpu *v, uint32_t selector, uint32_t seg, struct bt_light *regs)
{
    (void)regs;
    if (v->trace || !rc_quick_load(&v->cpu, seg, (uint16_t)selector))
        return 1;
    /* of the mode key a data segment decides one bit: is it flat? */
    unsigned odd = seg == RC_DS ? RC_MODE_DS_ODD : seg == RC_ES ? RC_MODE_ES_ODD : 0;
    return (odd && (v->cpu.seg[seg].soft != 0) != !!(v->entered_mode & odd)) || v->leave_pending;
}

/* Only INVLPG empties a row of the software TLB: most likely the page has been mapped anew, and a window would have had to
 * fetch it. */
static bool soft_fresh(const struct bt_vcpu *v, uint32_t gva, bool write)
{
    return v->tlb.minus_tag[write ? SPT_WRITE >> 1 : 0][gva / HOST_PAGE % SPT_TLB_SIZE] == 0;
}

static void light_account(struct bt_vcpu *v, const struct bt_site *site, struct bt_soft_use *use, bool fresh)
{
    if (!fresh || site->interp)
        soft_account(v, site, use);
    else if (bt_form_soft_used(v, site, use, true))
        translate_anew(v, site);
}

/* A soft site of the kernel did not find its page in the software TLB. Done: now it will. Nothing of the instruction has
 * happened, but the A and D bits that it is about to set. */
uint32_t bt_light_look(struct bt_vcpu *v, uint32_t gva, uint32_t n, struct bt_light *regs)
{
    const struct bt_site *site = &v->site[n];
    struct bt_soft_use use = {.gva = gva, .write = site->insn.mem_written};
    bool fresh = soft_fresh(v, gva, use.write);
    (void)regs;
    if (!spt_ptr(v->spt, gva, site->insn.mem_size, use.write ? SPT_WRITE : SPT_READ))
        return 1;
    light_account(v, site, &use, fresh);
    return v->leave_pending || v->flush_wanted;
}

/* REP MOVS and STOS, page by page. What is not RAM, or not to be had at once, is left for the callout, which goes on where
 * this has stopped: between two iterations, as an interrupt would have. */
uint32_t bt_light_string(struct bt_vcpu *v, uint32_t n, uint32_t unused, struct bt_light *regs)
{
    const struct bt_site *site = &v->site[n];
    uint32_t *gpr = v->cpu.gpr; /* in registers meanwhile: free to be used */
    (void)unused;
    if (v->trace || regs->flags & RC_DF)
        return 1;
    gpr[RC_EAX] = (uint32_t)regs->rax;
    gpr[RC_ECX] = (uint32_t)regs->rcx;
    gpr[RC_ESI] = (uint32_t)regs->rsi;
    gpr[RC_EDI] = (uint32_t)regs->rdi;
    struct bt_soft_use use = soft_use(v, &site->insn);
    bool fresh = soft_fresh(v, use.gva, use.write);
    bool done = bt_interp_block(v->interp, &site->insn);
    regs->rcx = gpr[RC_ECX];
    regs->rsi = gpr[RC_ESI];
    regs->rdi = gpr[RC_EDI];
    if (done && site->soft)
        light_account(v, site, &use, fresh);
    return !done || v->leave_pending || v->flush_wanted;
}
