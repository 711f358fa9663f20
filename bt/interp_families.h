/*
 * Every handler of the interpreter, by the file that holds it. The opcode tables of interp_table.c are built
 * of these.
 */
#ifndef BT_INTERP_FAMILIES_H
#define BT_INTERP_FAMILIES_H

#include "interp_impl.h"

#define BT_HANDLER(name) enum bt_step bt_h_##name(struct bt_interp *in, const struct bt_insn *i)
#define BT_ALU_HANDLERS(name)                                                                                \
    BT_HANDLER(name##_rm_r);                                                                                 \
    BT_HANDLER(name##_rm_imm);                                                                               \
    BT_HANDLER(name##_r_rm);                                                                                 \
    BT_HANDLER(name##_acc_imm)

/* interp_alu.c */
BT_ALU_HANDLERS(add);
BT_ALU_HANDLERS(or);
BT_ALU_HANDLERS(adc);
BT_ALU_HANDLERS(sbb);
BT_ALU_HANDLERS(and);
BT_ALU_HANDLERS(sub);
BT_ALU_HANDLERS(xor);
BT_ALU_HANDLERS(cmp);
BT_HANDLER(test_rm_r);
BT_HANDLER(test_rm_imm);
BT_HANDLER(test_acc_imm);
BT_HANDLER(inc_rm);
BT_HANDLER(dec_rm);
BT_HANDLER(neg_rm);
BT_HANDLER(not_rm);
BT_HANDLER(inc_r);
BT_HANDLER(dec_r);
BT_HANDLER(cmpxchg);
BT_HANDLER(cmpxchg8b);
BT_HANDLER(xadd);

/* interp_move.c */
BT_HANDLER(mov_r_rm);
BT_HANDLER(mov_rm_r);
BT_HANDLER(mov_rm_imm);
BT_HANDLER(mov_r_imm);
BT_HANDLER(mov_acc_moffs);
BT_HANDLER(mov_moffs_acc);
BT_HANDLER(movx);
BT_HANDLER(lea);
BT_HANDLER(xchg_rm);
BT_HANDLER(xchg_acc);
BT_HANDLER(bswap);
BT_HANDLER(movbe);
BT_HANDLER(xlat);
BT_HANDLER(cmov);
BT_HANDLER(setcc);
BT_HANDLER(cbw);
BT_HANDLER(cwd);
BT_HANDLER(lahf);
BT_HANDLER(sahf);
BT_HANDLER(salc);
BT_HANDLER(flag_bit);
BT_HANDLER(nop);
BT_HANDLER(clflush);
BT_HANDLER(ud);

/* interp_shift.c */
BT_HANDLER(rol);
BT_HANDLER(ror);
BT_HANDLER(rcl);
BT_HANDLER(rcr);
BT_HANDLER(shl);
BT_HANDLER(shr);
BT_HANDLER(sar);
BT_HANDLER(shld);
BT_HANDLER(shrd);
BT_HANDLER(bt_rm_r);
BT_HANDLER(bt_rm_imm);
BT_HANDLER(bsf);
BT_HANDLER(bsr);
BT_HANDLER(popcnt);
BT_HANDLER(f038);
BT_HANDLER(adx);

/* interp_muldiv.c */
BT_HANDLER(mul);
BT_HANDLER(imul);
BT_HANDLER(imul_r_rm);
BT_HANDLER(imul_r_rm_imm);
BT_HANDLER(div);
BT_HANDLER(idiv);
BT_HANDLER(daa);
BT_HANDLER(das);
BT_HANDLER(aaa);
BT_HANDLER(aas);
BT_HANDLER(aam);
BT_HANDLER(aad);

/* interp_string.c */
BT_HANDLER(movs);
BT_HANDLER(cmps);
BT_HANDLER(stos);
BT_HANDLER(lods);
BT_HANDLER(scas);
BT_HANDLER(ins);
BT_HANDLER(outs);

/* interp_stack.c */
BT_HANDLER(push_r);
BT_HANDLER(pop_r);
BT_HANDLER(push_rm);
BT_HANDLER(pop_rm);
BT_HANDLER(push_imm);
BT_HANDLER(push_seg);
BT_HANDLER(pop_seg);
BT_HANDLER(pusha);
BT_HANDLER(popa);
BT_HANDLER(pushf);
BT_HANDLER(popf);
BT_HANDLER(enter);
BT_HANDLER(leave);

/* interp_flow.c */
BT_HANDLER(jcc);
BT_HANDLER(jmp_rel);
BT_HANDLER(jmp_rm);
BT_HANDLER(call_rel);
BT_HANDLER(call_rm);
BT_HANDLER(ret);
BT_HANDLER(loop);
BT_HANDLER(jcxz);
BT_HANDLER(jmp_far);
BT_HANDLER(jmp_far_mem);
BT_HANDLER(call_far);
BT_HANDLER(call_far_mem);
BT_HANDLER(ret_far);
BT_HANDLER(iret);
BT_HANDLER(int_n);
BT_HANDLER(int3);
BT_HANDLER(int1);
BT_HANDLER(into);
BT_HANDLER(bound);
BT_HANDLER(sysenter);
BT_HANDLER(sysexit);

/* interp_system.c */
BT_HANDLER(mov_rm_seg);
BT_HANDLER(mov_seg_rm);
BT_HANDLER(load_far_pointer);
BT_HANDLER(sldt);
BT_HANDLER(str);
BT_HANDLER(lldt);
BT_HANDLER(ltr);
BT_HANDLER(verr);
BT_HANDLER(verw);
BT_HANDLER(lar);
BT_HANDLER(lsl);
BT_HANDLER(arpl);
BT_HANDLER(sgdt);
BT_HANDLER(sidt);
BT_HANDLER(lgdt);
BT_HANDLER(lidt);
BT_HANDLER(smsw);
BT_HANDLER(lmsw);
BT_HANDLER(invlpg);
BT_HANDLER(clts);
BT_HANDLER(invd);
BT_HANDLER(mov_crdr);
BT_HANDLER(rdmsr);
BT_HANDLER(wrmsr);
BT_HANDLER(xcr);
BT_HANDLER(rdtsc);
BT_HANDLER(rdpmc);
BT_HANDLER(cpuid);
BT_HANDLER(hlt);
BT_HANDLER(cli);
BT_HANDLER(sti);
BT_HANDLER(in);
BT_HANDLER(out);
BT_HANDLER(rdrand);

#endif
