/* A guest that fills its tables, its TSS, its stacks and its registers with noise. Whatever it does: no crash
 * of ours, no loop without end, and RC_FAULT means that nothing changed. Run under ASan and UBSan. */
#include "test_ringcomp_rig.h"

/* A seeded generator, so that a failure can be repeated. */
static uint32_t noise(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return (uint32_t)(*x >> 16);
}

/* Mostly plausible selectors, or nothing would ever get past the first check. */
static uint16_t noise_selector(uint64_t *x)
{
    const uint32_t n = noise(x);
    return (uint16_t)(n & 0x100 ? n >> 16 : n & 0x7f);
}

static void noise_descriptor(struct rig *r, uint64_t *x, uint32_t at)
{
    static const uint8_t likely[] = {0x92, 0x93, 0x9a, 0x9e, 0xfa, 0xf2, 0xb2, 0x89, 0x8b, 0x81,
                                     0x82, 0x85, 0x8c, 0xec, 0xe4, 0x8e, 0x8f, 0xee, 0x86, 0x85};
    const uint32_t n = noise(x);
    const uint8_t access = n & 0x80 ? (uint8_t)n : likely[n % sizeof likely];
    if (n & 0x10000) { /* a gate */
        put_gate(r, at, noise_selector(x), noise(x), access, n >> 24 & 0x1f);
        return;
    }
    put_desc(r, at, n & 0x20000 ? 0 : noise(x) & 0x1fffff, noise(x) & 0xfffff, access, n >> 28);
}

static void noise_machine(struct rig *r, uint64_t *x)
{
    struct rc_cpu *cpu = &r->cpu;
    rig_tables(r);
    for (unsigned i = 0; i < 4; i++) {
        noise_descriptor(r, x, GDT + 8 * (1 + noise(x) % 15));
        noise_descriptor(r, x, IDT + 8 * (noise(x) & 0x1f));
        noise_descriptor(r, x, LDT + 8 * (noise(x) & 3));
        put32(r, TSS + (noise(x) & 0x7c), noise_selector(x));
        put32(r, TSS_B + (noise(x) & 0x7c), noise(x));
    }
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = noise(x) & 1 ? noise(x) & 0xfffff : noise(x);
    cpu->gpr[RC_ESP] = noise(x) & 7 ? 0x9000 + (noise(x) & 0xfff) : noise(x);
    for (unsigned i = 0; i < 10; i++)
        put32(r, (cpu->gpr[RC_ESP] & 0x1ffff) + 4 * i, i & 1 ? noise_selector(x) : noise(x));
    cpu->cpl = noise(x) & 3;
    rc_set_eflags(cpu, noise(x) & ~(uint32_t)(noise(x) & 7 ? RC_VM : 0));
    if (cpu->eflags & RC_VM)
        cpu->cpl = 3;
    cpu->idtr.limit = noise(x) & 15 ? 0xff : noise(x) & 0xffff;
    cpu->gdtr.limit = noise(x) & 15 ? 0x7f : noise(x) & 0xffff;
    cpu->eip = noise(x);
    cpu->shutdown = 0;
    cpu->sysenter_cs = noise(x) & 1 ? noise(x) : 0;
    set_seg(r, RC_SS, noise_selector(x), noise(x) & 7 ? 0 : noise(x), noise(x) & 7 ? UINT32_MAX : noise(x),
            noise(x) & 7 ? 0xc093 : (uint16_t)(noise(x) & 0xf0ff));
    set_seg(r, RC_CS, noise_selector(x), 0, UINT32_MAX, 0xc09b);
    set_seg(r, RC_TR, TSS_SEL, TSS, noise(x) & 3 ? 0x67 : noise(x) & 0xff, noise(x) & 3 ? 0x8b : 0x83);
    set_seg(r, RC_LDTR, LDT_SEL, noise(x) & 7 ? LDT : noise(x), 0x1f, noise(x) & 3 ? 0x82 : 0);
}

static enum rc_result noise_action(struct rig *r, uint64_t *x)
{
    struct rc_cpu *cpu = &r->cpu;
    static const uint8_t segs[] = {RC_ES, RC_SS, RC_DS, RC_FS, RC_GS};
    const unsigned opsize = noise(x) & 3 ? 4 : 2;
    uint32_t value;
    uint8_t buf[16];
    bool zf;

    switch (noise(x) % 24) {
    case 0:
    case 1:
        return rc_load_seg(cpu, segs[noise(x) % 5], noise_selector(x));
    case 2:
    case 3:
        return rc_far_jmp(cpu, noise_selector(x), noise(x), opsize, noise(x));
    case 4:
    case 5:
        return rc_far_call(cpu, noise_selector(x), noise(x), opsize, noise(x));
    case 6:
        return rc_far_ret(cpu, opsize, (uint16_t)noise(x));
    case 7:
    case 8:
    case 9:
        return rc_iret(cpu, opsize, noise(x));
    case 10:
    case 11:
        return rc_software_int(cpu, noise(x) & 0x1f, noise(x) & 1, noise(x));
    case 12:
        return rc_lldt(cpu, noise_selector(x));
    case 13:
        return rc_ltr(cpu, noise_selector(x));
    case 14:
        return rc_lar(cpu, noise_selector(x), &value, &zf);
    case 15:
        return rc_check_io(cpu, (uint16_t)noise(x), 1u << noise(x) % 3);
    case 16:
        return rc_mov_to_dr(cpu, noise(x) & 7, noise(x));
    case 17:
        return rc_popf(cpu, noise(x), opsize);
    case 18:
        return rc_push(cpu, noise(x), opsize);
    case 19:
        return rc_write(cpu, noise(x) % 6, noise(x), "hostile guests.", 1 + noise(x) % 16);
    case 20:
        return rc_fetch(cpu, noise(x), buf, 1 + noise(x) % 15) ? RC_OK : RC_FAULT;
    case 21:
        return rc_sysenter(cpu);
    case 22:
        return rc_wrmsr(cpu);
    default:
        return rc_mov_to_cr(cpu, noise(x) % 6, noise(x) & ~RC_CR0_PG);
    }
}

/* What must hold after anything at all. */
static void check_invariants(const struct rc_cpu *cpu)
{
    assert_true(cpu->cpl <= 3 && cpu->iflag <= 1);
    assert_int_equal(cpu->eflags & 0xffc0822a, 2); /* bit 1 set; undefined bits, and IF's place, clear */
    if (cpu->eflags & RC_VM)
        assert_int_equal(cpu->cpl, 3);
    for (unsigned seg = RC_ES; seg <= RC_GS; seg++) {
        const struct rc_seg *s = &cpu->seg[seg];
        const bool flat = (s->attr & 0x9e) == 0x92 && s->limit == UINT32_MAX;
        assert_true(s->soft == (s->base | (flat ? 0 : RC_SOFT_ODD << 32)));
    }
}

static void a_guest_of_noise(void **state)
{
    struct rig *r = *state;
    uint64_t x = UINT64_C(0x9e3779b97f4a7c15);
    unsigned done = 0, faults = 0, shutdowns = 0;

    for (unsigned i = 0; i < 60000; i++) {
        r->cpu.cr0 = RC_CR0_PE | RC_CR0_ET;
        r->cpu.cr4 = 0;
        noise_machine(r, &x);
        remember(r);
        if (noise_action(r, &x) == RC_OK) {
            done++;
        } else {
            faults++;
            assert_true(r->cpu.fault.vector < 32);
            check_unchanged(r);
            rc_deliver_fault(&r->cpu);
        }
        check_invariants(&r->cpu);
        rc_deliver_irq(&r->cpu, noise(&x) & 0x3f);
        shutdowns += r->cpu.shutdown;
        (void)rc_mode(&r->cpu);
    }
    print_message("    %u done, %u faults, %u shutdowns\n", done, faults, shutdowns);
    assert_true(done > 5000 && faults > 5000 && shutdowns > 1000); /* the noise does reach every outcome */
}

/* The same with paging on and page tables that the noise may hit. */
static void a_guest_of_noise_with_paging(void **state)
{
    struct rig *r = *state;
    uint64_t x = UINT64_C(0xda942042e4dd58b5);
    for (unsigned i = 0; i < 20000; i++) {
        rc_cpu_flat(&r->cpu, KCODE, KDATA);
        r->cpu.gdtr = (struct rc_table){GDT, GDT_LIMIT};
        r->cpu.idtr = (struct rc_table){IDT, 0xff};
        go_paged(r, noise(&x) & 0x1f000);
        noise_machine(r, &x);
        remember(r);
        if (noise_action(r, &x) != RC_OK) {
            check_unchanged(r);
            rc_deliver_fault(&r->cpu);
        }
        check_invariants(&r->cpu);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(a_guest_of_noise),
        rig_test(a_guest_of_noise_with_paging),
    };
    return cmocka_run_group_tests_name("ringcomp hostile", tests, NULL, NULL);
}
