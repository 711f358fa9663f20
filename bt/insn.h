/*
 * A decoded guest instruction, as the interpreter and the translator share it: what Zydis found, reduced to
 * 64-odd bytes that a decode cache can hold. 32-bit code unless the code segment says otherwise.
 */
#ifndef BT_INSN_H
#define BT_INSN_H

#include <stdbool.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

#define BT_NOREG    0xff
#define BT_MAX_INSN 15

enum bt_insn_class {
    BT_CLASS_INT, /* integer and everything that is not below */
    BT_CLASS_X87, /* #NM by CR0.EM/TS; WAIT too */
    BT_CLASS_MMX, /* MMX/3DNow registers */
    BT_CLASS_SSE, /* XMM state (SSE to SSE4.2, AES, SHA, PCLMUL) */
    BT_CLASS_AVX, /* VEX-coded, XMM and YMM state (AVX, AVX2, FMA, F16C) */
    BT_CLASS_BMI, /* VEX-coded, general registers (BMI1, BMI2) */
};

/* Which fields of a VEX-coded instruction name general registers. */
enum bt_vex_gpr { BT_VEX_REG = 1, BT_VEX_RM = 2, BT_VEX_V = 4 };

struct bt_insn {
    uint16_t mnemonic; /* ZydisMnemonic */
    uint8_t length;    /* bytes, 1..15 */
    uint8_t opsize; /* effective operand size in bytes: 1 for byte forms, 2, 4 (8 for MMX/cmpxchg8b etc.) */
    uint8_t osz;    /* operand-size attribute: 2 or 4 (what PUSH imm, RET, IRET, string ops ... depend on) */
    uint8_t asz;    /* address-size attribute: 2 or 4 */
    uint8_t map;    /* ZydisOpcodeMap */
    uint8_t opcode; /* last opcode byte */
    uint8_t opcode_off; /* offset of that byte */
    uint8_t class;      /* enum bt_insn_class */
    bool lock, rep, repne;
    bool has_modrm, is_mem; /* is_mem: ModRM names memory, or a moffs operand */
    uint8_t modrm, mod, reg, rm;
    uint8_t modrm_off;                                       /* 0: none */
    uint8_t sib_off, disp_off, disp_size, imm_off, imm_size; /* bytes; 0: absent */
    uint8_t seg;         /* enum rc_seg_name: segment of the memory operand with overrides applied; for string
                            instructions that of the [ESI] operand */
    uint8_t base, index; /* enum rc_gpr or BT_NOREG; 16-bit addressing too (BX+SI: base EBX, index ESI) */
    uint8_t scale;       /* 0, 1, 2, 4, 8 */
    bool mem_written;    /* the memory operand is stored to (or may be) */
    uint8_t mem_size; /* bytes the memory operand covers, 0: none or special (LEA, INVLPG, FXSAVE: 255 = 512
                         bytes) */
    int32_t disp;
    uint32_t imm, imm2; /* zero- or sign-extended as the instruction defines; relative branches: displacement.
                           Far pointers: imm = offset, imm2 = selector. ENTER: imm = size, imm2 = level */
    uint8_t vex;        /* bytes of the VEX prefix, escape included: 0, 2, 3 */
    uint8_t vex_gpr;    /* enum bt_vex_gpr */
    bool vsib;          /* the index register is a vector's, index then BT_NOREG */
    uint8_t bytes[BT_MAX_INSN];
};

enum bt_decode {
    BT_DECODE_OK,
    BT_DECODE_SHORT, /* more bytes are needed (page end): fetch on, or raise what the fetch raised */
    BT_DECODE_UD,    /* not an instruction, not one this CPU model offers (EVEX, VMX ...), or LOCK where not
                        allowed */
    BT_DECODE_LONG,  /* more than 15 bytes: #GP(0) */
};

/* All instructions of 32-bit code that share prefix, opcode, ModRM.reg and whether ModRM names memory; see
 * decode_plain.c. */
struct bt_shape {
    uint16_t mnemonic;
    uint8_t state : 2; /* enum bt_shape_state */
    bool mem_written : 1, imm_extended : 1;
    uint8_t opsize, class, mem_size, imm_size;
    uint8_t mark; /* the user's of this decoder; 0 at first */
};
enum bt_shape_state { BT_SHAPE_NEW, BT_SHAPE_PLAIN, BT_SHAPE_ASK };

/* A plain instruction's parts. Offsets and sizes in bytes. */
struct bt_plain {
    struct bt_shape *shape;
    uint8_t length;
    uint8_t prefix, seg; /* seg: enum rc_seg_name of an override or BT_NOREG */
    uint8_t map, opcode_off, modrm_off, address, imm_off;
};

/* Some 256 KiB, of which a few pages are used. */
struct bt_decoder {
    ZydisDecoder d32, d16;
    struct bt_shape shape[1 << 15];
};
void bt_decoder_init(struct bt_decoder *d);
/* code: len bytes at the instruction; big: CS.D. */
enum bt_decode bt_decode(struct bt_decoder *d, bool big, const uint8_t *code, unsigned len,
                         struct bt_insn *out);
/* The same without decode_plain.c, which must make no difference. */
enum bt_decode bt_decode_by_zydis(const struct bt_decoder *d, bool big, const uint8_t *code, unsigned len,
                                  struct bt_insn *out);
/* 32-bit code. False: ask Zydis. */
bool bt_decode_plain(struct bt_decoder *d, const uint8_t *code, unsigned len, struct bt_insn *out);
/* Length and shape only, of code that may be shorter than that length. False: ask Zydis. No instruction of the sensitive
 * table is found here. */
bool bt_plain_find(struct bt_decoder *d, const uint8_t code[BT_MAX_INSN], struct bt_plain *p);

#endif
