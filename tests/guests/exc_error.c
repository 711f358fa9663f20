/* Exceptions with an error code: which selector or IDT index it names, and the EXT bit. SDM vol. 3 6.13, and
 * the pseudocode of MOV, JMP, LTR, LLDT, INT n and IRET in vol. 2. */
#include "lib/guest.h"

enum { TS = 10, NP = 11, SS = 12, GP = 13, BEYOND = 0x1000 };

static u16 absent_data, absent_code, ro_data, exec_only, conforming3, absent_tss, busy_tss, absent_ldt;

static void make_descriptors(void)
{
    absent_data = gdt_test(0, descriptor(0, 0xfffff, (D_DATA_W & ~0x80) | D_32 | D_4K));
    absent_code = gdt_test(1, descriptor(0, 0xfffff, (D_CODE_R & ~0x80) | D_32 | D_4K));
    ro_data = gdt_test(2, descriptor(0, 0xfffff, 0x90 | D_32 | D_4K));
    exec_only = gdt_test(3, descriptor(0, 0xfffff, 0x98 | D_32 | D_4K));
    conforming3 = gdt_test(4, descriptor(0, 0xfffff, 0x9e | D_DPL3 | D_32 | D_4K));
    absent_tss = gdt_test(5, descriptor((u32)&tss, 103, D_TSS & ~0x80));
    busy_tss = gdt_test(6, descriptor((u32)&tss, 103, D_TSS | 2));
    absent_ldt = gdt_test(7, descriptor((u32)gdt, 63, D_LDT & ~0x80));
}

static void data_loads(void)
{
    const struct {
        const char *what;
        u32 selector, vector, error;
    } rows[] = {
        {"a selector beyond the GDT", BEYOND | 3, GP, BEYOND},
        {"an LDT selector without an LDT", 0x14, GP, 0x14},
        {"a TSS", SEL_TSS, GP, SEL_TSS},
        {"an absent segment", absent_data, NP, absent_data},
        {"an execute-only segment", exec_only, GP, exec_only},
        {"RPL 3 on DPL 0", SEL_DATA0 | 3, GP, SEL_DATA0},
        {"null", 0, NO_TRAP, 0},
        {"null with RPL 3", 3, NO_TRAP, 0},
        {"read-only data", ro_data, NO_TRAP, 0},
        {"DPL 3 data", SEL_DATA3, NO_TRAP, 0},
        {"conforming code of DPL 3", conforming3, NO_TRAP, 0},
        {"readable code", SEL_CODE0, NO_TRAP, 0},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        TRY(FAULTING("movl %0, %%ds; movl %1, %%ds", : : "r"(rows[i].selector), "r"(SEL_DATA0)));
        if (rows[i].vector == NO_TRAP)
            check_eq(trap.vector, NO_TRAP, "mov ds, %s is allowed", rows[i].what);
        else
            check_trap(rows[i].vector, rows[i].error, "mov ds, %s", rows[i].what);
        TRY(FAULTING("movl %0, %%gs", : : "r"(rows[i].selector)));
        if (rows[i].vector == NO_TRAP)
            check_eq(trap.vector, NO_TRAP, "mov gs, %s is allowed", rows[i].what);
        else
            check_trap(rows[i].vector, rows[i].error, "mov gs, %s", rows[i].what);
    }
    TRY(FAULTING("movl %0, %%fs\n77: movl %%fs:0, %%eax", : : "r"(0) : "eax"));
    check(trap.vector == GP && trap.error == 0, "null: a read through a null segment is #GP(0)");
}

static void stack_loads(void)
{
    const struct {
        const char *what;
        u32 selector, vector, error;
    } rows[] = {
        {"null", 0, GP, 0},
        {"a selector beyond the GDT", BEYOND, GP, BEYOND},
        {"RPL 3", SEL_DATA0 | 3, GP, SEL_DATA0},
        {"DPL 3", SEL_DATA3 & ~3, GP, SEL_DATA3 & ~3},
        {"read-only data", ro_data, GP, ro_data},
        {"code", SEL_CODE0, GP, SEL_CODE0},
        {"an absent segment", absent_data, SS, absent_data},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        TRY(FAULTING("movl %0, %%ss", : : "r"(rows[i].selector)));
        check_trap(rows[i].vector, rows[i].error, "mov ss, %s", rows[i].what);
    }
    u16 small = gdt_test(8, descriptor(0, 0x1ff, D_DATA_W | D_32 | D_4K)); /* 2 MiB */
    TRY(__asm__ volatile("movl %0, %%ss\n movl $77f, fault_eip\n77: movl %%ss:0x200000, %%eax"
                         :
                         : "r"((u32)small)
                         : "eax"));
    check_trap(SS, 0, "limit: a read beyond SS's limit");
    __asm__ volatile("movl %0, %%ss" : : "r"(SEL_DATA0));
    TRY(__asm__ volatile("movl %0, %%ss\n movl $0x200000, %%ebx; xchgl %%ebx, %%ebp\n movl $77f, fault_eip\n"
                         "77: movl (%%ebp), %%eax"
                         :
                         : "r"((u32)small)
                         : "eax", "ebx"));
    check_trap(SS, 0, "limit: a read through EBP beyond SS's limit");
}

static void far_jump(u32 selector)
{
    struct {
        u32 offset;
        u16 selector;
    } target = {0x100000, selector};
    FAULTING("ljmp *%0", : : "m"(target));
}

static void far_transfers(void)
{
    const struct {
        const char *what;
        u32 selector, vector, error;
    } rows[] = {
        {"null", 0, GP, 0},
        {"null with RPL 3", 3, GP, 0},
        {"a selector beyond the GDT", BEYOND, GP, BEYOND},
        {"data", SEL_DATA0, GP, SEL_DATA0},
        {"absent code", absent_code, NP, absent_code},
        {"code of DPL 3", SEL_CODE3 & ~3, GP, SEL_CODE3 & ~3},
        {"RPL above CPL", SEL_CODE0 | 3, GP, SEL_CODE0},
        {"conforming code of DPL above CPL", conforming3, GP, conforming3},
        {"an absent TSS", absent_tss, NP, absent_tss},
        {"a busy TSS", busy_tss, GP, busy_tss},
        {"an LDT", absent_ldt | 0, GP, absent_ldt},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        TRY(far_jump(rows[i].selector));
        check_trap(rows[i].vector, rows[i].error, "far jump to %s", rows[i].what);
    }
}

static void system_loads(void)
{
    const struct {
        const char *what;
        u32 selector, vector, error;
    } tr[] = {{"null", 0, GP, 0},
              {"data", SEL_DATA0, GP, SEL_DATA0},
              {"a busy TSS", busy_tss, GP, busy_tss},
              {"the TSS already in use", SEL_TSS, GP, SEL_TSS},
              {"an absent TSS", absent_tss, NP, absent_tss},
              {"an LDT selector", 0x14, GP, 0x14},
              {"beyond the GDT", BEYOND, GP, BEYOND}},
      ldt[] = {{"null", 0, NO_TRAP, 0},
               {"data", SEL_DATA0, GP, SEL_DATA0},
               {"a TSS", SEL_TSS, GP, SEL_TSS},
               {"an absent LDT", absent_ldt, NP, absent_ldt},
               {"an LDT selector", 0x14, GP, 0x14},
               {"beyond the GDT", BEYOND, GP, BEYOND}};
    for (unsigned i = 0; i < sizeof tr / sizeof *tr; i++) {
        TRY(FAULTING("ltr %w0", : : "r"(tr[i].selector)));
        check_trap(tr[i].vector, tr[i].error, "ltr %s", tr[i].what);
        if (trap.vector == NO_TRAP) { /* the rest needs a task register */
            gdt[SEL_TSS / 8] = descriptor((u32)&tss, sizeof tss - 1, D_TSS);
            __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
        }
    }
    for (unsigned i = 0; i < sizeof ldt / sizeof *ldt; i++) {
        TRY(FAULTING("lldt %w0", : : "r"(ldt[i].selector)));
        if (ldt[i].vector == NO_TRAP)
            check_eq(trap.vector, NO_TRAP, "lldt %s is allowed", ldt[i].what);
        else
            check_trap(ldt[i].vector, ldt[i].error, "lldt %s", ldt[i].what);
    }
}

static u32 int71(u32 arg)
{
    (void)arg;
    FAULTING("int $0x71");
    return 0;
}

static void gates(void)
{
    const struct {
        const char *what;
        u64 gate;
        u32 vector, error;
    } rows[] = {
        {"an absent gate", gate(SEL_CODE0, trap_stubs[0x71], 0x0e, 0), NP, 0x71 * 8 + 2},
        {"a call gate in the IDT", gate(SEL_CODE0, trap_stubs[0x71], 0x8c, 0), GP, 0x71 * 8 + 2},
        {"an empty gate", 0, GP, 0x71 * 8 + 2},
        {"a gate to null", gate(0, trap_stubs[0x71], 0x8e, 0), GP, 0},
        {"a gate to data", gate(SEL_DATA0, trap_stubs[0x71], 0x8e, 0), GP, SEL_DATA0},
        {"a gate to absent code", gate(absent_code, trap_stubs[0x71], 0x8e, 0), NP, absent_code},
        {"a gate beyond the GDT", gate(BEYOND, trap_stubs[0x71], 0x8e, 0), GP, BEYOND},
        {"a gate to an outer ring", gate(SEL_CODE3, trap_stubs[0x71], 0x8e, 0), GP, SEL_CODE3 & ~3},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        idt[0x71] = rows[i].gate;
        TRY(int71(0));
        check_trap(rows[i].vector, rows[i].error, "int through %s", rows[i].what);
    }
    idt_set(0x71, trap_stubs[0x71], 0x8e);
    ring_call(3, int71, 0);
    check_trap(GP, 0x71 * 8 + 2, "int from ring 3 through a gate of DPL 0");
    load_idt(idt, 0x71 * 8 - 1);
    TRY(int71(0));
    check_trap(GP, 0x71 * 8 + 2, "int beyond the IDT's limit");
    load_idt(idt, 0x71 * 8 + 6);
    TRY(int71(0));
    check_trap(GP, 0x71 * 8 + 2, "int through the IDT's last, cut gate");
    load_idt(idt, sizeof idt - 1);
}

/* From ring 3 through a gate into ring 1 whose stack in the TSS is bad: the fault itself is delivered to ring
 * 0, whose stack is good. */
static void inner_stacks(void)
{
    const struct {
        const char *what;
        u32 ss, vector, error;
    } rows[] = {
        {"null", 0, TS, 0},
        {"beyond the GDT", BEYOND | 1, TS, BEYOND},
        {"of the wrong RPL", SEL_DATA1 & ~3, TS, SEL_DATA1 & ~3},
        {"of the wrong DPL", SEL_DATA0 | 1, TS, SEL_DATA0},
        {"code", SEL_CODE1, TS, SEL_CODE1 & ~3},
        {"absent", 0, SS, 0},
    };
    u16 absent1 = gdt_test(9, descriptor(0, 0xfffff, 0x12 | D_DPL1 | D_32 | D_4K));
    idt[0x71] = gate(SEL_CODE1, trap_stubs[0x71], 0xee, 0);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool is_absent = rows[i].vector == SS;
        tss.ss1 = is_absent ? absent1 | 1 : rows[i].ss;
        ring_call(3, int71, 0);
        check_trap(rows[i].vector, is_absent ? absent1 : rows[i].error, "int to ring 1 with SS1 %s",
                   rows[i].what);
        check_eq(trap.cs, SEL_CODE3, "  reported in ring 3");
    }
    tss.ss1 = SEL_DATA1;
    idt_set(0x71, trap_stubs[0x71], 0x8e);
}

/* EXT: the event that was being delivered came from outside the instruction stream. */
static void external(void)
{
    u64 old = idt[6];
    idt[6] = gate(SEL_CODE0, trap_stubs[6], 0x0e, 0);
    TRY(FAULTING("ud2"));
    check_trap(NP, 6 * 8 + 3, "EXT: #UD through an absent gate");
    idt[6] = gate(0, trap_stubs[6], 0x8e, 0);
    TRY(FAULTING("ud2"));
    check_trap(GP, 1, "EXT: #UD through a gate to null");
    idt[6] = gate(absent_code, trap_stubs[6], 0x8e, 0);
    TRY(FAULTING("ud2"));
    check_trap(NP, absent_code | 1, "EXT: #UD through a gate to absent code");
    idt[6] = old;
    old = idt[0x20];
    idt[0x20] = gate(SEL_CODE0, trap_stubs[0x20], 0x0e, 0);
    pic_mask(0xfffe);
    pit_oneshot(100);
    TRY(sti(); for (;;) __asm__ volatile("pause"));
    check_trap_anywhere(NP, 0x20 * 8 + 3, "EXT: IRQ 0 through an absent gate");
    pic_mask(0xffff);
    pit_stop();
    pic_eoi(0);
    idt[0x20] = old;
    old = idt[3];
    idt[3] = gate(SEL_CODE0, trap_stubs[3], 0x6e, 0);
    TRY(FAULTING("int3"));
    check_trap(NP, 3 * 8 + 2, "no EXT: int3 through an absent gate");
    idt[3] = old;
}

static void iret_to(u32 cs, u32 ss)
{
    __asm__ volatile("movl $77f, fault_eip\n pushl %1; pushl $0x100000; pushl $2; pushl %0; pushl $0x100000\n"
                     "77: iret"
                     :
                     : "r"(cs), "r"(ss));
}

static void irets(void)
{
    u16 absent3 = gdt_test(10, descriptor(0, 0xfffff, 0x12 | D_DPL3 | D_32 | D_4K));
    const struct {
        const char *what;
        u32 cs, ss, vector, error;
    } rows[] = {
        {"CS null", 0, 0, GP, 0},
        {"CS beyond the GDT", BEYOND, 0, GP, BEYOND},
        {"CS data", SEL_DATA0, 0, GP, SEL_DATA0},
        {"CS of another DPL", SEL_CODE3 & ~3, 0, GP, SEL_CODE3 & ~3},
        {"CS absent", absent_code, 0, NP, absent_code},
        {"SS null for ring 3", SEL_CODE3, 0, GP, 0},
        {"SS of another RPL", SEL_CODE3, SEL_DATA3 & ~3, GP, SEL_DATA3 & ~3},
        {"SS of another DPL", SEL_CODE3, SEL_DATA0 | 3, GP, SEL_DATA0},
        {"SS code", SEL_CODE3, SEL_CODE3, GP, SEL_CODE3 & ~3},
        {"SS absent", SEL_CODE3, 0, SS, 0},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool is_absent = rows[i].vector == SS;
        TRY(iret_to(rows[i].cs, is_absent ? absent3 | 3 : rows[i].ss));
        check_trap(rows[i].vector, is_absent ? absent3 : rows[i].error, "iret with %s", rows[i].what);
        check_eq(trap.cs, SEL_CODE0, "  still in ring 0");
    }
    /* NT: the back link of the current TSS names the task to return to. */
    tss.link = SEL_DATA0;
    TRY(__asm__ volatile("movl $77f, fault_eip; pushfl; orl $0x4000, (%%esp); popfl\n77: iret"
                         :
                         :
                         : "memory"));
    check_trap(TS, SEL_DATA0, "iret with NT and a back link to data");
    tss.link = 0x14;
    TRY(__asm__ volatile("movl $77f, fault_eip; pushfl; orl $0x4000, (%%esp); popfl\n77: iret"
                         :
                         :
                         : "memory"));
    check_trap(TS, 0x14, "iret with NT and a back link into the LDT");
}

static void control_registers(void)
{
    u32 cr0 = READ_CR(0), cr4 = READ_CR(4);
    if (!on_tcg()) { /* helper_write_crN checks no combination; TCG would go on with these */
        TRY(FAULTING("movl %0, %%cr0", : : "r"((cr0 & ~1u) | CR0_PG)));
        check_trap(GP, 0, "CR0: PG without PE");
        TRY(FAULTING("movl %0, %%cr0", : : "r"((cr0 & ~(1u << 30)) | 1u << 29)));
        check_trap(GP, 0, "CR0: NW without CD");
        TRY(FAULTING("movl %0, %%cr4", : : "r"(cr4 | 1u << 31)));
        check_trap(GP, 0, "CR4: a reserved bit");
    }
    check_eq(READ_CR(0), cr0, "CR0 is as before");
    TRY(FAULTING("rdmsr", : : "c"(0x12345678)));
    check_trap(GP, 0, "rdmsr of no register");
    TRY(FAULTING("wrmsr", : : "c"(0x12345678), "a"(0), "d"(0)));
    check_trap(GP, 0, "wrmsr of no register");
}

void guest_main(void)
{
    make_descriptors();
    data_loads();
    stack_loads();
    far_transfers();
    system_loads();
    gates();
    inner_stacks();
    external();
    irets();
    control_registers();
}
