/*
 * Opcode to handler: one table per opcode map, and one of eight for each opcode whose ModRM.reg extends it.
 * An empty row is a gap of ours, never of the guest's: what does not exist was refused by the decoder.
 */
#include "interp_families.h"

struct row {
    bt_handler one;
    const bt_handler *group; /* by ModRM.reg */
};

#define H(name)                                                                                              \
    {                                                                                                        \
        bt_h_##name, 0                                                                                       \
    }
#define GROUP(name)                                                                                          \
    {                                                                                                        \
        0, group_##name                                                                                      \
    }
#define ALU_ROWS(name, base)                                                                                 \
    [base] = H(name##_rm_r), [base + 1] = H(name##_rm_r), [base + 2] = H(name##_r_rm),                       \
    [base + 3] = H(name##_r_rm), [base + 4] = H(name##_acc_imm), [base + 5] = H(name##_acc_imm)

static const bt_handler group_alu_imm[8] = {bt_h_add_rm_imm, bt_h_or_rm_imm,  bt_h_adc_rm_imm,
                                            bt_h_sbb_rm_imm, bt_h_and_rm_imm, bt_h_sub_rm_imm,
                                            bt_h_xor_rm_imm, bt_h_cmp_rm_imm};
static const bt_handler group_shift[8] = {bt_h_rol, bt_h_ror, bt_h_rcl, bt_h_rcr,
                                          bt_h_shl, bt_h_shr, bt_h_shl, bt_h_sar};
static const bt_handler group_f6[8] = {bt_h_test_rm_imm, bt_h_test_rm_imm, bt_h_not_rm, bt_h_neg_rm,
                                       bt_h_mul,         bt_h_imul,        bt_h_div,    bt_h_idiv};
static const bt_handler group_fe[8] = {bt_h_inc_rm, bt_h_dec_rm};
static const bt_handler group_ff[8] = {bt_h_inc_rm, bt_h_dec_rm,      bt_h_call_rm, bt_h_call_far_mem,
                                       bt_h_jmp_rm, bt_h_jmp_far_mem, bt_h_push_rm};
static const bt_handler group_pop[8] = {bt_h_pop_rm};
static const bt_handler group_mov_imm[8] = {bt_h_mov_rm_imm};
static const bt_handler group_0f00[8] = {bt_h_sldt, bt_h_str, bt_h_lldt, bt_h_ltr, bt_h_verr, bt_h_verw};
static const bt_handler group_0f01[8] = {bt_h_sgdt, bt_h_sidt, bt_h_lgdt, bt_h_lidt,
                                         bt_h_smsw, 0,         bt_h_lmsw, bt_h_invlpg};
/* 0F AE of class INT: the fences (mod 3) and CLFLUSH, which shares /7 with SFENCE */
static const bt_handler group_0fae[8] = {0, 0, 0, 0, 0, bt_h_nop, bt_h_nop, bt_h_clflush};
static const bt_handler group_0fba[8] = {
    0, 0, 0, 0, bt_h_bt_rm_imm, bt_h_bt_rm_imm, bt_h_bt_rm_imm, bt_h_bt_rm_imm};
static const bt_handler group_0fc7[8] = {0, bt_h_cmpxchg8b, 0, 0, 0, 0, bt_h_rdrand};

static const struct row map_default[256] = {
    ALU_ROWS(add, 0x00),
    ALU_ROWS(or, 0x08),
    ALU_ROWS(adc, 0x10),
    ALU_ROWS(sbb, 0x18),
    ALU_ROWS(and, 0x20),
    ALU_ROWS(sub, 0x28),
    ALU_ROWS(xor, 0x30),
    ALU_ROWS(cmp, 0x38),
    [0x06] = H(push_seg),
    [0x07] = H(pop_seg),
    [0x0e] = H(push_seg),
    [0x16] = H(push_seg),
    [0x17] = H(pop_seg),
    [0x1e] = H(push_seg),
    [0x1f] = H(pop_seg),
    [0x27] = H(daa),
    [0x2f] = H(das),
    [0x37] = H(aaa),
    [0x3f] = H(aas),
    [0x40 ... 0x47] = H(inc_r),
    [0x48 ... 0x4f] = H(dec_r),
    [0x50 ... 0x57] = H(push_r),
    [0x58 ... 0x5f] = H(pop_r),
    [0x60] = H(pusha),
    [0x61] = H(popa),
    [0x62] = H(bound),
    [0x63] = H(arpl),
    [0x68] = H(push_imm),
    [0x69] = H(imul_r_rm_imm),
    [0x6a] = H(push_imm),
    [0x6b] = H(imul_r_rm_imm),
    [0x6c ... 0x6d] = H(ins),
    [0x6e ... 0x6f] = H(outs),
    [0x70 ... 0x7f] = H(jcc),
    [0x80 ... 0x83] = GROUP(alu_imm),
    [0x84 ... 0x85] = H(test_rm_r),
    [0x86 ... 0x87] = H(xchg_rm),
    [0x88 ... 0x89] = H(mov_rm_r),
    [0x8a ... 0x8b] = H(mov_r_rm),
    [0x8c] = H(mov_rm_seg),
    [0x8d] = H(lea),
    [0x8e] = H(mov_seg_rm),
    [0x8f] = GROUP(pop),
    [0x90 ... 0x97] = H(xchg_acc),
    [0x98] = H(cbw),
    [0x99] = H(cwd),
    [0x9a] = H(call_far),
    [0x9c] = H(pushf),
    [0x9d] = H(popf),
    [0x9e] = H(sahf),
    [0x9f] = H(lahf),
    [0xa0 ... 0xa1] = H(mov_acc_moffs),
    [0xa2 ... 0xa3] = H(mov_moffs_acc),
    [0xa4 ... 0xa5] = H(movs),
    [0xa6 ... 0xa7] = H(cmps),
    [0xa8 ... 0xa9] = H(test_acc_imm),
    [0xaa ... 0xab] = H(stos),
    [0xac ... 0xad] = H(lods),
    [0xae ... 0xaf] = H(scas),
    [0xb0 ... 0xbf] = H(mov_r_imm),
    [0xc0 ... 0xc1] = GROUP(shift),
    [0xc2 ... 0xc3] = H(ret),
    [0xc4 ... 0xc5] = H(load_far_pointer),
    [0xc6 ... 0xc7] = GROUP(mov_imm),
    [0xc8] = H(enter),
    [0xc9] = H(leave),
    [0xca ... 0xcb] = H(ret_far),
    [0xcc] = H(int3),
    [0xcd] = H(int_n),
    [0xce] = H(into),
    [0xcf] = H(iret),
    [0xd0 ... 0xd3] = GROUP(shift),
    [0xd4] = H(aam),
    [0xd5] = H(aad),
    [0xd6] = H(salc),
    [0xd7] = H(xlat),
    [0xe0 ... 0xe2] = H(loop),
    [0xe3] = H(jcxz),
    [0xe4 ... 0xe5] = H(in),
    [0xe6 ... 0xe7] = H(out),
    [0xe8] = H(call_rel),
    [0xe9] = H(jmp_rel),
    [0xea] = H(jmp_far),
    [0xeb] = H(jmp_rel),
    [0xec ... 0xed] = H(in),
    [0xee ... 0xef] = H(out),
    [0xf1] = H(int1),
    [0xf4] = H(hlt),
    [0xf5] = H(flag_bit),
    [0xf6 ... 0xf7] = GROUP(f6),
    [0xf8 ... 0xf9] = H(flag_bit),
    [0xfa] = H(cli),
    [0xfb] = H(sti),
    [0xfc ... 0xfd] = H(flag_bit),
    [0xfe] = GROUP(fe),
    [0xff] = GROUP(ff),
};

static const struct row map_0f[256] = {
    [0x00] = GROUP(0f00),
    [0x01] = GROUP(0f01),
    [0x02] = H(lar),
    [0x03] = H(lsl),
    [0x06] = H(clts),
    [0x08 ... 0x09] = H(invd),
    [0x0b] = H(ud),
    [0x0d] = H(nop),
    [0x18 ... 0x1f] = H(nop),
    [0x20 ... 0x23] = H(mov_crdr),
    [0x30] = H(wrmsr),
    [0x31] = H(rdtsc),
    [0x32] = H(rdmsr),
    [0x33] = H(rdpmc),
    [0x34] = H(sysenter),
    [0x35] = H(sysexit),
    [0x40 ... 0x4f] = H(cmov),
    [0x80 ... 0x8f] = H(jcc),
    [0x90 ... 0x9f] = H(setcc),
    [0xa0] = H(push_seg),
    [0xa1] = H(pop_seg),
    [0xa2] = H(cpuid),
    [0xa3] = H(bt_rm_r),
    [0xa4 ... 0xa5] = H(shld),
    [0xa8] = H(push_seg),
    [0xa9] = H(pop_seg),
    [0xab] = H(bt_rm_r),
    [0xac ... 0xad] = H(shrd),
    [0xae] = GROUP(0fae),
    [0xaf] = H(imul_r_rm),
    [0xb0 ... 0xb1] = H(cmpxchg),
    [0xb2] = H(load_far_pointer),
    [0xb3] = H(bt_rm_r),
    [0xb4 ... 0xb5] = H(load_far_pointer),
    [0xb6 ... 0xb7] = H(movx),
    [0xb8] = H(popcnt),
    [0xb9] = H(ud),
    [0xba] = GROUP(0fba),
    [0xbb] = H(bt_rm_r),
    [0xbc] = H(bsf),
    [0xbd] = H(bsr),
    [0xbe ... 0xbf] = H(movx),
    [0xc0 ... 0xc1] = H(xadd),
    [0xc3] = H(mov_rm_r), /* MOVNTI */
    [0xc7] = GROUP(0fc7),
    [0xc8 ... 0xcf] = H(bswap),
    [0xff] = H(ud),
};

static const struct row map_0f38[256] = {
    [0xf0 ... 0xf1] = H(f038),
    [0xf6] = H(adx),
};

bt_handler bt_interp_lookup(const struct bt_insn *i)
{
    const struct row *row;
    if (i->class != BT_CLASS_INT)
        return bt_interp_fpu;
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT)
        row = &map_default[i->opcode];
    else if (i->map == ZYDIS_OPCODE_MAP_0F)
        row = &map_0f[i->opcode];
    else if (i->map == ZYDIS_OPCODE_MAP_0F38)
        row = &map_0f38[i->opcode];
    else
        return NULL;
    if (!row->group)
        return row->one;
    if (row->group == group_0fae && !i->is_mem)
        return bt_h_nop;
    if (i->mnemonic == ZYDIS_MNEMONIC_XGETBV || i->mnemonic == ZYDIS_MNEMONIC_XSETBV)
        return bt_h_xcr;
    return row->group[i->reg & 7];
}
