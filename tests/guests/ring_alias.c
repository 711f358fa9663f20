/* What code sees of its own ring: selectors, flags and descriptor queries in every ring, POPF and CLI/STI
 * under each IOPL, and the I/O permission bitmap. A guest whose rings are compressed must not be able to
 * tell. */
#include "lib/guest.h"

enum { IF = 0x200, IOPL = 0x3000, NT = 0x4000, AC = 0x40000, ID = 0x200000, GP = 13 };

struct view {
    u32 cs, ss, ds, es, fs, gs, flags, gdt_base, idt_base, ldt, tr, msw, gdt_limit, idt_limit;
};
static volatile struct view view;

static u32 look(u32 arg)
{
    struct table t;
    u32 v = 0;
    (void)arg;
    view.cs = READ_SEG(cs);
    view.ss = READ_SEG(ss);
    view.ds = READ_SEG(ds);
    view.es = READ_SEG(es);
    view.fs = READ_SEG(fs);
    view.gs = READ_SEG(gs);
    view.flags = eflags();
    __asm__ volatile("sgdt %0" : "=m"(t));
    view.gdt_base = t.base;
    view.gdt_limit = t.limit;
    __asm__ volatile("sidt %0" : "=m"(t));
    view.idt_base = t.base;
    view.idt_limit = t.limit;
    __asm__ volatile("sldt %w0" : "+r"(v));
    view.ldt = v;
    v = 0;
    __asm__ volatile("str %w0" : "+r"(v));
    view.tr = v;
    __asm__ volatile("smsw %0" : "=r"(v));
    view.msw = v;
    return 0;
}

static void see(unsigned ring, u32 flags)
{
    if (ring) {
        ring_eflags = flags;
        ring_call(ring, look, 0);
        ring_eflags = 2;
        check_eq(trap.vector, VEC_RETURN, "ring %u: look round", ring);
    } else {
        __asm__ volatile("pushl %0; popfl" : : "r"(flags));
        look(0);
        __asm__ volatile("pushl $2; popfl");
    }
    check_eq(view.cs & 0xffff, SEL_CODE0 + 17 * ring, "ring %u: CS", ring);
    check_eq(view.ss & 0xffff, SEL_DATA0 + 17 * ring, "ring %u: SS", ring);
    check(view.ds == view.ss && view.es == view.ss, "ring %u: DS, ES", ring);
    check_eq(view.flags & (IF | IOPL | NT), flags & (IF | IOPL | NT), "ring %u: IF, IOPL, NT in PUSHF (%x)",
             ring, flags);
    check(view.gdt_base == (u32)gdt && view.gdt_limit == sizeof gdt - 1, "ring %u: SGDT", ring);
    check(view.idt_base == (u32)idt && view.idt_limit == sizeof idt - 1, "ring %u: SIDT", ring);
    check_eq(view.tr, SEL_TSS, "ring %u: STR", ring);
    check_eq(view.ldt, 0, "ring %u: SLDT", ring);
    check_eq(view.msw & 0xffff, READ_CR(0) & 0xffff, "ring %u: SMSW", ring);
}

static void views(void)
{
    static const u32 flags[] = {2, 2 | IF, 2 | IOPL, 2 | IF | 0x1000, 2 | NT};
    for (unsigned ring = 0; ring < 4; ring++)
        for (unsigned f = 0; f < sizeof flags / sizeof *flags; f++)
            see(ring, flags[f]);
}

/* ---- POPF, CLI and STI by CPL and IOPL (SDM vol. 2, POPF and CLI) ---- */
static u32 popf_all(u32 value)
{
    u32 v;
    __asm__ volatile("pushl %1; popfl; pushfl; popl %0; pushl $2; popfl" : "=r"(v) : "r"(value));
    return v;
}

static u32 do_cli(u32 arg)
{
    FAULTING("cli");
    return (eflags() & IF) | arg;
}

static u32 do_sti(u32 arg)
{
    FAULTING("sti");
    return (eflags() & IF) | arg;
}

static void flags_by_iopl(void)
{
    for (u32 ring = 1; ring < 4; ring++)
        for (u32 iopl = 0; iopl < 4; iopl++) {
            bool may = ring <= iopl;
            ring_eflags = 2 | iopl << 12;
            ring_call(ring, popf_all, 2 | IF | IOPL | AC | ID | 0x8d5);
            check_eq(trap.eax & (IF | IOPL), (may ? IF : 0) | iopl << 12,
                     "popf in ring %u, IOPL %u: IF and IOPL", ring, iopl);
            check_eq(trap.eax & 0x8d5, 0x8d5, "  the arithmetic flags");
            check_eq(trap.eax & (AC | ID), AC | ID, "  AC and ID");
            ring_eflags |= IF;
            ring_call(ring, do_cli, 0);
            if (may)
                check(trap.vector == VEC_RETURN && trap.eax == 0, "cli in ring %u, IOPL %u", ring, iopl);
            else
                check_trap(GP, 0, "cli in ring %u, IOPL %u", ring, iopl);
            ring_eflags &= ~(u32)IF;
            ring_call(ring, do_sti, 0);
            if (may)
                check(trap.vector == VEC_RETURN && trap.eax == IF, "sti in ring %u, IOPL %u", ring, iopl);
            else
                check_trap(GP, 0, "sti in ring %u, IOPL %u", ring, iopl);
        }
    ring_eflags = 2;
    u32 v = popf_all(2 | IOPL | NT | AC | ID);
    check_eq(v & (IOPL | NT | AC | ID), IOPL | NT | AC | ID, "popf in ring 0: everything");
    v = popf_all(2 | 0x10000 | 0x20000);
    check_eq(v & 0x30000, 0, "popf never sets RF or VM");
    __asm__ volatile("pushl $2; popfl; movw $0x7ed5, %%ax; pushw %%ax; andw $~0x300, (%%esp); popfw; pushfl; "
                     "popl %0; pushl $2; popfl"
                     : "=r"(v)
                     :
                     : "eax");
    check_eq(v & 0x7cd5, 0x7cd5, "popfw writes the low half");
}

/* IRET in an outer ring may not change IF or IOPL either. */
static u32 iret_flags(u32 value)
{
    u32 v;
    __asm__ volatile("pushl %1; pushl %%cs; pushl $1f; iret; 1: pushfl; popl %0; pushl $2; popfl"
                     : "=r"(v)
                     : "r"(value));
    return v;
}

static void iret_by_iopl(void)
{
    for (u32 iopl = 0; iopl < 4; iopl++) {
        ring_eflags = 2 | iopl << 12;
        ring_call(3, iret_flags, 2 | IF | IOPL);
        check_eq(trap.eax & (IF | IOPL), (iopl == 3 ? IF : 0) | iopl << 12,
                 "iret in ring 3, IOPL %u: IF and IOPL", iopl);
    }
    ring_eflags = 2;
}

/* ---- Ports (SDM vol. 1 19.5) ---- */
static u32 in8(u32 port)
{
    u8 v;
    FAULTING("inb %1, %0", : "=a"(v) : "d"((u16)port));
    return v;
}

static u32 in32(u32 port)
{
    u32 v;
    FAULTING("inl %1, %0", : "=a"(v) : "d"((u16)port));
    return v;
}

static void ports(void)
{
    tss.iomap = sizeof tss;
    ring_call(3, in8, 0x61);
    check_trap(GP, 0, "in, IOPL 0, no bitmap");
    ring_eflags = 2 | IOPL;
    ring_call(3, in8, 0x61);
    check_eq(trap.vector, VEC_RETURN, "in, IOPL 3, no bitmap");
    ring_eflags = 2;
    tss.iomap = (u32)tss.bitmap - (u32)&tss;
    memset(tss.bitmap, 0xff, sizeof tss.bitmap);
    ring_call(3, in8, 0x61);
    check_trap(GP, 0, "in, its bit set");
    tss.bitmap[0x61 / 8] &= ~(1 << (0x61 % 8));
    ring_call(3, in8, 0x61);
    check_eq(trap.vector, VEC_RETURN, "in, its bit clear");
    ring_call(3, in8, 0x60);
    check_trap(GP, 0, "in, the neighbour's bit set");
    tss.bitmap[0xcf8 / 8] = 0xf0;
    ring_call(3, in32, 0xcf8);
    check_eq(trap.vector, VEC_RETURN, "in of 4 bytes, all four bits clear");
    tss.bitmap[0xcf8 / 8] = 0xf8;
    ring_call(3, in32, 0xcf8);
    check_trap(GP, 0, "in of 4 bytes, one of four bits set");
    tss.bitmap[8191] = 0x3f; /* ports fff8-ffff: the last two are open, the byte after the map is not */
    tss.bitmap[8192] = 0xff;
    ring_call(3, in8, 0xffff);
    check_eq(trap.vector, VEC_RETURN, "in of the last port");
    /* The limit of the TSS cuts the map: ports beyond count as forbidden. */
    gdt[SEL_TSS2 / 8] = descriptor((u32)&tss, (u32)tss.bitmap - (u32)&tss + 0x20, D_TSS);
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS2));
    memset(tss.bitmap, 0, sizeof tss.bitmap);
    ring_call(3, in8, 0x61);
    check_eq(trap.vector, VEC_RETURN, "a map cut by the TSS limit: a port inside");
    ring_call(3, in8, 0x3fd);
    check_trap(GP, 0, "  a port beyond");
    ring_call(1, in8, 0x3fd);
    check_trap(GP, 0, "  from ring 1");
}

/* ---- Questions about descriptors ---- */
static volatile u32 asked[8];

static u32 ask(u32 selector)
{
    u8 z;
    u32 v = 0;
    __asm__ volatile("larl %2, %1; setz %0" : "=q"(z), "+r"(v) : "r"(selector));
    asked[0] = z;
    asked[1] = v;
    v = 0;
    __asm__ volatile("lsll %2, %1; setz %0" : "=q"(z), "+r"(v) : "r"(selector));
    asked[2] = z;
    asked[3] = v;
    __asm__ volatile("verr %w1; setz %0" : "=q"(z) : "r"(selector));
    asked[4] = z;
    __asm__ volatile("verw %w1; setz %0" : "=q"(z) : "r"(selector));
    asked[5] = z;
    u16 a = selector & ~3;
    __asm__ volatile("arpl %w2, %w1; setz %0" : "=q"(z), "+r"(a) : "r"(3));
    asked[6] = z;
    asked[7] = a;
    return 0;
}

static void queries(void)
{
    u16 conforming = gdt_test(0, descriptor(0, 0xfff, 0x9e | D_32));
    u16 readonly3 = gdt_test(1, descriptor(0, 0xfff, 0x90 | D_DPL3 | D_32));
    u16 exec3 = gdt_test(2, descriptor(0, 0xfff, 0x98 | D_DPL3 | D_32));
    u16 trap_gate = gdt_test(3, gate(SEL_CODE0, 0, 0xef, 0));
    u16 call_gate = gdt_test(4, gate(SEL_CODE0, 0, 0xec, 0));
    const struct {
        const char *what;
        u32 selector, ring;
        bool lar, lsl, verr, verw;
        u32 limit;
    } rows[] = {
        {"kernel data, ring 0", SEL_DATA0, 0, 1, 1, 1, 1, 0xffffffff},
        {"kernel data, ring 3", SEL_DATA0, 3, 0, 0, 0, 0, 0},
        {"user data, ring 3", SEL_DATA3, 3, 1, 1, 1, 1, 0xffffffff},
        {"user data by RPL 3, ring 0", SEL_DATA3, 0, 1, 1, 1, 1, 0xffffffff},
        {"kernel data by RPL 3, ring 0", SEL_DATA0 | 3, 0, 0, 0, 0, 0, 0},
        {"user code, ring 3", SEL_CODE3, 3, 1, 1, 1, 0, 0xffffffff},
        {"conforming code, ring 3", conforming | 3, 3, 1, 1, 1, 0, 0xfff},
        {"read-only data, ring 3", readonly3 | 3, 3, 1, 1, 1, 0, 0xfff},
        {"execute-only code, ring 3", exec3 | 3, 3, 1, 1, 0, 0, 0xfff},
        {"TSS, ring 0", SEL_TSS, 0, 1, 1, 0, 0, sizeof tss - 1},
        {"TSS, ring 3", SEL_TSS, 3, 0, 0, 0, 0, 0},
        {"a trap gate, ring 0", trap_gate, 0, 0, 0, 0, 0, 0},
        {"a call gate, ring 0", call_gate, 0, 1, 0, 0, 0, 0},
        {"null", 0, 3, 0, 0, 0, 0, 0},
        {"beyond the GDT", 0x1000, 0, 0, 0, 0, 0, 0},
    };
    __asm__ volatile("ltr %w0"
                     :
                     : "r"((gdt[SEL_TSS / 8] = descriptor((u32)&tss, sizeof tss - 1, D_TSS), SEL_TSS))
                     : "memory");
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].ring)
            ring_call(3, ask, rows[i].selector);
        else
            ask(rows[i].selector);
        check(asked[0] == rows[i].lar && asked[2] == rows[i].lsl && asked[4] == rows[i].verr &&
                  asked[5] == rows[i].verw,
              "LAR LSL VERR VERW: %s", rows[i].what);
        if (rows[i].lsl)
            check_eq(asked[3], rows[i].limit, "  LSL's limit");
        if (rows[i].lar)
            check_eq(asked[1] & 0xfe00, (u32)(gdt[rows[i].selector / 8] >> 32) & 0xfe00, "  LAR's rights");
    }
    ask(SEL_CODE0);
    check(asked[6] == 1 && asked[7] == (SEL_CODE0 | 3), "ARPL raises RPL");
}

void guest_main(void)
{
    quiet_checks(true);
    views();
    quiet_checks(false);
    flags_by_iopl();
    iret_by_iopl();
    ports();
    queries();
}
