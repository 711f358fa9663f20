/* #AC: alignment checking, only in ring 3 with CR0.AM and EFLAGS.AC. SDM vol. 3 6.15, table 6-7. */
#include "lib/guest.h"

static u8 bytes[64] __attribute__((aligned(16)));

static u32 dword_read(u32 offset)
{
    u32 v;
    FAULTING("movl (%1), %0", : "=&r"(v) : "r"(bytes + offset) : "memory");
    return v;
}

static u32 word_write(u32 offset)
{
    FAULTING("movw $0x1234, (%0)", : : "r"(bytes + offset) : "memory");
    return 0;
}

static u32 byte_read(u32 offset)
{
    u8 v;
    FAULTING("movb (%1), %0", : "=&q"(v) : "r"(bytes + offset) : "memory");
    return v;
}

static u32 misaligned_push(u32 offset)
{
    __asm__ volatile(
        "movl %%esp, %%ecx; movl %0, %%esp; movl $77f, fault_eip\n77: pushl $1\n movl %%ecx, %%esp"
        :
        : "r"(bytes + 32 + offset)
        : "ecx", "memory");
    return 0;
}

void guest_main(void)
{
    static const struct {
        const char *what;
        u32 (*fn)(u32);
        u32 offset;
        bool faults;
    } rows[] = {
        {"dword at 0", dword_read, 0, false},     {"dword at 1", dword_read, 1, true},
        {"dword at 2", dword_read, 2, true},      {"dword at 4", dword_read, 4, false},
        {"word at 1", word_write, 1, true},       {"word at 2", word_write, 2, false},
        {"byte at 3", byte_read, 3, false},       {"push at 2", misaligned_push, 2, true},
        {"push at 4", misaligned_push, 4, false},
    };
    for (unsigned mode = 0; mode < 4; mode++) {
        bool am = mode & 1, ac = mode & 2;
        WRITE_CR(0, (READ_CR(0) & ~CR0_AM) | (am ? CR0_AM : 0));
        ring_eflags = ac ? 0x40002 : 2;
        for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
            ring_call(3, rows[i].fn, rows[i].offset);
            if (am && ac && rows[i].faults)
                check_trap(17, 0, "AC: AM=1 AC=1 ring 3: %s", rows[i].what);
            else
                check_eq(trap.vector, VEC_RETURN, "AM=%d AC=%d ring 3: %s is allowed", am, ac, rows[i].what);
        }
        TRY(if (ac) __asm__ volatile("pushl $0x40002; popfl"); dword_read(1));
        check_eq(trap.vector, NO_TRAP, "AM=%d AC=%d ring 0: a misaligned dword is allowed", am, ac);
    }
}
