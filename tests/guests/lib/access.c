/* Trying one access from a ring. */
#include "guest.h"

static u32 do_read(u32 va)
{
    u32 v;
    FAULTING("movl (%1), %0", : "=&r"(v) : "r"(va) : "memory");
    return 0;
}

static u32 do_write(u32 va)
{
    FAULTING("movl $0xc3c3c3c3, (%0)", : : "r"(va) : "memory");
    return 0;
}

static u32 do_exec(u32 va)
{
    fault_eip = va;
    __asm__ volatile("call *%0" : : "r"(va) : "eax", "ecx", "edx", "memory");
    return 0;
}

u32 access_page(unsigned ring, enum access how, u32 va)
{
    static u32 (*const act[])(u32) = {do_read, do_write, do_exec};
    if (ring == 0) {
        TRY(act[how](va));
        if (trap.vector == NO_TRAP)
            return ACCESS_OK;
    } else {
        ring_call(ring, act[how], va);
        if (trap.vector == VEC_RETURN)
            return ACCESS_OK;
    }
    if (trap.vector != 14)
        return ACCESS_OTHER | trap.vector;
    if (trap.cr2 != va || trap.eip != fault_eip)
        return ACCESS_OTHER | 0x1000;
    return trap.error;
}
