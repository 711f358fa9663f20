/*
 * The interpreter's slow door to memory: segments with any base and limit, pages at devices or under trace,
 * alignment checking and data breakpoints.
 */
#include "interp_impl.h"

/* Debug registers (vol. 3 17.2): which enabled breakpoints of the given kinds cover [lin, lin+len)? */
static uint32_t match_breakpoints(const struct rc_cpu *cpu, uint32_t lin, unsigned len, unsigned kinds)
{
    static const uint8_t bytes[4] = {1, 2, 8, 4};
    uint32_t hits = 0, dr7 = cpu->dr[7];
    for (unsigned n = 0; n < 4; n++) {
        unsigned kind = dr7 >> (16 + 4 * n) & 3, size = bytes[dr7 >> (18 + 4 * n) & 3];
        uint32_t start = cpu->dr[n] & ~(uint32_t)(size - 1);
        if (!(dr7 >> (2 * n) & 3) || !(kinds >> kind & 1))
            continue;
        if (lin - start < size || start - lin < len)
            hits |= 1u << n;
    }
    return hits;
}

enum { KINDS_WRITE = 1 << 1 | 1 << 3, KINDS_READ = 1 << 3, KINDS_IO = 1 << 2 };

static bool watch(struct bt_interp *in, unsigned seg, uint32_t off, unsigned len, bool write)
{
    struct rc_cpu *cpu = in->cpu;
    uint32_t lin;
    if (rc_linear(cpu, seg, off, len, write, &lin) != RC_OK)
        return false;
    if (rc_alignment_checked(cpu) && len <= 8 && !(len & (len - 1)) && (lin & (len - 1))) {
        rc_raise_error(cpu, RC_AC_FAULT, 0);
        return false;
    }
    in->db_hits |= match_breakpoints(cpu, lin, len, write ? KINDS_WRITE : KINDS_READ);
    return true;
}

bool bt_read_bytes(struct bt_interp *in, unsigned seg, uint32_t off, void *buf, unsigned len)
{
    if (in->careful && !watch(in, seg, off, len, false))
        return false;
    return rc_read(in->cpu, seg, off, buf, len) == RC_OK;
}

bool bt_write_bytes(struct bt_interp *in, unsigned seg, uint32_t off, const void *buf, unsigned len)
{
    if (in->careful && !watch(in, seg, off, len, true))
        return false;
    return rc_write(in->cpu, seg, off, buf, len) == RC_OK;
}

bool bt_check_rmw(struct bt_interp *in, unsigned seg, uint32_t off, unsigned len)
{
    if (in->careful && !watch(in, seg, off, len, true))
        return false;
    return rc_check_rmw(in->cpu, seg, off, len) == RC_OK;
}

bool bt_read_slow(struct bt_interp *in, unsigned seg, uint32_t off, unsigned size, uint32_t *value)
{
    uint8_t buf[4];
    if (!bt_read_bytes(in, seg, off, buf, size))
        return false;
    *value = bt_load(buf, size);
    return true;
}

bool bt_write_slow(struct bt_interp *in, unsigned seg, uint32_t off, unsigned size, uint32_t value)
{
    uint8_t buf[4];
    bt_store(buf, size, value);
    return bt_write_bytes(in, seg, off, buf, size);
}

bool bt_push_slow(struct bt_interp *in, uint32_t value, unsigned size)
{
    uint32_t sp = (in->cpu->gpr[RC_ESP] - size) & bt_sp_mask(in);
    if (in->careful && !watch(in, RC_SS, sp, size, true))
        return false;
    return rc_push(in->cpu, value, size) == RC_OK;
}

bool bt_pop_slow(struct bt_interp *in, uint32_t *value, unsigned size)
{
    if (in->careful && !watch(in, RC_SS, in->cpu->gpr[RC_ESP] & bt_sp_mask(in), size, false))
        return false;
    *value = 0;
    return rc_pop(in->cpu, value, size) == RC_OK;
}

/* I/O breakpoints exist while CR4.DE is set. */
void bt_watch_io(struct bt_interp *in, uint16_t port, unsigned size)
{
    if (in->careful && (in->cpu->cr4 & RC_CR4_DE))
        in->db_hits |= match_breakpoints(in->cpu, port, size, KINDS_IO);
}
