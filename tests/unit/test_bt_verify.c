/*
 * The SFI verifier against hand-assembled blocks: one forged block per rule, which must be refused for that
 * rule, and the translator's shapes, which must pass. Bytes were assembled by hand from SDM vol. 2.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "impl.h"

#define EIP 0xc0101000u

/* A vCPU that has an arena with the stubs in it and room for two blocks, and nothing else. */
struct rig {
    struct bt_vcpu *v;
    struct bt_block *b;
    uint32_t at;
};

static void rig_init(struct rig *r)
{
    struct host_err err;
    r->v = aligned_alloc(64, (sizeof *r->v + 63) & ~(size_t)63);
    assert_non_null(r->v);
    memset(r->v, 0, sizeof *r->v);
    assert_int_equal(host_arena_init(&r->v->arena, 1 << 16, &err), 0);
    r->v->block = aligned_alloc(64, 8 * sizeof *r->v->block);
    assert_non_null(r->v->block);
    memset(r->v->block, 0, 8 * sizeof *r->v->block);
    r->v->map = calloc(64, sizeof *r->v->map);
    r->v->link = calloc(16, sizeof *r->v->link);
    r->v->site = calloc(16, sizeof *r->v->site);
    bt_stubs_emit(r->v);
    r->v->block_count = 1;
    r->v->map_count = r->v->link_count = r->v->site_count = 1;
}

static void rig_finish(struct rig *r)
{
    host_arena_finish(&r->v->arena);
    free(r->v->block);
    free(r->v->map);
    free(r->v->link);
    free(r->v->site);
    free(r->v);
}

static void put(struct rig *r, const void *bytes, size_t n)
{
    memcpy(r->v->arena.rw + r->at, bytes, n);
    r->at += (uint32_t)n;
}
#define PUT(r, ...) put((r), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put32(struct rig *r, uint32_t x)
{
    put(r, &x, 4);
}

static void rel32(struct rig *r, uint32_t target)
{
    put32(r, target - (r->at + 4));
}

/* mov r9,rcx; lea ecx,[r8-EIP]; jrcxz +8; mov rcx,r9; jmp miss; mov rcx,r9 */
static void entry(struct rig *r)
{
    PUT(r, 0x49, 0x89, 0xc9, 0x41, 0x8d, 0x88);
    put32(r, 0u - EIP);
    PUT(r, 0xe3, 0x08, 0x4c, 0x89, 0xc9, 0xe9);
    rel32(r, r->v->stubs.miss);
    PUT(r, 0x4c, 0x89, 0xc9);
}

static void row(struct rig *r)
{
    r->v->map[r->v->map_count++] =
        (struct bt_map){.host_off = (uint16_t)(r->at - r->b->host), .guest_off = r->b->count};
    r->b->count++;
}

static void begin(struct rig *r, uint32_t mode)
{
    struct bt_vcpu *v = r->v;
    r->b = &v->block[v->block_count++];
    r->at = v->arena_next;
    *r->b = (struct bt_block){.eip = EIP,
                              .mode = mode,
                              .host = r->at,
                              .map = v->map_count,
                              .site = v->site_count,
                              .first_link = v->link_count};
    entry(r);
    r->b->main = r->at;
    row(r);
}

/* The rel32 at r->at becomes a link to EIP; its stub is to be emitted by end(). */
static struct bt_link *link_rel32(struct rig *r)
{
    struct bt_link *l = &r->v->link[r->v->link_count++];
    *l = (struct bt_link){.block = (uint32_t)(r->b - r->v->block), .at = r->at, .target_eip = EIP};
    r->b->link_count++;
    put32(r, 0);
    return l;
}

static void stubs(struct rig *r)
{
    for (unsigned k = 0; k < r->b->link_count; k++) {
        struct bt_link *l = &r->v->link[r->b->first_link + k];
        uint32_t rel = r->at - (l->at + 4);
        l->stub = r->at;
        memcpy(r->v->arena.rw + l->at, &rel, 4);
        PUT(r, 0x41, 0xb8); /* mov r8d, target */
        put32(r, l->target_eip);
        PUT(r, 0x41, 0xb9); /* mov r9d, link */
        put32(r, r->b->first_link + k);
        PUT(r, 0xe9);
        rel32(r, r->v->stubs.link);
    }
}

static void finish(struct rig *r)
{
    r->b->end = r->at;
    r->v->arena_next = (r->at + 15) & ~15u;
}

/* jmp next, its stub */
static void end(struct rig *r)
{
    PUT(r, 0xe9);
    link_rel32(r);
    stubs(r);
    finish(r);
}

static void site_branch(struct rig *r, unsigned opcode, uint32_t stub)
{
    uint32_t n = r->v->site_count++;
    r->v->site[n] = (struct bt_site){.block = (uint32_t)(r->b - r->v->block), .eip = EIP};
    r->b->site_count++;
    PUT(r, 0x41, 0xb8);
    put32(r, n);
    PUT(r, opcode);
    rel32(r, stub);
}

static void site_call(struct rig *r)
{
    site_branch(r, 0xe8, r->v->stubs.callout);
}

static void expect(struct rig *r, const char *rule)
{
    r->v->reason[0] = 0;
    uint64_t before = r->v->counts.verified;
    bool ok = bt_verify_block(r->v, r->b);
    if (!rule) {
        if (!ok)
            print_error("%s\n", r->v->reason);
        assert_true(ok);
        assert_int_equal(r->v->counts.verified, before + 1);
        return;
    }
    if (ok || !strstr(r->v->reason, rule))
        print_error("expected '%s', got '%s'\n", rule, ok ? "accepted" : r->v->reason);
    assert_false(ok);
    assert_non_null(strstr(r->v->reason, rule));
    assert_int_equal(r->v->counts.verified, before);
}

/* ---- bodies of one guest instruction ---- */

struct body {
    const char *what;
    const char *rule; /* NULL: accepted */
    uint32_t mode;
    uint8_t len;
    uint8_t bytes[48];
};

#define B(...)                                                                                               \
    sizeof((const uint8_t[]){__VA_ARGS__}),                                                                  \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }
#define LE32(x)   (uint8_t)(x), (uint8_t)((x) >> 8), (uint8_t)((x) >> 16), (uint8_t)((uint32_t)(x) >> 24)
#define KERNEL    LE32(offsetof(struct bt_vcpu, window_k))
#define USER      LE32(offsetof(struct bt_vcpu, window_u))
#define WINDOW    LE32(offsetof(struct bt_vcpu, window))
#define FS        (offsetof(struct rc_cpu, seg) + RC_FS * sizeof(struct rc_seg))
#define SOFT      LE32(FS + offsetof(struct rc_seg, soft))
#define SOFT_HI   LE32(FS + offsetof(struct rc_seg, soft) + 4)
#define SEL       LE32(FS + offsetof(struct rc_seg, selector))
#define IFLAG     (uint8_t) offsetof(struct rc_cpu, iflag)
#define WAITING   LE32(offsetof(struct bt_vcpu, irq_waiting))
#define TSC       LE32(offsetof(struct bt_vcpu, tsc_read))
#define EFLAGS_HI (uint8_t)(offsetof(struct rc_cpu, eflags) + 2)
#define CR2       LE32(offsetof(struct rc_cpu, cr2))

#define SHOWN LE32(offsetof(struct bt_vcpu, shown))
/* lea r8d, [ebx+4]; mov r11d,12; shrx r9d,r8d,r11d */
#define PAGE_R9   LEA_R8, 0x41, 0xbb, LE32(12), 0xc4, 0x42, 0x23, 0xf7, 0xc8
#define SHOWN_R10 0x4d, 0x8b, 0x97, SHOWN
#define ENTRY_R10 0x47, 0x0f, 0xb7, 0x14, 0x4a /* movzx r10d, word [r10+r9*2] */

#define LEA_R8    0x67, 0x44, 0x8d, 0x83, LE32(4) /* lea r8d, [ebx+4] */
#define PICK_R9   0x45, 0x89, 0xc1, 0x41, 0x0f, 0xc9, 0x45, 0x0f, 0xb6, 0xc9, 0x4f, 0x8b, 0x8c, 0xcf, WINDOW
#define LOOK_UP   0x45, 0x0f, 0xb7, 0xc8, 0x47, 0x8b, 0x0c, 0x8e, 0x4f, 0x8d, 0x0c, 0x29
#define SOFT_ADDR LEA_R8, 0x45, 0x8b, 0x8f, SOFT, 0x47, 0x8d, 0x04, 0x08, 0x45, 0x8b, 0x8f, SOFT_HI
#define PLUS_RSI  0x4d, 0x8b, 0x8f, KERNEL, 0x49, 0x8d, 0x34, 0x31 /* rsi += window */
#define PLUS_RDI  0x49, 0x8d, 0x3c, 0x39                           /* rdi += r9 */

static const struct body good[] = {
    {"rdtsc", NULL, 0, B(0x0f, 0x31)},
    {"rdtsc, noted", NULL, 0, B(0x41, 0xc6, 0x87, TSC, 1, 0x0f, 0x31)},
    {"mov edi, cr2", NULL, RC_MODE_IOPL, B(0x41, 0x8b, 0xbf, CR2)},
    {"mov eax, gs:[ebx]", NULL, 0, B(0x65, 0x67, 0x8b, 0x03)},
    {"lock add gs:[esp+8], ecx", NULL, 0, B(0x65, 0x67, 0xf0, 0x41, 0x01, 0x4c, 0x24, 0x08)},
    {"mov eax, gs:[abs32]", NULL, 0, B(0x65, 0x67, 0x8b, 0x04, 0x25, LE32(0xc0000000))},
    {"push eax", NULL, 0, B(0x65, 0x67, 0x41, 0x89, 0x44, 0x24, 0xfc, 0x45, 0x8d, 0x64, 0x24, 0xfc)},
    {"user: mov eax, fs:[ebx]", NULL, RC_MODE_USER, B(0x64, 0x67, 0x8b, 0x03)},
    {"user: push eax", NULL, RC_MODE_USER,
     B(0x64, 0x67, 0x41, 0x89, 0x44, 0x24, 0xfc, 0x45, 0x8d, 0x64, 0x24, 0xfc)},
    {"user: segment FS", NULL, RC_MODE_USER, B(SOFT_ADDR, 0x64, 0x43, 0x8b, 0x04, 0xc8)},
    {"user: vpgatherdd xmm0, fs:[ecx+xmm1*4], xmm2", NULL, RC_MODE_USER,
     B(0x64, 0x67, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x89)},
    {"inc esp", NULL, 0, B(0x41, 0xff, 0xc4)},
    {"leave", NULL, 0, B(0x65, 0x67, 0x44, 0x8b, 0x45, 0x00, 0x44, 0x8d, 0x65, 0x04, 0x44, 0x89, 0xc5)},
    {"mov ah, bl; cdq; mul ebx; bsf eax, ecx", NULL, 0, B(0x88, 0xdc, 0x99, 0xf7, 0xe3, 0x0f, 0xbc, 0xc1)},
    {"cmpxchg8b gs:[ebx]", NULL, 0, B(0x65, 0x67, 0xf0, 0x0f, 0xc7, 0x0b)},
    {"fld gs:[eax]; fadd st0, st1; fnstsw ax", NULL, 0, B(0x65, 0x67, 0xdd, 0x00, 0xd8, 0xc1, 0xdf, 0xe0)},
    {"movaps gs:[ebx], xmm1; paddd mm0, mm1; pmovmskb eax, xmm0; pextrw ecx, xmm1, 3", NULL, 0,
     B(0x65, 0x67, 0x0f, 0x29, 0x0b, 0x0f, 0xfe, 0xc1, 0x66, 0x0f, 0xd7, 0xc0, 0x66, 0x0f, 0xc5, 0xc9, 0x03)},
    {"movmskps eax, xmm0; cvttsd2si ecx, xmm0; movd eax, mm0; movd xmm1, eax", NULL, 0,
     B(0x0f, 0x50, 0xc0, 0xf2, 0x0f, 0x2c, 0xc8, 0x0f, 0x7e, 0xc0, 0x66, 0x0f, 0x6e, 0xc8)},
    {"vaddps ymm0, ymm7, gs:[esp+4]; vzeroupper; vzeroall", NULL, 0,
     B(0x65, 0x67, 0xc4, 0xc1, 0x44, 0x58, 0x44, 0x24, 0x04, 0xc5, 0xf8, 0x77, 0xc5, 0xfc, 0x77)},
    {"vpgatherdd xmm0, gs:[ecx+xmm1*4], xmm2", NULL, 0, B(0x65, 0x67, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x89)},
    {"andn eax, esp, edx; vmovd xmm0, esp; rorx eax, gs:[ebx], 3; vfmadd213ss", NULL, 0,
     B(0xc4, 0xe2, 0x18, 0xf2, 0xc2, 0xc4, 0xc1, 0x79, 0x6e, 0xc4, 0x65, 0x67, 0xc4, 0xe3, 0x7b, 0xf0, 0x03,
       0x03, 0xc4, 0xe2, 0x79, 0xa9, 0xc1)},
    {"pshufb, aesenc, sha1nexte, pclmulqdq, pcmpestri", NULL, 0,
     B(0x66, 0x0f, 0x38, 0x00, 0xc1, 0x66, 0x0f, 0x38, 0xdc, 0xc1, 0x0f, 0x38, 0xc8, 0xc1, 0x66, 0x0f, 0x3a,
       0x44, 0xc1, 0x00, 0x66, 0x0f, 0x3a, 0x61, 0xc1, 0x00)},
    {"ldmxcsr gs:[eax]; emms; sfence; pause; fwait", NULL, 0,
     B(0x65, 0x67, 0x0f, 0xae, 0x10, 0x0f, 0x77, 0x0f, 0xae, 0xf8, 0xf3, 0x90, 0x9b)},
    {"popcnt, movbe, crc32, tzcnt, rdrand", NULL, 0,
     B(0xf3, 0x0f, 0xb8, 0xc1, 0x65, 0x67, 0x0f, 0x38, 0xf0, 0x03, 0xf2, 0x0f, 0x38, 0xf1, 0xc1, 0xf3, 0x0f,
       0xbc, 0xc1, 0x0f, 0xc7, 0xf0)},
    {"segment FS", NULL, 0, B(SOFT_ADDR, 0x65, 0x43, 0x8b, 0x04, 0xc8)},
    {"window by address", NULL, 0, B(LEA_R8, PICK_R9, 0x43, 0x8b, 0x04, 0x01)},
    {"probe for a load", NULL, RC_MODE_USER,
     B(PAGE_R9, SHOWN_R10, ENTRY_R10, 0x49, 0x89, 0xc9, 0x41, 0x8d, 0x8a, LE32(-0xf000), 0xc4, 0xe2, 0x23,
       0xf7, 0xc9)},
    {"probe for a store", NULL, RC_MODE_USER,
     B(PAGE_R9, SHOWN_R10, ENTRY_R10, 0x49, 0x89, 0xc9, 0x41, 0x8d, 0x8a, LE32(-0xffff))},
    {"rep movsd", NULL, 0, B(PLUS_RSI, PLUS_RDI, 0xf3, 0xa5, 0x89, 0xf6, 0x89, 0xff)},
    {"scasb", NULL, RC_MODE_USER, B(0x4d, 0x8b, 0x8f, USER, PLUS_RDI, 0xae, 0x89, 0xff)},
    {"mov eax, fs", NULL, 0, B(0x41, 0x0f, 0xb7, 0x87, SEL)},
    {"cli", NULL, RC_MODE_IOPL, B(0x41, 0xc6, 0x47, IFLAG, 0x00)},
    {"pushf's image", NULL, 0, B(0x9c, 0x41, 0x58, 0x45, 0x0f, 0xb7, 0x4f, (uint8_t)(IFLAG - 1))},
    {"its ID", NULL, 0, B(0x45, 0x0f, 0xb7, 0x57, EFLAGS_HI, 0xc4, 0x43, 0x7b, 0xf0, 0xd2, 16)},
    {"popf", NULL, RC_MODE_IOPL,
     B(0x41, 0x0f, 0x92, 0x47, IFLAG, 0x41, 0x81, 0xe0, LE32(RC_ARITH | RC_DF), 0x41, 0x50, 0x9d)},
    {"a forward branch over one instruction", NULL, 0, B(0x75, 0x02, 0x89, 0xd8, 0x89, 0xd9)},
    {"lahf, sahf, cmc, std", NULL, 0, B(0x9f, 0x9e, 0xf5, 0xfd)},
};

static const struct body bad[] = {
    {"all of EFLAGS", "may not be used like this", 0,
     B(0x45, 0x8b, 0x57, (uint8_t)offsetof(struct rc_cpu, eflags))},
    {"a store to EFLAGS", "may not be used like this", 0, B(0x66, 0x45, 0x89, 0x57, EFLAGS_HI)},
    /* memory */
    {"no GS", "neither in this privilege's window", 0, B(0x67, 0x8b, 0x03)},
    {"no GS, 64-bit", "neither in this privilege's window", 0, B(0x8b, 0x03)},
    {"GS, 64-bit address", "not known to have 32 bits", 0, B(0x65, 0x8b, 0x03)},
    {"FS", "names another window", 0, B(0x64, 0x67, 0x8b, 0x03)},
    {"GS in user code", "names another window", RC_MODE_USER, B(0x65, 0x67, 0x8b, 0x03)},
    {"a store to GS in user code", "names another window", RC_MODE_USER, B(0x65, 0x67, 0x89, 0x03)},
    {"a push to GS in user code", "names another window", RC_MODE_USER,
     B(0x65, 0x67, 0x41, 0x89, 0x44, 0x24, 0xfc)},
    {"segment FS by GS in user code", "names another window", RC_MODE_USER,
     B(SOFT_ADDR, 0x65, 0x43, 0x8b, 0x04, 0xc8)},
    {"segment FS by FS in kernel code", "names another window", 0,
     B(SOFT_ADDR, 0x64, 0x43, 0x8b, 0x04, 0xc8)},
    {"user code gathers in GS", "names another window", RC_MODE_USER,
     B(0x65, 0x67, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x89)},
    {"kernel code gathers in FS", "names another window", 0,
     B(0x64, 0x67, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x89)},
    {"FS in user code, then GS", "names another window", RC_MODE_USER, B(0x64, 0x65, 0x67, 0x8b, 0x03)},
    {"FS in user code, 64-bit address", "not known to have 32 bits", RC_MODE_USER, B(0x64, 0x8b, 0x03)},
    {"GS, then FS", "names another window", 0, B(0x65, 0x64, 0x67, 0x8b, 0x03)},
    {"GS, then DS", "names another window", 0, B(0x65, 0x3e, 0x67, 0x8b, 0x03)},
    {"GS twice", "doubled", 0, B(0x65, 0x65, 0x67, 0x8b, 0x03)},
    {"REX before a legacy prefix", "misplaced", 0, B(0x48, 0x65, 0x67, 0x8b, 0x03)},
    {"RIP-relative", "relative to RIP", 0, B(0x8b, 0x05, LE32(0))},
    {"EIP-relative in GS", "relative to RIP", 0, B(0x65, 0x67, 0x8b, 0x05, LE32(0))},
    {"address of RSP", "host register", 0, B(0x65, 0x67, 0x8b, 0x04, 0x24)},
    {"address of r13", "host register", 0, B(0x65, 0x67, 0x41, 0x8b, 0x45, 0x00)},
    {"moffs64", "neither in this privilege's window", 0, B(0xa1, LE32(0), LE32(1))},
    {"maskmovdqu", "implicit memory", 0, B(0x66, 0x0f, 0xf7, 0xc1)},
    {"xlat", "may contain", 0, B(0xd7)},
    {"FS without its high half", "without the segment's high half", 0,
     B(LEA_R8, 0x45, 0x8b, 0x8f, SOFT, 0x65, 0x43, 0x8b, 0x04, 0xc8)},
    {"FS with a displacement", "without the segment's high half", 0,
     B(SOFT_ADDR, 0x65, 0x43, 0x8b, 0x44, 0xc8, 0x40)},
    {"FS, r8 not 32 bits", "not known to have 32 bits", 0,
     B(0x45, 0x8b, 0x8f, SOFT_HI, 0x65, 0x43, 0x8b, 0x04, 0xc8)},
    {"probe with an address", "not a page number", RC_MODE_USER,
     B(LEA_R8, 0x45, 0x89, 0xc1, SHOWN_R10, ENTRY_R10)}, /* mov r9d, r8d */
    {"probe with an unknown address", "not a page number", RC_MODE_USER,
     B(0x41, 0xbb, LE32(12), 0xc4, 0x42, 0x23, 0xf7, 0xc8, SHOWN_R10, ENTRY_R10)},
    {"probe with a number shifted too little", "not a page number", RC_MODE_USER,
     B(LEA_R8, 0x41, 0xbb, LE32(11), 0xc4, 0x42, 0x23, 0xf7, 0xc8, SHOWN_R10, ENTRY_R10)},
    {"probe with a number shifted by 32, which is by none", "not a page number", RC_MODE_USER,
     B(LEA_R8, 0x41, 0xbb, LE32(32), 0xc4, 0x42, 0x23, 0xf7, 0xc8, SHOWN_R10, ENTRY_R10)},
    {"probe with a number shifted by an unknown one", "not a page number", RC_MODE_USER,
     B(LEA_R8, 0x41, 0x89, 0xc3, 0xc4, 0x42, 0x23, 0xf7, 0xc8, SHOWN_R10, ENTRY_R10)}, /* mov r11d, eax */
    {"probe with a number shifted arithmetically", "not a page number", RC_MODE_USER,
     B(LEA_R8, 0x41, 0xbb, LE32(12), 0xc4, 0x42, 0x22, 0xf7, 0xc8, SHOWN_R10, ENTRY_R10)}, /* sarx */
    {"probe with a displacement", "only for loads of an entry", RC_MODE_USER,
     B(PAGE_R9, SHOWN_R10, 0x47, 0x0f, 0xb7, 0x54, 0x4a, 0x02)},
    {"probe of half pages", "only for loads of an entry", RC_MODE_USER,
     B(PAGE_R9, SHOWN_R10, 0x47, 0x0f, 0xb7, 0x14, 0x0a)},
    {"probe of 8 bits", "only for loads of an entry", RC_MODE_USER,
     B(PAGE_R9, SHOWN_R10, 0x47, 0x0f, 0xb6, 0x14, 0x4a)},
    {"probe of 32 bits", "only for loads of an entry", RC_MODE_USER,
     B(PAGE_R9, SHOWN_R10, 0x47, 0x8b, 0x14, 0x4a)},
    {"probe into a guest register", "only for loads of an entry", RC_MODE_USER,
     B(PAGE_R9, SHOWN_R10, 0x43, 0x0f, 0xb7, 0x04, 0x4a)}, /* movzx eax, */
    {"store to the table of shown pages", "neither in this privilege's window", RC_MODE_USER,
     B(PAGE_R9, SHOWN_R10, 0x66, 0x47, 0x89, 0x14, 0x4a)},
    {"address of the table of shown pages", "become data", RC_MODE_USER, B(SHOWN_R10, 0x44, 0x89, 0xd0)},
    {"window, r8 not 32 bits", "neither in this privilege's window", 0,
     B(0x45, 0x0f, 0xb6, 0xc9, 0x4f, 0x8b, 0x8c, 0xcf, WINDOW, 0x43, 0x8b, 0x04, 0x01)},
    {"window, index not 8 bits", "8-bit index", 0,
     B(LEA_R8, 0x45, 0x89, 0xc1, 0x4f, 0x8b, 0x8c, 0xcf, WINDOW, 0x43, 0x8b, 0x04, 0x01)},
    {"window with a displacement", "neither in this privilege's window", 0,
     B(LEA_R8, PICK_R9, 0x43, 0x8b, 0x44, 0x01, 0x10)},
    {"window, scaled", "neither in this privilege's window", 0, B(LEA_R8, PICK_R9, 0x47, 0x8b, 0x04, 0x41)},
    {"user code selects a window", "user code may not", RC_MODE_USER, B(LEA_R8, PICK_R9)},
    {"window, then r8 changes by BSF", "neither in this privilege's window", 0,
     B(LEA_R8, PICK_R9, 0x44, 0x0f, 0xbc, 0xc0, 0x43, 0x8b, 0x04, 0x01)},
    {"a branch past the window's choice", "neither in this privilege's window", 0,
     B(0x75, 0x1a, LEA_R8, PICK_R9, 0x43, 0x8b, 0x04, 0x01)},
    /* the vCPU structure */
    {"mov eax, [r15]", "may not be used like this", 0, B(0x41, 0x8b, 0x07)},
    {"mov r9d, [r15]", "may not be used like this", 0, B(0x45, 0x8b, 0x0f)},
    {"mov rax, [r15+window_k]", "may not hold it", 0, B(0x49, 0x8b, 0x87, KERNEL)},
    {"mov [r15+window_k], r9", "may not be used like this", 0, B(0x4d, 0x89, 0x8f, KERNEL)},
    {"mov r9, [r15+host_fs]", "may not be used like this", 0,
     B(0x4d, 0x8b, 0x8f, LE32(offsetof(struct bt_vcpu, host_fs)))},
    {"mov byte [r15+fs_guest], 1", "may not be used like this", RC_MODE_USER,
     B(0x41, 0xc6, 0x87, LE32(offsetof(struct bt_vcpu, fs_guest)), 0x01)},
    {"mov [r15+window+r9*8], r9", "not translated code's to write", 0, B(0x4f, 0x89, 0x8c, 0xcf, WINDOW)},
    {"a user reads CR2", "only ring 0 may read", RC_MODE_USER | RC_MODE_IOPL, B(0x41, 0x8b, 0xbf, CR2)},
    {"ring 1 reads CR2", "only ring 0 may read", 0, B(0x41, 0x8b, 0xbf, CR2)},
    {"ring 1 with IOPL 1 reads CR2", "only ring 0 may read", RC_MODE_IOPL | BT_MODE_FLAGS_ODD,
     B(0x41, 0x8b, 0xbf, CR2)},
    {"mov [r15+cr2], edi", "may not be used like this", RC_MODE_IOPL, B(0x41, 0x89, 0xbf, CR2)},
    {"mov r15d, [r15+cr2]", "may not hold it", RC_MODE_IOPL, B(0x45, 0x8b, 0xbf, CR2)},
    {"add eax, [r15+soft]", "may not be used like this", 0, B(0x41, 0x03, 0x87, SOFT)},
    {"mov [r15+selector], ax", "may not be used like this", 0, B(0x66, 0x41, 0x89, 0x87, SEL)},
    {"cli without privilege", "I/O privilege", 0, B(0x41, 0xc6, 0x47, IFLAG, 0x00)},
    {"IF of 2", "may not be used like this", RC_MODE_IOPL, B(0x41, 0xc6, 0x47, IFLAG, 0x02)},
    {"mov byte [r15+cpl], 0", "may not be used like this", RC_MODE_IOPL,
     B(0x41, 0xc6, 0x47, IFLAG + 1, 0x00)},
    /* registers */
    {"mov esp, eax", "writes a host register", 0, B(0x89, 0xc4)},
    {"xor r13d, r13d", "writes a host register", 0, B(0x45, 0x31, 0xed)},
    {"mov r14, r9", "writes a host register", 0, B(0x4d, 0x89, 0xce)},
    {"inc r15b", "writes a host register", 0, B(0x41, 0xfe, 0xc7)},
    {"mov spl, al", "writes a host register", 0, B(0x40, 0x88, 0xc4)},
    {"mov eax, r15d", "reads a host register", 0, B(0x44, 0x89, 0xf8)},
    {"mov r9, r14", "reads a host register", 0, B(0x4d, 0x89, 0xf1)},
    {"lea eax, [rsp]", "host address would become data", 0, B(0x8d, 0x04, 0x24)},
    {"lea eax, [rip]", "host address would become data", 0, B(0x8d, 0x05, LE32(0))},
    {"mov eax, r9d of a jump table entry", "host address would become data", 0, B(LOOK_UP, 0x44, 0x89, 0xc8)},
    {"add rax, rbx", "64-bit operand", 0, B(0x48, 0x01, 0xd8)},
    {"mov rax, imm64", "64-bit operand", 0, B(0x48, 0xb8, LE32(0), LE32(1))},
    {"movsxd rax, ebx", "64-bit operand", 0, B(0x48, 0x63, 0xc3)},
    {"movq rax, mm0", "64-bit operand", 0, B(0x48, 0x0f, 0x7e, 0xc0)},
    {"cqo", "64-bit operand", 0, B(0x48, 0x99)},
    {"mov rcx, r9 of anything", "more than 32 bits", 0, B(0x4c, 0x89, 0xc9)},
    {"lea rax, [rbx+rcx]", "unknown shape", 0, B(0x48, 0x8d, 0x04, 0x0b)},
    /* strings */
    {"movsb", "does not point into a window", 0, B(0xa4)},
    {"addr32 movsb", "ignores the window", 0, B(0x67, 0xa4)},
    {"movsb, RDI without window", "does not point into a window", 0, B(PLUS_RSI, 0xa4)},
    {"user strings in the kernel's window", "window of another privilege", RC_MODE_USER,
     B(PLUS_RSI, 0xac, 0x89, 0xf6)},
    {"kernel strings in the user's window", "window of another privilege", 0,
     B(0x4d, 0x8b, 0x8f, USER, PLUS_RDI, 0xae, 0x89, 0xff)},
    {"fs lodsb in user code", "adds the window twice", RC_MODE_USER,
     B(0x4d, 0x8b, 0x8f, USER, 0x49, 0x8d, 0x34, 0x31, 0x64, 0xac)},
    {"gs lodsb", "adds the window twice", 0, B(PLUS_RSI, 0x65, 0xac)},
    {"movsq", "64-bit operand", 0, B(PLUS_RSI, PLUS_RDI, 0x48, 0xa5)},
    {"lodsb twice", "does not point into a window", 0, B(PLUS_RSI, 0xac, 0xac)},
    {"lodsb without truncation", "still holds a window address", 0, B(PLUS_RSI, 0xac)},
    {"esi truncated by a 16-bit move", "instead of truncated", 0, B(PLUS_RSI, 0xac, 0x66, 0x89, 0xf6)},
    {"insb", "may contain", 0, B(0x6c)},
    /* the host stack */
    {"push rax", "host stack", 0, B(0x50)},
    {"pop r9", "host stack", 0, B(0x41, 0x59)},
    {"pushfq alone", "push without its pop", 0, B(0x9c, 0x89, 0xd8)},
    {"pushfq; pop rax", "host stack", 0, B(0x9c, 0x58)},
    {"push r8 of anything; popfq", "arithmetic ones", 0, B(0x41, 0x50, 0x9d)},
    {"push r8 with TF; popfq", "arithmetic ones", 0,
     B(0x41, 0x81, 0xe0, LE32(RC_ARITH | RC_TF), 0x41, 0x50, 0x9d)},
    {"push r8; pop r8", "host stack", 0, B(0x41, 0x81, 0xe0, LE32(RC_DF), 0x41, 0x50, 0x41, 0x58)},
    {"a branch between push and popfq", "between a push and its pop", 0,
     B(0x75, 0x09, 0x41, 0x81, 0xe0, LE32(RC_DF), 0x41, 0x50, 0x9d)},
    {"enter", "may contain", 0, B(0xc8, 0x00, 0x00, 0x00)},
    {"leave", "may contain", 0, B(0xc9)},
    /* instructions */
    {"syscall", "may contain", 0, B(0x0f, 0x05)},
    {"sysenter", "may contain", 0, B(0x0f, 0x34)},
    {"int 80h", "may contain", 0, B(0xcd, 0x80)},
    {"int3", "may contain", 0, B(0xcc)},
    {"in al, dx", "may contain", 0, B(0xec)},
    {"out dx, eax", "may contain", 0, B(0xef)},
    {"hlt", "may contain", 0, B(0xf4)},
    {"cli", "may contain", 0, B(0xfa)},
    {"sti", "may contain", 0, B(0xfb)},
    {"cpuid", "may contain", 0, B(0x0f, 0xa2)},
    {"rdtsc, the guest's counter is its own", "time-stamp counter", BT_MODE_TSC_OWN, B(0x0f, 0x31)},
    {"rdtsc, noted as another value", "may not be used like this", 0,
     B(0x41, 0xc6, 0x87, TSC, 2, 0x0f, 0x31)},
    {"rdtsc, the note is wider than its field", "may not be used like this", 0,
     B(0x41, 0xc7, 0x87, TSC, LE32(1), 0x0f, 0x31)},
    {"the note of rdtsc, read", "may not be used like this", 0, B(0x45, 0x0f, 0xb6, 0x87, TSC)},
    {"rep rdtsc", "time-stamp counter", 0, B(0xf3, 0x0f, 0x31)},
    {"rdtscp", "may contain", 0, B(0x0f, 0x01, 0xf9)},
    {"rdmsr", "may contain", 0, B(0x0f, 0x32)},
    {"wrmsr", "may contain", 0, B(0x0f, 0x30)},
    {"wrgsbase r9", "may contain", 0, B(0xf3, 0x49, 0x0f, 0xae, 0xd9)},
    {"wrfsbase r9", "may contain", 0, B(0xf3, 0x49, 0x0f, 0xae, 0xd1)},
    {"wrfsbase r9 in user code", "may contain", RC_MODE_USER, B(0xf3, 0x49, 0x0f, 0xae, 0xd1)},
    {"wrgsbase r9 in user code", "may contain", RC_MODE_USER, B(0xf3, 0x49, 0x0f, 0xae, 0xd9)},
    {"rdfsbase eax", "may contain", 0, B(0xf3, 0x0f, 0xae, 0xc0)},
    {"swapgs", "may contain", 0, B(0x0f, 0x01, 0xf8)},
    {"xgetbv", "may contain", 0, B(0x0f, 0x01, 0xd0)},
    {"xsave gs:[eax]", "may contain", 0, B(0x65, 0x67, 0x0f, 0xae, 0x20)},
    {"fxsave gs:[eax]", "may contain", 0, B(0x65, 0x67, 0x0f, 0xae, 0x00)},
    {"fnstenv gs:[eax]", "may contain", 0, B(0x65, 0x67, 0xd9, 0x30)},
    {"sgdt gs:[eax]", "may contain", 0, B(0x65, 0x67, 0x0f, 0x01, 0x00)},
    {"lgdt gs:[eax]", "may contain", 0, B(0x65, 0x67, 0x0f, 0x01, 0x10)},
    {"smsw eax", "may contain", 0, B(0x0f, 0x01, 0xe0)},
    {"str eax", "may contain", 0, B(0x0f, 0x00, 0xc8)},
    {"lar eax, eax", "may contain", 0, B(0x0f, 0x02, 0xc0)},
    {"mov gs, eax", "not the guest's", 0, B(0x8e, 0xe8)},
    {"mov eax, cs", "not the guest's", 0, B(0x8c, 0xc8)},
    {"mov rax, cr0", "64-bit operand", 0, B(0x0f, 0x20, 0xc0)},
    {"mov dr7, rax", "not the guest's", 0, B(0x0f, 0x23, 0xf8)},
    {"lfs eax, gs:[eax]", "may contain", 0, B(0x65, 0x67, 0x0f, 0xb4, 0x00)},
    {"vaddps zmm0, zmm0, zmm1", "may contain", 0, B(0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1)},
    {"vpdpbusd xmm0, xmm7, xmm2", "may contain", 0, B(0xc4, 0xe2, 0x41, 0x50, 0xc2)},
    {"vaddps xmm8, xmm0, xmm1", "vector register", 0, B(0xc5, 0x78, 0x58, 0xc1)},
    {"vaddps xmm0, xmm8, xmm1", "vector register", 0, B(0xc5, 0xb8, 0x58, 0xc1)},
    {"movaps xmm0, xmm9", "vector register", 0, B(0x41, 0x0f, 0x28, 0xc1)},
    {"vblendvps xmm0, xmm1, xmm2, xmm8", "vector register", 0, B(0xc4, 0xe3, 0x71, 0x4a, 0xc2, 0x80)},
    {"vmovups xmm0, [ebx]", "neither in this privilege's window", 0, B(0x67, 0xc5, 0xf8, 0x10, 0x03)},
    {"vmovups xmm0, gs:[rbx]", "64-bit address", 0, B(0x65, 0xc5, 0xf8, 0x10, 0x03)},
    {"vmovups xmm0, gs:[rip]", "cache's own", 0, B(0x65, 0xc5, 0xf8, 0x10, 0x05, LE32(0))},
    {"vmovups gs:[r15d], xmm0", "host register", 0, B(0x65, 0x67, 0xc4, 0xc1, 0x78, 0x11, 0x07)},
    {"andn rax, rcx, rdx", "64-bit operand", 0, B(0xc4, 0xe2, 0xf0, 0xf2, 0xc2)},
    {"andn eax, r15d, edx", "reads a host register", 0, B(0xc4, 0xe2, 0x00, 0xf2, 0xc2)},
    {"andn r14d, ecx, edx", "writes a host register", 0, B(0xc4, 0x62, 0x70, 0xf2, 0xf2)},
    {"vmovq xmm0, rax", "64-bit operand", 0, B(0xc4, 0xe1, 0xf9, 0x6e, 0xc0)},
    {"vmaskmovdqu xmm0, xmm1", "implicit memory", 0, B(0xc5, 0xf9, 0xf7, 0xc1)},
    {"vpgatherdd xmm0, gs:[rcx+xmm1*4], xmm2", "32-bit addresses", 0,
     B(0x65, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x89)},
    {"vpgatherdd xmm0, [ecx+xmm1*4], xmm2", "32-bit addresses", 0,
     B(0x67, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x89)},
    {"vpgatherdd xmm0, gs:[ecx+xmm9*4], xmm2", "vector register", 0,
     B(0x65, 0x67, 0xc4, 0xa2, 0x69, 0x90, 0x04, 0x89)},
    {"vpgatherdd xmm0, gs:[r15d+xmm1*4], xmm2", "host register", 0,
     B(0x65, 0x67, 0xc4, 0xc2, 0x69, 0x90, 0x04, 0x8f)},
    {"rdpid eax", "may contain", 0, B(0xf3, 0x0f, 0xc7, 0xf8)},
    {"ud2", "may contain", 0, B(0x0f, 0x0b)},
    {"clflush gs:[eax]", "may contain", 0, B(0x65, 0x67, 0x0f, 0xae, 0x38)},
    {"no instruction", "no instruction", 0, B(0x06)},
    /* branches */
    {"jmp r9 of anything", "not from the jump table", 0, B(0x41, 0xff, 0xe1)},
    {"jmp rax", "not from the jump table", 0, B(0xff, 0xe0)},
    {"call [rax]", "through memory", 0, B(0xff, 0x10)},
    {"jmp r9, jump table index of 32 bits", "16-bit number", 0,
     B(0x45, 0x89, 0xc1, 0x47, 0x8b, 0x0c, 0x8e, 0x4f, 0x8d, 0x0c, 0x29, 0x41, 0xff, 0xe1)},
    {"jmp r9 without the base", "not from the jump table", 0,
     B(0x45, 0x0f, 0xb7, 0xc8, 0x47, 0x8b, 0x0c, 0x8e, 0x41, 0xff, 0xe1)},
    {"add r9, r13 instead of lea", "64-bit operand", 0,
     B(0x45, 0x0f, 0xb7, 0xc8, 0x47, 0x8b, 0x0c, 0x8e, 0x4d, 0x01, 0xe9, 0x41, 0xff, 0xe1)},
    {"ret 4", "moves RSP", 0, B(0xc2, 0x04, 0x00)},
    {"retf", "may contain", 0, B(0xcb)},
    {"jmp far gs:[eax]", "may contain", 0, B(0x65, 0x67, 0xff, 0x28)},
    {"iretd", "may contain", 0, B(0xcf)},
    {"jmp -2", "does not go forward", 0, B(0xeb, 0xfe)},
    {"jz into the next instruction", "lands inside", 0, B(0x74, 0x01, 0x89, 0xd8)},
    {"64-bit loop", "64-bit count", 0, B(0xe2, 0x00)},
    {"data16 jmp", "prefix on a branch", 0, B(0x66, 0xeb, 0x00)},
    {"jmp with a prediction prefix", "prefix on a branch", 0, B(0xf2, 0xe9, LE32(0))},
    {"code that nothing leads to", "no way leads here", 0, B(0xc3, 0x89, 0xd8)},
    {"jmp to the own entry", "no business", 0, B(0xe9, LE32(-28))},
    {"jmp out of the cache", "out of the cache", 0, B(0xe9, LE32(0x7fffffff))},
};

static void run_body(const struct body *x)
{
    struct rig r;
    rig_init(&r);
    begin(&r, x->mode);
    put(&r, x->bytes, x->len);
    row(&r);
    end(&r);
    if (x->rule == NULL)
        print_message("accepts %s\n", x->what);
    else
        print_message("refuses %s\n", x->what);
    expect(&r, x->rule);
    rig_finish(&r);
}

static void accepts_the_translators_shapes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++)
        run_body(&good[i]);
}

static void refuses_forged_bodies(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        run_body(&bad[i]);
}

/* ---- whole blocks ---- */

/* push next; call stub; return site; jmp next: what a guest CALL becomes */
static void emit_call(struct rig *r)
{
    PUT(r, 0xe8);
    link_rel32(r);
    PUT(r, 0x49, 0x89, 0xc9, 0x41, 0x8d, 0x88);
    put32(r, 0u - EIP);
    PUT(r, 0xe3, 0x12, 0x4c, 0x89, 0xc9, LOOK_UP, 0x41, 0xff, 0xe1, 0x4c, 0x89, 0xc9);
}

static void accepts_calls_loops_and_callouts(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    begin(&r, 0);
    site_call(&r);
    row(&r);
    emit_call(&r);
    end(&r);
    expect(&r, NULL);

    begin(&r, 0);
    PUT(&r, 0x67, 0xe2, 0x05, 0xe9); /* loop +5; jmp; jmp */
    link_rel32(&r);
    end(&r);
    expect(&r, NULL);

    begin(&r, 0);
    PUT(&r, 0x65, 0x67, 0x45, 0x8b, 0x04, 0x24, 0x45, 0x8d, 0x64, 0x24, 0x04, 0xc3); /* ret */
    finish(&r);
    expect(&r, NULL);

    begin(&r, 0);
    PUT(&r, 0x65, 0x67, 0x44, 0x8b, 0x03, LOOK_UP, 0x41, 0xff, 0xe1); /* jmp gs:[ebx] */
    finish(&r);
    expect(&r, NULL);
    rig_finish(&r);
}

static void entry_is_checked(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    begin(&r, 0);
    end(&r);
    expect(&r, NULL);
    r.v->arena.rw[r.b->host + 6] ^= 1;
    expect(&r, "compares with another address");
    r.v->arena.rw[r.b->host + 6] ^= 1;
    r.v->arena.rw[r.b->host + 16] ^= 1;
    expect(&r, "misses elsewhere");
    r.v->arena.rw[r.b->host + 16] ^= 1;
    r.v->arena.rw[r.b->host + 10] = 0x75; /* jnz instead of jrcxz */
    expect(&r, "does not compare");
    rig_finish(&r);
}

static void links_are_checked(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    begin(&r, 0);
    end(&r);
    struct bt_block *first = r.b;
    begin(&r, 0);
    end(&r);
    struct bt_block *b = r.b;
    struct bt_link *l = &r.v->link[b->first_link];
    uint32_t to_first = first->main - (l->at + 4), to_stub = l->stub - (l->at + 4), inside = to_first + 1;

    l->to = (uint32_t)(first - r.v->block);
    memcpy(r.v->arena.rw + l->at, &to_first, 4);
    expect(&r, NULL);
    memcpy(r.v->arena.rw + l->at, &inside, 4);
    expect(&r, "where its link says");
    memcpy(r.v->arena.rw + l->at, &to_stub, 4);
    expect(&r, "where its link says");
    memcpy(r.v->arena.rw + l->at, &to_first, 4);
    first->mode = RC_MODE_USER;
    expect(&r, "another mode");
    first->mode = 0;
    first->dead = true;
    expect(&r, "is gone");
    first->dead = false;
    l->to = 0;
    expect(&r, "where its link says"); /* the branch still goes to the first block */
    l->at++;
    expect(&r, "no business");
    rig_finish(&r);
}

/* The numbers handed to C. */
/* `jmp cross` and its kin end a block; as calls they would come back to where nothing is. */
static void rings_are_left_by_a_jump(void)
{
    struct rig r;
    rig_init(&r);
    const uint32_t stub[] = {r.v->stubs.cross, r.v->stubs.sysenter, r.v->stubs.sysexit};
    for (unsigned i = 0; i < 3; i++) {
        begin(&r, 0);
        uint32_t at = r.at;
        site_branch(&r, 0xe9, stub[i]);
        finish(&r);
        expect(&r, NULL);
        r.v->arena.rw[at + 2] ^= 8;
        expect(&r, "sites in r8");
    }
    begin(&r, 0);
    site_branch(&r, 0xe8, stub[1]);
    end(&r);
    expect(&r, "no business");
    begin(&r, 0);
    site_branch(&r, 0xe9, r.v->stubs.callout);
    finish(&r);
    expect(&r, "no business");
    rig_finish(&r);
}

/* What a light call does with the numbers it gets, it does with the rights of a supervisor. */
static void light_call_is_checked(unsigned which, bool jump, bool user)
{
    struct rig r;
    rig_init(&r);
    const struct bt_stubs *s = &r.v->stubs;
    const uint32_t stub[] = {s->light_store, s->light_invlpg, s->light_seg};
    begin(&r, user ? RC_MODE_USER : 0);
    PUT(&r, 0x41, 0xb9); /* mov r9d, DS */
    put32(&r, RC_DS);
    PUT(&r, jump ? 0xe9 : 0xe8);
    rel32(&r, stub[which]);
    end(&r);
    expect(&r, jump ? "no business" : user && which < 2 ? "supervisor rights" : NULL);
    rig_finish(&r);
}

/* A string instruction's gets a site, the one of a look is nothing but a part of it. */
static void light_site_is_checked(unsigned op, bool look, uint32_t mode, const char *rule)
{
    struct rig r;
    rig_init(&r);
    begin(&r, mode);
    uint32_t at = r.at;
    site_branch(&r, op, look ? r.v->stubs.light_look : r.v->stubs.light_string);
    end(&r);
    expect(&r, rule);
    if (!rule) {
        r.v->arena.rw[at + 2] ^= 8;
        expect(&r, "sites in r8");
    }
    rig_finish(&r);
}

static void light_calls_are_checked(void)
{
    light_site_is_checked(0xe8, false, 0, NULL);
    light_site_is_checked(0xe9, false, 0, "no business");
    light_site_is_checked(0xe8, false, RC_MODE_USER, "no business");
    light_site_is_checked(0xe8, true, 0, "no business");
    for (unsigned i = 0; i < 12; i++)
        light_call_is_checked(i / 4, i & 1, i & 2);
}

static void exits_are_checked(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    begin(&r, 0);
    end(&r);
    uint32_t stub = r.v->link[r.b->first_link].stub;
    r.v->arena.rw[stub + 2] ^= 1;
    expect(&r, "not the link's target");
    r.v->arena.rw[stub + 2] ^= 1;
    r.v->arena.rw[stub + 8] ^= 8;
    expect(&r, "links in r9");
    r.v->arena.rw[stub + 8] ^= 8;
    expect(&r, NULL);

    begin(&r, 0);
    uint32_t at = r.at;
    site_call(&r);
    end(&r);
    expect(&r, NULL);
    r.v->arena.rw[at + 2] ^= 8;
    expect(&r, "sites in r8");

    begin(&r, 0);
    PUT(&r, 0xe8);
    rel32(&r, r.v->stubs.callout);
    end(&r);
    expect(&r, "sites in r8");

    begin(&r, 0);
    PUT(&r, 0xe9);
    rel32(&r, r.v->stubs.leave);
    finish(&r);
    expect(&r, "no business");
    rig_finish(&r);
    rings_are_left_by_a_jump();
    light_calls_are_checked();
}

static void ends_and_rows_are_checked(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    begin(&r, 0);
    PUT(&r, 0x89, 0xd8);
    finish(&r);
    expect(&r, "falls through");

    begin(&r, 0);
    PUT(&r, 0x89, 0xd8);
    end(&r);
    r.v->map[r.b->map].host_off++;
    expect(&r, "inside an instruction");
    r.v->map[r.b->map].host_off = (uint16_t)(r.b->end - r.b->host);
    expect(&r, "outside the block");
    r.v->map[r.b->map].host_off = (uint16_t)(r.b->main - r.b->host);
    expect(&r, NULL);
    r.b->end--;
    expect(&r, "no instruction");
    r.b->end = (uint32_t)r.v->arena.size + 1;
    expect(&r, "bounds");
    rig_finish(&r);
}

/* ---- a look into the software TLB and the access behind it ---- */
struct look {
    const char *what, *rule;
    uint32_t mode;
    uint8_t kind, size; /* of the look; size minus 1 */
    uint8_t len, access[8];
    int heat, tag, addend, found, light_site, light, again, site, call,
        over;   /* what is wrong with that field */
    bool other; /* the shape of the other privilege: a light call is the kernel's */
};

static void emit_look(struct rig *r, const struct look *x)
{
    uint32_t tlb = offsetof(struct bt_vcpu, tlb), row = x->kind * SPT_TLB_SIZE * 8;
    uint32_t heat = (uint32_t)offsetof(struct bt_vcpu, heat) + 8, site = r->v->site_count++;
    bool light = !(x->mode & RC_MODE_USER) != x->other;
    r->v->site[site] = (struct bt_site){.block = (uint32_t)(r->b - r->v->block), .eip = EIP};
    r->b->site_count++;
    PUT(r, LEA_R8, 0x49, 0x89, 0xcb, 0x45, 0x8b, 0x8f, LE32(heat), 0x45, 0x8d, 0x49, 0xff, 0x45, 0x89, 0x8f,
        LE32(heat + (uint32_t)x->heat), 0x44, 0x89, 0xc9, 0xe3, 0x30);
    PUT(r, 0x45, 0x8d, 0x50, x->size, 0xc4, 0x43, 0xfb, 0xf0, 0xc8, 12, 0xc4, 0x43, 0xfb, 0xf0, 0xd2, 12,
        0x45, 0x0f, 0xb6, 0xc9, 0x45, 0x89, 0xd2, 0x49, 0x8b, 0x8f,
        LE32(tlb + offsetof(struct spt_tlb, epoch) + x->kind * 8), 0x4a, 0x8d, 0x0c, 0x11, 0x4f, 0x8b, 0x94,
        0xcf, LE32(tlb + offsetof(struct spt_tlb, minus_tag) + row + (uint32_t)x->tag), 0x4a, 0x8d, 0x0c,
        0x11, 0xe3, (uint8_t)((light ? 38 : 16) + x->found), 0x4c, 0x89, 0xd9);
    if (light) {
        PUT(r, 0x41, 0xb9, LE32(site + (uint32_t)x->light_site), 0xe8);
        rel32(r, r->v->stubs.light_look + (uint32_t)x->light);
        PUT(r, 0x49, 0x89, 0xcb, 0x44, 0x89, 0xc9, 0xe3, (uint8_t)(0xba + x->again), 0x4c, 0x89, 0xd9);
    }
    PUT(r, 0x41, 0xb8, LE32(site + (uint32_t)x->site), 0xe8);
    rel32(r, r->v->stubs.callout + (uint32_t)x->call);
    PUT(r, 0xeb, (uint8_t)(11 + x->len + x->over), 0x4c, 0x89, 0xd9, 0x4f, 0x8b, 0x8c, 0xcf,
        LE32(tlb + offsetof(struct spt_tlb, addend) + row + (uint32_t)x->addend));
    put(r, x->access, x->len);
}

#define LOAD B(0x43, 0x8b, 0x04, 0x01) /* mov eax, [r9+r8] */
static const struct look looks[] = {
    {"a load", NULL, 0, 0, 3, LOAD, .heat = 0},
    {"a user's store", NULL, RC_MODE_USER, 3, 3, B(0x43, 0x89, 0x04, 0x01), .heat = 0},
    {"a load of a byte too many", "longer than", 0, 0, 2, LOAD, .heat = 0},
    {"a store where a load was looked up", "for reading", 0, 0, 3, B(0x43, 0x89, 0x04, 0x01), .heat = 0},
    {"a user's look into the kernel's table", "another privilege", RC_MODE_USER, 0, 3, LOAD, .heat = 0},
    {"the kernel's look into the user's", "another privilege", 0, 2, 3, LOAD, .heat = 0},
    {"no such kind", "several tables", 0, 4, 3, LOAD, .heat = 0},
    {"a displacement", "[r9+r8]", 0, 0, 3, B(0x43, 0x8b, 0x44, 0x01, 0x04), .heat = 0},
    {"another index", "[r9+r8]", 0, 0, 3, B(0x41, 0x8b, 0x04, 0x19), .heat = 0},
    {"in GS", "[r9+r8]", 0, 0, 3, B(0x65, 0x43, 0x8b, 0x04, 0x01), .heat = 0},
    {"a second use", "neither in this privilege's window", 0, 0, 3,
     B(0x43, 0x8b, 0x04, 0x01, 0x43, 0x8b, 0x04, 0x01), .heat = 0},
    {"mov eax, r9d", "become data", 0, 0, 3, B(0x44, 0x89, 0xc8), .heat = 0},
    {"bts of a register", "beyond its operand", 0, 1, 3, B(0x43, 0x0f, 0xab, 0x04, 0x01), .heat = 0},
    {"jmp r9", "without its access", 0, 0, 3, B(0x41, 0xff, 0xe1), .heat = 0},
    {"push rax", "without its access", 0, 0, 3, B(0x50), .heat = 0},
    {"a size of 200", "128 bytes", 0, 0, 199, LOAD, .heat = 0},
    {"two accounts", "may not be used like this", 0, 0, 3, LOAD, .heat = 4},
    {"the tags of another kind", "several tables", 0, 0, 3, LOAD, .tag = SPT_TLB_SIZE * 8},
    {"the addends of another kind", "several tables", 0, 0, 3, LOAD, .addend = SPT_TLB_SIZE * 8},
    {"another block's site", "sites in r8", 0, 0, 3, LOAD, .light_site = 1, .site = 1},
    {"two sites", "may not be used like this", 0, 0, 3, LOAD, .site = 1},
    {"a light call from user code", "may not be used like this", RC_MODE_USER, 2, 3, LOAD, .other = true},
    {"no light call", "may not be used like this", 0, 0, 3, LOAD, .other = true},
    {"found too early", "unfinished look", 0, 0, 3, LOAD, .found = -3},
    {"found too early by a user", "unfinished look", RC_MODE_USER, 2, 3, LOAD, .found = -3},
    {"a light call elsewhere", "lead to the callout", 0, 0, 3, LOAD, .light = 1},
    {"another look with a page that has not been looked up", "may not be used like this", 0, 0, 3, LOAD,
     .again = 1},
    {"a call elsewhere", "lead to the callout", 0, 0, 3, LOAD, .call = 1},
    {"a callout that comes back into the access", "lands inside", 0, 0, 3, LOAD, .over = -1},
    {"a callout that comes back before the access", "between a look", 0, 0, 3, LOAD, .over = -4},
};

static void looks_are_checked(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof looks / sizeof *looks; i++) {
        struct rig r;
        rig_init(&r);
        begin(&r, looks[i].mode);
        emit_look(&r, &looks[i]);
        row(&r);
        end(&r);
        print_message("%s %s\n", looks[i].rule ? "refuses" : "accepts", looks[i].what);
        expect(&r, looks[i].rule);
        rig_finish(&r);
    }
}

/* A trap may restart a guest instruction: what an earlier one left in r8-r11 is no longer known. */
static void rows_forget(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    begin(&r, 0);
    PUT(&r, LEA_R8, PICK_R9);
    row(&r);
    PUT(&r, 0x43, 0x8b, 0x04, 0x01);
    end(&r);
    expect(&r, "neither in this privilege's window");
    rig_finish(&r);
}

/* Garbage is refused or accepted, never more. */
static void garbage_is_survived(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252u;
    for (unsigned i = 0; i < 2000; i++) {
        struct rig r;
        rig_init(&r);
        begin(&r, i & 1 ? RC_MODE_USER : 0);
        for (unsigned k = 0; k < 24; k++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            PUT(&r, (uint8_t)seed);
        }
        end(&r);
        bool ok = bt_verify_block(r.v, r.b);
        assert_true(ok || r.v->reason[0]);
        rig_finish(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_the_translators_shapes),
        cmocka_unit_test(refuses_forged_bodies),
        cmocka_unit_test(accepts_calls_loops_and_callouts),
        cmocka_unit_test(entry_is_checked),
        cmocka_unit_test(links_are_checked),
        cmocka_unit_test(exits_are_checked),
        cmocka_unit_test(ends_and_rows_are_checked),
        cmocka_unit_test(looks_are_checked),
        cmocka_unit_test(rows_forget),
        cmocka_unit_test(garbage_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
