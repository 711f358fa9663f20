/*
 * Physical pages that change their trade: page directory, page table, data, code, in no particular order, as in
 * a kernel whose processes come and go. A directory that is freed and used again has the same CR3 as the one
 * before; a table may be two directories' at once; a freed page is written to as what it is by then, before
 * anything is flushed. Only what the architecture promises is expected.
 */
#include "lib/guest.h"

enum {
    POOL = 40,
    SPACES = 10,
    TABLES = 2,
    PAGES = 6,
    ROUNDS = 1500,
    VIEW = 0x40000000,
    SPAN = 0x400000,
    KERNEL_VIEW = 0xd0000000,
};

static u32 *pool[POOL], *free_page[POOL], free_count;
static u32 *base_pd;

struct space {
    u32 *pd, *table[TABLES], *page[TABLES][PAGES];
    u32 value[TABLES][PAGES];
    bool alive, shares; /* shares: table[1] is another's, or another has ours */
};
static struct space space[SPACES];
static u32 stamp;

/* Without the low bits, which repeat soon. */
static u32 random24(void)
{
    return random32() >> 8;
}

static u32 *take(void)
{
    u32 i = random24() % free_count, *p = free_page[i];
    free_page[i] = free_page[--free_count];
    return p;
}

static void give(u32 *p)
{
    u32 junk = random24();
    if (junk & 1) /* what it is next is not known: it may well look like a table full of entries */
        for (u32 i = 0; i < 64; i++)
            p[i] = (u32)pool[(junk + i) % POOL] | P | W | U | ACC | DIRTY;
    free_page[free_count++] = p;
}

static void end(struct space *s)
{
    for (u32 t = 0; t < TABLES; t++) {
        for (u32 i = 0; i < PAGES; i++)
            give(s->page[t][i]);
        give(s->table[t]);
    }
    give(s->pd);
    s->alive = false;
}

static void begin(struct space *s)
{
    s->pd = take();
    memcpy(s->pd, base_pd, 4096);
    for (u32 t = 0; t < TABLES; t++) {
        s->table[t] = take();
        memset(s->table[t], 0, 4096);
        for (u32 i = 0; i < PAGES; i++) {
            s->page[t][i] = take();
            s->page[t][i][0] = s->value[t][i] = ++stamp;
            s->table[t][i * 3] = (u32)s->page[t][i] | P | W | U;
        }
        s->pd[(VIEW >> 22) + t] = (u32)s->table[t] | P | W | U;
    }
    s->pd[KERNEL_VIEW >> 22] = (u32)s->table[0] | P | W; /* the same table, for the kernel alone */
    s->alive = true;
}

static volatile u32 *at(u32 t, u32 i)
{
    return (volatile u32 *)(VIEW + t * SPAN + i * 3 * 4096);
}

static u32 user_walk(u32 add)
{
    u32 sum = 0;
    for (u32 t = 0; t < TABLES; t++)
        for (u32 i = 0; i < PAGES; i++) {
            *at(t, i) += add;
            sum += *at(t, i);
        }
    return sum;
}

static void visit(struct space *s)
{
    u32 sum = 0;
    WRITE_CR(3, s->pd);
    for (u32 t = 0; t < TABLES; t++)
        for (u32 i = 0; i < PAGES; i++) {
            check_eq(*at(t, i), s->value[t][i], "space %x, page %u.%u", (u32)s->pd, t, i);
            sum += ++s->value[t][i];
        }
    ring_call(3, user_walk, 1);
    check(trap.vector == VEC_RETURN && trap.eax == sum, "space %x: ring 3 sees %x, not %x", (u32)s->pd,
          trap.eax, sum);
    u32 i = random24() % PAGES;
    check_eq(*(volatile u32 *)(KERNEL_VIEW + i * 3 * 4096), s->value[0][i],
             "space %x: through the kernel's view", (u32)s->pd);
    check_eq(access_page(3, READ, KERNEL_VIEW + i * 3 * 4096), PF_P | PF_U, "  which ring 3 has not");
    check_eq(access_page(0, READ, VIEW + 4096), 0, "space %x: a hole", (u32)s->pd);
}

/* Two pages of the current space change places; only one of the addresses is flushed before it is used. */
static void exchange(struct space *s)
{
    u32 a = random24() % PAGES, b = (a + 1) % PAGES, *t = s->table[1];
    u32 e = t[a * 3], v = s->value[1][a], *p = s->page[1][a];
    t[a * 3] = t[b * 3];
    t[b * 3] = e;
    s->value[1][a] = s->value[1][b];
    s->value[1][b] = v;
    s->page[1][a] = s->page[1][b];
    s->page[1][b] = p;
    invlpg((void *)at(1, a));
    check_eq(*at(1, a), s->value[1][a], "space %x: exchanged", (u32)s->pd);
    invlpg((void *)at(1, b));
    check_eq(*at(1, b), s->value[1][b], "space %x: and the other", (u32)s->pd);
}

/* A page is another one from now on, as after a copy on write; the old one is free at once. */
static void replace(struct space *s)
{
    u32 t = random24() % TABLES, i = random24() % PAGES, *old = s->page[t][i], *fresh = take();
    fresh[0] = s->value[t][i] = ++stamp;
    s->table[t][i * 3] = (u32)fresh | P | W | U;
    s->page[t][i] = fresh;
    invlpg((void *)at(t, i));
    if (t == 0)
        invlpg((void *)(KERNEL_VIEW + i * 3 * 4096));
    give(old);
    check_eq(*at(t, i), s->value[t][i], "space %x: a page replaced", (u32)s->pd);
}

void guest_main(void)
{
    base_pd = pd_create(U);
    for (u32 i = 0; i < POOL * 5; i++) { /* enough for all spaces and some to spare */
        u32 *p = page_alloc();
        if (i < POOL)
            pool[i] = p;
    }
    for (free_count = 0; free_count < POOL; free_count++)
        free_page[free_count] = pool[free_count];
    paging_on(base_pd, 0);
    quiet_checks(true);
    for (u32 round = 0; round < ROUNDS; round++) {
        struct space *s = &space[random24() % SPACES];
        if (!s->alive && free_count >= 1 + TABLES * (PAGES + 1) + 1)
            begin(s);
        if (!s->alive)
            continue;
        visit(s);
        if (round % 3 == 0)
            exchange(s);
        if (round % 5 == 0 && free_count)
            replace(s);
        if (random24() % 4 == 0) { /* from its own address space, or after leaving it */
            if (random24() & 1)
                WRITE_CR(3, base_pd);
            else
                s->pd[(VIEW >> 22) + 1] = 0;
            WRITE_CR(3, base_pd);
            end(s);
        }
    }
    quiet_checks(false);
    check(true, "%u rounds of spaces made of recycled pages", ROUNDS);
}
