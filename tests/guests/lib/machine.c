/* Descriptor tables, traps and rings. */
#include "guest.h"

enum { STACK = 16384 };

u64 gdt[GDT_SLOTS] __attribute__((aligned(16))), idt[256] __attribute__((aligned(16)));
struct tss tss;
volatile struct trap trap;
trap_hook_fn trap_hook[256];
struct context try_context;
volatile u32 fault_eip;
u32 ring_eflags = 2;
volatile u32 irq_count[16];

static bool trying;
static u8 trap_stack[STACK] __attribute__((aligned(4096)));     /* TSS.ESP0 */
static u8 outer_stack[4][STACK] __attribute__((aligned(4096))); /* [0] is unused */
static u8 gate_stack[3][STACK] __attribute__((aligned(4096)));  /* TSS.ESP1, ESP2 */

u64 descriptor(u32 base, u32 limit, u32 flags)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)(flags & 0xf0ff) << 40 |
           (u64)(limit >> 16 & 15) << 48 | (u64)(base >> 24) << 56;
}

u64 gate(u32 selector, u32 offset, u32 type_dpl, u32 params)
{
    return (offset & 0xffff) | selector << 16 | (u64)params << 32 | (u64)type_dpl << 40 |
           (u64)(offset >> 16) << 48;
}

u16 gdt_test(unsigned n, u64 desc)
{
    gdt[SEL_TEST / 8 + n] = desc;
    return SEL_TEST + 8 * n;
}

void idt_set(unsigned vector, u32 handler, u32 type_dpl)
{
    idt[vector] = gate(SEL_CODE0, handler, type_dpl, 0);
}

void load_gdt(const void *base, u32 limit)
{
    struct table t = {limit, (u32)base};
    __asm__ volatile("lgdt %0" : : "m"(t));
}

void load_idt(const void *base, u32 limit)
{
    struct table t = {limit, (u32)base};
    __asm__ volatile("lidt %0" : : "m"(t));
}

bool on_tcg(void)
{
    u32 a, name[3];
    cpuid(0x40000000, &a, &name[0], &name[1], &name[2]);
    return !memcmp(name, "TCGTCGTCGTCG", 12);
}

u64 rdmsr(u32 n)
{
    u64 v;
    __asm__ volatile("rdmsr" : "=A"(v) : "c"(n));
    return v;
}

void wrmsr(u32 n, u64 v)
{
    __asm__ volatile("wrmsr" : : "c"(n), "A"(v));
}

u32 ring_stack_top(unsigned ring)
{
    return (u32)outer_stack[ring] + STACK;
}

void try_begin(void)
{
    trap.vector = NO_TRAP;
    trap.error = trap.eip = trap.cr2 = trap.dr6 = 0;
    trying = true;
}

void try_end(void)
{
    trying = false;
}

static void record(const struct frame *f)
{
    bool outer = (f->cs & 3) || (f->eflags & 0x20000);
    trap = (struct trap){.vector = f->vector,
                         .error = f->error,
                         .eip = f->eip,
                         .cs = f->cs,
                         .eflags = f->eflags,
                         .esp = outer ? f->esp : (u32)&f->esp,
                         .ss = outer ? f->ss : SEL_DATA0,
                         .cr2 = READ_CR(2),
                         .dr6 = f->vector == 1 ? READ_DR(6) : 0,
                         .eax = f->eax,
                         .ecx = f->ecx,
                         .edx = f->edx,
                         .ebx = f->ebx,
                         .ebp = f->ebp,
                         .esi = f->esi,
                         .edi = f->edi,
                         .ds = f->ds,
                         .es = f->es,
                         .fs = f->fs,
                         .gs = f->gs};
}

void trap_dispatch(struct frame *f);
void trap_dispatch(struct frame *f)
{
    if (trap_hook[f->vector] && trap_hook[f->vector](f))
        return;
    if (f->vector >= 0x20 && f->vector < 0x30) {
        irq_count[f->vector - 0x20]++;
        pic_eoi(f->vector - 0x20);
        return;
    }
    record(f);
    if (!trying) {
        check(false, "unexpected trap %u error %x at %x:%X cr2 %X eflags %X", f->vector, f->error, f->cs,
              f->eip, trap.cr2, f->eflags);
        guest_finish();
    }
    trying = false;
    context_restore(&try_context);
}

void ring_call(unsigned ring, u32 (*fn)(u32), u32 arg)
{
    u32 *sp = (u32 *)ring_stack_top(ring);
    *--sp = arg;
    *--sp = (u32)ring_return;
    struct descent d = {.eip = (u32)fn,
                        .cs = SEL_CODE0 + ring * 17,
                        .eflags = ring_eflags,
                        .esp = (u32)sp,
                        .ss = SEL_DATA0 + ring * 17,
                        .data = SEL_DATA0 + ring * 17};
    TRY(ring_descend(&d));
}

static void fill_tables(void)
{
    for (unsigned ring = 0; ring < 4; ring++) {
        gdt[1 + 2 * ring] = descriptor(0, 0xfffff, D_CODE_R | D_32 | D_4K | ring << 5);
        gdt[2 + 2 * ring] = descriptor(0, 0xfffff, D_DATA_W | D_32 | D_4K | ring << 5);
    }
    gdt[SEL_TSS / 8] = descriptor((u32)&tss, sizeof tss - 1, D_TSS);
    for (unsigned v = 0; v < 256; v++)
        idt_set(v, trap_stubs[v], 0x8e);
    idt_set(3, trap_stubs[3], 0xee);
    idt_set(4, trap_stubs[4], 0xee);
    idt_set(VEC_RETURN, trap_stubs[VEC_RETURN], 0xee);
    tss.ss0 = SEL_DATA0;
    tss.esp0 = (u32)trap_stack + STACK;
    tss.ss1 = SEL_DATA1;
    tss.esp1 = (u32)gate_stack[1] + STACK;
    tss.ss2 = SEL_DATA2;
    tss.esp2 = (u32)gate_stack[2] + STACK;
    tss.iomap = sizeof tss;
}

static void load_tables(void)
{
    load_gdt(gdt, sizeof gdt - 1);
    load_idt(idt, sizeof idt - 1);
    __asm__ volatile(
        "ljmp %0, $1f\n1: movl %1, %%ds; movl %1, %%es; movl %1, %%ss; movl %1, %%fs; movl %1, %%gs"
        :
        : "i"(SEL_CODE0), "r"(SEL_DATA0));
    __asm__ volatile("ltr %w0; lldt %w1" : : "r"(SEL_TSS), "r"(0));
}

static void pic_init(void)
{
    static const struct {
        u16 port;
        u8 value;
    } sequence[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1},
                    {0xa0, 0x11}, {0xa1, 0x28}, {0xa1, 2}, {0xa1, 1}};
    for (unsigned i = 0; i < sizeof sequence / sizeof *sequence; i++)
        outb(sequence[i].port, sequence[i].value);
    pic_mask(0xffff);
}

void pic_mask(u16 mask)
{
    outb(0x21, mask & 0xff);
    outb(0xa1, mask >> 8);
}

void pic_eoi(unsigned irq)
{
    if (irq >= 8)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

void pit_periodic(u32 hz)
{
    u32 divisor = 1193182 / hz;
    outb(0x43, 0x34);
    outb(0x40, divisor & 0xff);
    outb(0x40, divisor >> 8);
}

void pit_oneshot(u32 ticks)
{
    outb(0x43, 0x30);
    outb(0x40, ticks & 0xff);
    outb(0x40, ticks >> 8);
}

void pit_stop(void)
{
    outb(0x43, 0x30); /* mode 0 with no count: output stays low */
}

void guest_start(u32 magic, u32 info);
void guest_start(u32 magic, u32 info)
{
    (void)info;
    fill_tables();
    load_tables();
    pic_init();
    check(magic == 0x2BADB002, "started by a Multiboot loader");
    guest_main();
    guest_finish();
}
