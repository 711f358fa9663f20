/*
 * The VEX prefix of a guest instruction, taken apart, so that it can be put together again for 64-bit mode, where
 * three of its fields reach twice as far (vol. 2 2.3.5).
 */
#ifndef BT_VEX_H
#define BT_VEX_H

#include "insn.h"
#include "ringcomp/ringcomp.h"

struct bt_vex {
    uint8_t map;  /* mmmmm: 1 0F, 2 0F 38, 3 0F 3A */
    uint8_t tail; /* W, L and pp in their places of the last byte; vvvv open */
    uint8_t v;    /* register vvvv names, 0 when it names none; 0-7 */
};

/* W is the width of an integer that is, or in its register form would be, in a general register: 32-bit code ignores it
 * there, 64-bit code would not. Of vectors it is part of the opcode. */
static inline bool bt_vex_w_is_width(const struct bt_insn *i)
{
    unsigned op = i->opcode;
    if (i->class == BT_CLASS_BMI || (i->vex_gpr & (BT_VEX_REG | BT_VEX_RM)))
        return true;
    if (i->map == ZYDIS_OPCODE_MAP_0F)
        return op == 0x2a || op == 0x6e || op == 0x7e; /* VCVTSI2SS/SD, VMOVD */
    return i->map == ZYDIS_OPCODE_MAP_0F3A && (op == 0x16 || op == 0x22 || op == 0x60 ||
                                               op == 0x61); /* VPEXTRD, VPINSRD, VPCMPESTRM, VPCMPESTRI */
}

static inline struct bt_vex bt_vex_get(const struct bt_insn *i)
{
    const uint8_t *last = i->bytes + i->opcode_off - 1;
    struct bt_vex x = {.map = i->map, .tail = *last & 7, .v = (uint8_t)(~*last >> 3 & 7)};
    if (i->vex == 3 && !bt_vex_w_is_width(i))
        x.tail |= *last & 0x80;
    return x;
}

/* The three bytes for 64-bit mode; rxb: REX.R, X and B in bits 2-0. */
static inline void bt_vex_put(const struct bt_insn *i, unsigned rxb, uint8_t out[3])
{
    struct bt_vex x = bt_vex_get(i);
    unsigned v = (i->vex_gpr & BT_VEX_V) && x.v == RC_ESP ? 12 : x.v; /* guest ESP is R12 */
    out[0] = 0xc4;
    out[1] = (uint8_t)((~rxb & 7) << 5 | x.map);
    out[2] = (uint8_t)(x.tail | (~v & 15) << 3);
}

/* VBLENDVPS and kin name a fourth register in imm8[7:4]; bit 7 counts in 64-bit mode only. */
static inline uint8_t bt_vex_imm(const struct bt_insn *i, uint8_t imm)
{
    return i->vex && i->map == ZYDIS_OPCODE_MAP_0F3A && i->opcode >= 0x4a && i->opcode <= 0x4c ? imm & 0x7f
                                                                                               : imm;
}

#endif
