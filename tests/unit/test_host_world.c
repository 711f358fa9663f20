/* Unit test of the module host: worlds, honest guests. Links only host. */
#define _GNU_SOURCE
#include "test_host_world_rig.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- Plain code ---- */

PROGRAM(int80, "mov $0x11223344, %ebx\n int $0x80");

static void a_system_call_leaves_every_register(void **state)
{
    struct rig *r = *state;
    static const uint32_t in[8] = {4, 0xdeadbeef, 3, 0, RIG_STACK - 16, 0x80000001, 6, 0xffffffff};

    memcpy(r->st.gpr, in, sizeof(in));
    r->st.eflags = 0x8d5 | 2; /* CF PF AF ZF SF OF */
    RUN(r, int80);
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 7);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(r->st.gpr[i], i == EBX ? 0x11223344 : in[i]);
    assert_int_equal(r->st.eflags, 0x8d7);
    assert_int_equal(r->st.sel[CS], HOST_WORLD_SELECTOR(RIG_CS));
    assert_int_equal(r->st.sel[SS], HOST_WORLD_SELECTOR(RIG_DS));
    assert_int_equal(r->st.sel[FS], HOST_WORLD_SELECTOR(RIG_DS));
}

/* Numbers that mean "restart this call" inside Linux (include/linux/errno.h), and their neighbours. */
static void any_eax_is_a_system_call(void **state)
{
    struct rig *r = *state;
    for (int eax = -600; eax <= -500; eax++) {
        rig_state(r);
        r->st.gpr[EAX] = (uint32_t)eax;
        RUN(r, int80);
        rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 7);
        assert_int_equal(r->st.gpr[EAX], (uint32_t)eax);
    }
}

/* Several instructions whose sum is known: the program computes 1 + 2 + ... + 1000. */
PROGRAM(sum, "xor %eax, %eax\n mov $1000, %ecx\n 1: add %ecx, %eax\n dec %ecx\n jnz 1b\n int $0x80");

static void arithmetic(void **state)
{
    struct rig *r = *state;
    RUN(r, sum);
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 14);
    assert_int_equal(r->st.gpr[EAX], 500500);
    assert_int_equal(r->st.eflags & 0x8d5, 0x44); /* ZF PF of DEC to 0 */
}

PROGRAM(memory,
        "mov $0x500000, %ebx\n movl $0xcafe, 4(%ebx)\n incl 8(%ebx)\n push $77\n call 1f\n 1: int $0x80");

static void memory_is_guest_ram(void **state)
{
    struct rig *r = *state;
    memset(r->ram.base + RIG_DATA_RAM + 8, 0xff, 4);
    RUN(r, memory);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    assert_int_equal(rig_peek(r, RIG_DATA_RAM + 4), 0xcafe);
    assert_int_equal(rig_peek(r, RIG_DATA_RAM + 8), 0);
    assert_int_equal(rig_peek(r, RIG_DATA_RAM + 0x3ffc), 77);
    assert_int_equal(rig_peek(r, RIG_DATA_RAM + 0x3ff8), r->st.eip - 2); /* the return address: the INT */
    assert_int_equal(r->st.gpr[ESP], RIG_STACK - 8);
}

PROGRAM(flags_out, "pushf\n pop %eax\n int $0x80");

static void flags_go_in_and_out(void **state)
{
    struct rig *r = *state;
    /* each alone; NT and ID take another way than the others (SDM vol. 3 2.3). No TF, no AC here. */
    static const uint32_t bits[] = {1, 4, 0x10, 0x40, 0x80, 0x400, 0x800, 0x4000, 0x200000};

    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        rig_state(r);
        r->st.eflags = bits[i] | 2;
        RUN(r, flags_out);
        assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
        assert_int_equal(r->st.eflags, bits[i] | 2);
        assert_int_equal(r->st.gpr[EAX] & 0x244dd5, bits[i]);
    }
    r->st.eflags = 0xffffffff & ~0x40100u; /* IF, IOPL, VM, VIF, VIP are not the world's to choose */
    RUN(r, flags_out);
    assert_int_equal(r->st.eflags, 0x204cd7);
    assert_int_equal(r->st.gpr[EAX] & 0x3000, 0);
}

/* ---- Exceptions ---- */

PROGRAM(divide, "xor %ecx, %ecx\n div %ecx");
PROGRAM(breakpoint, "int3");
PROGRAM(breakpoint2, ".byte 0xcd, 3");
PROGRAM(icebp, ".byte 0xf1");
PROGRAM(overflow, "mov $0x7f, %al\n add $1, %al\n into");
PROGRAM(bounds, "mov $0x500000, %ebx\n mov $9, %eax\n bound %eax, (%ebx)");
PROGRAM(undefined, "nop\n ud2");
PROGRAM(halt, "hlt");
PROGRAM(int81, "int $0x81");
PROGRAM(int0, "int $0");
PROGRAM(read_hole, "mov 0x700123, %eax");
PROGRAM(write_hole, "movl $1, 0x700ffe");
PROGRAM(write_rom, "movb $1, 0x600008");
PROGRAM(write_code, "movb $1, 0x400f00");
PROGRAM(fetch_data, "mov $0x500010, %eax\n jmp *%eax");
PROGRAM(fetch_hole, "mov $0x700010, %eax\n jmp *%eax");
PROGRAM(x87_divide, "fninit\n push $0x37b\n fldcw (%esp)\n fld1\n fldz\n fdivrp\n fwait");
PROGRAM(sse_divide, "push $0x1d80\n ldmxcsr (%esp)\n xorps %xmm0, %xmm0\n pcmpeqd %xmm1, %xmm1\n"
                    " pslld $25, %xmm1\n psrld $2, %xmm1\n divps %xmm0, %xmm1");
PROGRAM(misaligned, "mov $0x500001, %ebx\n mov (%ebx), %eax");

static void exceptions_are_exact(void **state)
{
    struct rig *r = *state;
    static const struct {
        const uint8_t *from, *to;
        unsigned vector, error, at;
        uint32_t addr;
    } rows[] = {
#define ROW(name) name, name##_end
        {ROW(divide), 0, 0, 2, 0},
        {ROW(breakpoint), 3, 0, 1, 0},
        {ROW(breakpoint2), 3, 0, 2, 0},
        {ROW(overflow), 4, 0, 5, 0},
        {ROW(bounds), 5, 0, 10, 0},
        {ROW(undefined), 6, 0, 1, 0},
        {ROW(halt), 13, 0, 0, 0},
        {ROW(int81), 13, 0x81 << 3 | 2, 0, 0},
        {ROW(int0), 13, 0 << 3 | 2, 0, 0},
        {ROW(read_hole), 14, 4, 0, 0x700123},
        {ROW(write_hole), 14, 6, 0, 0x700ffe},
        {ROW(write_rom), 14, 6, 0, 0x600008},
        {ROW(write_code), 14, 7, 0, 0x400f00},
        {ROW(fetch_data), 14, 0x14, RIG_DATA + 0x10 - RIG_CODE, 0x500010},
        {ROW(fetch_hole), 14, 0x14, RIG_HOLE + 0x10 - RIG_CODE, 0x700010},
        {ROW(x87_divide), 16, 0, 16, 0},
        {ROW(sse_divide), 19, 0, 26, 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rig_state(r);
        memset(r->ram.base + RIG_DATA_RAM, 0, 32); /* bounds 0 to 0 */
        rig_code(r, rows[i].from, rows[i].to);
        rig_run(r);
        /* #PF bit 0 is about the host's page tables: it may or may not have brought the page in */
        if (rows[i].vector == 14)
            r->ex.error = (r->ex.error & ~1u) | (rows[i].error & 1);
        rig_expect_trap(r, rows[i].vector, rows[i].error, RIG_CODE + rows[i].at);
        if (rows[i].vector == 14)
            assert_int_equal(r->ex.addr, rows[i].addr);
    }
}

static void alignment_check(void **state)
{
    struct rig *r = *state;
    r->st.eflags |= 0x40000;
    RUN(r, misaligned);
    rig_expect_trap(r, 17, 0, RIG_CODE + 5);
    assert_int_equal(r->st.eflags, 0x40002);
    r->st.eflags = 2; /* and the world still works: without AC it is a load like any other */
    memcpy(r->ram.base + RIG_DATA_RAM + 1, "\x78\x56\x34\x12", 4);
    RUN(r, misaligned);
    rig_expect_trap(r, 13, 0, RIG_CODE + 7); /* the HLT behind it */
    assert_int_equal(r->st.gpr[EAX], 0x12345678);
}

PROGRAM(nops, "nop\n nop\n int $0x80");

static void single_step(void **state)
{
    struct rig *r = *state;
    rig_code(r, nops, nops_end);
    for (uint32_t i = 1; i <= 2; i++) {
        r->st.eflags = 0x102;
        rig_run(r);
        rig_expect_trap(r, 1, 0, RIG_CODE + i);
        assert_int_equal(r->st.eflags, 0x102);
    }
    r->st.eflags = 2;
    rig_run(r);
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 4);
}

/* The instruction itself traps to #DB; some hypervisors report it as a fault (eip at it, not after it). */
static void icebp_is_a_debug_trap(void **state)
{
    struct rig *r = *state;
    RUN(r, icebp);
    assert_int_equal(r->ex.why, HOST_WORLD_TRAP);
    assert_int_equal(r->ex.vector, 1);
    assert_in_range(r->st.eip, RIG_CODE, RIG_CODE + 1);
}

/* ---- Segments ---- */

PROGRAM(tls, "mov %gs:0x10, %eax\n mov %gs:0xffc, %ecx\n mov %gs:0xffd, %edx");

static void a_thread_pointer(void **state)
{
    struct rig *r = *state;
    rig_segment(r, RIG_TLS, RIG_DATA, 0xfff, 0x3);
    r->st.sel[GS] = HOST_WORLD_SELECTOR(RIG_TLS);
    memcpy(r->ram.base + RIG_DATA_RAM + 0x10, "abcd", 4);
    memcpy(r->ram.base + RIG_DATA_RAM + 0xffc, "efgh", 4);
    RUN(r, tls);
    rig_expect_trap(r, 13, 0, RIG_CODE + 13); /* beyond the limit */
    assert_memory_equal(&r->st.gpr[EAX], "abcd", 4);
    assert_memory_equal(&r->st.gpr[ECX], "efgh", 4);
    assert_int_equal(r->st.sel[GS], HOST_WORLD_SELECTOR(RIG_TLS));

    /* the same selector, another base: takes effect at the next entry */
    rig_segment(r, RIG_TLS, RIG_DATA + 0xfec, 0xfff, 0x3);
    RUN(r, tls);
    assert_memory_equal(&r->st.gpr[EAX], "efgh", 4);

    r->st.sel[GS] = 0; /* null: nothing can be reached by it */
    RUN(r, tls);
    rig_expect_trap(r, 13, 0, RIG_CODE);
    assert_int_equal(r->st.sel[GS], 0);
}

PROGRAM(push_beyond, "push %eax");
PROGRAM(load_absent, "mov $0x27, %eax\n mov %eax, %es"); /* LDT entry 4 */

static void segment_faults(void **state)
{
    struct rig *r = *state;
    struct host_world_segment absent = {0, 0xfffff, 3, false, true};

    rig_segment(r, RIG_TLS, 0, RIG_DATA - 1, 0x3); /* a stack segment that ends below the stack */
    r->st.sel[SS] = HOST_WORLD_SELECTOR(RIG_TLS);
    RUN(r, push_beyond);
    rig_expect_trap(r, 12, 0, RIG_CODE);

    rig_state(r);
    assert_int_equal(host_world_segment(r->w, 4, &absent), 0);
    RUN(r, load_absent);
    rig_expect_trap(r, 11, 0x24, RIG_CODE + 5);
    assert_int_equal(host_world_segment(r->w, 4, NULL), 0);
    rig_state(r);
    RUN(r, load_absent);
    rig_expect_trap(r, 13, 0x24, RIG_CODE + 5);
    rig_segment(r, 4, 0, 0xfffff, 0x1); /* read-only is fine */
    rig_state(r);
    RUN(r, load_absent);
    rig_expect_trap(r, 13, 0, RIG_CODE + 7);
    assert_int_equal(r->st.sel[ES], 0x27);
}

PROGRAM_BITS("16", small, "mov $0x1234, %ax\n push %ax\n int3");

static void sixteen_bit_segments(void **state)
{
    struct rig *r = *state;
    struct host_world_segment code = {RIG_CODE, 0xffff, 0xb, true, false};
    struct host_world_segment stack = {RIG_DATA, 0x3fff, 0x3, true, false};
    if (host_world_segment(r->w, 5, &code) != 0 || host_world_segment(r->w, 6, &stack) != 0) {
        skip(); /* a kernel without CONFIG_X86_16BIT */
        return;
    }
    rig_code(r, small, small_end);
    r->st.sel[CS] = HOST_WORLD_SELECTOR(5);
    r->st.sel[SS] = HOST_WORLD_SELECTOR(6);
    r->st.eip = 0;
    r->st.gpr[ESP] = 0xabcd1000; /* only SP counts, and the rest comes back (Linux' espfix) */
    r->st.gpr[EAX] = 0xffffffff;
    rig_run(r);
    rig_expect_trap(r, 3, 0, 5);
    assert_int_equal(r->st.gpr[EAX], 0xffff1234);
    assert_int_equal(r->st.gpr[ESP], 0xabcd0ffe);
    assert_int_equal(rig_peek(r, RIG_DATA_RAM + 0xffe) & 0xffff, 0x1234);

    /* With one exception: no single step, for TF would have to be loaded before SS and ESP are. */
    r->st.eip = 0;
    r->st.eflags = 0x102;
    rig_run(r);
    rig_expect(r, HOST_WORLD_WILD, 0);
    assert_false(r->ex.ran);
    r->st.eflags = 0x8d7;
    rig_run(r);
    rig_expect_trap(r, 3, 0, 5);
    assert_int_equal(r->st.eflags, 0x8d7);
}

/* What a jump there would be. Nothing has run, so nothing has changed. */
static void an_entry_beyond_the_limit_faults(void **state)
{
    struct rig *r = *state;
    struct host_world_segment stack = {RIG_DATA, 0x3fff, 0x3, true, false};

    rig_segment(r, 5, 0, RIG_CODE - 1, 0xb);
    rig_code(r, int80, int80_end);
    r->st.sel[CS] = HOST_WORLD_SELECTOR(5);
    r->st.eflags = 0x8d7;
    struct host_world_state before = r->st;
    rig_run(r);
    rig_expect_trap(r, 13, 0, RIG_CODE);
    assert_memory_equal(&r->st, &before, sizeof(before));
    r->st.sel[CS] = HOST_WORLD_SELECTOR(RIG_CS); /* and the world still works */
    rig_run(r);
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 7);
    if (host_world_segment(r->w, 6, &stack) != 0)
        return;
    r->st = before;
    r->st.sel[SS] = HOST_WORLD_SELECTOR(6);
    rig_run(r);
    rig_expect_trap(r, 13, 0, RIG_CODE);
    assert_int_equal(r->st.sel[SS], HOST_WORLD_SELECTOR(6));
}

static void segments_the_host_refuses(void **state)
{
    struct rig *r = *state;
    struct host_world_segment s = {0, 0x100000, 0x3, true, true}; /* 1 MiB and one byte: no such limit */
    assert_int_equal(host_world_segment(r->w, 9, &s), -1);
    s.limit = 0x100fff;
    assert_int_equal(host_world_segment(r->w, 9, &s), 0);
    s.type = 0xf; /* conforming */
    assert_int_equal(host_world_segment(r->w, 9, &s), -1);
    s.type = 0x10;
    assert_int_equal(host_world_segment(r->w, 9, &s), -1);
    s.type = 3;
    assert_int_equal(host_world_segment(r->w, HOST_WORLD_LDT_ENTRIES, &s), -1);
    assert_int_equal(host_world_segment(r->w, HOST_WORLD_LDT_ENTRIES - 1, &s), 0);
    RUN(r, int80);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
}

static void an_entry_with_a_wrong_selector_is_refused(void **state)
{
    struct rig *r = *state;
    static const struct {
        unsigned reg;
        uint16_t sel;
    } rows[] = {{CS, 0x33},
                {CS, 0x23},
                {SS, 0x2b},
                {DS, 0x2b},
                {CS, HOST_WORLD_SELECTOR(RIG_DS)},
                {SS, 0},
                {CS, 0},
                {ES, HOST_WORLD_SELECTOR(100)},
                {SS, HOST_WORLD_SELECTOR(RIG_CS)},
                {GS, 0xffff},
                {FS, 0x33}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rig_state(r);
        r->st.sel[rows[i].reg] = rows[i].sel;
        RUN(r, int80);
        rig_expect(r, HOST_WORLD_WILD, RIG_CODE);
    }
    rig_state(r);
    RUN(r, int80);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
}

/* ---- Floating point ---- */

PROGRAM(fpu, "fld1\n faddp\n movaps %xmm0, %xmm1\n paddd %xmm1, %xmm1\n int $0x80");

static void fpu_state_crosses(void **state)
{
    struct rig *r = *state;
    static const uint8_t two_and_a_half[10] = {0, 0, 0, 0, 0, 0, 0, 0xa0, 0, 0x40};
    static const uint8_t three_and_a_half[10] = {0, 0, 0, 0, 0, 0, 0, 0xe0, 0, 0x40};
    static const uint32_t lanes[4] = {1, 0x80000001, 0x7fffffff, 0x12345678};
    static const uint32_t doubled[4] = {2, 2, 0xfffffffe, 0x2468acf0};

    /* one register in use: TOP is 7, the abridged tag word says physical register 7 */
    r->st.fpu[3] = 0x38;
    r->st.fpu[4] = 0x80;
    memcpy(r->st.fpu + 32, two_and_a_half, 10);
    memcpy(r->st.fpu + 160, lanes, 16);
    memset(r->st.fpu + 160 + 7 * 16, 0x5a, 16);
    RUN(r, fpu);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    assert_int_equal(r->st.fpu[0] | r->st.fpu[1] << 8, 0x37f);
    assert_int_equal(r->st.fpu[3] & 0x38, 0x38);
    assert_int_equal(r->st.fpu[4], 0x80);
    assert_memory_equal(r->st.fpu + 32, three_and_a_half, 10);
    assert_memory_equal(r->st.fpu + 160, lanes, 16);
    assert_memory_equal(r->st.fpu + 176, doubled, 16);
    assert_int_equal(r->st.fpu[160 + 7 * 16 + 15], 0x5a);
    assert_int_equal(r->st.fpu[24] | r->st.fpu[25] << 8, 0x1f80);
}

PROGRAM(avx, "vmovaps %ymm2, %ymm3\n vpxor %xmm2, %xmm2, %xmm2\n int $0x80");

static void upper_halves_cross(void **state)
{
    struct rig *r = *state;
    if (!__builtin_cpu_supports("avx")) {
        skip();
        return;
    }
    memset(r->st.fpu + 160 + 2 * 16, 0x11, 16);
    memset(r->st.fpu + 576 + 2 * 16, 0x22, 16);
    RUN(r, avx);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    uint8_t low[16], high[16], zero[16] = {0};
    memset(low, 0x11, 16);
    memset(high, 0x22, 16);
    assert_memory_equal(r->st.fpu + 160 + 3 * 16, low, 16);
    assert_memory_equal(r->st.fpu + 576 + 3 * 16, high, 16);
    assert_memory_equal(r->st.fpu + 160 + 2 * 16, zero, 16);
    assert_memory_equal(r->st.fpu + 576 + 2 * 16, zero, 16);
}

PROGRAM(wide_out, "mov $0x55, %eax\n kmovw %eax, %k1\n vpbroadcastd %xmm0, %zmm1\n int $0x80");
PROGRAM(wide_in, "kmovw %k1, %eax\n vextracti64x4 $1, %zmm1, %ymm2\n vmovd %xmm2, %ecx\n int $0x80");

/* What a 32-bit guest was never promised starts anew at every entry: nothing of another process's is seen there. */
static void nothing_crosses_beyond_avx(void **state)
{
    struct rig *r = *state;
    if (!__builtin_cpu_supports("avx512f")) {
        skip();
        return;
    }
    memset(r->st.fpu + 160, 0x77, 4);
    RUN(r, wide_out);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    RUN(r, wide_in);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    assert_int_equal(r->st.gpr[EAX], 0);
    assert_int_equal(r->st.gpr[ECX], 0);
}

static void odd_fpu_images_are_taken_as_far_as_they_make_sense(void **state)
{
    struct rig *r = *state;
    memset(r->st.fpu, 0xff, sizeof(r->st.fpu)); /* MXCSR reserved bits, XSTATE_BV of features nobody has */
    RUN(r, int80);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    rig_state(r);
    memset(r->st.fpu, 0, sizeof(r->st.fpu)); /* nothing in use: the initial state */
    RUN(r, fpu);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    assert_int_equal(r->st.fpu[0] | r->st.fpu[1] << 8, 0x37f);
}

/* ---- Mappings ---- */

static void a_page_that_goes_away_faults(void **state)
{
    struct rig *r = *state;
    RUN(r, memory);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    host_world_unmap(r->w, RIG_DATA, HOST_PAGE);
    rig_state(r);
    RUN(r, memory);
    rig_expect_trap(r, 14, 6, RIG_CODE + 5);
    assert_int_equal(r->ex.addr, RIG_DATA + 4);
    host_world_map(r->w, RIG_DATA, RIG_ROM_RAM, HOST_PAGE,
                   PROT_READ | PROT_WRITE); /* another page in its place */
    rig_run(r);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    assert_int_equal(rig_peek(r, RIG_ROM_RAM + 4), 0xcafe);
    host_world_map(r->w, RIG_DATA, RIG_ROM_RAM, HOST_PAGE, PROT_READ);
    rig_state(r);
    RUN(r, memory);
    rig_expect(r, HOST_WORLD_TRAP, RIG_CODE + 5);
    assert_int_equal(r->ex.error & ~1u, 6);
    host_world_map(r->w, RIG_CODE, RIG_CODE_RAM, HOST_PAGE, PROT_READ);
    rig_state(r);
    RUN(r, memory);
    rig_expect(r, HOST_WORLD_TRAP, RIG_CODE);
    assert_int_equal(r->ex.error & ~1u, 0x14);
}

static void reset_leaves_nothing(void **state)
{
    struct rig *r = *state;
    host_world_map(r->w, RIG_HOLE, 0, HOST_PAGE, PROT_READ);
    host_world_reset(r->w);
    RUN(r, nops);
    rig_expect_trap(r, 14, 0x14, RIG_CODE);
    rig_maps(r);
    RUN(r, nops); /* segments survived */
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 4);
    RUN(r, read_hole);
    rig_expect_trap(r, 14, 4, RIG_CODE);
}

PROGRAM(read_ninth, "mov 0x709000, %eax\n int $0x80");

static void neighbours_are_one_mapping(void **state)
{
    struct rig *r = *state;
    RUN(r, nops);
    uint64_t before = r->counts.world_maps;
    for (uint32_t i = 0; i < 16; i++)
        host_world_map(r->w, RIG_HOLE + i * HOST_PAGE, i * HOST_PAGE, HOST_PAGE, PROT_READ);
    for (uint32_t i = 0; i < 8; i++)
        host_world_unmap(r->w, RIG_HOLE + i * HOST_PAGE, HOST_PAGE);
    RUN(r, nops);
    assert_int_equal(r->counts.world_maps - before, 2);
    RUN(r, read_hole);
    rig_expect_trap(r, 14, 4, RIG_CODE);
    memcpy(r->ram.base + 9 * HOST_PAGE, "wxyz", 4);
    RUN(r, read_ninth);
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 7);
    assert_memory_equal(&r->st.gpr[EAX], "wxyz", 4);
}

/* What a later call undoes or replaces is not done first; what it does so only in part is. */
static void the_last_word_on_a_page_counts(void **state)
{
    struct rig *r = *state;
    RUN(r, nops);
    uint64_t before = r->counts.world_maps;
    host_world_map(r->w, RIG_HOLE + HOST_PAGE, 0, HOST_PAGE, PROT_READ);
    host_world_unmap(r->w, RIG_HOLE, HOST_PAGE);
    host_world_map(r->w, RIG_HOLE, RIG_ROM_RAM, HOST_PAGE, PROT_READ);
    host_world_map(r->w, RIG_HOLE, RIG_ROM_RAM, HOST_PAGE, PROT_READ | PROT_EXEC);
    host_world_unmap(r->w, RIG_HOLE, 2 * HOST_PAGE);
    host_world_map(r->w, RIG_HOLE, RIG_ROM_RAM, HOST_PAGE, PROT_READ);
    RUN(r, nops);
    assert_int_equal(r->counts.world_maps - before, 2); /* two pages unmapped, one mapped */
    memcpy(r->ram.base + RIG_ROM_RAM + 0x123, "last", 4);
    RUN(r, read_hole);
    rig_expect_trap(r, 13, 0, RIG_CODE + 5); /* the HLT behind it */
    assert_memory_equal(&r->st.gpr[EAX], "last", 4);
    RUN(r, write_hole);
    rig_expect_trap(r, 14, 7, RIG_CODE);
}

static void a_queued_segment_outlives_a_reset(void **state)
{
    struct rig *r = *state;
    RUN(r, nops);
    host_world_map(r->w, RIG_HOLE, 0, HOST_PAGE, PROT_READ);
    rig_segment(r, RIG_TLS, RIG_DATA, 0xfff, 0x3);
    host_world_reset(r->w);
    rig_maps(r);
    r->st.sel[GS] = HOST_WORLD_SELECTOR(RIG_TLS);
    memcpy(r->ram.base + RIG_DATA_RAM + 0x10, "abcd", 4);
    RUN(r, tls);
    rig_expect_trap(r, 13, 0, RIG_CODE + 13);
    assert_memory_equal(&r->st.gpr[EAX], "abcd", 4);
}

static void a_queue_of_any_length(void **state)
{
    struct rig *r = *state;
    /* backwards, so that no two can be merged; more than any queue holds */
    for (uint32_t i = 5000; i-- > 0;)
        host_world_map(r->w, 0x10000000 + i * HOST_PAGE, RIG_ROM_RAM, HOST_PAGE, PROT_READ | PROT_WRITE);
    r->st.gpr[EBX] = 0x10000000 + 4999 * HOST_PAGE;
    RUN(r, nops);
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 4);
    assert_true(r->counts.world_maps >= 5000);
}

static void nonsense_is_not_mapped(void **state)
{
    struct rig *r = *state;
    host_world_map(r->w, RIG_HOLE + 1, 0, HOST_PAGE, PROT_READ);
    host_world_map(r->w, RIG_HOLE, 0, 0, PROT_READ);
    host_world_map(r->w, RIG_HOLE, RIG_RAM, HOST_PAGE, PROT_READ);
    host_world_map(r->w, RIG_HOLE, RIG_RAM - HOST_PAGE, 2 * HOST_PAGE, PROT_READ);
    host_world_map(r->w, RIG_HOLE, UINT64_MAX - HOST_PAGE + 1, HOST_PAGE, PROT_READ);
    host_world_map(r->w, 0xfffff000, 0, 2 * HOST_PAGE, PROT_READ);
    host_world_unmap(r->w, 0xfffff000, 2 * HOST_PAGE);
    RUN(r, read_hole);
    rig_expect_trap(r, 14, 4, RIG_CODE);
}

PROGRAM(read_zero, "mov 0, %eax");
PROGRAM(read_top, "mov 0xfffffffc, %eax\n int $0x80");

static void both_ends_of_the_address_space(void **state)
{
    struct rig *r = *state;
    memcpy(r->ram.base + RIG_ROM_RAM + 0xffc, "last", 4);
    host_world_map(r->w, 0, 0, 0x20000, PROT_READ); /* below vm.mmap_min_addr it may remain unmapped */
    host_world_map(r->w, 0xfffff000, RIG_ROM_RAM, HOST_PAGE, PROT_READ);
    RUN(r, read_top);
    assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    assert_memory_equal(&r->st.gpr[EAX], "last", 4);
    RUN(r, read_zero);
    assert_int_equal(r->ex.why, HOST_WORLD_TRAP);
    assert_true(r->ex.vector == 14 || r->ex.vector == 13);
}

static void memory_the_host_does_not_have(void **state)
{
    struct rig *r = *state;
    assert_int_equal(ftruncate(r->ram.fd, RIG_ROM_RAM), 0);
    struct host_world_state before = r->st;
    host_world_map(r->w, RIG_HOLE, RIG_ROM_RAM, HOST_PAGE, PROT_READ);
    before.eip = RIG_CODE;
    RUN(r, read_hole);
    assert_int_equal(r->ex.why, HOST_WORLD_DEAD);
    assert_non_null(strstr(r->ex.text, "memory"));
    assert_memory_equal(&r->st, &before, sizeof(before));
}

/* ---- Kicks ---- */

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

PROGRAM(endless, "1: incl 0x500000\n jmp 1b");

struct kicker {
    struct rig *r;
    struct host_thread *thread;
    uint64_t at;
};

static void *kick_later(void *arg)
{
    struct kicker *k = arg;
    volatile uint32_t *counter = (volatile uint32_t *)(k->r->ram.base + RIG_DATA_RAM);
    while (*counter == 0)
        usleep(100);
    k->at = now_us();
    if (k->thread)
        host_thread_kick(k->thread);
    else
        host_world_kick(k->r->w);
    return NULL;
}

static uint64_t kick_an_endless_loop(struct rig *r, struct host_thread *thread)
{
    struct kicker k = {.r = r, .thread = thread};
    pthread_t t;

    memset(r->ram.base + RIG_DATA_RAM, 0, 4);
    assert_int_equal(pthread_create(&t, NULL, kick_later, &k), 0);
    rig_state(r);
    RUN(r, endless);
    uint64_t now = now_us();
    pthread_join(t, NULL);
    assert_int_equal(r->ex.why, HOST_WORLD_KICK);
    assert_true(r->st.eip == RIG_CODE || r->st.eip == RIG_CODE + 6);
    assert_true(rig_peek(r, RIG_DATA_RAM) > 0);
    return now - k.at;
}

static void a_kick_stops_an_endless_loop(void **state)
{
    for (int i = 0; i < 10; i++)
        assert_true(kick_an_endless_loop(*state, NULL) < 1000000);
}

static bool count_trap(void *ctx, struct host_trap *trap)
{
    assert_int_equal(trap->kind, HOST_TRAP_KICK);
    ++*(int *)ctx;
    return true;
}

static void a_kick_of_the_thread_is_one_of_the_world(void **state)
{
    struct host_thread thread = {0};
    int traps = 0;
    assert_int_equal(host_thread_enter(&thread, count_trap, &traps, NULL, NULL), 0);
    for (int i = 0; i < 10; i++)
        assert_true(kick_an_endless_loop(*state, &thread) < 1000000);
    assert_int_equal(traps, 10);
    host_thread_leave(&thread);
}

static void an_early_kick_is_not_lost(void **state)
{
    struct rig *r = *state;
    host_world_kick(r->w);
    r->st.gpr[EAX] = 5;
    RUN(r, endless);
    rig_expect(r, HOST_WORLD_KICK, RIG_CODE);
    assert_int_equal(r->st.gpr[EAX], 5);
    RUN(r, int80); /* and is answered once */
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 7);
}

struct storm {
    struct rig *r;
    int stop;
};

static void *kick_storm(void *arg)
{
    struct storm *s = arg;
    while (!__atomic_load_n(&s->stop, __ATOMIC_SEQ_CST))
        host_world_kick(s->r->w);
    return NULL;
}

/* Kicks at every possible moment: no instruction is lost, none is run twice. */
static void kicks_at_any_time_change_nothing(void **state)
{
    struct rig *r = *state;
    struct storm s = {.r = r};
    pthread_t t;

    assert_int_equal(pthread_create(&t, NULL, kick_storm, &s), 0);
    rig_code(r, sum, sum_end);
    for (int i = 0; i < 2000; i++) {
        rig_state(r);
        do
            rig_run(r);
        while (r->ex.why == HOST_WORLD_KICK);
        rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 14);
        assert_int_equal(r->st.gpr[EAX], 500500);
    }
    __atomic_store_n(&s.stop, 1, __ATOMIC_SEQ_CST);
    pthread_join(t, NULL);
}

long host_world_sleep(int listener, unsigned long request, void *to, const int *kicked);
void host_world_wake(ucontext_t *uc);
extern const uint8_t host_world_sleep_begin[], host_world_sleep_end[], host_world_sleep_not[];

/* A kick that comes between the look at `kicked` and the system call: the call is not made. */
static void no_kick_is_slept_through(void **state)
{
    ucontext_t uc = {0};
    greg_t *rip = &uc.uc_mcontext.gregs[REG_RIP];
    greg_t begin = (greg_t)(uintptr_t)host_world_sleep_begin, end = (greg_t)(uintptr_t)host_world_sleep_end;
    int kicked = 0;

    (void)state;
    assert_int_equal(host_world_sleep(-1, 0, NULL, &kicked), -EBADF);
    kicked = 1;
    assert_int_equal(host_world_sleep(-1, 0, NULL, &kicked), -EINTR);
    assert_true(end > begin + 2 &&
                memcmp((const void *)(uintptr_t)(end - 2), "\x0f\x05", 2) == 0); /* SYSCALL */
    for (greg_t at = begin - 8; at < end + 16; at++) {
        *rip = at;
        host_world_wake(&uc);
        assert_int_equal(*rip, at >= begin && at < end ? (greg_t)(uintptr_t)host_world_sleep_not : at);
    }
}

/* ---- Several ---- */

static void worlds_do_not_meet(void **state)
{
    struct rig *r = *state, other;
    rig_init(&other);
    memset(r->ram.base + RIG_DATA_RAM, 0, 16);
    memset(other.ram.base + RIG_DATA_RAM, 0, 16);
    other.st.gpr[EDI] = 7;
    RUN(&other, memory);
    assert_int_equal(rig_peek(r, RIG_DATA_RAM + 4), 0);
    assert_int_equal(rig_peek(&other, RIG_DATA_RAM + 4), 0xcafe);
    RUN(r, nops);
    assert_int_equal(r->st.gpr[EDI], 0);
    assert_int_equal(other.st.gpr[EDI], 7);
    rig_finish(&other);
    RUN(r, nops);
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 4);
}

static void *one_of_two(void *arg)
{
    struct rig r;
    (void)arg;
    rig_init(&r);
    for (uint32_t i = 0; i < 500; i++) {
        rig_state(&r);
        r.st.gpr[EDI] = i;
        host_world_unmap(r.w, RIG_DATA, HOST_PAGE);
        host_world_map(r.w, RIG_DATA, RIG_DATA_RAM, HOST_PAGE, PROT_READ | PROT_WRITE);
        rig_segment(&r, RIG_TLS, i, 0xfffff, 0x3);
        RUN(&r, memory);
        assert_int_equal(r.ex.why, HOST_WORLD_SYSCALL);
        assert_int_equal(r.st.gpr[EDI], i);
        assert_int_equal(rig_peek(&r, RIG_DATA_RAM + 8), i + 1);
    }
    rig_finish(&r);
    return NULL;
}

static void two_threads_with_a_world_each(void **state)
{
    pthread_t t[2];
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, one_of_two, NULL), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
}

/* ---- Hosts that refuse ---- */

/* System call nr, or only those whose second argument is second (0: any). */
static void refuse(int nr, uint32_t second)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second, 0, second ? 1 : 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {6, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(9);
}

/* What body does to its process stays there. It returns 0. */
static void in_a_child(int (*body)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(body());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* As a container's seccomp profile would: the probe names the call, or does without it. */
static void a_refused_call_is_named(void **state)
{
    static const struct {
        int nr;
        const char *named; /* NULL: worlds work without it */
    } rows[] = {
        {SYS_memfd_create, "memfd_create"},
        {SYS_socketpair, "socket pair"},
        {SYS_clone, "clone"},
        {SYS_seccomp, "seccomp"},
        {SYS_sendmsg, "sendmsg"},
        {SYS_execveat, "execveat"},
        {SYS_ioctl, "ioctl"},
        {SYS_poll, "poll"},
        {SYS_modify_ldt, "modify_ldt"},
        {SYS_munmap, "munmap"},
        {SYS_sigaltstack, "sigaltstack"},
        {SYS_rt_sigaction, "rt_sigaction"},
        {SYS_close_range, NULL},
        {SYS_setrlimit, NULL},
        {SYS_arch_prctl, NULL},
        {SYS_setpgid, NULL},
        {SYS_getrlimit, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            struct host_err err = {""};
            refuse(rows[i].nr, 0);
            int failed = host_worlds_probe(&err);
            bool right = rows[i].named ? failed == -1 && strstr(err.text, rows[i].named) : failed == 0;
            if (!right)
                print_message("call %d: %s\n", rows[i].nr, err.text);
            syscall(SYS_exit_group, right ? 0 : 1); /* not _exit: AddressSanitizer would use a refused call */
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

/* With any number of descriptors left there is a world that works, or a reason. */
static void few_descriptors(void **state)
{
    unsigned works = 0, refused = 0;
    (void)state;
    for (rlim_t limit = 3; limit < 32; limit++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            struct rlimit few = {limit, limit};
            struct host_err err = {""};
            setrlimit(RLIMIT_NOFILE, &few);
            int failed = host_worlds_probe(&err);
            _exit(!failed ? 0 : err.text[0] && waitpid(-1, NULL, __WALL) == -1 ? 1 : 2);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        works += WEXITSTATUS(status) == 0;
        refused += WEXITSTATUS(status) == 1;
    }
    assert_true(works > 0 && refused > 0);
}

/* All that worlds need of a container's profile: Docker's default one has each of these. */
static const int needed[] = {
    /* the monitor */
    SYS_memfd_create, SYS_ftruncate, SYS_mmap, SYS_munmap, SYS_madvise, SYS_pwrite64, SYS_socketpair,
    SYS_rt_sigprocmask, SYS_clone, SYS_close, SYS_recvmsg, SYS_seccomp, SYS_ioctl, SYS_poll, SYS_wait4,
    SYS_kill, SYS_tgkill,
    /* between clone and exec */
    SYS_setpgid, SYS_prctl, SYS_sendmsg, SYS_fcntl, SYS_dup2, SYS_dup3, SYS_close_range, SYS_execveat,
    /* the world */
    SYS_pause, SYS_rt_sigaction, SYS_setrlimit, SYS_modify_ldt, SYS_sigaltstack, SYS_arch_prctl,
    SYS_rt_sigreturn, SYS_exit_group,
    /* the C library's allocator, and this test's */
    SYS_brk, SYS_mprotect, SYS_write, SYS_futex};
#define NEEDED (sizeof(needed) / sizeof(needed[0]))

static void allow_only_needed(void)
{
    struct sock_filter code[2 * NEEDED + 2];
    size_t n = 0;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < NEEDED; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)needed[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {(unsigned short)n, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(9);
}

static int probe_with_what_is_needed(void)
{
    struct host_err err = {""};
    allow_only_needed();
    int failed = host_worlds_probe(&err);
    if (failed)
        print_message("%s\n", err.text);
    return failed ? 1 : 0;
}

static void under_a_profile_like_docker_s(void **state)
{
    (void)state;
    in_a_child(probe_with_what_is_needed);
}

/* As before Linux 6.6, when no listener could ask for wake-ups on its own CPU. */
static int run_where_it_is_placed(void)
{
    struct rig r;
    cpu_set_t before, after;
    refuse(SYS_ioctl, _IOW('!', 4, uint64_t));
    sched_getaffinity(0, sizeof(before), &before);
    rig_init(&r);
    rig_code(&r, int80, int80_end);
    uint64_t end = now_us() + 700000; /* several placements long */
    while (now_us() < end) {
        rig_state(&r);
        rig_run(&r);
        rig_expect(&r, HOST_WORLD_SYSCALL, RIG_CODE + 7);
    }
    rig_finish(&r);
    sched_getaffinity(0, sizeof(after), &after);
    return CPU_EQUAL(&before, &after) ? 0 : 1;
}

static void without_help_from_the_scheduler(void **state)
{
    (void)state;
    in_a_child(run_where_it_is_placed);
}

/* As before Linux 6.11, when the sleep for a notification outlived those who could send one. */
static int run_and_kick_awake(void)
{
    struct rig r;
    refuse(SYS_uname, 0);
    rig_init(&r);
    for (int i = 0; i < 3; i++)
        assert_true(kick_an_endless_loop(&r, NULL) < 1000000);
    RUN(&r, int80);
    rig_expect(&r, HOST_WORLD_SYSCALL, RIG_CODE + 7);
    rig_finish(&r);
    return 0;
}

static void without_an_end_to_sleep(void **state)
{
    (void)state;
    in_a_child(run_and_kick_awake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_system_call_leaves_every_register, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(any_eax_is_a_system_call, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(arithmetic, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(memory_is_guest_ram, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(flags_go_in_and_out, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(exceptions_are_exact, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(alignment_check, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(icebp_is_a_debug_trap, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(single_step, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_thread_pointer, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(segment_faults, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(sixteen_bit_segments, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(an_entry_beyond_the_limit_faults, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(segments_the_host_refuses, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(an_entry_with_a_wrong_selector_is_refused, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(fpu_state_crosses, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(upper_halves_cross, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(nothing_crosses_beyond_avx, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(odd_fpu_images_are_taken_as_far_as_they_make_sense, rig_setup,
                                        rig_teardown),
        cmocka_unit_test_setup_teardown(a_page_that_goes_away_faults, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(reset_leaves_nothing, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(neighbours_are_one_mapping, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(the_last_word_on_a_page_counts, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_queued_segment_outlives_a_reset, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_queue_of_any_length, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(nonsense_is_not_mapped, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(both_ends_of_the_address_space, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(memory_the_host_does_not_have, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_kick_stops_an_endless_loop, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_kick_of_the_thread_is_one_of_the_world, rig_setup, rig_teardown),
        cmocka_unit_test(no_kick_is_slept_through),
        cmocka_unit_test_setup_teardown(an_early_kick_is_not_lost, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(kicks_at_any_time_change_nothing, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(worlds_do_not_meet, rig_setup, rig_teardown),
        cmocka_unit_test(two_threads_with_a_world_each),
        cmocka_unit_test(a_refused_call_is_named),
        cmocka_unit_test(few_descriptors),
        cmocka_unit_test(under_a_profile_like_docker_s),
        cmocka_unit_test(without_help_from_the_scheduler),
        cmocka_unit_test(without_an_end_to_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
