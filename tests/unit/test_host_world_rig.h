/* A world, some guest memory, and small programs to run in it. */
#ifndef TEST_HOST_WORLD_RIG_H
#define TEST_HOST_WORLD_RIG_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include "host/host.h"

/* 32-bit code, assembled with the test: name and name_end. Position-independent: it runs at RIG_CODE. */
#define PROGRAM_BITS(bits, name, text)                                                                       \
    extern const uint8_t name[], name##_end[];                                                               \
    __asm__(".pushsection .rodata\n.balign 64\n.code" bits "\n" #name ":\n" text "\n" #name                  \
            "_end:\n.code64\n.popsection\n")
#define PROGRAM(name, text)   PROGRAM_BITS("32", name, text)
#define PROGRAM64(name, text) PROGRAM_BITS("64", name, text)

/* The world's addresses, each a page of RAM of the same number. */
enum {
    RIG_RAM = 1 << 20,
    RIG_CODE = 0x400000,  /* read, execute; RAM 0 */
    RIG_DATA = 0x500000,  /* read, write; RAM 0x10000, 4 pages */
    RIG_ROM = 0x600000,   /* read; RAM 0x20000 */
    RIG_HOLE = 0x700000,  /* nothing */
    RIG_STACK = 0x504000, /* the end of the data */
    RIG_CODE_RAM = 0,
    RIG_DATA_RAM = 0x10000,
    RIG_ROM_RAM = 0x20000,
};
enum { RIG_CS = 1, RIG_DS = 2, RIG_TLS = 3 };
enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };
enum { ES, CS, SS, DS, FS, GS };

struct rig {
    struct host_ram ram;
    struct host_counts counts;
    struct host_world *w;
    struct host_world_state st;
    struct host_world_exit ex;
};

static inline void rig_segment(struct rig *r, unsigned index, uint32_t base, uint32_t limit, unsigned type)
{
    struct host_world_segment s = {base, limit, (uint8_t)type, true, true};
    assert_int_equal(host_world_segment(r->w, index, &s), 0);
}

static inline void rig_maps(struct rig *r)
{
    host_world_map(r->w, RIG_CODE, RIG_CODE_RAM, 4 * HOST_PAGE, PROT_READ | PROT_EXEC);
    host_world_map(r->w, RIG_DATA, RIG_DATA_RAM, 4 * HOST_PAGE, PROT_READ | PROT_WRITE);
    host_world_map(r->w, RIG_ROM, RIG_ROM_RAM, HOST_PAGE, PROT_READ);
}

static inline void rig_state(struct rig *r)
{
    memset(&r->st, 0, sizeof(r->st));
    r->st.eip = RIG_CODE;
    r->st.eflags = 2;
    r->st.gpr[ESP] = RIG_STACK;
    for (unsigned i = 0; i < 6; i++)
        r->st.sel[i] = HOST_WORLD_SELECTOR(i == CS ? RIG_CS : RIG_DS);
    r->st.fpu[0] = 0x7f; /* what FNINIT leaves: FCW 37Fh; MXCSR 1F80h */
    r->st.fpu[1] = 0x03;
    r->st.fpu[24] = 0x80;
    r->st.fpu[25] = 0x1f;
    r->st.fpu[512] = 7;
}

static inline void rig_init(struct rig *r)
{
    struct host_err err = {""};
    memset(r, 0, sizeof(*r));
    assert_int_equal(host_ram_init(&r->ram, RIG_RAM, &err), 0);
    if (host_world_create(&r->w, &r->ram, &r->counts, &err) != 0)
        fail_msg("%s", err.text);
    rig_segment(r, RIG_CS, 0, 0xffffffff, 0xb);
    rig_segment(r, RIG_DS, 0, 0xffffffff, 0x3);
    rig_maps(r);
    rig_state(r);
}

static inline void rig_finish(struct rig *r)
{
    host_world_destroy(r->w);
    host_ram_finish(&r->ram);
}

static inline void rig_code(struct rig *r, const uint8_t *from, const uint8_t *to)
{
    memset(r->ram.base + RIG_CODE_RAM, 0xf4, 4 * HOST_PAGE); /* HLT: #GP where nothing was written */
    memcpy(r->ram.base + RIG_CODE_RAM, from, (size_t)(to - from));
}

static inline void rig_run(struct rig *r)
{
    host_world_run(r->w, &r->st, &r->ex);
}

/* Load the program, run it from its start with the registers in r->st. */
#define RUN(r, name)                                                                                         \
    do {                                                                                                     \
        rig_code(r, name, name##_end);                                                                       \
        (r)->st.eip = RIG_CODE;                                                                              \
        rig_run(r);                                                                                          \
    } while (0)

static inline void rig_print(const struct rig *r)
{
    static const char *const why[] = {"trap", "syscall", "kick", "wild", "dead"};
    printf("  exit: %s vector %u error 0x%x addr 0x%x %s\n  eip %08x eflags %08x cs %04x ss %04x\n",
           why[r->ex.why], r->ex.vector, r->ex.error, r->ex.addr, r->ex.text, r->st.eip, r->st.eflags,
           r->st.sel[CS], r->st.sel[SS]);
    for (unsigned i = 0; i < 8; i++)
        printf("  %08x", r->st.gpr[i]);
    printf("\n");
}

static inline void rig_expect(const struct rig *r, enum host_world_why why, uint32_t eip)
{
    if (r->ex.why != why || r->st.eip != eip)
        rig_print(r);
    assert_int_equal(r->ex.why, why);
    assert_int_equal(r->st.eip, eip);
}

static inline void rig_expect_trap(const struct rig *r, unsigned vector, unsigned error, uint32_t eip)
{
    if (r->ex.vector != vector || r->ex.error != error)
        rig_print(r);
    rig_expect(r, HOST_WORLD_TRAP, eip);
    assert_int_equal(r->ex.vector, vector);
    assert_int_equal(r->ex.error, error);
}

static inline uint32_t rig_peek(const struct rig *r, uint32_t gpa)
{
    uint32_t v;
    memcpy(&v, r->ram.base + gpa, sizeof(v));
    return v;
}

/* ---- The world's tasks, as the host sees them. ---- */

static inline int rig_parent_of(const char *pid)
{
    char path[300], line[512];
    int parent = -1;
    snprintf(path, sizeof(path), "/proc/%s/stat", pid);
    FILE *f = fopen(path, "re");
    if (f && fgets(line, sizeof(line), f))
        sscanf(strrchr(line, ')') + 1, " %*c %d", &parent);
    if (f)
        fclose(f);
    return parent;
}

/* The world: the one process whose parent this is. */
static inline int rig_child_of(pid_t parent)
{
    int found = -1;
    DIR *dir = opendir("/proc");
    assert_non_null(dir);
    for (struct dirent *entry; found < 0 && (entry = readdir(dir));)
        if (atoi(entry->d_name) > 0 && rig_parent_of(entry->d_name) == parent)
            found = atoi(entry->d_name);
    closedir(dir);
    assert_true(found > 0);
    return found;
}

/* The task that runs guest code: the one that is not the world's first. */
static inline int rig_runner_of(int pid)
{
    char path[64];
    int runner = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (atoi(entry->d_name) > 0 && atoi(entry->d_name) != pid)
            runner = atoi(entry->d_name);
    closedir(dir);
    assert_int_not_equal(runner, 0);
    return runner;
}

/* For cmocka_unit_test_setup_teardown. */
static inline int rig_setup(void **state)
{
    static struct rig rig;
    rig_init(&rig);
    *state = &rig;
    return 0;
}

static inline int rig_teardown(void **state)
{
    rig_finish(*state);
    return 0;
}

#endif
