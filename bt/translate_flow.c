/* Control flow: branches, calls and returns, and the links that chain blocks. */
#include "translate.h"

/* Reserve a link for a rel32 that e.at points at; emitted as a branch to its (later) stub. */
static void link_here(struct tx *t, uint32_t target_eip)
{
    struct bt_vcpu *v = t->v;
    struct bt_link *l = &v->link[v->link_count];
    *l = (struct bt_link){.block = t->b,
                          .at = t->e.at,
                          .target_eip = target_eip,
                          .done = (uint8_t)(t->blk->count + (t->next != t->eip))};
    l->cross = (target_eip ^ t->blk->eip) >> 12 != 0;
    v->link_count++;
    t->blk->link_count++;
    e32(&t->e, 0);
}

void tx_jump_to(struct tx *t, uint32_t eip)
{
    e8(&t->e, 0xe9);
    link_here(t, eip);
}

/*T:340 Chaining
 *
 * A direct branch inside a page is patched to its target once that is translated: while the page keeps its
 * translation the branch is right in every address space. A branch to another page depends on that page's
 * mapping. Kernel mappings are shared by all address spaces, so those branches are patched too and taken
 * back when a kernel mapping goes away; user code goes through the jump table of its address space instead.
:*/
void tx_stubs(struct tx *t)
{
    struct bt_vcpu *v = t->v;
    struct emit *e = &t->e;
    for (unsigned k = 0; k < t->blk->link_count; k++) {
        uint32_t n = t->blk->first_link + k;
        struct bt_link *l = &v->link[n];
        l->stub = e->at;
        e_patch32(e, l->at, l->stub);
        e_mov_imm(e, E_R8, l->target_eip);
        tx_reloc(t, e->at - 4, BT_RELOC_EIP);
        if (l->cross && t->space != SPT_KERNEL_SPACE && !v->unchained) {
            e_jtab_jump(e, t->v->bmi2);
        } else {
            e_mov_imm(e, E_R9, n);
            tx_reloc(t, e->at - 4, BT_RELOC_LINK);
            e_jmp(e, v->stubs.link);
            tx_reloc(t, e->at - 4, BT_RELOC_OUT);
        }
    }
}

static uint32_t branch_target(const struct tx *t)
{
    return t->next + t->insn.imm;
}

static void push_next(struct tx *t) /* mov dword window:[r12-4], next; r12 -= 4 */
{
    e_window(&t->e);
    EB(&t->e, 0x41, 0xc7, 0x44, 0x24, (uint8_t)(t->esp - 4));
    tx_reloc(t, t->e.at, BT_RELOC_EIP);
    e32(&t->e, t->next);
    t->esp -= 4;
    tx_esp_settle(t);
}

/*T:342 Blocks go on
 *
 * Many branches are hardly ever taken (a kernel is full of checks that never fail), and calls come back. So a block does
 * not end there: what follows is translated behind the branch, and neither a jump nor another block's entry and exits
 * lie between. It ends where it has a few exits already, since each goes on with code that may never run, and that may
 * be translated a second time for those who jump there.
:*/
static void go_on(struct tx *t, bool may)
{
    if (may && t->blk->link_count < BT_BLOCK_LINKS)
        return;
    tx_jump_to(t, t->next);
    t->ended = true;
}

/* Where the mirrored host RET lands: is this where the guest really returns to? */
static void return_site(struct tx *t)
{
    struct emit *e = &t->e;
    /* mov r9,rcx; lea ecx,[r8-next]; jrcxz ok; mov rcx,r9; <jump table>; ok: mov rcx,r9 */
    EB(e, 0x49, 0x89, 0xc9, 0x41, 0x8d, 0x88);
    tx_reloc(t, e->at, BT_RELOC_NEG_EIP);
    e32(e, 0u - t->next);
    EB(e, 0xe3, (uint8_t)(3 + e_jtab_jump_length(t->v->bmi2)));
    EB(e, 0x4c, 0x89, 0xc9);
    e_jtab_jump(e, t->v->bmi2);
    EB(e, 0x4c, 0x89, 0xc9);
    go_on(t, !t->v->unchained); /* there each block is counted, and this one was left by the call */
}

static bool load_target(struct tx *t) /* r8d = r/m32 */
{
    struct tx_op op = {.op = {0x8b}, .op_len = 1, .reg = E_R8};
    return tx_emit_op(t, &op);
}

static void emit_loop(struct tx *t)
{
    struct emit *e = &t->e;
    EB(e, 0x67, t->insn.opcode, 5); /* addr32 LOOPcc/JECXZ: ECX counts */
    tx_jump_to(t, t->next);
    tx_jump_to(t, branch_target(t));
}

bool tx_flow_possible(const struct tx *t, enum tx_kind kind)
{
    const struct bt_insn *i = &t->insn;
    if (i->osz != 4)
        return false;
    switch (kind) {
    case TX_CALL:
    case TX_RET:
        return t->form == BT_FORM_WINDOW && !(t->mode & RC_MODE_SS_ODD);
    case TX_CALL_RM:
        return !(t->mode & RC_MODE_SS_ODD);
    case TX_LOOP:
        return i->asz == 4;
    default:
        return true;
    }
}

/* False: nothing could be emitted (a memory operand that needs the interpreter). */
bool tx_flow(struct tx *t, enum tx_kind kind)
{
    struct emit *e = &t->e;
    const struct bt_insn *i = &t->insn;
    switch (kind) {
    case TX_JCC:
        EB(e, 0x0f, 0x80 | (i->opcode & 15));
        link_here(t, branch_target(t));
        go_on(t, true);
        return true;
    case TX_JMP:
        tx_jump_to(t, branch_target(t));
        break;
    case TX_LOOP:
        emit_loop(t);
        break;
    case TX_CALL:
        push_next(t);
        e8(e, 0xe8);
        link_here(t, branch_target(t));
        return_site(t);
        return true;
    case TX_RET:
        e_stack(e, 0x8b, E_R8, (int8_t)t->esp);
        t->esp += 4 + (i->imm_off ? (int)(i->imm & 0xffff) : 0);
        tx_esp_settle(t);
        e8(e, 0xc3);
        break;
    case TX_JMP_RM:
        if (!load_target(t))
            return false;
        tx_esp_settle(t);
        e_jtab_jump(e, t->v->bmi2);
        if (t->form == BT_FORM_SOFT) {
            tx_soft_come_here(t);
            tx_jump_to(t, t->next); /* the callout leaves unless EIP is the next instruction's */
        }
        break;
    case TX_CALL_RM:
        if (t->form != BT_FORM_WINDOW || !load_target(t))
            return false;
        push_next(t);
        e_jtab_lookup(e, t->v->bmi2);
        EB(e, 0x41, 0xff, 0xd1); /* call r9 */
        return_site(t);
        return true;
    default:
        return false;
    }
    t->ended = true;
    return true;
}
