/* The PC's devices as guests use them: timers against each other, RTC, serial loop-back, keyboard controller,
 * PCI configuration, memory and ports nobody claims. */
#include "lib/guest.h"

/* ---- Time ---- */
static u32 pit_count(void)
{
    outb(0x43, 0);
    u32 low = inb(0x40);
    return low | inb(0x40) << 8;
}

/* TSC ticks per 100 of the PIT's; well below 2^32 for 20 ms. */
static u32 tsc_per_pit(u32 pit_ticks)
{
    outb(0x43, 0x34);
    outb(0x40, 0);
    outb(0x40, 0);
    u32 last = pit_count(), passed = 0;
    u64 start = rdtsc();
    while (passed < pit_ticks) {
        u32 now = pit_count();
        passed += (last - now) & 0xffff;
        last = now;
    }
    return (u32)(rdtsc() - start) / (passed / 100);
}

static u32 find_pm_timer(void)
{
    for (u32 a = 0xe0000; a < 0x100000; a += 16) {
        if (memcmp((void *)a, "RSD PTR ", 8))
            continue;
        u32 rsdt = *(u32 *)(a + 16), n = (*(u32 *)(rsdt + 4) - 36) / 4;
        for (u32 i = 0; i < n; i++) {
            u32 table = ((u32 *)(rsdt + 36))[i];
            if (!memcmp((void *)table, "FACP", 4))
                return *(u32 *)(table + 76);
        }
    }
    return 0;
}

static u8 sum(u32 a, u32 n)
{
    u8 s = 0;
    while (n--)
        s += *(u8 *)a++;
    return s;
}

static void acpi_tables(void)
{
    for (u32 a = 0xe0000; a < 0x100000; a += 16) {
        if (memcmp((void *)a, "RSD PTR ", 8))
            continue;
        check_eq(sum(a, 20), 0, "RSDP checksum");
        u32 rsdt = *(u32 *)(a + 16), n = (*(u32 *)(rsdt + 4) - 36) / 4;
        check(!memcmp((void *)rsdt, "RSDT", 4) && !sum(rsdt, *(u32 *)(rsdt + 4)),
              "RSDT signature and checksum");
        for (u32 i = 0; i < n; i++) {
            u32 table = ((u32 *)(rsdt + 36))[i];
            check_eq(sum(table, *(u32 *)(table + 4)), 0, "checksum of table %u", i);
            if (!memcmp((void *)table, "FACP", 4)) {
                u32 dsdt = *(u32 *)(table + 40);
                check(!memcmp((void *)dsdt, "DSDT", 4) && !sum(dsdt, *(u32 *)(dsdt + 4)),
                      "DSDT signature and checksum");
            }
        }
        return;
    }
    check(false, "an RSDP in E0000-FFFFF");
}

/* A host that gives the CPU to somebody else for longer than the PIT takes to wrap round spoils one
 * measurement, not many in a row. */
enum { ATTEMPTS = 100 };

static bool within(u32 got, u32 want, u32 percent)
{
    return got > want / 100 * (100 - percent) && got < want / 100 * (100 + percent);
}

static bool tsc_is_steady(void)
{
    return within(tsc_per_pit(20000), tsc_per_pit(20000), 20);
}

static bool pm_timer_agrees(u32 port)
{
    outb(0x43, 0x34);
    outb(0x40, 0);
    outb(0x40, 0);
    u32 last = pit_count(), passed = 0, pm = inl(port);
    while (passed < 24000) { /* 20 ms */
        u32 now = pit_count();
        passed += (last - now) & 0xffff;
        last = now;
    }
    return within((inl(port) - pm) & 0xffffff, passed * 3, 10);
}

/* Channel 2, as Linux calibrates with it: gate on, mode 0, wait for OUT in port 61h. */
static bool channel_2_counts(void)
{
    u32 want = tsc_per_pit(20000) * 120;
    u64 start = rdtsc();
    outb(0x61, (inb(0x61) & ~2) | 1);
    outb(0x43, 0xb0);
    outb(0x42, 12000 & 0xff);
    outb(0x42, 12000 >> 8);
    bool low = !(inb(0x61) & 0x20);
    while (!(inb(0x61) & 0x20))
        ;
    return low && within((u32)(rdtsc() - start), want, 20);
}

static void timers(void)
{
    u32 port = find_pm_timer();
    bool steady = false, agrees = false, counts = false;
    for (u32 i = 0; i < ATTEMPTS && !steady; i++)
        steady = tsc_is_steady();
    for (u32 i = 0; i < ATTEMPTS && port && !agrees; i++)
        agrees = pm_timer_agrees(port);
    for (u32 i = 0; i < ATTEMPTS && !counts; i++)
        counts = channel_2_counts();
    check(steady, "TSC against PIT, twice the same");
    check(agrees, "PM timer against PIT: 3 to 1");
    check(counts, "PIT channel 2 counts 10 ms");
}

/* ---- RTC ---- */
static u8 cmos(u8 reg)
{
    outb(0x70, reg);
    return inb(0x71);
}

static bool bcd(u8 v, u8 low, u8 high)
{
    return (v & 15) < 10 && (v >> 4) < 10 && v >= low && v <= high;
}

/* Register C is read by the handler: an interrupt that comes while it is set makes no edge, and none would follow. */
static bool rtc_interrupt(struct frame *f)
{
    (void)f;
    irq_count[8]++;
    cmos(12);
    pic_eoi(8);
    return true;
}

/* PIT ticks during 16 periodic interrupts of 1024 Hz on IRQ 8. */
static u32 rtc_periods(void)
{
    outb(0x70, 10);
    outb(0x71, 0x26);
    outb(0x70, 11);
    outb(0x71, 0x42);
    cmos(12);
    irq_count[8] = 0;
    trap_hook[0x28] = rtc_interrupt;
    pic_mask(0xfefb);
    u32 last = pit_count(), passed = 0;
    sti();
    while (irq_count[8] < 16) {
        __asm__ volatile("hlt");
        u32 now = pit_count();
        passed += (last - now) & 0xffff;
        last = now;
    }
    cli();
    outb(0x70, 11);
    outb(0x71, 0x02);
    pic_mask(0xffff);
    return passed;
}

static void rtc(void)
{
    for (u32 i = 0; i < 1000000 && (cmos(10) & 0x80); i++)
        ;
    check(!(cmos(11) & 4), "RTC: BCD mode");
    check(bcd(cmos(0), 0, 0x59) && bcd(cmos(2), 0, 0x59) && bcd(cmos(4), 0, 0x23), "RTC: a time of day");
    check(bcd(cmos(7), 1, 0x31) && bcd(cmos(8), 1, 0x12) && bcd(cmos(9), 0x24, 0x99), "RTC: a date");
    check(cmos(13) & 0x80, "RTC: valid RAM and time");
    bool periods = false;
    for (u32 i = 0; i < ATTEMPTS && !periods; i++)
        periods = within(rtc_periods(), 18600, 30);
    check(periods, "RTC: 16 periodic interrupts in 16 ms");
}

/* ---- COM1: what goes out comes in with MCR's loop bit ---- */
static void serial(void)
{
    enum { COM1 = 0x3f8 };
    while ((inb(COM1 + 5) & 0x60) != 0x60)
        ;
    outb(COM1 + 7, 0x5a);
    check_eq(inb(COM1 + 7), 0x5a, "16550: scratch register");
    outb(COM1 + 2, 0x07);
    bool fifo = (inb(COM1 + 2) & 0xc0) == 0xc0;
    outb(COM1 + 4, 0x10 | 0x0f);
    bool lines = (inb(COM1 + 6) & 0xf0) == 0xf0;
    u32 wrong = 0;
    for (u32 v = 0; v < 256; v += 15) {
        outb(COM1, v);
        for (u32 i = 0; i < 1000000 && !(inb(COM1 + 5) & 1); i++)
            ;
        wrong += inb(COM1) != v;
    }
    outb(COM1 + 4, 0x10);
    bool quiet = (inb(COM1 + 6) & 0xf0) == 0;
    outb(COM1 + 4, 0x03);
    outb(COM1 + 3, 0x83);
    outb(COM1, 0x01);
    outb(COM1 + 1, 0x00);
    bool divisor = inb(COM1) == 1 && inb(COM1 + 1) == 0;
    outb(COM1 + 3, 0x03);
    check(fifo, "16550: FIFO enabled shows in IIR");
    check(lines && quiet, "16550: loop-back of the modem lines");
    check_eq(wrong, 0, "16550: loop-back of data");
    check(divisor, "16550: divisor latch");
    check_eq(inb(COM1 + 1), 0, "16550: IER is separate from the divisor");
}

static void others(void)
{
    outl(0xcf8, 0x80000000);
    check_eq(inl(0xcf8), 0x80000000, "PCI: CONFIG_ADDRESS");
    u32 id = inl(0xcfc);
    check_eq(id & 0xffff, 0x8086, "PCI: a host bridge of vendor 8086 at 0:0.0");
    outl(0xcf8, 0x80000008);
    check_eq(inl(0xcfc) >> 16, 0x0600, "PCI: its class");
    outl(0xcf8, 0x80000000 | 31 << 11);
    check_eq(inl(0xcfc), 0xffffffff, "PCI: nothing at 0:31.0");
    outb(0x64, 0xaa);
    for (u32 i = 0; i < 1000000 && !(inb(0x64) & 1); i++)
        ;
    check_eq(inb(0x60), 0x55, "i8042: self-test");
    check_eq(inb(0xb0b0), 0xff, "an unclaimed port reads ff");
    check_eq(inw(0xb0b0), 0xffff, "  16 bits");
    check_eq(inl(0xb0b0), 0xffffffff, "  32 bits");
}

/* Memory nobody answers for: accesses of every kind complete and leave RAM alone. */
static void empty_memory(u32 at, const char *name)
{
    static volatile u8 ram[64];
    volatile u32 *p = (volatile u32 *)at;
    u32 v;
    (void)p[0];
    p[0] = 0x12345678;
    *(volatile u16 *)(at + 2) = 7;
    *(volatile u8 *)(at + 5) = 7;
    __asm__ volatile("addl $1, %0; xchgl %1, %0; lock incl %0; pushl %0; popl %1"
                     : "+m"(*p), "=&r"(v)
                     :
                     : "memory");
    void *d = (void *)at;
    const void *s = (const void *)ram;
    u32 c = 16;
    __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(c) : : "memory");
    check(c == 0 && (u32)d == at + 64, "%s: rep movs into it", name);
    d = (void *)(u32)ram;
    s = (const void *)at;
    c = 16;
    __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(c) : : "memory");
    check(c == 0 && (u32)s == at + 64, "%s: rep movs out of it", name);
    TRY(FAULTING("movl (%0), %%eax", : : "r"(at) : "eax"));
    check_eq(trap.vector, NO_TRAP, "%s: no fault", name);
}

void guest_main(void)
{
    acpi_tables();
    timers();
    rtc();
    serial();
    others();
    empty_memory(0xb8000, "VGA text memory");
    empty_memory(0xa0000, "VGA graphics memory");
    empty_memory(0xd0000000, "no device's memory");
    paging_on(pd_create(0), 0);
    empty_memory(0xb8000, "VGA text memory, paged");
}
