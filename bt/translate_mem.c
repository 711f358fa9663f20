/*
 * Memory operands. One function decides how an operand reaches guest memory; everything that touches memory
 * in translated code comes through it.
 */
#include "translate.h"
#include "vex.h"

#define SOFT(s)                                                                                              \
    ((uint32_t)(offsetof(struct rc_cpu, seg) + (s) * sizeof(struct rc_seg) + offsetof(struct rc_seg, soft)))

bool tx_seg_flat(const struct tx *t, unsigned seg)
{
    switch (seg) {
    case RC_CS: /* flat, but not writable, and rare: the interpreter checks */
        return false;
    case RC_SS:
        return !(t->mode & RC_MODE_SS_ODD);
    case RC_DS:
        return !(t->mode & RC_MODE_DS_ODD);
    case RC_ES:
        return !(t->mode & RC_MODE_ES_ODD);
    default:
        return false;
    }
}

/* lea dst, [effective address] without segment; 32-bit wrap-around comes with the destination size */
static void lea(struct tx *t, unsigned dst)
{
    const struct bt_insn *i = &t->insn;
    struct emit *e = &t->e;
    uint32_t disp = (uint32_t)i->disp + (i->base == RC_ESP ? (uint32_t)t->esp : 0);
    if (i->base == BT_NOREG && i->index == BT_NOREG) {
        e_mov_imm(e, dst, disp);
        return;
    }
    unsigned rm_base = i->base == RC_ESP ? 4 : i->base;
    e8(e, 0x67);
    if (dst >= 8 || i->base == RC_ESP)
        e8(e, 0x40 | (dst >= 8 ? 4 : 0) | (i->base == RC_ESP ? 1 : 0));
    e8(e, 0x8d);
    unsigned reg = (dst & 7) << 3;
    if (i->base == BT_NOREG) {
        EB(e, 0x04 | reg, (uint8_t)((__builtin_ctz(i->scale) << 6) | i->index << 3 | 5));
        e32(e, disp);
        return;
    }
    bool sib = i->index != BT_NOREG || i->base == RC_ESP;
    e8(e, 0x80 | reg | (sib ? 4 : rm_base));
    if (sib)
        e8(e, (i->index == BT_NOREG ? 4u << 3
                                    : (unsigned)__builtin_ctz(i->scale) << 6 | (unsigned)i->index << 3) |
                  rm_base);
    e32(e, disp);
}

bool tx_address(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    struct emit *e = &t->e;
    if (!i->is_mem || i->asz != 4)
        return false;
    if (tx_seg_flat(t, i->seg)) {
        lea(t, E_R8);
        return true;
    }
    if (i->seg != RC_FS && i->seg != RC_GS)
        return false;
    lea(t, E_R8);
    e_load(e, false, E_R9, SOFT(i->seg));
    EB(e, 0x47, 0x8d, 0x04, 0x08); /* lea r8d, [r8+r9] */
    return true;
}

/* r9 = window for the address in r8d, by its top byte; flags untouched */
static void window_r9(struct emit *e)
{
    EB(e, 0x45, 0x89, 0xc1);       /* mov r9d, r8d */
    EB(e, 0x41, 0x0f, 0xc9);       /* bswap r9d */
    EB(e, 0x45, 0x0f, 0xb6, 0xc9); /* movzx r9d, r9b */
    EB(e, 0x4f, 0x8b, 0x8c, 0xcf); /* mov r9, [r15 + r9*8 + window] */
    e32(e, (uint32_t)offsetof(struct bt_vcpu, window));
}

/* ModRM, SIB and displacement of an operand on the stack, while R12 is behind */
static void esp_operand(struct tx *t, unsigned reg)
{
    int32_t disp = (int32_t)((uint32_t)t->insn.disp + (uint32_t)t->esp);
    bool small = disp >= -128 && disp < 128;
    EB(&t->e, (small ? 0x44 : 0x84) | reg, t->insn.bytes[t->insn.sib_off]);
    if (small)
        e8(&t->e, (uint8_t)disp);
    else
        e32(&t->e, (uint32_t)disp);
}

static void put_opcode(struct emit *e, const struct bt_insn *i, const struct tx_op *op, unsigned rex)
{
    if (op->vex) {
        uint8_t vex[3];
        bt_vex_put(i, rex & 7, vex);
        ebytes(e, vex, 3);
    } else {
        ebytes(e, op->prefix, op->prefix_len);
        if (rex)
            e8(e, 0x40 | rex);
    }
    ebytes(e, op->op, op->op_len);
}

/*T:330 Redirecting a memory operand
 *
 * Three ways, cheapest first. A flat segment in the window of the current privilege keeps its ModRM byte
 * and gets two prefixes: 65 (GS: the kernel's window) or 64 (FS: the user's) and 67 (32-bit effective address, so that wrap-around at 4 GiB
 * is the guest's). FS and GS of the guest add their cached base, truncate to 32 bits, and add 4 GiB if the
 * segment is anything but an ordinary 4 GiB data segment: that lands in the window's guard and the
 * interpreter finds out which fault it is. Supervisor code that was caught touching user pages selects the
 * window by the top byte of the address.
:*/
bool tx_emit_op(struct tx *t, const struct tx_op *op)
{
    const struct bt_insn *i = &t->insn;
    struct emit *e = &t->e;
    unsigned rex = (op->wide ? 8 : 0) | (op->reg >= 8 ? 4 : 0);
    bool high_byte = op->byte_reg && op->reg >= 4 && op->reg < 8;
    enum { REG, FLAT, ODD, DUAL, LOOK } how = REG;

    if (i->is_mem) {
        if (i->asz != 4 || t->form == BT_FORM_INTERP)
            return false;
        if (i->vsib && (t->form != BT_FORM_WINDOW || !tx_seg_flat(t, i->seg)))
            return false; /* no sum beforehand: each element has an address of its own */
        if (tx_seg_flat(t, i->seg))
            how = t->form == BT_FORM_DUAL ? DUAL : t->form == BT_FORM_SOFT ? LOOK : FLAT;
        else if ((i->seg == RC_FS || i->seg == RC_GS) && t->form == BT_FORM_WINDOW)
            how = ODD;
        else
            return false;
        if (how == FLAT)
            rex |= i->base == RC_ESP ? 1 : 0;
        else
            rex |= 3;
    } else if (tx_rm_is_gpr(i) && i->rm == RC_ESP && !tx_rm_is_byte(i))
        rex |= 1;
    if (rex && (high_byte || (how == REG && tx_rm_is_byte(i) && i->rm >= 4)))
        return false; /* AH-BH cannot be named beside a REX prefix */

    if (how == ODD) {
        tx_address(t);
        e_load(e, false, E_R9, SOFT(i->seg) + 4);
        e8(e, e->seg);
    } else if (how == DUAL) {
        lea(t, E_R8);
        window_r9(e);
    } else if (how == LOOK) {
        lea(t, E_R8);
        tx_soft_look(t);
    } else if (how == FLAT)
        e_window(e);
    put_opcode(e, i, op, rex);
    unsigned reg = (op->reg & 7u) << 3;
    switch (how) {
    case REG:
        e8(e, 0xc0 | reg | i->rm);
        break;
    case ODD:
        EB(e, 0x04 | reg, 0xc8); /* [r8 + r9*8] */
        break;
    case DUAL:
    case LOOK:
        EB(e, 0x04 | reg, 0x01); /* [r9 + r8] */
        break;
    case FLAT:
        if (i->base == BT_NOREG && i->index == BT_NOREG && !i->vsib) {
            EB(e, 0x04 | reg, 0x25);
            e32(e, (uint32_t)i->disp);
            break;
        }
        if (i->base == RC_ESP && t->esp) {
            esp_operand(t, reg);
            break;
        }
        e8(e, (i->modrm & 0xc7) | reg);
        if (i->sib_off)
            e8(e, i->bytes[i->sib_off]);
        ebytes(e, i->bytes + i->disp_off, i->disp_size);
        break;
    }
    ebytes(e, op->imm, op->imm_len);
    return true;
}

/* Legacy prefixes that belong to the instruction, without segment overrides and address size. */
static unsigned own_prefixes(const struct bt_insn *i, uint8_t *out, unsigned *skip)
{
    unsigned n = 0, k = 0;
    for (;; k++) {
        switch (i->bytes[k]) {
        case 0x66:
        case 0xf0:
        case 0xf2:
        case 0xf3: {
            bool have = false;
            for (unsigned j = 0; j < n; j++)
                have |= out[j] == i->bytes[k];
            /* of F2 and F3 the last one counts */
            have |= (i->bytes[k] == 0xf2 && i->rep) || (i->bytes[k] == 0xf3 && i->repne);
            if (!have && n < 4)
                out[n++] = i->bytes[k];
            continue;
        }
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x64:
        case 0x65:
        case 0x67:
            continue;
        }
        break;
    }
    *skip = k;
    return n;
}

/* Where the CPU model does not offer TZCNT or LZCNT the prefix is ignored, as on such a CPU. */
static void drop_unoffered(const struct tx *t, struct tx_op *op)
{
    const struct bt_insn *i = &t->insn;
    if (i->map != ZYDIS_OPCODE_MAP_0F)
        return;
    bool tzcnt = i->opcode == 0xbc && !(t->v->cpu.config.feature7_ebx & 1u << 3),
         lzcnt = i->opcode == 0xbd && !(t->v->cpu.config.ext_ecx & 1u << 5);
    if (!tzcnt && !lzcnt)
        return;
    unsigned n = 0;
    for (unsigned k = 0; k < op->prefix_len; k++)
        if (op->prefix[k] != 0xf3)
            op->prefix[n++] = op->prefix[k];
    op->prefix_len = (uint8_t)n;
}

/* AH to BH cannot be named beside a REX prefix, and an operand on the stack needs one (R12). So what is loaded goes by
 * way of r8 to CL or DL, borrowed for one instruction; what is stored, by way of r10. */
static bool copy_high_byte(struct tx *t)
{
    struct emit *e = &t->e;
    const struct bt_insn *i = &t->insn;
    unsigned low = i->reg == 5 ? E_RDX : E_RCX, op = i->opcode;
    if (i->map != ZYDIS_OPCODE_MAP_DEFAULT || !i->is_mem || i->reg < 4 || i->lock)
        return false;
    if (op == 0x88) {                /* MOV m8, AH-BH */
        if (t->form == BT_FORM_SOFT) /* looking takes r10 */
            return false;
        e_mov(e, true, E_R11, low);
        EB(e, 0x88, 0xc0 | i->reg << 3 | low);
        e_mov(e, false, E_R10, low);
        e_mov(e, true, low, E_R11);
        return tx_emit_op(t, &(struct tx_op){.op = {0x88}, .op_len = 1, .reg = E_R10});
    }
    bool reads =
        op == 0x8a || op == 0x84 || op == 0x38 || (op < 0x40 && (op & 7) == 2); /* MOV TEST CMP, AH op m8 */
    if (!reads || !tx_emit_op(t, &(struct tx_op){.op = {0x0f, 0xb6}, .op_len = 2, .reg = E_R8}))
        return false;
    e_mov(e, true, E_R9, low);
    e_mov(e, false, low, E_R8);
    EB(e, op, 0xc0 | i->reg << 3 | low);
    e_mov(e, true, low, E_R9);
    return true;
}

static bool copy_vex(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    struct tx_op op = {.op = {i->opcode}, .op_len = 1, .vex = true, .reg = i->reg};
    if (i->imm_size > 1)
        return false;
    if (i->imm_size)
        op.imm[op.imm_len++] = bt_vex_imm(i, i->bytes[i->imm_off]);
    if (!i->has_modrm) { /* VZEROUPPER, VZEROALL */
        put_opcode(&t->e, i, &op, 0);
        return true;
    }
    if (tx_reg_is_gpr(i) && i->reg == RC_ESP)
        op.reg = E_R12;
    return tx_emit_op(t, &op);
}

bool tx_copy(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    if (i->vex)
        return copy_vex(t);
    struct tx_op op = {0};
    unsigned skip;
    op.prefix_len = (uint8_t)own_prefixes(i, op.prefix, &skip);
    drop_unoffered(t, &op);
    op.op_len = (uint8_t)(i->opcode_off + 1 - skip);
    if (op.op_len < 1 || op.op_len > 3)
        return false;
    memcpy(op.op, i->bytes + skip, op.op_len);
    unsigned tail = i->imm_size;
    if (i->imm_off) {
        if (tail > 4)
            return false;
        memcpy(op.imm, i->bytes + i->imm_off, tail);
        op.imm_len = (uint8_t)tail;
    }
    if (i->has_modrm) {
        op.reg = i->reg;
        op.byte_reg = tx_reg_is_byte(i);
        if (tx_reg_is_gpr(i) && !op.byte_reg && i->reg == RC_ESP)
            op.reg = E_R12;
        return tx_emit_op(t, &op) || (op.byte_reg && copy_high_byte(t));
    }
    /* register in the opcode byte: XCHG eAX (91-97), MOV imm (B8-BF), BSWAP (0F C8-CF) */
    struct emit *e = &t->e;
    bool embedded = (i->map == ZYDIS_OPCODE_MAP_DEFAULT && ((i->opcode >= 0x91 && i->opcode <= 0x97) ||
                                                            (i->opcode >= 0xb8 && i->opcode <= 0xbf))) ||
                    (i->map == ZYDIS_OPCODE_MAP_0F && i->opcode >= 0xc8 && i->opcode <= 0xcf);
    ebytes(e, op.prefix, op.prefix_len);
    if (embedded && (i->opcode & 7) == RC_ESP)
        e8(e, 0x41);
    ebytes(e, op.op, op.op_len);
    ebytes(e, op.imm, op.imm_len);
    return true;
}

bool tx_lea(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    if (i->asz != 4 || i->osz != 4 || !i->is_mem)
        return false;
    lea(t, tx_host_reg(i->reg));
    if (i->reg == RC_ESP)
        t->esp = 0; /* the sum is in it */
    return true;
}

/*T:335 String instructions
 *
 * ES cannot be overridden, so RSI and RDI are pointed at the windows, the native instruction runs - REP
 * included, at memory speed - and both are truncated back. A fault or an interrupt in the middle finds the
 * guest's registers by the same truncation, because the low 32 bits of a window address are the guest
 * address.
:*/
bool tx_string(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    struct emit *e = &t->e;
    unsigned kind = i->opcode & 0xfe;
    bool si = kind == 0xa4 || kind == 0xa6 || kind == 0xac;
    bool di = kind != 0xac;
    if (i->asz != 4 || t->form >= BT_FORM_SOFT || (si && !tx_seg_flat(t, i->seg)) ||
        (di && (t->mode & RC_MODE_ES_ODD)))
        return false;
    if (t->form == BT_FORM_DUAL) {
        if (si) {
            e_mov(e, false, E_R8, E_RSI);
            window_r9(e);
            e_mov(e, true, E_R10, E_R9);
        }
        if (di) {
            e_mov(e, false, E_R8, E_RDI);
            window_r9(e);
        }
        if (si)
            EB(e, 0x49, 0x8d, 0x34, 0x32); /* lea rsi, [r10+rsi] */
    } else {
        e_load(e, true, E_R9,
               t->mode & RC_MODE_USER ? offsetof(struct bt_vcpu, window_u)
                                      : offsetof(struct bt_vcpu, window_k));
        if (si)
            EB(e, 0x49, 0x8d, 0x34, 0x31); /* lea rsi, [r9+rsi] */
    }
    if (di)
        EB(e, 0x49, 0x8d, 0x3c, 0x39); /* lea rdi, [r9+rdi] */
    if (i->rep)
        e8(e, 0xf3);
    if (i->repne)
        e8(e, 0xf2);
    if (i->osz == 2 && (i->opcode & 1))
        e8(e, 0x66);
    e8(e, i->opcode);
    if (si)
        e_mov(e, false, E_RSI, E_RSI);
    if (di)
        e_mov(e, false, E_RDI, E_RDI);
    return true;
}
