/* Ways from one ring to another: call gates with and without parameters, interrupt and trap gates, IRET and
 * RETF outward to each ring, with the stacks the TSS names. SDM vol. 3 5.8. */
#include "lib/guest.h"

enum { IF = 0x200, GP = 13 };

volatile u32 seen_cs, seen_ss, seen_esp, seen_flags, seen_param[3];

/* The targets of the gates record where they are and return, releasing their parameters. */
extern const char gate_0[], gate_2[], gate_3[];
__asm__(".macro record\n"
        " movl %cs, %eax; movl %eax, seen_cs; movl %ss, %eax; movl %eax, seen_ss; movl %esp, seen_esp\n"
        " pushfl; popl seen_flags\n"
        ".endm\n"
        "gate_0: record; movl $0x1111, %eax; lret\n"
        "gate_2: record; movl 8(%esp), %eax; movl %eax, seen_param; movl 12(%esp), %eax; movl %eax, "
        "seen_param + 4\n"
        " movl $0x2222, %eax; lret $8\n"
        "gate_3: record; movl $0x3333, %eax; lret $12\n");

static u32 call_0(u32 selector)
{
    u32 v, before, after;
    __asm__ volatile("pushl %3; pushl $0; movl %%esp, %1; lcall *(%%esp); movl %%esp, %2; addl $8, %%esp"
                     : "=&a"(v), "=&r"(before), "=&r"(after)
                     : "r"(selector)
                     : "memory");
    return before == after ? v : 0;
}

static u32 call_2(u32 selector)
{
    static struct {
        u32 offset;
        u16 selector;
    } target;
    u32 v;
    target.selector = selector;
    __asm__ volatile("pushl $0xbbbb; pushl $0xaaaa; lcall *%1" : "=a"(v) : "m"(target) : "memory");
    return v;
}

static void call_gates(void)
{
    for (u32 from = 1; from <= 3; from++)
        for (u32 to = 0; to <= from; to++) {
            u32 code = SEL_CODE0 + 17 * to;
            u16 g0 = gdt_test(0, gate(code, (u32)gate_0, 0xec, 0)) | 3;
            u16 g2 = gdt_test(1, gate(code, (u32)gate_2, 0xec, 2)) | 3;
            ring_call(from, call_0, g0);
            check(trap.vector == VEC_RETURN && trap.eax == 0x1111, "call gate, ring %u to %u and back", from,
                  to);
            check_eq(seen_cs, code, "  its CS");
            check_eq(seen_ss, SEL_DATA0 + 17 * to, "  its SS");
            if (to != from) {
                u32 stack = to == 0 ? tss.esp0 : to == 1 ? tss.esp1 : tss.esp2;
                check_eq(stack - seen_esp, 16, "  its stack is the TSS's, with SS, ESP, CS, EIP on it");
            }
            ring_call(from, call_2, g2);
            if (to == from) /* no stack switch, no copy: the caller's pushes are the parameters */
                check(trap.eax == 0x2222 && seen_param[0] == 0xaaaa,
                      "call gate with 2 parameters, same ring");
            else
                check(trap.eax == 0x2222 && seen_param[0] == 0xaaaa && seen_param[1] == 0xbbbb,
                      "call gate with 2 parameters, ring %u to %u", from, to);
        }
}

static void gate_privilege(void)
{
    u16 low = gdt_test(0, gate(SEL_CODE0, (u32)gate_0, 0x8c, 0));
    ring_call(3, call_0, low);
    check_trap_anywhere(GP, low, "call gate of DPL 0 from ring 3");
    u16 gone = gdt_test(1, gate(SEL_CODE0, (u32)gate_0, 0x6c, 0));
    ring_call(3, call_0, gone | 3);
    check_trap_anywhere(11, gone, "an absent call gate");
    u16 outer = gdt_test(2, gate(SEL_CODE3, (u32)gate_0, 0x8c, 0));
    TRY(call_0(outer));
    check_trap_anywhere(GP, SEL_CODE3 & ~3, "a call gate to an outer ring from ring 0");
    u16 null = gdt_test(3, gate(0, (u32)gate_0, 0xec, 0));
    ring_call(3, call_0, null | 3);
    check_trap_anywhere(GP, 0, "a call gate to null");
    u16 rpl = gdt_test(4, gate(SEL_CODE0, (u32)gate_0, 0xac, 0)); /* DPL 1 */
    ring_call(1, call_0, rpl | 3);
    check_trap_anywhere(GP, rpl, "a call gate of DPL 1 by a selector of RPL 3 from ring 1");
    ring_call(1, call_0, rpl | 1);
    check(trap.vector == VEC_RETURN, "  by one of RPL 1 it works");
}

static bool record_frame(struct frame *f)
{
    seen_cs = f->cs;
    seen_ss = f->ss;
    seen_esp = (u32)&f->ss + 4;
    seen_flags = eflags();
    f->eax = 0x7070;
    return true;
}

static u32 int70(u32 arg)
{
    u32 v;
    (void)arg;
    __asm__ volatile("int $0x70" : "=a"(v));
    return v;
}

static void interrupt_gates(void)
{
    trap_hook[0x70] = record_frame;
    for (u32 kind = 0; kind < 2; kind++) {
        idt_set(0x70, trap_stubs[0x70], kind ? 0xef : 0xee);
        ring_eflags = IF | 2;
        ring_call(3, int70, 0);
        ring_eflags = 2;
        check(trap.vector == VEC_RETURN && trap.eax == 0x7070, "int 70h from ring 3 and back");
        check_eq(seen_cs, SEL_CODE3, "  the frame's CS");
        check_eq(seen_ss, SEL_DATA3, "  the frame's SS");
        check_eq(seen_esp, tss.esp0, "  the frame lies at the top of TSS.ESP0's stack");
        check_eq(seen_flags & IF, kind ? IF : 0, "  IF inside: a %s gate", kind ? "trap" : "interrupt");
        check_eq(trap.eflags & IF, IF, "  IF is back after IRET");
    }
}

static u32 where(u32 arg)
{
    u32 cs, ss, ds;
    __asm__ volatile("movl %%cs, %0; movl %%ss, %1; movl %%ds, %2" : "=r"(cs), "=r"(ss), "=r"(ds));
    return cs | ss << 8 | ds << 16 | (arg << 24);
}

static void outward(void)
{
    for (u32 ring = 1; ring <= 3; ring++) {
        u32 sel = SEL_DATA0 + 17 * ring;
        ring_call(ring, where, 0x5a);
        check(trap.vector == VEC_RETURN &&
                  trap.eax == ((SEL_CODE0 + 17 * ring) | sel << 8 | sel << 16 | 0x5a000000),
              "IRET to ring %u", ring);
        check_eq(trap.cs & 3, ring, "  CPL is the frame's RPL");
    }
    /* RETF outward; data segments the outer ring may not use become null. */
    u32 *sp = (u32 *)ring_stack_top(3);
    *--sp = 0x77;
    *--sp = (u32)ring_return;
    TRY(__asm__ volatile("movl %1, %%ds; movl %2, %%es; movl %2, %%fs; movl %3, %%gs\n"
                         "pushl %2; pushl %4; pushl %5; pushl %0; lret"
                         :
                         : "r"(where), "r"(SEL_DATA0), "r"(SEL_DATA3), "r"(SEL_DATA0), "r"(sp),
                           "i"(SEL_CODE3)));
    check_eq(trap.vector, VEC_RETURN, "RETF to ring 3");
    check_eq(trap.eax & 0xff, SEL_CODE3, "  its CS");
    check_eq(trap.ds, 0, "  DS of DPL 0 has become null");
    check_eq(trap.es, SEL_DATA3, "  ES of DPL 3 is kept");
    check_eq(trap.gs, 0, "  GS of DPL 0 has become null");
}

void guest_main(void)
{
    call_gates();
    gate_privilege();
    interrupt_gates();
    outward();
}
