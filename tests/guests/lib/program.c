/* Programs: user code in pages of its own, in an address space whose kernel pages are not the program's. */
#include "program.h"

static u32 *pd;
static u8 *text, *data;

u32 *program_space(void)
{
    return pd;
}

u8 *program_text(void)
{
    return text;
}

u8 *program_data(void)
{
    return data;
}

/* What is identity-mapped is the kernel's but for the stacks of the outer rings, which ring_descend needs. */
void program_begin(void)
{
    pd = pd_create(0);
    text = page_alloc();
    data = page_alloc();
    page_alloc(); /* the data's second page */
    map32(pd, PROGRAM, (u32)text, P | U);
    map32(pd, PROGRAM_DATA, (u32)data, P | W | U);
    map32(pd, PROGRAM_DATA + 4096, (u32)data + 4096, P | W | U);
    u32 stack = (ring_stack_top(3) - 1) & ~4095u;
    map32(pd, PROGRAM_STACK, stack, P | W | U);
    WRITE_CR(0, (READ_CR(0) & ~(CR0_EM | CR0_TS)) | CR0_MP | CR0_NE | CR0_WP);
    paging_on(pd, CR4_OSFXSR | CR4_OSXMM);
    __asm__ volatile("fninit");
}

u32 program_space_more(void)
{
    u32 *more = page_alloc();
    memcpy(more, pd, 4096);
    u32 *table = page_alloc(); /* PROGRAM's own page table, so that the spaces can differ */
    memcpy(table, (void *)(pd[PROGRAM >> 22] & ~4095u), 4096);
    more[PROGRAM >> 22] = (u32)table | P | W | U;
    return (u32)more;
}

/* Each in a page that held no code before, as after exec. */
void program_put(const struct program *p)
{
    text = page_alloc();
    memset(text, 0x90, 4096);
    memcpy(text, p->code, (size_t)(p->end - p->code));
    map32(pd, PROGRAM, (u32)text, P | U);
    invlpg((void *)PROGRAM);
}

void program_run(u32 offset, u32 flags)
{
    struct descent d = {.eip = PROGRAM + offset,
                        .cs = SEL_CODE3,
                        .eflags = flags | 0x202,
                        .esp = PROGRAM_STACK + 4096,
                        .ss = SEL_DATA3,
                        .data = SEL_DATA3};
    TRY(ring_descend(&d));
}

u32 program_address(const struct program *p, const u8 *label)
{
    return PROGRAM + (u32)(label - p->code);
}

bool program_check(const struct program *p, u32 vector, u32 error)
{
    u32 want = program_address(p, p->at);
    return check(trap.vector == vector && (error == ANY_ERROR || trap.error == error) && trap.eip == want &&
                     trap.cs == SEL_CODE3,
                 "%s: vector %u error %x at %X, got vector %u error %x at %x:%X", p->name, vector, error,
                 want, trap.vector, trap.error, trap.cs, trap.eip);
}
