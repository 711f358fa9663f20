/*
 * Thunks: making, finding and running them.
 */
#define _GNU_SOURCE /* REG_RIP */
#include <cpuid.h>
#include <stdlib.h>
#include <ucontext.h>
#include "interp_thunk.h"
#include "vex.h"

/*T:385 Borrowing the FPU
 *
 * Nobody should write an x87 twice. An x87, MMX or SSE instruction is executed by itself: re-encoded for
 * 64-bit mode into a slot of a small W^X arena and called with the guest's FPU image and registers in place.
 * The encoding keeps mandatory prefix, opcode, ModRM and immediate; the memory operand becomes [r8], a local
 * buffer at the guest address' offset in 16 bytes, so that a misaligned MOVAPS faults here as it would there;
 * ESP as a register operand becomes r12, since rsp is ours. The thunk's trap is the guest's exception.
 :*/
/* regs->... by offset of struct bt_thunk_regs. A trap inside the thunk continues at bt_thunk_fault, with the
 * return address of the call still on the stack. */
__asm__(".text\n"
        ".hidden bt_thunk_call\n"
        ".hidden bt_thunk_fault\n"
        ".globl bt_thunk_call\n"
        ".globl bt_thunk_fault\n"
        ".type bt_thunk_call, @function\n"
        "bt_thunk_call:\n"
        "    pushq %rbx\n"
        "    pushq %rbp\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rdi, %r15\n"
        "    movq 0(%r15), %r14\n"
        "    cmpq $0, 104(%r15)\n"
        "    jne 2f\n"
        "    fxrstor64 (%r14)\n"
        "    jmp 3f\n"
        "2:  movl $7, %eax\n"
        "    xorl %edx, %edx\n"
        "    xrstor64 (%r14)\n"
        "3:\n"
        "    movq 8(%r15), %r8\n"
        "    pushq 24(%r15)\n"
        "    popfq\n"
        "    movq 32(%r15), %rax\n"
        "    movq 40(%r15), %rcx\n"
        "    movq 48(%r15), %rdx\n"
        "    movq 56(%r15), %rbx\n"
        "    movq 64(%r15), %r12\n"
        "    movq 72(%r15), %rbp\n"
        "    movq 80(%r15), %rsi\n"
        "    movq 88(%r15), %rdi\n"
        "    call *16(%r15)\n"
        "    movq %rax, 32(%r15)\n"
        "    movq %rcx, 40(%r15)\n"
        "    movq %rdx, 48(%r15)\n"
        "    movq %rbx, 56(%r15)\n"
        "    movq %r12, 64(%r15)\n"
        "    movq %rbp, 72(%r15)\n"
        "    movq %rsi, 80(%r15)\n"
        "    movq %rdi, 88(%r15)\n"
        "    pushfq\n"
        "    popq 24(%r15)\n"
        "1:  cmpq $0, 104(%r15)\n"
        "    jne 4f\n"
        "    fxsave64 (%r14)\n"
        "    jmp 5f\n"
        "4:  movl $7, %eax\n"
        "    xorl %edx, %edx\n"
        "    xsave64 (%r14)\n"
        "    vzeroupper\n"
        "5:  fninit\n"
        "    pushq $0x1f80\n"
        "    ldmxcsr (%rsp)\n"
        "    popq %rax\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbp\n"
        "    popq %rbx\n"
        "    ret\n"
        "bt_thunk_fault:\n"
        "    leaq 8(%rsp), %rsp\n"
        "    movq $1, 96(%r15)\n"
        "    jmp 1b\n"
        ".size bt_thunk_call, . - bt_thunk_call\n");
extern void bt_thunk_call(struct bt_thunk_regs *regs) __attribute__((visibility("hidden")));
extern const char bt_thunk_fault[] __attribute__((visibility("hidden")));

_Static_assert(__builtin_offsetof(struct bt_thunk_regs, rflags) == 24, "the assembly knows this layout");
_Static_assert(__builtin_offsetof(struct bt_thunk_regs, gpr) == 32, "the assembly knows this layout");
_Static_assert(__builtin_offsetof(struct bt_thunk_regs, faulted) == 96, "the assembly knows this layout");
_Static_assert(__builtin_offsetof(struct bt_thunk_regs, avx) == 104, "the assembly knows this layout");

int bt_interp_fpu_init(struct bt_interp *in, struct host_err *err)
{
    in->fpu.thunk = calloc(BT_THUNKS, sizeof in->fpu.thunk[0]);
    if (!in->fpu.thunk)
        return host_fail(err, "no memory for the interpreter's FPU thunks");
    if (host_arena_init(&in->fpu.arena, BT_THUNKS * BT_THUNK_BYTES, err)) {
        free(in->fpu.thunk);
        return -1;
    }
    return 0;
}

void bt_interp_fpu_finish(struct bt_interp *in)
{
    host_arena_finish(&in->fpu.arena);
    free(in->fpu.thunk);
}

/* ---- Re-encoding ---- */

static void make_vex_key(const struct bt_insn *i, uint8_t key[16])
{
    unsigned n = 3;
    __builtin_memset(key, 0, 16);
    bt_vex_put(i, 0, key);
    key[n++] = i->opcode;
    if (i->has_modrm)
        key[n++] = i->is_mem ? (uint8_t)(i->reg << 3) : i->modrm;
    if (i->imm_size)
        key[n++] = bt_vex_imm(i, i->bytes[i->imm_off]);
    key[15] = (uint8_t)n;
}

/* The instruction without what differs in 64-bit mode: the key it is found by. Length in key[15]. */
static void make_key(const struct bt_insn *i, uint8_t key[16])
{
    unsigned n = 0;
    bool has66 = i->class == BT_CLASS_X87 && i->osz == 2; /* FNSAVE's 16-bit format, also in 16-bit code */
    if (i->vex) {
        make_vex_key(i, key);
        return;
    }
    __builtin_memset(key, 0, 16);
    for (unsigned k = 0; k < i->opcode_off && i->class != BT_CLASS_X87; k++)
        has66 |= i->bytes[k] == 0x66;
    if (has66)
        key[n++] = 0x66;
    if (i->rep || i->repne)
        key[n++] = i->rep ? 0xf3 : 0xf2;
    if (i->map != ZYDIS_OPCODE_MAP_DEFAULT)
        key[n++] = 0x0f;
    if (i->map == ZYDIS_OPCODE_MAP_0F38 || i->map == ZYDIS_OPCODE_MAP_0F3A)
        key[n++] = i->map == ZYDIS_OPCODE_MAP_0F38 ? 0x38 : 0x3a;
    key[n++] = i->opcode;
    if (i->has_modrm)
        key[n++] = i->is_mem ? (uint8_t)(i->reg << 3) : i->modrm;
    for (unsigned k = 0; k < i->imm_size && n < 12; k++)
        key[n++] = i->bytes[i->imm_off + k];
    key[15] = (uint8_t)n;
}

/* What the operands are: which ModRM fields name general registers, what is done to memory. */
struct operands {
    bool gpr_reg, gpr_rm, reads, writes, mmx;
};

static bool examine(struct bt_interp *in, const struct bt_insn *i, struct operands *o)
{
    const ZydisDecoder *d = in->cpu->seg[RC_CS].attr & RC_ATTR_DB ? &in->dec.d32 : &in->dec.d16;
    ZydisDecoderContext ctx;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(d, &ctx, i->bytes, i->length, &z)) ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeOperands(d, &ctx, &z, op, z.operand_count)))
        return false;
    *o = (struct operands){0};
    for (unsigned k = 0; k < z.operand_count; k++) {
        if (op[k].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            o->reads |= (op[k].actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
            o->writes |= (op[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
        } else if (op[k].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass c = ZydisRegisterGetClass(op[k].reg.value);
            bool gpr = c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32;
            o->mmx |= c == ZYDIS_REGCLASS_MMX;
            o->gpr_reg |= gpr && op[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
            o->gpr_rm |= gpr && op[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
        }
    }
    return true;
}

static uint8_t rex_bits(const struct bt_insn *i, const struct operands *o)
{
    return (i->is_mem ? 1 : 0) | (o->gpr_reg && i->reg == RC_ESP ? 4 : 0) |
           (!i->is_mem && o->gpr_rm && i->rm == RC_ESP ? 1 : 0);
}

/* REX goes between the prefixes and the opcode; VEX has its bits inside. */
static void emit(const struct bt_insn *i, const struct operands *o, const uint8_t key[16], uint8_t *out)
{
    unsigned n = 0, k = 0;
    uint8_t rex = rex_bits(i, o);
    if (i->vex) {
        bt_vex_put(i, rex, out);
        n = k = 3;
    } else {
        while (key[k] == 0x66 || key[k] == 0xf2 || key[k] == 0xf3)
            out[n++] = key[k++];
        if (rex)
            out[n++] = 0x40 | rex;
    }
    while (k < key[15])
        out[n++] = key[k++];
    out[n++] = 0xc3; /* ret */
}

/* The bytes just written through one mapping are about to be executed through another: a serializing
 * instruction stands between (vol. 3 8.1.3). */
static void serialize(void)
{
    unsigned a, b, c, d;
    __cpuid(0, a, b, c, d);
    (void)a, (void)b, (void)c, (void)d;
}

static uint32_t hash_key(const uint8_t key[16])
{
    uint64_t lo, hi;
    __builtin_memcpy(&lo, key, 8);
    __builtin_memcpy(&hi, key + 8, 8);
    return (uint32_t)((lo * UINT64_C(0x9e3779b97f4a7c15) ^ hi * UINT64_C(0xc2b2ae3d27d4eb4f)) >> 40) %
           BT_THUNKS;
}

const struct bt_thunk *bt_thunk_get(struct bt_interp *in, const struct bt_insn *i, unsigned *slot)
{
    uint8_t key[16];
    struct operands o;
    make_key(i, key);
    *slot = hash_key(key);
    struct bt_thunk *t = &in->fpu.thunk[*slot];
    if (BT_LIKELY(__builtin_memcmp(t->key, key, 16) == 0))
        return t;
    if (!examine(in, i, &o))
        return NULL;
    __builtin_memcpy(t->key, key, 16);
    t->reads = o.reads;
    t->writes = o.writes;
    t->mmx = o.mmx || i->class == BT_CLASS_MMX;
    t->avx = i->class == BT_CLASS_AVX;
    emit(i, &o, key, in->fpu.arena.rw + *slot * BT_THUNK_BYTES);
    serialize();
    return t;
}

/* ---- Execution ---- */
bool bt_thunk_run(struct bt_interp *in, unsigned slot, void *mem)
{
    struct rc_cpu *cpu = in->cpu;
    struct bt_thunk_regs *r = &in->fpu.regs;
    r->fpu = cpu->fpu;
    r->mem = mem;
    r->code = in->fpu.arena.rx + slot * BT_THUNK_BYTES;
    r->rflags = (cpu->eflags & RC_ARITH) | 0x202;
    r->faulted = 0;
    r->avx = in->fpu.thunk[slot].avx;
    uint32_t mask = bt_load(cpu->fpu + BT_FX_MXCSR_MASK, 4); /* the model's, not the host's */
    for (unsigned n = 0; n < 8; n++)
        r->gpr[n] = cpu->gpr[n];
    in->fpu.active = true;
    bt_thunk_call(r);
    in->fpu.active = false;
    if (r->avx)
        bt_xstate_complete(cpu->fpu);
    bt_store(cpu->fpu + BT_FX_MXCSR_MASK, 4, mask);
    return !r->faulted;
}

void bt_thunk_commit(struct bt_interp *in)
{
    struct rc_cpu *cpu = in->cpu;
    const struct bt_thunk_regs *r = &in->fpu.regs;
    for (unsigned n = 0; n < 8; n++)
        cpu->gpr[n] = (uint32_t)r->gpr[n];
    cpu->eflags = (cpu->eflags & ~(uint32_t)RC_ARITH) | ((uint32_t)r->rflags & RC_ARITH);
}

bool bt_interp_trap(struct bt_interp *in, struct host_trap *trap)
{
    ucontext_t *uc = trap->uc;
    if (trap->kind != HOST_TRAP_CPU || !in->fpu.active)
        return false;
    uint64_t rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    if (rip - (uint64_t)(uintptr_t)in->fpu.arena.rx >= in->fpu.arena.size)
        return false;
    in->fpu.vector = trap->vector;
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)bt_thunk_fault;
    return true;
}
