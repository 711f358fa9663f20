/* Linux/i386 system calls for programs without a C library. */
#ifndef USER_SYS_H
#define USER_SYS_H

#include <stddef.h>
#include <stdint.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;

enum {
    SYS_EXIT = 1,
    SYS_FORK = 2,
    SYS_READ = 3,
    SYS_WRITE = 4,
    SYS_WAITPID = 7,
    SYS_PIPE = 42,
    SYS_GETPPID = 64,
    SYS_MMAP2 = 192,
    SYS_MUNMAP = 91,
    SYS_SCHED_YIELD = 158,
    SYS_CLOCK_GETTIME = 265,
};

static inline i32 sys(u32 n, u32 a, u32 b, u32 c)
{
    i32 r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return r;
}

static inline i32 sys_mmap_anonymous(u32 length)
{
    i32 r;
    /* PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS; the sixth argument is in EBP */
    __asm__ volatile("pushl %%ebp; xorl %%ebp, %%ebp; int $0x80; popl %%ebp"
                     : "=a"(r)
                     : "a"(SYS_MMAP2), "b"(0), "c"(length), "d"(3), "S"(0x22), "D"(-1)
                     : "memory");
    return r;
}

static inline void say(const char *text)
{
    u32 n = 0;
    while (text[n])
        n++;
    sys(SYS_WRITE, 1, (u32)text, n);
}

static inline void say_number(u32 v)
{
    char digits[12];
    unsigned n = sizeof digits;
    digits[--n] = 0;
    do
        digits[--n] = '0' + v % 10;
    while (v /= 10);
    say(digits + n);
}

/* The stack is 16-byte aligned at entry; a C function expects that of its caller. */
#define PROGRAM(fn)                                                                                          \
    __asm__(".globl _start\n_start: xorl %ebp, %ebp; andl $-16, %esp; call program; movl %eax, %ebx; movl "  \
            "$1, %eax; int $0x80");                                                                          \
    int program(void);                                                                                       \
    int program(void)                                                                                        \
    {                                                                                                        \
        return fn();                                                                                         \
    }

#endif
