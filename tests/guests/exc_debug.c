/* #DB: single step, breakpoints on execution and data, general detect; DR6 and DR7. SDM vol. 3 chapter 17. */
#include "lib/guest.h"

enum { TF = 0x100, RF = 0x10000, BS = 1 << 14, BD = 1 << 13, DR6_ONES = 0xffff0ff0u, DR7_ONES = 0x400 };

static volatile u32 hits, hit_dr6[64], hit_eip[64], hit_flags[64];
static volatile u32 watched[4];

static bool count(struct frame *f)
{
    if (hits < 64) {
        hit_dr6[hits] = READ_DR(6);
        hit_eip[hits] = f->eip;
        hit_flags[hits] = f->eflags;
    }
    hits++;
    WRITE_DR(6, DR6_ONES);
    if (!(hit_dr6[hits - 1] & BS))
        f->eflags |= RF; /* let an execution breakpoint's instruction run */
    return true;
}

static void begin(void)
{
    hits = 0;
    trap_hook[1] = count;
    WRITE_DR(6, DR6_ONES);
}

extern const char step_1[], step_2[], step_3[], step_ss[], step_int[];

static ONE_COPY void single_step(void)
{
    begin();
    __asm__ volatile("pushfl; orl $0x100, (%%esp); popfl\n"
                     " nop\n .globl step_1\nstep_1: nop\n .globl step_2\nstep_2: pushfl\n"
                     " .globl step_3\nstep_3: andl $~0x100, (%%esp)\n popfl\n"
                     :
                     :
                     : "cc", "memory");
    check_eq(hits, 5, "TF: a trap after each of five instructions, the last of them the popf that clears it");
    check_eq(hit_eip[0], (u32)step_1, "TF: the first trap comes after the instruction that follows popf");
    check_eq(hit_eip[1], (u32)step_2, "TF: the second one instruction later");
    check_eq(hit_eip[2], (u32)step_3, "TF: pushf steps too");
    check(hit_dr6[0] & BS, "TF: DR6.BS is set");
    check(hit_flags[0] & TF, "TF: the saved flags have TF");
}

static ONE_COPY void step_over_special(void)
{
    begin();
    static u8 from[8] = "1234567", to[8];
    u32 n = 7;
    const void *s = from;
    void *d = to;
    __asm__ volatile("pushfl; orl $0x100, (%%esp); popfl; rep movsb; pushfl; andl $~0x100, (%%esp); popfl"
                     : "+c"(n), "+S"(s), "+D"(d)
                     :
                     : "cc", "memory");
    check(!memcmp(from, to, 7), "TF: rep movsb copies all");
    check_eq(hits, 7 + 3, "TF: rep movsb traps after each of seven iterations");
    begin();
    __asm__ volatile("pushfl; orl $0x100, (%%esp); popfl; movl %0, %%ss; nop\n .globl step_ss\nstep_ss:\n"
                     " pushfl; andl $~0x100, (%%esp); popfl"
                     :
                     : "r"(SEL_DATA0)
                     : "cc", "memory");
    check_eq(hit_eip[0], (u32)step_ss, "TF: no trap between mov ss and the next instruction");
    begin();
    __asm__ volatile("pushfl; orl $0x100, (%%esp); popfl; int $0x70\n .globl step_int\nstep_int: nop\n"
                     " pushfl; andl $~0x100, (%%esp); popfl"
                     :
                     :
                     : "cc", "memory");
    check(hit_eip[0] != (u32)trap_stubs[0x70], "TF: the handler of int 70h is not stepped");
}

static bool ignore(struct frame *f)
{
    (void)f;
    return true;
}

extern const char exec_here[];

static ONE_COPY u32 exec_breakpoint(u32 dr7)
{
    u32 a = 1;
    begin();
    WRITE_DR(0, exec_here);
    WRITE_DR(7, dr7);
    __asm__ volatile("addl $1, %0\n .globl exec_here\nexec_here: addl $2, %0\n addl $4, %0" : "+r"(a));
    WRITE_DR(7, 0);
    return a;
}

static void execution(void)
{
    check_eq(exec_breakpoint(2), 8, "exec: with G0 the code does its work once");
    check_eq(hits, 1, "exec: one hit, RF lets it go on");
    check_eq(hit_eip[0], (u32)exec_here, "exec: a fault, before the instruction");
    check_eq(hit_dr6[0] & 0xf, 1, "exec: DR6.B0");
    check_eq(exec_breakpoint(1), 8, "exec: with L0 too");
    check_eq(hits, 1, "exec: one hit");
    exec_breakpoint(0);
    check_eq(hits, 0, "exec: none when disabled");
}

static void data(void)
{
    static const struct {
        const char *what;
        unsigned slot, rw_len, offset; /* rw_len: DR7's four bits */
        u32 reads, writes;             /* hits wanted */
    } rows[] = {
        {"a write watch on 4 bytes", 1, 0xd, 0, 0, 1},
        {"a read/write watch on 4 bytes", 2, 0xf, 0, 1, 1},
        {"a write watch on byte 2", 3, 0x1, 2, 0, 1},
        {"a write watch on bytes 2-3", 0, 0x5, 2, 0, 1},
        {"a write watch on the dword after", 1, 0xd, 4, 0, 0},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        u32 dr7 = 2u << rows[i].slot * 2 | rows[i].rw_len << (16 + 4 * rows[i].slot) | 0x300;
        u32 at = (u32)watched + rows[i].offset;
        begin();
        switch (rows[i].slot) {
        case 0:
            WRITE_DR(0, at);
            break;
        case 1:
            WRITE_DR(1, at);
            break;
        case 2:
            WRITE_DR(2, at);
            break;
        default:
            WRITE_DR(3, at);
        }
        WRITE_DR(7, dr7);
        (void)watched[0];
        u32 reads = hits;
        __asm__ volatile("movl $5, %0; nop" : "=m"(watched[0]));
        WRITE_DR(7, 0);
        check_eq(reads, rows[i].reads, "data: %s: hits by a read", rows[i].what);
        check_eq(hits - reads, rows[i].writes, "data: %s: hits by a write", rows[i].what);
        if (hits)
            check_eq(hit_dr6[hits - 1] & 0xf, 1 << rows[i].slot, "data: %s: DR6", rows[i].what);
    }
    check_eq(watched[0], 5, "data: the watched store was done");
    begin();
    WRITE_DR(0, watched);
    WRITE_DR(7, 0xd0002);
    __asm__ volatile("movl %%esp, %%ecx; movl %0, %%esp; pushl $9; movl %%ecx, %%esp"
                     :
                     : "r"(&watched[1])
                     : "ecx", "memory");
    WRITE_DR(7, 0);
    check_eq(hits, 1, "data: a push hits a write watch");
}

static void registers(void)
{
    WRITE_DR(6, 0);
    check_eq(READ_DR(6), DR6_ONES, "DR6: reserved bits read as one, bit 12 as zero");
    WRITE_DR(7, 0);
    check_eq(READ_DR(7), DR7_ONES, "DR7: bit 10 reads as one");
    WRITE_DR(2, 0x12345678);
    check_eq(READ_DR(2), 0x12345678, "DR2 holds what was written");
    WRITE_CR(4, 0);
    TRY(FAULTING("movl %%db4, %%eax", : : : "eax"));
    check_eq(trap.vector, NO_TRAP, "CR4.DE=0: DR4 is DR6");
    WRITE_CR(4, CR4_DE);
    TRY(FAULTING("movl %%db4, %%eax", : : : "eax"));
    check_trap(6, 0, "CR4.DE=1: DR4 is #UD");
    WRITE_CR(4, 0);
    trap_hook[1] = NULL;
    WRITE_DR(6, DR6_ONES);
    TRY(WRITE_DR(7, 0x2000); FAULTING("movl %%db0, %%eax", : : : "eax"));
    check_trap(1, 0, "DR7.GD: reading DR0 is #DB");
    check(trap.dr6 & BD, "DR7.GD: DR6.BD");
    TRY(FAULTING("movl %%db7, %%eax", : "=a"(trap.eax)));
    check_eq(trap.vector, NO_TRAP, "DR7.GD: cleared by the delivery");
    WRITE_DR(7, 0);
    WRITE_DR(6, DR6_ONES);
    TRY(__asm__ volatile("movl $77f, fault_eip; .byte 0xf1; 77:"));
    check_trap(1, 0, "int1: EIP after it");
}

void guest_main(void)
{
    trap_hook[0x70] = ignore;
    single_step();
    step_over_special();
    execution();
    data();
    registers();
}
