/* The vCPU as a whole: power-on, the loader's flat state, what translated code may assume. */
#include "ring.h"

#include <string.h>

/*T:510 Four rings in one
 *
 * The x86 has four rings and the guest believes it owns all of them. The host gives this process one: ring 3.
 * So every piece of state that says where the guest is (CPL, IF, the segment registers' hidden halves, GDTR,
 * IDTR, TR) lives here, in struct rc_cpu, and never in the hardware register of that name. The guest's kernel
 * and its programs both run at host ring 3; what tells them apart is which window of memory their code is
 * given (chapter Memory) and that the few instructions which read or write this state never reach the
 * hardware. Sensitive.def lists those instructions; this module is what they do instead.
 *
 * The hidden halves are the part one forgets. A segment register holds what the descriptor said when it was
 * *loaded*. A guest may load a segment, change the descriptor and go on; or enter protected mode with CS
 *still in its real-mode form. A monitor that looked descriptors up when they are used would be wrong there,
 *and one that loaded them into the hardware would need a ring the guest does not have.
 *:*/

void rc_fpu_init_x87(struct rc_cpu *cpu)
{
    for (unsigned i = 0; i < 160; i++)
        if (i < 24 || i >= 32)
            cpu->fpu[i] = 0;
    rc_store16(cpu->fpu, 0x037f);
}

static void load_fpu_init(struct rc_cpu *cpu)
{
    /* What FINIT and a fresh MXCSR look like to FXRSTOR (SDM vol. 1, 8.1.5, 10.5.1.1, 11.6.4). */
    for (unsigned i = 0; i < sizeof cpu->fpu; i++)
        cpu->fpu[i] = 0;
    cpu->fpu[RC_XSAVE_XSTATE_BV] = RC_XCR0_X87 | RC_XCR0_SSE;
    rc_store16(cpu->fpu, 0x037f);
    rc_store32(cpu->fpu + 24, 0x1f80);
    rc_store32(cpu->fpu + 28, 0xffff);
}

static void set_hidden(struct rc_cpu *cpu, unsigned seg, uint16_t selector, uint32_t base, uint32_t limit,
                       unsigned attr)
{
    struct rc_seg *s = &cpu->seg[seg];
    s->selector = selector;
    s->base = base;
    s->limit = limit;
    s->attr = (uint16_t)attr;
    rc_seg_changed(cpu, seg);
}

void rc_cpu_init(struct rc_cpu *cpu, struct spt *spt, const struct rc_config *config,
                 const struct rc_ops *ops)
{
    memset(cpu, 0, sizeof *cpu);
    cpu->spt = spt;
    cpu->ops = *ops;
    cpu->config = *config;
    rc_cpu_reset(cpu);
}

static void reset_registers(struct rc_cpu *cpu)
{
    for (unsigned i = 0; i < 8; i++) {
        cpu->gpr[i] = 0;
        cpu->dr[i] = 0;
    }
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[7] = 0x400;
    cpu->eip = 0xfff0;
    rc_set_eflags(cpu, 0);
    cpu->cpl = 0;
    cpu->irq_shadow = cpu->halted = cpu->shutdown = 0;
    cpu->cr0 = RC_CR0_CD | RC_CR0_NW | RC_CR0_ET;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = 0;
    cpu->xcr0 = RC_XCR0_X87;
    rc_xstate_changed(cpu);
    cpu->efer = 0;
    cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
    /* Not TSC = 0: user code may run where RDTSC cannot be intercepted, so an unasked-for offset would make
     * the two disagree. */
    cpu->tsc_offset = 0;
    cpu->spec_ctrl = 0;
}

void rc_cpu_reset(struct rc_cpu *cpu)
{
    enum { DATA = RC_ATTR_P | RC_ATTR_S | RC_ATTR_W | RC_ATTR_A };
    cpu->gpr[RC_EAX] = 1;
    rc_cpuid(cpu);
    const uint32_t processor = cpu->gpr[RC_EAX];
    reset_registers(cpu);
    cpu->gpr[RC_EDX] = processor; /* family, model, stepping */
    for (unsigned seg = RC_ES; seg <= RC_GS; seg++)
        set_hidden(cpu, seg, 0, 0, 0xffff, DATA);
    set_hidden(cpu, RC_CS, 0xf000, 0xffff0000, 0xffff, DATA);
    set_hidden(cpu, RC_LDTR, 0, 0, 0xffff, RC_ATTR_P | RC_TYPE_LDT);
    set_hidden(cpu, RC_TR, 0, 0, 0xffff, RC_ATTR_P | RC_TYPE_TSS32_BUSY);
    cpu->gdtr = cpu->idtr = (struct rc_table){0, 0xffff};
    cpu->fault = (struct rc_fault){0};
    rc_msr_reset(cpu);
    load_fpu_init(cpu);
    rc_paging_changed(cpu, (const uint64_t[4]){0});
}

void rc_cpu_flat(struct rc_cpu *cpu, uint16_t cs, uint16_t ds)
{
    enum { FLAT = RC_ATTR_P | RC_ATTR_S | RC_ATTR_W | RC_ATTR_A | RC_ATTR_DB | RC_ATTR_G };
    rc_set_eflags(cpu, 0);
    cpu->cpl = 0;
    for (unsigned seg = RC_ES; seg <= RC_GS; seg++)
        set_hidden(cpu, seg, ds, 0, UINT32_MAX, FLAT);
    set_hidden(cpu, RC_CS, cs, 0, UINT32_MAX, FLAT | RC_ATTR_CODE);
    /* No tables: a loader that wants some sets them, and until then any exception is a clean triple fault
     * instead of a jump through whatever lies at address 0. */
    rc_seg_null(cpu, RC_LDTR, 0);
    rc_seg_null(cpu, RC_TR, 0);
    cpu->gdtr = cpu->idtr = (struct rc_table){0, 0};
    cpu->cr0 = RC_CR0_PE | RC_CR0_ET;
    cpu->cr4 = 0;
    rc_xstate_changed(cpu);
    rc_msr_firmware(cpu);
    rc_paging_changed(cpu, NULL);
}

/* The translator knows only this kind of CS: base 0, 4 GiB, 32-bit, readable code. */
static bool is_flat_code(const struct rc_seg *cs)
{
    enum { WANT = RC_ATTR_P | RC_ATTR_S | RC_ATTR_CODE | RC_ATTR_W | RC_ATTR_DB };
    return cs->base == 0 && cs->limit == UINT32_MAX && (cs->attr & WANT) == WANT;
}

bool rc_alignment_checked(const struct rc_cpu *cpu)
{
    return cpu->cpl == 3 && (cpu->cr0 & RC_CR0_AM) && (cpu->eflags & RC_AC);
}

static bool needs_interpreter(const struct rc_cpu *cpu)
{
    return (cpu->eflags & (RC_VM | RC_TF)) || !(cpu->cr0 & RC_CR0_PE) || !is_flat_code(&cpu->seg[RC_CS]) ||
           !(cpu->seg[RC_SS].attr & RC_ATTR_DB) || (cpu->dr[7] & 0xff) || rc_alignment_checked(cpu) ||
           (cpu->cpl == 3 && !(cpu->cr0 & RC_CR0_PG));
}

/* Called at every entry to translated code. Each term is one or two loads from the structure's first lines;
 * keeping a cached copy would mean a store at each of the hundred places that change an input. */
unsigned rc_mode(const struct rc_cpu *cpu)
{
    const uint32_t fpu_off = cpu->cr0 & (RC_CR0_TS | RC_CR0_EM);
    unsigned mode = 0;

    mode |= cpu->cpl == 3 ? RC_MODE_USER : 0;
    mode |= fpu_off ? RC_MODE_FPU_TRAP : 0;
    mode |= fpu_off || !(cpu->cr4 & RC_CR4_OSFXSR) ? RC_MODE_NO_SSE : 0;
    mode |= fpu_off || !cpu->avx ? RC_MODE_NO_AVX : 0;
    mode |= cpu->seg[RC_DS].soft ? RC_MODE_DS_ODD : 0;
    mode |= cpu->seg[RC_ES].soft ? RC_MODE_ES_ODD : 0;
    mode |= cpu->seg[RC_SS].soft ? RC_MODE_SS_ODD : 0;
    mode |= cpu->cpl <= rc_iopl(cpu) ? RC_MODE_IOPL : 0;
    mode |= needs_interpreter(cpu) ? RC_MODE_INTERP : 0;
    return mode;
}
