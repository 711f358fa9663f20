/*
 * The embedded guest: what `ringlet run` boots when no guest is given. A 32-bit kernel that takes itself from
 * flat protected mode through paging to ring 3 and back, and shows for each sensitive instruction what it saw
 * and what the bare host would have given.
 */
#include "tour.h"

enum { CR4_PSE = 16, PAGE_P = 1, PAGE_W = 2, PAGE_U = 4, PAGE_LARGE = 128, DEBUG_EXIT = 0xf4 };
enum { VIEW = 0x40000000, MULTIBOOT = 0x2badb002, FLAGS_NONE = 2, PAGE = 4096 };

struct pseudo {
    u16 limit;
    u32 base;
} __attribute__((packed));

volatile struct arrival arrived;
static u64 gdt[16] __attribute__((aligned(8))), idt[STUBS] __attribute__((aligned(8)));
static u64 ldt[2];
static u32 task[26];
static u32 directory[1024] __attribute__((aligned(PAGE))), table[1024] __attribute__((aligned(PAGE)));
static volatile u32 frame[1024] __attribute__((aligned(PAGE)));

static u64 segment(u32 base, u32 limit, u32 access)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)(access & 0xf0ff) << 40 |
           (u64)(limit >> 16 & 15) << 48 | (u64)(base >> 24) << 56;
}

static u64 gate(u32 selector, u32 offset, u32 type)
{
    return (offset & 0xffff) | selector << 16 | (u64)type << 40 | (u64)(offset >> 16) << 48;
}

static void own_tables(struct machine *m)
{
    gdt[KERNEL_CODE / 8] = segment(0, 0xfffff, 0xc09a);
    gdt[KERNEL_DATA / 8] = segment(0, 0xfffff, 0xc092);
    gdt[USER_CODE / 8] = segment(0, 0xfffff, 0xc0fa);
    gdt[USER_DATA / 8] = segment(0, 0xfffff, 0xc0f2);
    gdt[TASK / 8] = segment((u32)task, sizeof task - 1, 0x89);
    gdt[LOCAL / 8] = segment((u32)ldt, sizeof ldt - 1, 0x82);
    gdt[GATE / 8] = gate(KERNEL_CODE, (u32)gate_target, 0xec);
    gdt[SMALL_DATA / 8] = segment((u32)frame, 0xfff, 0x40f2);
    for (unsigned v = 0; v < STUBS; v++)
        idt[v] = gate(KERNEL_CODE, (u32)stubs + 16 * v, v >= VECTOR_CALL || v == 3 ? 0xee : 0x8e);
    task[1] = (u32)trap_stack_top; /* ESP0, SS0: where a trap from ring 3 lands */
    task[2] = KERNEL_DATA;
    task[25] = sizeof task << 16;
    struct pseudo g = {sizeof gdt - 1, (u32)gdt}, i = {sizeof idt - 1, (u32)idt};
    *m = (struct machine){g.base, i.base, g.limit, i.limit};
    __asm__ volatile("lgdt %0; lidt %1; ljmp %2, $1f; 1:" : : "m"(g), "m"(i), "i"(KERNEL_CODE));
    __asm__ volatile("movl %0, %%ds; movl %0, %%es; movl %0, %%ss; movl %0, %%fs; movl %0, %%gs"
                     :
                     : "r"(KERNEL_DATA));
    __asm__ volatile("ltr %w0; lldt %w1" : : "r"(TASK), "r"(LOCAL));
}

/* One to one with 4 MiB pages, and one frame at a second address. */
static void paging_on(void)
{
    for (u32 i = 0; i < 1024; i++)
        directory[i] = i << 22 | PAGE_P | PAGE_W | PAGE_U | PAGE_LARGE;
    table[0] = (u32)frame | PAGE_P | PAGE_W;
    directory[VIEW >> 22] = (u32)table | PAGE_P | PAGE_W | PAGE_U;
    __asm__ volatile("movl %%cr4, %%eax; orl %0, %%eax; movl %%eax, %%cr4; movl %1, %%cr3\n"
                     "movl %%cr0, %%eax; orl $0x80010000, %%eax; movl %%eax, %%cr0"
                     :
                     : "i"(CR4_PSE), "r"(directory)
                     : "eax", "memory");
}

static u32 touch_view(void)
{
    return *(volatile u32 *)VIEW;
}

static u32 touch_nothing(void)
{
    return *(volatile u32 *)(VIEW + 2 * PAGE);
}

static u32 where_am_i(void)
{
    u32 cs;
    __asm__ volatile("movl %%cs, %0" : "=r"(cs));
    return cs;
}

static unsigned step(bool holds, const char *fmt, u32 a, u32 b)
{
    struct line l = {.length = 0};
    line_add(&l, fmt, a, b);
    line_pad(&l, 74);
    say("%s%s", l.text, holds ? "ok" : "WRONG");
    return !holds;
}

static unsigned first_steps(u32 magic, struct machine *m)
{
    unsigned wrong = 0;
    wrong +=
        step(magic == MULTIBOOT, "  Multiboot: started in flat 32-bit protected mode, EAX = %w", magic, 0);
    own_tables(m);
    wrong += step(where_am_i() == KERNEL_CODE, "  a GDT, an IDT and a TSS of its own: ring %d, CS = %h", 0,
                  where_am_i());
    paging_on();
    frame[0] = 0x600dcafe;
    wrong += step(*(volatile u32 *)VIEW == 0x600dcafe, "  paging: one frame at two addresses, %w and %w",
                  (u32)frame, VIEW);
    step_into(KERNEL_CODE, KERNEL_DATA, touch_nothing, FLAGS_NONE);
    wrong += step(arrived.vector == 14 && arrived.error == 0 && arrived.cr2 == VIEW + 2 * PAGE,
                  "  an absent page: #PF, error %x, CR2 = %w", arrived.error, arrived.cr2);
    step_into(USER_CODE, USER_DATA, where_am_i, FLAGS_NONE);
    wrong += step(arrived.vector == VECTOR_BACK && arrived.eax == USER_CODE,
                  "  IRET to ring %d, CS = %h, and back", 3, arrived.eax);
    step_into(USER_CODE, USER_DATA, touch_view, FLAGS_NONE);
    wrong += step(arrived.vector == 14 && arrived.error == 5,
                  "  ring 3 touches the kernel's page: #PF, error %x", arrived.error, 0);
    return wrong;
}

void tour_main(u32 magic);
void tour_main(u32 magic)
{
    struct machine m;
    unsigned wrong, count = 0;
    say("");
    say("ringlet: a tour");
    say("===============");
    say("This text comes from a guest: a small 32-bit kernel inside the ringlet binary.");
    say("It believes it owns the machine. Its ring 0 and its ring 3 both run in ring 3 of");
    say("an ordinary Linux process, without VT-x, AMD-V, /dev/kvm or root.");
    say("");
    say("First steps");
    wrong = first_steps(magic, &m);
    wrong += tour_rows(&m, &count);
    say("");
    if (wrong)
        say("%d of the guest's observations are WRONG.", wrong);
    else
        say("%d instructions, and the guest saw nothing but its own machine.", count);
    say("Next, a whole Linux:  sh host/bootstrap run");
    say("or by hand:           ringlet run --kernel vmlinuz --initrd initramfs.cpio.gz \\");
    say("                        --append \"console=ttyS0\"        (Ctrl-A x ends it)");
    say("");
    if (!wrong)
        power_off();
    port_out32(DEBUG_EXIT, wrong ? wrong : 100); /* 100: no way to power off */
}
