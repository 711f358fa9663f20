/* What segments do to addresses: bases (with wrap-around), limits, expand-down, types, the LDT, and 16-bit
 * address sizes. Facts about limits and types begin with "limit:" - see the runner. SDM vol. 3 5.3, 3.4.5. */
#include "lib/guest.h"

enum { GP = 13, SS = 12 };

static u8 area[8192] __attribute__((aligned(4096)));

static u32 load(u32 selector, u32 offset)
{
    u32 v = 0xdeadbeef;
    __asm__ volatile("movl %1, %%fs\n movl $77f, fault_eip\n77: movl %%fs:(%2), %0"
                     : "=&r"(v)
                     : "r"(selector), "r"(offset)
                     : "memory");
    return v;
}

static void store(u32 selector, u32 offset, u32 v)
{
    __asm__ volatile("movl %0, %%fs\n movl $77f, fault_eip\n77: movl %2, %%fs:(%1)"
                     :
                     : "r"(selector), "r"(offset), "r"(v)
                     : "memory");
}

static void bases(void)
{
    u32 *words = (u32 *)area;
    for (u32 i = 0; i < 2048; i++)
        words[i] = i;
    u16 s = gdt_test(0, descriptor((u32)area, 0xfffff, D_DATA_W | D_32 | D_4K));
    check_eq(load(s, 40), 10, "base + offset");
    s = gdt_test(0, descriptor((u32)area + 400, 0xfffff, D_DATA_W | D_32 | D_4K));
    check_eq(load(s, 0u - 400 + 44), 11, "a negative offset wraps round to below the base");
    s = gdt_test(0, descriptor(0u - 0x1000, 0xfffff, D_DATA_W | D_32 | D_4K));
    check_eq(load(s, (u32)area + 0x1000 + 48), 12, "a base near 4 GiB wraps round");
    u32 v, i = 5;
    __asm__ volatile("movl %1, %%gs; movl %%gs:8(%2, %3, 4), %0"
                     : "=r"(v)
                     : "r"((u32)gdt_test(1, descriptor((u32)area, 0xfffff, D_DATA_W | D_32 | D_4K))), "r"(4),
                       "r"(i));
    check_eq(v, 8, "gs: with base, index and displacement");
    __asm__ volatile("movl %%gs:0x30, %0" : "=r"(v));
    check_eq(v, 12, "gs: with an absolute offset");
    __asm__ volatile("movl %%gs:0x34, %%eax; movl %%eax, %0" : "=r"(v) : : "eax");
    check_eq(v, 13, "gs: through EAX's own opcode");
    __asm__ volatile("movl $7777, %gs:0x38; addl $1, %gs:0x38; incl %gs:0x38");
    check_eq(words[14], 7779, "gs: read-modify-write");
    __asm__ volatile(".byte 0x65; leal 0x40, %0" : "=r"(v));
    check_eq(v, 0x40, "lea ignores the base");
    __asm__ volatile("pushl %%gs:0x44; popl %%gs:0x48" : : : "memory");
    check_eq(words[18], 17, "gs: push and pop of memory");
    __asm__ volatile("movl $2f, %%gs:0x4c; jmp *%%gs:0x4c; 2: movl $0x22, %0" : "=r"(v) : : "memory");
    check_eq(v, 0x22, "gs: indirect jump");
    words[19] = 0;
    __asm__ volatile("movl %1, %%ds; movl $0x33, %%eax; movl %%eax, 0x4c; movl %2, %%ds"
                     :
                     : "m"(*area), "r"((u32)SEL_TEST + 8), "r"(SEL_DATA0)
                     : "eax", "memory");
    check_eq(words[19], 0x33, "ds with a base");
}

/* Stack and strings through segments with a base. */
static void based_stack_and_strings(void)
{
    u32 *words = (u32 *)area;
    u16 s = gdt_test(0, descriptor((u32)area, 0xfffff, D_DATA_W | D_32 | D_4K));
    u32 v = 0, c = 4, d = 0x200;
    const u32 *from = words;
    __asm__ volatile(
        "movl %%esp, %%ebx; movl %1, %%ss; movl $0x104, %%esp; pushl $0x5151; popl %%ecx\n"
        "pushl $0x5151; movl %%ebp, %%edx; movl $0x100, %%ebp; movl (%%ebp), %0; movl %%edx, %%ebp\n"
        "movl %2, %%ss; movl %%ebx, %%esp"
        : "=&a"(v)
        : "r"((u32)s), "r"(SEL_DATA0)
        : "ebx", "ecx", "edx", "memory");
    check_eq(v, 0x5151, "EBP addresses through SS's base");
    check_eq(words[0x100 / 4], 0x5151, "a stack with a base");
    __asm__ volatile("movl %3, %%es; rep movsl; movl %4, %%es"
                     : "+c"(c), "+S"(from), "+D"(d)
                     : "r"((u32)s), "r"(SEL_DATA0)
                     : "memory");
    check(words[0x80] == words[0] && words[0x83] == words[3] && d == 0x210, "rep movs to es with a base");
    c = 3;
    d = 0;
    u32 src = 0x204;
    __asm__ volatile("movl %3, %%fs; movl %4, %%es; cld\n fs rep movsb"
                     : "+c"(c), "+S"(src), "+D"(d)
                     : "r"((u32)s), "r"((u32)s)
                     : "memory");
    __asm__ volatile("movl %0, %%es" : : "r"(SEL_DATA0));
    check_eq(words[0] & 0xffffff, words[0x81] & 0xffffff, "fs rep movsb");
    /* A 16-bit stack: SP wraps inside 64 KiB, the high half of ESP stays. */
    u16 small = gdt_test(2, descriptor((u32)area, 0xffff, D_DATA_W));
    u32 esp;
    __asm__ volatile(
        "movl %%esp, %%ebx; movl %1, %%ss; movl $0x12340104, %%esp; pushl $0x6161; movl %%esp, %0\n"
        "movl %2, %%ss; movl %%ebx, %%esp"
        : "=&r"(esp)
        : "r"((u32)small), "r"(SEL_DATA0)
        : "ebx", "memory");
    check(esp == 0x12340100 && words[0x100 / 4] == 0x6161,
          "SS.B=0: push uses SP, the high half of ESP is kept");
}

static void limits(void)
{
    static const struct {
        const char *what;
        u32 limit, flags, offset;
        bool allowed;
    } rows[] = {
        {"byte limit 0xff, dword at 0xfc", 0xff, D_DATA_W | D_32, 0xfc, true},
        {"byte limit 0xff, dword at 0xfd", 0xff, D_DATA_W | D_32, 0xfd, false},
        {"byte limit 0xff, dword at 0x100", 0xff, D_DATA_W | D_32, 0x100, false},
        {"page limit 0, dword at 0xffc", 0, D_DATA_W | D_32 | D_4K, 0xffc, true},
        {"page limit 0, dword at 0xffd", 0, D_DATA_W | D_32 | D_4K, 0xffd, false},
        {"limit 0, dword at 0", 0, D_DATA_W | D_32, 0, false},
        {"limit 3, dword at 0", 3, D_DATA_W | D_32, 0, true},
        {"limit 0xff, dword at fffffffe", 0xff, D_DATA_W | D_32, 0xfffffffe, false},
        {"expand-down above 0xff, dword at 0x100", 0xff, 0x96 | D_32, 0x100, true},
        {"expand-down above 0xff, dword at 0xff", 0xff, 0x96 | D_32, 0xff, false},
        {"expand-down above 0xff, dword at 0", 0xff, 0x96 | D_32, 0, false},
        {"expand-down 16-bit, dword at 0x1000", 0xff, 0x96, 0x1000, true},
        {"expand-down 16-bit, dword at fffe", 0xff, 0x96, 0xfffe, false},
        {"expand-down 16-bit, dword at 10000", 0xff, 0x96, 0x10000, false},
        {"read-only data", 0xfff, 0x90 | D_32, 0, true},
        {"readable code", 0xfff, 0x9a | D_32, 0, true},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        u16 s = gdt_test(3, descriptor((u32)area, rows[i].limit, rows[i].flags));
        TRY(load(s, rows[i].offset));
        if (rows[i].allowed)
            check_eq(trap.vector, NO_TRAP, "limit: %s: allowed", rows[i].what);
        else
            check_trap(GP, 0, "limit: %s: #GP(0)", rows[i].what);
    }
    u16 s = gdt_test(3, descriptor((u32)area, 0xfff, 0x90 | D_32));
    TRY(store(s, 0, 1));
    check_trap(GP, 0, "limit: a write to read-only data: #GP(0)");
    s = gdt_test(3, descriptor((u32)area, 0xfff, 0x9a | D_32));
    TRY(store(s, 0, 1));
    check_trap(GP, 0, "limit: a write to a code segment: #GP(0)");
    TRY(__asm__ volatile("movl $77f, fault_eip\n77: movl $1, %%cs:(%0)" : : "r"(area)));
    check_trap(GP, 0, "limit: a write through CS: #GP(0)");
    TRY(store(0, 0, 1));
    check_trap(GP, 0, "null: a write through a null segment: #GP(0)");
    s = gdt_test(3, descriptor((u32)area, 0xff, D_DATA_W | D_32));
    TRY(__asm__ volatile(
        "movl %0, %%es; movl $0xf0, %%edi; movl $16, %%ecx; movl $77f, fault_eip\n77: rep stosl"
        :
        : "r"((u32)s)
        : "ecx", "edi", "memory"));
    check_trap(GP, 0, "limit: rep stos runs into the limit");
    check_eq(trap.ecx, 12, "limit:   having stored what fits: ECX");
    check_eq(trap.edi, 0x100, "limit:   EDI");
}

static u32 through_fs(u32 selector)
{
    return load(selector, 4);
}

static void ldt_and_rings(void)
{
    static u64 ldt[4];
    u32 *words = (u32 *)area;
    words[1] = 0x1d71d7;
    ldt[1] = descriptor((u32)area, 0xfff, D_DATA_W | D_DPL3 | D_32);
    ldt[2] = descriptor((u32)area, 0xfff, D_DATA_W | D_32);
    gdt[SEL_LDT / 8] = descriptor((u32)ldt, sizeof ldt - 1, D_LDT);
    __asm__ volatile("lldt %w0" : : "r"(SEL_LDT));
    check_eq(load(0x0c, 4), 0x1d71d7, "a segment of the LDT");
    ring_call(3, through_fs, 0x0f);
    check(trap.vector == VEC_RETURN && trap.eax == 0x1d71d7, "  in ring 3");
    ring_call(3, through_fs, 0x17);
    check_trap_anywhere(GP, 0x14, "  one of DPL 0 in ring 3");
    TRY(load(0x24, 4));
    check_trap_anywhere(GP, 0x24, "  one beyond the LDT's limit");
    ldt[1] = descriptor((u32)area + 4, 0xfff, D_DATA_W | D_DPL3 | D_32);
    u32 v;
    __asm__ volatile("movl %1, %%fs; movl %%fs:0, %0" : "=r"(v) : "r"(0x0c));
    check_eq(v, 0x1d71d7, "a changed descriptor counts when it is loaded");
    ldt[1] = 0;
    __asm__ volatile("movl %%fs:0, %0" : "=r"(v));
    check_eq(v, 0x1d71d7, "the hidden part stays when the descriptor goes");
    __asm__ volatile("lldt %w0" : : "r"(0));
    __asm__ volatile("movl %%fs:0, %0" : "=r"(v));
    check_eq(v, 0x1d71d7, "  and when the LDT goes");
    TRY(load(0x0c, 4));
    check_trap_anywhere(GP, 0x0c, "  but then it cannot be loaded");
}

static void accessed_bits(void)
{
    u16 s = gdt_test(5, descriptor((u32)area, 0xfff, D_DATA_W | D_32));
    check(!(gdt[s / 8] >> 40 & 1), "a fresh descriptor is not accessed");
    load(s, 0);
    check(gdt[s / 8] >> 40 & 1, "loading it sets its accessed bit");
}

static void sixteen_bit_addresses(void)
{
    u16 s = gdt_test(6, descriptor((u32)area, 0xffff, D_DATA_W | D_32));
    u32 *words = (u32 *)area;
    words[0x20 / 4] = 0x1616;
    u32 v;
    __asm__ volatile("pushl %%ds; movl %1, %%ds; movl $0xabcd0010, %%ebx; movl $0x1234000c, %%esi\n"
                     ".byte 0x67, 0x8b, 0x40, 0x04\n popl %%ds" /* mov eax, [bx+si+4] */
                     : "=&a"(v)
                     : "r"((u32)s)
                     : "ebx", "esi");
    check_eq(v, 0x1616, "16-bit addressing: the high halves of BX and SI do not count");
    __asm__ volatile("pushl %%ds; movl %1, %%ds; movl $0xfff0, %%ebx; movl $0x2c, %%esi\n"
                     ".byte 0x67, 0x8b, 0x40, 0x04\n popl %%ds"
                     : "=&a"(v)
                     : "r"((u32)s)
                     : "ebx", "esi");
    check_eq(v, 0x1616, "16-bit addressing wraps at 64 KiB");
    u32 c = 0x10002, si = 0x55550020, di = 0x66660040;
    __asm__ volatile(
        "pushl %%ds; pushl %%es; movl %3, %%ds; movl %3, %%es; addr16 rep movsb; popl %%es; popl %%ds"
        : "+c"(c), "+S"(si), "+D"(di)
        : "a"((u32)s)
        : "memory");
    check(c == 0x10000 && si == 0x55550022 && di == 0x66660042, "addr16 rep movsb counts CX, SI and DI");
    check_eq(words[0x40 / 4] & 0xffff, 0x1616, "  and moves");
    c = 0x30001;
    u32 loops = 0;
    __asm__ volatile("1: incl %1; .byte 0x67; loop 1b" : "+c"(c), "+r"(loops));
    check(loops == 1 && c == 0x30000, "addr16 loop counts CX");
}

void guest_main(void)
{
    bases();
    based_stack_and_strings();
    limits();
    ldt_and_rings();
    accessed_bits();
    sixteen_bit_addresses();
}
