/* Interrupts: when they may come (STI's and MOV SS's shadow, POPF, HLT), that they restart string
 * instructions where they were, that none is lost, and the 8259's masks, priorities and spurious IRQ 7. */
#include "lib/guest.h"

enum { IF = 0x200 };

static volatile u32 ticks, tick_eip, tick_ecx;
static u8 source[1 << 20], target[1 << 20];

static bool tick(struct frame *f)
{
    ticks++;
    tick_eip = f->eip;
    tick_ecx = f->ecx;
    pic_eoi(0);
    return true;
}

/* Let one timer interrupt become pending while IF is clear. */
static void arm(void)
{
    cli();
    ticks = 0;
    pic_mask(0xfffe);
    pit_oneshot(20);
    do
        outb(0x20, 0x0a); /* OCW3: next read is the IRR */
    while (!(inb(0x20) & 1));
}

extern const char after_sti[], after_ss[], after_popf[], after_hlt[];

static ONE_COPY void windows(void)
{
    arm();
    __asm__ volatile("sti; nop\n .globl after_sti\nafter_sti: cli");
    check(ticks == 1 && tick_eip == (u32)after_sti, "sti: the interrupt comes after the next instruction");
    arm();
    __asm__ volatile("sti; cli");
    check_eq(ticks, 0, "sti, cli: no interrupt in between");
    __asm__ volatile("sti; nop; cli");
    check_eq(ticks, 1, "  it is still pending");
    arm();
    __asm__ volatile("pushl %0; popfl\n .globl after_popf\nafter_popf: nop; cli" : : "r"(IF | 2));
    check(ticks == 1 && tick_eip == (u32)after_popf, "popf: the interrupt comes at once");
    arm();
    __asm__ volatile("pushl %1; popfl; movl %0, %%ss; nop; cli" : : "r"(SEL_DATA0), "r"(2 | IF) : "memory");
    check_eq(ticks, 1, "popf before mov ss: one interrupt");
    arm();
    __asm__ volatile("sti; movl %0, %%ss; nop\n .globl after_ss\nafter_ss: cli" : : "r"(SEL_DATA0));
    check(ticks == 1, "sti, mov ss: one interrupt");
    arm();
    __asm__ volatile("sti; hlt\n .globl after_hlt\nafter_hlt: cli");
    check(ticks == 1 && tick_eip == (u32)after_hlt, "sti, hlt: the pending interrupt ends it");
    ticks = 0;
    pit_oneshot(2000);
    __asm__ volatile("sti; hlt; cli");
    check_eq(ticks, 1, "hlt waits for an interrupt to come");
    arm();
    __asm__ volatile("pushl %0; pushl %%cs; pushl $1f; iret; 1: nop; cli" : : "r"(IF | 2));
    check_eq(ticks, 1, "iret that sets IF");
    pic_mask(0xffff);
}

/* The timer runs while a long rep movs is at work. */
static void during_rep(void)
{
    for (u32 i = 0; i < sizeof source; i++)
        source[i] = i * 7 + (i >> 8);
    ticks = 0;
    pic_mask(0xfffe);
    pit_periodic(4000);
    sti();
    u32 rounds = 0, partial = 0;
    while (ticks < 20 && rounds < 3000) {
        void *d = target;
        const void *s = source;
        u32 n = sizeof source, before = ticks;
        tick_ecx = 0;
        memset(target, 0, 64);
        if (rounds & 1)
            __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        else
            __asm__ volatile("shrl $2, %2; rep movsl" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        partial += ticks != before && tick_ecx;
        if (n || (u32)d != (u32)target + sizeof target || (u32)s != (u32)source + sizeof source)
            break;
        rounds++;
    }
    cli();
    pit_stop();
    pic_mask(0xffff);
    check(ticks >= 20, "ticks came while copying");
    check(!memcmp(source, target, sizeof source), "every copy is complete");
    print("   (%u copies, %u of them interrupted)\n", rounds, partial);
}

static void none_lost(void)
{
    ticks = 0;
    pic_mask(0xfffe);
    pit_periodic(1000);
    u64 start = rdtsc();
    sti();
    while (ticks < 50)
        __asm__ volatile("hlt");
    u64 span = rdtsc() - start;
    cli();
    check_eq(ticks, 50, "50 ticks of 1 ms, waited for by hlt");
    /* As many again, busy. */
    ticks = 0;
    sti();
    while (ticks < 50 && rdtsc() - start < 40 * span)
        ;
    cli();
    check(ticks >= 50, "50 ticks in a busy loop");
    pit_stop();
    pic_mask(0xffff);
}

static volatile u32 order[4], ordered;

static bool note(struct frame *f)
{
    if (ordered < 4)
        order[ordered++] = f->vector - 0x20;
    pic_eoi(f->vector - 0x20);
    return true;
}

static u8 irr(u16 port)
{
    outb(port, 0x0a);
    return inb(port);
}

static u8 isr(u16 port)
{
    outb(port, 0x0b);
    return inb(port);
}

static volatile u8 isr_inside;

static bool look_inside(struct frame *f)
{
    (void)f;
    isr_inside = isr(0x20);
    ticks++;
    pic_eoi(0);
    return true;
}

static void controller(void)
{
    pic_mask(0xabcd);
    check(inb(0x21) == 0xcd && inb(0xa1) == 0xab, "the masks read back");
    pic_mask(0xffff);
    arm();
    pic_mask(0xffff);
    sti();
    __asm__ volatile("nop; nop");
    cli();
    check_eq(ticks, 0, "a masked request stays pending");
    check(irr(0x20) & 1, "  and shows in the IRR");
    pic_mask(0xfffe);
    sti();
    __asm__ volatile("nop; nop");
    cli();
    check_eq(ticks, 1, "  and comes when unmasked");
    check(!(irr(0x20) & 1), "  and leaves the IRR");
    trap_hook[0x20] = look_inside;
    arm();
    sti();
    __asm__ volatile("nop; nop");
    cli();
    check_eq(isr_inside, 1, "the ISR shows the interrupt in service");
    check_eq(isr(0x20), 0, "  until its EOI");
    /* COM1's transmitter-empty interrupt (IRQ 4) and the timer (IRQ 0) pending together: the timer first. */
    trap_hook[0x20] = note;
    trap_hook[0x24] = note;
    ordered = 0;
    arm();
    outb(0x3fc, 0x0b); /* OUT2 gates the UART's interrupt */
    outb(0x3f9, 0x02); /* THRE */
    while (!(irr(0x20) & 0x10))
        ;
    pic_mask(0xffee);
    sti();
    __asm__ volatile("nop; nop; nop");
    cli();
    outb(0x3f9, 0);
    check(ordered >= 2 && order[0] == 0 && order[1] == 4, "IRQ 0 before IRQ 4");
    pic_mask(0xffff);
    inb(0x3fa);
}

void guest_main(void)
{
    trap_hook[0x20] = tick;
    windows();
    during_rep();
    none_lost();
    controller();
}
