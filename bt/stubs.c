/* The handful of hand-assembled routines that connect C and translated code. They live at the start of the
 * arena. */
#include <stddef.h>
#include "impl.h"
#include "emit.h"

#define OFF(field) ((uint32_t)offsetof(struct bt_vcpu, field))
#define CPU(field) ((uint32_t)offsetof(struct rc_cpu, field))
#define GPR(r)     ((uint32_t)offsetof(struct rc_cpu, gpr) + 4u * (r))

/* C is entered with FS as it is, where it can find out by a fault. Instrumented C asks for its thread's data all the time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LAZY 0
#elif defined(__has_feature)
#define LAZY                                                                                                 \
    !(__has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer))
#else
#define LAZY 1
#endif

static const struct {
    uint8_t host, guest;
} gpr_home[8] = {{E_RAX, RC_EAX}, {E_RCX, RC_ECX}, {E_RDX, RC_EDX}, {E_RBX, RC_EBX},
                 {E_R12, RC_ESP}, {E_RBP, RC_EBP}, {E_RSI, RC_ESI}, {E_RDI, RC_EDI}};

static void emit_gprs(struct emit *e, unsigned op)
{
    for (unsigned i = 0; i < 8; i++)
        e_r15(e, op, false, gpr_home[i].host, GPR(gpr_home[i].guest));
}

/* The guest's x87 and vector registers stay in the CPU while C code that does not use them runs. fpu_live
 * says which copy counts: bt_fpu_park() moves them to memory, this moves them back. RAX and RDX are clobbered. */
static void emit_fpu_live(struct emit *e, bool avx)
{
    EB(e, 0x41, 0x80, 0xbf); /* cmp byte [r15+fpu_live], 0 */
    e32(e, OFF(fpu_live));
    e8(e, 0);
    EB(e, 0x75, avx ? 8 + 8 + 7 : 8 + 8); /* jne past */
    if (avx)
        EB(e, 0xb8, RC_XCR0_X87 | RC_XCR0_SSE | RC_XCR0_AVX, 0, 0, 0, 0x31,
           0xd2);                               /* mov eax,7; xor edx,edx */
    EB(e, 0x49, 0x0f, 0xae, avx ? 0xaf : 0x8f); /* xrstor64, fxrstor64 [r15+fpu] */
    e32(e, CPU(fpu));
    EB(e, 0x41, 0xc6, 0x87); /* mov byte [r15+fpu_live], 1 */
    e32(e, OFF(fpu_live));
    e8(e, 1);
}

/* pushfq; pop [r15+host_flags]; and DF as the C ABI has it: test byte [r15+host_flags+1],4; jz +1; cld */
static void emit_flags_save(struct emit *e)
{
    EB(e, 0x9c, 0x41, 0x8f, 0x87);
    e32(e, OFF(host_flags));
    EB(e, 0x41, 0xf6, 0x87);
    e32(e, OFF(host_flags) + 1);
    EB(e, 4, 0x74, 1, 0xfc);
}

/* Of an image in eax, while DF is 0: bt eax,10; jnc +1; std */
static void emit_flags_from_eax(struct emit *e)
{
    EB(e, 0x0f, 0xba, 0xe0, 10, 0x73, 1, 0xfd);
    e_flags_from_eax(e);
}

static void emit_flags_load(struct emit *e) /* RAX is clobbered */
{
    e_load(e, false, E_RAX, OFF(host_flags));
    emit_flags_from_eax(e);
}

static void emit_request_test(struct emit *e) /* cmp dword [r15+request], 0 */
{
    EB(e, 0x41, 0x83, 0x7f, (uint8_t)CPU(request), 0);
}

/*T:311 Two windows at once
 *
 * Writing GS.base takes some 25 cycles. With one window for whichever ring runs, a system call did that twice, and by
 * SYSENTER that was two thirds of its price. So GS.base is always the kernel's window and FS.base is the user's: user code
 * names FS, kernel code names GS, the verifier sees to that, and going from ring to ring changes neither.
 *
 * But C finds its thread's data by FS. So whether FS is the user's is a flag, and whoever enters user code looks at it. C
 * is entered with FS as it is, for nearly all that translated code calls does without its thread's data. What does not either
 * knows it and says bt_fs_to_host, or finds out: a thread's data lie at and just below FS.base, where a user window never
 * shows anything (shadowpt leaves page 0 empty), so the first access faults, and the trap handler gives FS back. That costs as
 * much as a hundred writes of FS.base, and never happens twice on one way into C. Where the user window is the
 * kernel's (ring 3 without paging) FS is given back at once.
 *
 * The base is written before the flag is cleared and after it is set: a signal may come anywhere, and FS is the host's if the
 * flag says so. The signal's entry does not ask the flag; it looks at the base itself (host/entry.h).
:*/

/* RAX and flags are clobbered. */
static void emit_fs_to_host(struct emit *e)
{
    e_cmp8(e, OFF(fs_guest), 0);
    EB(e, 0x74, 0); /* je past */
    uint32_t past = e->at;
    e_load(e, true, E_RAX, OFF(host_fs));
    e_wrbase(e, false, E_RAX);
    e_store8(e, OFF(fs_guest), 0);
    e_r15(e, 0x83, true, 0, OFF(counts.fs_given_back)); /* add qword, 1 */
    e8(e, 1);
    e->rw[past - 1] = (uint8_t)(e->at - past);
}

/* Before C that finds out by a fault. */
static void emit_fs_for_c(struct emit *e)
{
    uint32_t past = 0;
    if (LAZY) {
        e_cmp8(e, OFF(fs_shared), 0);
        EB(e, 0x74, 0); /* je past */
        past = e->at;
    }
    emit_fs_to_host(e);
    if (past)
        e->rw[past - 1] = (uint8_t)(e->at - past);
}

/* Before code of the privilege that was entered: user code needs its window. The same are clobbered. */
static void emit_fs_to_guest(struct emit *e)
{
    EB(e, 0x41, 0x0f, 0xb6, 0x87); /* movzx eax, byte [r15+entered_user] */
    e32(e, OFF(entered_user));
    EB(e, 0x41, 0x3a, 0x87); /* cmp al, [r15+fs_guest] */
    e32(e, OFF(fs_guest));
    EB(e, 0x76, 0); /* jbe past */
    uint32_t past = e->at;
    e_fs_to_user(e, OFF(fs_guest), OFF(window_u));
    e->rw[past - 1] = (uint8_t)(e->at - past);
}

/* Common tail: everything is saved (the FPU stays live). Returns to bt_run through the C stack. */
static void emit_return_to_c(struct emit *e)
{
    e8(e, 0xfc); /* cld: the C ABI's */
    emit_fs_to_host(e);
    e_load(e, true, E_RSP, OFF(c_rsp));
    EB(e, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b,
       0xc3); /* pop r15 r14 r13 r12 rbp rbx; ret */
}

/* A light call: arguments in r8d and r9d, which function by number; only what C may clobber is saved, as a struct bt_light
 * that C may change. r9d: 0 when done. No guest state is in memory meanwhile, so a kick in here walks on to the boundary. The
 * first function is quick. */
static uint32_t emit_light(struct emit *e, unsigned which)
{
    uint32_t start = e->at;
    e_store(e, true, E_RSP, OFF(guest_rsp));
    e_load(e, true, E_RSP, OFF(c_rsp));
    EB(e, 0x9c, 0x50, 0x51, 0x52, 0x56, 0x57);            /* pushfq; push rax rcx rdx rsi rdi */
    EB(e, 0xf6, 0x44, 0x24, 5 * 8 + 1, 4, 0x74, 1, 0xfc); /* test byte [rsp+41],4; jz +1; cld */
    EB(e, 0x41, 0x50);                                    /* push r8 */
    if (which || !LAZY)
        emit_fs_for_c(e);
    e_mov(e, true, E_RDI, E_R15);
    e_mov(e, false, E_RSI, E_R8);
    e_mov(e, false, E_RDX, E_R9);
    e_mov(e, true, E_RCX, E_RSP);
    EB(e, 0x41, 0xff, 0x97); /* call [r15+light_fn+8*which] */
    e32(e, OFF(light_fn) + 8 * which);
    e_mov(e, false, E_R9, E_RAX);
    if (which || !LAZY)
        emit_fs_to_guest(e);
    emit_request_test(e);
    EB(e, 0x74, 6); /* je +6 */
    e_mov_imm(e, E_R9, 1);
    EB(e, 0x41, 0x58, 0x5f, 0x5e, 0x5a, 0x59); /* pop r8 rdi rsi rdx rcx */
    EB(e, 0x8b, 0x44, 0x24, 0x08);             /* mov eax,[rsp+8] */
    emit_flags_from_eax(e);
    e8(e, 0x58); /* pop rax */
    e_load(e, true, E_RSP, OFF(guest_rsp));
    e8(e, 0xc3);
    return start;
}

static void emit_call_c(struct emit *e, uint32_t fn) /* call [r15+fn] */
{
    EB(e, 0x41, 0xff, 0x97);
    e32(e, fn);
}

/* `mov r8d, site; jmp cross`: INT and IRET, a callout that does not come back. A CALL would leave the CPU's return
 * predictor with an entry too many at each system call; the slot that it would have taken on the mirror of the guest's
 * calls is skipped, and not touched, for there may be none. First the quick way; what it does not do, the callout does. Both
 * others end behind the call of a callout: jump[] is to lead there. */
static void emit_cross(struct emit *e, uint32_t go_on, uint32_t jump[2])
{
    EB(e, 0x48, 0x8d, 0x64, 0x24, 0xf8); /* lea rsp,[rsp-8] */
    e_store(e, true, E_RSP, OFF(guest_rsp));
    e_load(e, true, E_RSP, OFF(c_rsp));
    emit_gprs(e, 0x89);
    emit_flags_save(e);
    EB(e, 0x48, 0x83, 0xec, 0x08); /* sub rsp,8: as in a callout */
    e_mov(e, false, E_RBX, E_R8);
    e_mov(e, true, E_RDI, E_R15);
    e_mov(e, false, E_RSI, E_R8);
    if (!LAZY)
        emit_fs_for_c(e);
    emit_call_c(e, OFF(quick_fn));
    e_mov(e, true, E_R10, E_RAX);
    EB(e, 0x48, 0x83, 0xf8, BT_GO_DISPATCH, 0x0f, 0x87); /* cmp rax, BT_GO_DISPATCH; ja go_on */
    e_rel32(e, go_on);
    EB(e, 0x74, 0); /* je crossed */
    uint32_t crossed = e->at;
    emit_fs_for_c(e);
    e_mov(e, true, E_RDI, E_R15);
    e_mov(e, false, E_RSI, E_RBX);
    emit_call_c(e, OFF(callout_fn));
    e8(e, 0xe9);
    jump[0] = e->at;
    e32(e, 0);
    e->rw[crossed - 1] = (uint8_t)(e->at - crossed);
    emit_fs_for_c(e);
    e_mov(e, true, E_RDI, E_R15);
    emit_call_c(e, OFF(crossed_fn));
    e8(e, 0xe9);
    jump[1] = e->at;
    e32(e, 0);
}

/*T:310 Crossing between C and translated code
 *
 * bt_run enters translated code through one routine and every exit comes back through one. (A callout that changed the
 * mode may go straight to the new mode's code: it enters the same routine behind its pushes.) In between, the
 * guest's eight registers are the host's, its arithmetic flags are the host's, GS.base is the kernel's window, and
 * RSP is a small stack of host return addresses that mirrors the guest's calls. A kick signal can hit any
 * instruction of these routines; each is written so that the signal handler can tell from RIP alone whether
 * the guest's state is in registers or in memory: up to the jump in `enter` memory is right (abort), in
 * `callout_restore` memory is right too, and everywhere else in here a later check of cpu.request will see
 * the kick.
:*/
void bt_stubs_emit(struct bt_vcpu *v)
{
    struct emit e = {.rw = v->arena.rw};
    struct bt_stubs *s = &v->stubs;

    /* Offset 0: what an empty jump table entry leads to. r8d: target EIP. */
    s->miss = e.at;
    e_store(&e, false, E_R8, CPU(eip));
    uint32_t miss_jump = e.at + 1;
    e_jmp(&e, 0);

    /* Unlinked direct branch. r8d: target EIP, r9d: link. */
    s->link = e.at;
    e_store(&e, false, E_R8, CPU(eip));
    e_store(&e, false, E_R9, OFF(leave_link));
    e_store_imm(&e, OFF(leave_reason), BT_LEAVE_LINK);

    /* Save the guest's state; cpu.eip and leave_reason are set. */
    s->leave = e.at;
    emit_gprs(&e, 0x89);
    emit_flags_save(&e);
    e_store(&e, true, E_RSP, OFF(hstack));
    s->leave_saved = e.at;
    emit_return_to_c(&e);

    /* void enter(struct bt_vcpu *v [rdi], uint64_t target [rsi]) */
    s->enter = e.at;
    EB(&e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57); /* push rbx rbp r12 r13 r14 r15 */
    e_mov(&e, true, E_R15, E_RDI);
    e_store(&e, true, E_RSP, OFF(c_rsp));
    e_mov(&e, true, E_R10, E_RSI);
    e_load(&e, true, E_R9, OFF(window_k));
    e_wrbase(&e, true, E_R9);
    e_load(&e, true, E_R13, OFF(rx));
    uint32_t go_on = e.at; /* r10: where to; r13, r15 and GS.base are right */
    e_load(&e, true, E_R14, OFF(jtab));
    e_load(&e, false, E_R8, CPU(eip)); /* what an indirect entry compares */
    emit_fpu_live(&e, rc_has_avx(&v->cfg.cpu));
    e_load(&e, true, E_RSP, OFF(hstack));
    s->enter_check = e.at;
    emit_request_test(&e);
    EB(&e, 0x0f, 0x85); /* jne abort */
    uint32_t abort_jump = e.at;
    e32(&e, 0);
    emit_fs_to_guest(&e);
    emit_flags_load(&e);
    emit_gprs(&e, 0x8b);
    EB(&e, 0x41, 0xff, 0xe2); /* jmp r10 */
    s->abort = e.at;
    e_patch32(&e, abort_jump, s->abort);
    e_store_imm(&e, OFF(leave_reason), BT_LEAVE_ABORTED);
    e_jmp(&e, s->leave_saved);

    /* The rest of a miss: perhaps C finds the block. */
    e_patch32(&e, miss_jump, e.at);
    emit_gprs(&e, 0x89);
    emit_flags_save(&e);
    e_store(&e, true, E_RSP, OFF(hstack));
    e_load(&e, true, E_RSP, OFF(c_rsp));
    EB(&e, 0x48, 0x83, 0xec, 0x08); /* sub rsp,8: as in a callout */
    emit_fs_for_c(&e);
    e_mov(&e, true, E_RDI, E_R15);
    emit_call_c(&e, OFF(miss_fn));
    e_mov(&e, true, E_R10, E_RAX);
    EB(&e, 0x48, 0x83, 0xf8, BT_GO_OUT); /* cmp rax, BT_GO_OUT */
    EB(&e, 0x0f, 0x87);                  /* ja go_on */
    e_rel32(&e, go_on);
    e_store_imm(&e, OFF(leave_reason), BT_LEAVE_MISS);
    e_jmp(&e, s->leave_saved);

    s->cross = e.at;
    uint32_t cross_jump[2];
    emit_cross(&e, go_on, cross_jump);

    /* Called by a site as `mov r8d, site; call callout`. r8d: site. */
    s->callout = e.at;
    emit_gprs(&e, 0x89);
    emit_flags_save(&e);
    e_store(&e, true, E_RSP, OFF(guest_rsp));
    e_load(&e, true, E_RSP, OFF(c_rsp));
    EB(&e, 0x48, 0x83, 0xec, 0x08); /* sub rsp,8: six pushes and a return address leave it misaligned */
    emit_fs_for_c(&e);
    e_mov(&e, true, E_RDI, E_R15);
    e_mov(&e, false, E_RSI, E_R8);
    emit_call_c(&e, OFF(callout_fn));
    e_patch32(&e, cross_jump[0], e.at);
    e_patch32(&e, cross_jump[1], e.at);
    e_mov(&e, true, E_R10, E_RAX);
    EB(&e, 0x48, 0x83, 0xf8, BT_GO_OUT); /* cmp rax, BT_GO_OUT */
    EB(&e, 0x0f, 0x87);                  /* ja go_on */
    e_rel32(&e, go_on);
    s->callout_restore = e.at;
    e_load(&e, true, E_RSP, OFF(guest_rsp));
    EB(&e, 0x0f, 0x84); /* je leave_saved, without the return into the block */
    uint32_t leave_jump = e.at;
    e32(&e, 0);
    emit_request_test(&e);
    EB(&e, 0x0f, 0x85);
    uint32_t request_jump = e.at;
    e32(&e, 0);
    emit_fpu_live(&e, rc_has_avx(&v->cfg.cpu));
    emit_fs_to_guest(&e);
    emit_flags_load(&e);
    emit_gprs(&e, 0x8b);
    e8(&e, 0xc3);
    s->callout_end = e.at;
    /* leave: drop the return address into the block, keep the mirrored calls below it */
    e_patch32(&e, leave_jump, e.at);
    e_patch32(&e, request_jump, e.at);
    EB(&e, 0x48, 0x83, 0xc4, 0x08); /* add rsp,8 */
    e_store(&e, true, E_RSP, OFF(hstack));
    e_store_imm(&e, OFF(leave_reason), BT_LEAVE_CALLOUT);
    e_jmp(&e, s->leave_saved);

    /* Bottom of the host return stack: a guest RET whose CALL was not mirrored. r8d: target EIP. */
    s->sentinel = e.at;
    EB(&e, 0x48, 0x8d, 0x64, 0x24, 0xf8); /* lea rsp,[rsp-8]: the sentinel's slot again, still intact */
    s->table = e.at;
    e_jtab_jump(&e, v->bmi2);

    s->light_seg = emit_light(&e, 0);
    s->light_store = emit_light(&e, 1);
    s->light_invlpg = emit_light(&e, 2);
    s->light_look = emit_light(&e, 3);
    s->light_string = emit_light(&e, 4);
    bt_stubs_fast(v, &e);
    s->end = e.at;
    v->arena_next = (e.at + 63) & ~63u;
}
