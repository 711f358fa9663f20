/* #PF with every error code 32-bit paging can give: kind of page, ring, access and CR0.WP. SDM vol. 3 4.6 and
 * 4.7. CR2 and EIP are checked by access_page. */
#include "lib/guest.h"

enum { BASE = 0x40000000 };
enum { OK = ACCESS_OK };

static const struct {
    const char *what;
    u32 pde, pte;
    /* [ring 0 with WP 0, ring 0 with WP 1, ring 3][read, write, exec] */
    u32 want[3][3];
} pages[] = {
    {"absent", P | W | U, 0, {{0, 2, 0}, {0, 2, 0}, {4, 6, 4}}},
    {"in an absent table", 0, 0, {{0, 2, 0}, {0, 2, 0}, {4, 6, 4}}},
    {"supervisor, read-only", P | W | U, P, {{OK, OK, OK}, {OK, 3, OK}, {5, 7, 5}}},
    {"supervisor, writable", P | W | U, P | W, {{OK, OK, OK}, {OK, OK, OK}, {5, 7, 5}}},
    {"user, read-only", P | W | U, P | U, {{OK, OK, OK}, {OK, 3, OK}, {OK, 7, OK}}},
    {"user, writable", P | W | U, P | W | U, {{OK, OK, OK}, {OK, OK, OK}, {OK, OK, OK}}},
    {"user, read-only by its PDE", P | U, P | W | U, {{OK, OK, OK}, {OK, 3, OK}, {OK, 7, OK}}},
    {"supervisor by its PDE", P | W, P | W | U, {{OK, OK, OK}, {OK, OK, OK}, {5, 7, 5}}},
    {"supervisor, read-only by its PDE", P, P | W | U, {{OK, OK, OK}, {OK, 3, OK}, {5, 7, 5}}},
};
enum { PAGES = sizeof pages / sizeof *pages };

static void string(u32 code)
{
    if (code == OK)
        print("no fault");
    else
        print("%x", code);
}

void guest_main(void)
{
    static const char *who[] = {"ring 0, WP=0", "ring 0, WP=1", "ring 3"}, *act[] = {"read", "write", "exec"};
    u32 *pd = pd_create(U);
    u8 *frame = page_alloc();
    for (unsigned i = 0; i < PAGES; i++) {
        map32(pd, BASE + (i << 22), (u32)frame, pages[i].pte);
        u32 *pde = &pd[(BASE >> 22) + i];
        *pde = pages[i].pde ? (*pde & ~7u) | pages[i].pde : 0;
    }
    paging_on(pd, 0);
    for (unsigned w = 0; w < 3; w++)
        for (unsigned i = 0; i < PAGES; i++)
            for (unsigned a = 0; a < 3; a++) {
                memset(frame, OPCODE_RET, 16);
                WRITE_CR(0, (READ_CR(0) & ~CR0_WP) | (w == 1 ? CR0_WP : 0));
                u32 got = access_page(w == 2 ? 3 : 0, a, BASE + (i << 22));
                if (!check(got == pages[i].want[w][a], "%s: %s of a page %s", who[w], act[a],
                           pages[i].what)) {
                    print("   got ");
                    string(got);
                    print(", want ");
                    string(pages[i].want[w][a]);
                    print("\n");
                }
            }
}
