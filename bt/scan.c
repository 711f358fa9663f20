/* Which pages of user code would behave the same if they ran natively. */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include "host/host.h"
#include "ringcomp/ringcomp.h"
#include "scan.h"

/*T:390 Scan before execute
 * User code that runs natively is beyond control until it traps. For isolation that does not matter: the process it
 * runs in holds nothing but its own pages. For exactness it does: an instruction that neither traps nor does what it
 * would do on the guest's machine (PUSH DS shows our selector, CPUID the host's processor) must not run there. So a
 * page is decoded before it may run, and refused for any row of the sensitive table that does not trap. What is
 * refused stays translated, where all of it is right.
 *
 * x86 code cannot be decoded reliably without running it. Translation has run first, so some places where instructions
 * begin are known. From each of these decoding goes on to the page's end. Before the first of them it begins a little
 * ahead of the page, at fifteen places at once: an instruction begins where all attempts have come to agree, and they
 * soon do. Behind a RET or JMP may lie a table instead of code, and there is no telling them apart for certain: where no
 * known entry helps, bytes count as code if decoding comes to the next RET or JMP over nothing that is odd in a program,
 * and a refused instruction among them must be one that programs do have. A wrong refusal costs speed. A wrong approval lets a program that hides
 * instructions inside others see the host's selectors; it gains nothing from them.
 :*/

/* Rows of the sensitive table that would not trap by themselves, or not as the guest expects, and may run all the same.
 * Direct execution is entered with IF = 1, IOPL = 0 only, so flags are what the guest expects. */
static const struct exempt {
    const char *mnemonic;
    uint8_t needs;
    const char *why;
} exempt_table[] = {
    {"int", 0, "#GP, or the trap for system calls: the interpreter executes it"},
    {"int3", 0, "#BP arrives with the state after it, as the guest expects"},
    {"into", 0, "#OF likewise"},
    {"bound", 0, "#BR has the state the guest expects"},
    {"pushf", 0, "IF = 1, IOPL = 0, VM = 0 here and there"},
    {"pushfd", 0, "IF = 1, IOPL = 0, VM = 0 here and there"},
    {"popf", 0, "cannot change IF or IOPL here nor there"},
    {"popfd", 0, "cannot change IF or IOPL here nor there"},
    {"rdtsc", BT_NEED_TSC, "the same counter while the guest's offset is 0"},
};

/* As many attempts as an instruction may be long: one of them is on the right track from the start. */
enum { ALL_VOTES = BT_MAX_INSN };

/* Which of a mnemonic's encodings a row is about. */
enum form { FORM_ALL, FORM_FAR, FORM_SREG, FORM_CONTROL };
enum { MAX_ROWS = 255 };

/* Rows of the sensitive table are numbered from 1 here; 0 is none. */
struct bt_scan {
    struct bt_decoder decoder;
    uint8_t sensitive[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* the mnemonic's first row */
    uint8_t next[MAX_ROWS + 1];                      /* of the same mnemonic */
    uint8_t form[MAX_ROWS + 1];                      /* enum form */
    bool has_rtm;
};

static enum form form_of(const char *form)
{
    if (!*form)
        return FORM_ALL;
    if (strcmp(form, "far") == 0)
        return FORM_FAR;
    return strstr(form, "sreg") ? FORM_SREG : FORM_CONTROL;
}

static void index_mnemonic(struct bt_scan *s, unsigned mnemonic)
{
    const char *name = ZydisMnemonicGetString((ZydisMnemonic)mnemonic);
    uint8_t *link = &s->sensitive[mnemonic];
    for (unsigned n = 0; n < rc_sensitive_count && n < MAX_ROWS && name; n++)
        if (strcmp(rc_sensitive_table[n].mnemonic, name) == 0) {
            *link = (uint8_t)(n + 1);
            link = &s->next[n + 1];
            s->form[n + 1] = (uint8_t)form_of(rc_sensitive_table[n].form);
        }
}

/* SDM vol. 2, CPUID leaf 7: RTM, and RTM that always aborts. */
static bool host_has_rtm(void)
{
    enum { RTM = 1 << 11 };
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && ((b | d) & RTM);
}

struct bt_scan *bt_scan_create(void)
{
    struct bt_scan *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    bt_decoder_init(&s->decoder);
    for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
        index_mnemonic(s, m);
    s->has_rtm = host_has_rtm();
    return s;
}

void bt_scan_destroy(struct bt_scan *s)
{
    free(s);
}

static bool names_sreg(const struct bt_insn *i)
{
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT) /* MOV; PUSH and POP of ES CS SS DS */
        return i->opcode == 0x8c || i->opcode == 0x8e || (i->opcode < 0x20 && (i->opcode & 6) == 6);
    return i->map == ZYDIS_OPCODE_MAP_0F && (i->opcode & 0xf6) == 0xa0; /* PUSH and POP of FS GS */
}

static bool is_far(const struct bt_insn *i)
{
    if (i->map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    switch (i->opcode) {
    case 0x9a:
    case 0xea:
    case 0xca:
    case 0xcb:
        return true;
    default:
        return i->opcode == 0xff && (i->reg == 3 || i->reg == 5);
    }
}

static bool has_form(enum form form, const struct bt_insn *i)
{
    switch (form) {
    case FORM_ALL:
        return true;
    case FORM_FAR:
        return is_far(i);
    case FORM_SREG:
        return names_sreg(i);
    case FORM_CONTROL:
        return i->map == ZYDIS_OPCODE_MAP_0F && (i->opcode & 0xfc) == 0x20; /* MOV of CR and DR */
    }
    return false;
}

static const struct exempt *exempt(const char *mnemonic)
{
    for (unsigned n = 0; n < sizeof exempt_table / sizeof exempt_table[0]; n++)
        if (strcmp(exempt_table[n].mnemonic, mnemonic) == 0)
            return &exempt_table[n];
    return NULL;
}

/* The row of the sensitive table that this instruction is, or NULL. */
static const struct rc_sensitive *row_of(struct bt_scan *s, const struct bt_insn *i)
{
    for (unsigned n = s->sensitive[i->mnemonic]; n; n = s->next[n])
        if (has_form((enum form)s->form[n], i))
            return &rc_sensitive_table[n - 1];
    return NULL;
}

/* What an instruction says about its page, and about whether it is one. */
enum finding {
    FOUND_NOTHING,
    FOUND_END,   /* control never goes on behind it */
    FOUND_ODD,   /* no compiler writes it into a program: rather data, if nothing tells that this is code */
    FOUND_WRONG, /* must not run natively */
};

/* Refused instructions that programs do have. All others of the table are odd. */
static bool is_usual(const struct rc_sensitive *row, const struct bt_insn *i)
{
    static const char *const names[] = {"cpuid", "xgetbv", "rdtscp", "rdpid", "sysenter", "syscall",
                                        "sldt",  "str",    "sgdt",   "sidt",  "smsw",     "lar",
                                        "lsl",   "xsetbv", "int3",   "bound", "pushf",    "pushfd",
                                        "popf",  "popfd",  "rdtsc",  "xsave", "xsaveopt", "xrstor"};
    if (strcmp(row->mnemonic, "mov") == 0)
        return !i->is_mem && row->reason != RC_TRAPS;
    if (strcmp(row->mnemonic, "int") == 0)
        return i->imm == 0x80;
    for (unsigned n = 0; n < sizeof names / sizeof names[0]; n++)
        if (strcmp(row->mnemonic, names[n]) == 0)
            return true;
    return i->map == ZYDIS_OPCODE_MAP_0F && names_sreg(i); /* PUSH and POP of FS and GS */
}

/* Opcodes without a row that compilers stopped using before there were any for Linux, and ADD [EAX], AL: zeroes. */
static bool is_archaic(const struct bt_insn *i)
{
    static const uint8_t opcodes[] = {0x27, 0x2f, 0x37, 0x3f, 0x63, 0xd4, 0xd5, 0xd6};
    if (i->map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    for (unsigned n = 0; n < sizeof opcodes; n++)
        if (i->opcode == opcodes[n])
            return true;
    return i->opcode == 0 && i->modrm == 0;
}

static bool ends_flow(const struct bt_insn *i)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_UD2:
        return true;
    default:
        return false;
    }
}

static enum finding judge(struct bt_scan *s, const struct bt_insn *i, struct bt_verdict *v)
{
    const struct rc_sensitive *row = row_of(s, i);
    v->needs |= i->class == BT_CLASS_AVX ? BT_NEED_AVX : i->class == BT_CLASS_BMI ? BT_NEED_BMI : 0;
    v->needs |= i->mnemonic == ZYDIS_MNEMONIC_TZCNT ? BT_NEED_BMI : 0;
    if (!row)
        return is_archaic(i) ? FOUND_ODD : ends_flow(i) ? FOUND_END : FOUND_NOTHING;
    const struct exempt *e = exempt(row->mnemonic);
    v->needs |= e ? e->needs : 0;
    v->reason = row->mnemonic;
    if (!is_usual(row, i))
        return FOUND_ODD;
    return e || row->reason == RC_TRAPS ? FOUND_NOTHING : FOUND_WRONG;
}

/* What is known of a shape without looking at the instruction again. */
enum mark { MARK_NONE, MARK_NOTHING, MARK_END, MARK_JUDGE };

static enum mark mark_of(struct bt_scan *s, const struct bt_insn *i)
{
    struct bt_verdict v = {.refused = false};
    enum finding f = judge(s, i, &v);
    bool zeroes =
        i->map == ZYDIS_OPCODE_MAP_DEFAULT && i->opcode == 0; /* is_archaic wants to see its ModRM */
    if (v.needs || row_of(s, i) || zeroes)
        return MARK_JUDGE;
    return f == FOUND_NOTHING ? MARK_NOTHING : f == FOUND_END ? MARK_END : MARK_JUDGE;
}

/* Odd or not: may it run? */
static bool is_wrong(struct bt_scan *s, const struct bt_insn *i)
{
    const struct rc_sensitive *row = row_of(s, i);
    return row && row->reason != RC_TRAPS && !exempt(row->mnemonic);
}

/* Bytes the modelled CPU refuses: so does the host's, unless it knows more instructions. Transactions are in the C
 * library's locks, behind a look at CPUID. */
static bool host_may_know(struct bt_scan *s, const uint8_t *code, unsigned len)
{
    ZydisDecodedInstruction z;
    return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&s->decoder.d32, NULL, code, len, &z)) &&
           (z.meta.isa_ext != ZYDIS_ISA_EXT_RTM || s->has_rtm);
}

/* One pass over a page. A track is what decoding follows; the one on which all attempts agree is judged. */
enum { FIRST = BT_SCAN_BEFORE, END = FIRST + HOST_PAGE, WORDS = END / 64 + 2 };
struct pass {
    struct bt_scan *s;
    const struct bt_scan_text *t;
    uint8_t votes[END + BT_MAX_INSN];
    uint64_t entry[WORDS];   /* a bit per byte: known entries */
    uint64_t track[WORDS];   /* there is something to do */
    bool known;              /* the track comes from a known entry without a gap */
    bool suspect;            /* else: something wrong was found, should this prove to be code */
    struct bt_verdict guess; /* what that was */
    struct bt_verdict v;
};

static void refuse(struct pass *p, unsigned at, const char *reason)
{
    struct bt_verdict v = {.refused = true, .at = (uint16_t)(at < FIRST ? 0 : at - FIRST), .reason = reason};
    if (p->known) {
        p->v = v;
    } else if (!p->suspect) {
        p->suspect = true;
        p->guess = v;
    }
}

/* It was code: what was only suspected counts. */
static void confirm(struct pass *p)
{
    if (p->suspect)
        p->v = p->guess;
}

static void end_flow(struct pass *p)
{
    confirm(p);
    p->known = p->suspect = false;
}

static void judge_at(struct pass *p, unsigned at, const struct bt_insn *i)
{
    const char *before = p->v.reason;
    enum finding f = judge(p->s, i, &p->v);
    const char *name = p->v.reason;
    if (!p->v.needs)
        p->v.reason = before;
    if (p->known ? is_wrong(p->s, i) : f == FOUND_WRONG)
        refuse(p, at, name);
    else if (f == FOUND_ODD)
        p->suspect = false;
    else if (f == FOUND_END)
        end_flow(p);
}

/* Does an instruction touch this page, and are its bytes known? One that comes over from the page before is this page's
 * too: when that page was judged, this one may not have been there. Both must be approved for it to run. */
static bool concerns(const struct pass *p, unsigned at, unsigned len)
{
    return at + len > FIRST && (at + len <= END || p->t->has_after);
}

/* Most instructions are plain and have nothing to say. False: this one must be looked at. */
static bool look_quickly(struct pass *p, unsigned at, bool counts, unsigned *len)
{
    struct bt_scan *s = p->s;
    const uint8_t *code = p->t->byte + at;
    struct bt_plain plain;
    struct bt_insn insn;
    if (!bt_plain_find(&s->decoder, code, &plain))
        return false;
    *len = plain.length;
    if (!counts || !concerns(p, at, plain.length))
        return true;
    uint8_t *mark = &plain.shape->mark;
    if (*mark == MARK_NONE && bt_decode(&s->decoder, true, code, BT_MAX_INSN, &insn) == BT_DECODE_OK)
        *mark = (uint8_t)mark_of(s, &insn);
    if (*mark == MARK_END)
        end_flow(p);
    return *mark == MARK_END || *mark == MARK_NOTHING;
}

/* Length of what begins at byte `at`, 1 where nothing does. */
static unsigned look(struct pass *p, unsigned at, bool counts)
{
    const uint8_t *code = p->t->byte + at;
    struct bt_insn insn;
    unsigned len;
    if (look_quickly(p, at, counts, &len))
        return len;
    if (bt_decode(&p->s->decoder, true, code, BT_MAX_INSN, &insn) == BT_DECODE_OK) {
        if (counts && concerns(p, at, insn.length))
            judge_at(p, at, &insn);
        return insn.length;
    }
    if (!counts || !concerns(p, at, BT_MAX_INSN))
        return 1;
    if (host_may_know(p->s, code, BT_MAX_INSN))
        refuse(p, at, "an instruction that the guest's CPU lacks");
    else
        p->suspect = false;
    return 1;
}

static bool is_entry(const struct pass *p, unsigned at)
{
    return p->entry[at / 64] >> at % 64 & 1;
}

/* The bits for the len bytes behind byte `at`. */
static uint64_t bits_behind(const uint64_t *map, unsigned at, unsigned len)
{
    unsigned from = at + 1, shift = from % 64;
    uint64_t bits = map[from / 64] >> shift;
    if (shift)
        bits |= map[from / 64 + 1] << (64 - shift);
    return bits & ((UINT64_C(1) << len) - 1);
}

static void add_votes(struct pass *p, unsigned at, unsigned votes)
{
    votes += p->votes[at];
    p->votes[at] = (uint8_t)(votes < ALL_VOTES ? votes : ALL_VOTES);
    p->track[at / 64] |= UINT64_C(1) << at % 64;
}

/* The first byte from `at` on where there is something to do. */
static unsigned next_step(const struct pass *p, unsigned at)
{
    unsigned word = at / 64;
    uint64_t bits = p->track[word] >> at % 64 << at % 64;
    while (!bits && word + 1 < WORDS)
        bits = p->track[++word];
    return bits ? word * 64 + (unsigned)__builtin_ctzll(bits) : END;
}

/* Where to go on. */
static unsigned step(struct pass *p, unsigned at)
{
    if (is_entry(p, at)) {
        confirm(p); /* a known instruction right behind: what led here was code */
        p->suspect = false;
        p->known = true;
        p->votes[at] = ALL_VOTES;
        if (p->v.refused)
            return END;
    }
    unsigned len = look(p, at, p->votes[at] == ALL_VOTES);
    if (!bits_behind(p->track, at, BT_MAX_INSN)) { /* the usual case: no other track, no entry */
        p->votes[at + len] = p->votes[at];
        return at + len;
    }
    if (!bits_behind(p->entry, at, len - 1))
        add_votes(p, at + len, p->votes[at]);
    else if (p->votes[at] == ALL_VOTES)
        p->suspect = false; /* a wrong track */
    return next_step(p, at + 1);
}

struct bt_verdict bt_scan_page(struct bt_scan *s, const struct bt_scan_text *t)
{
    struct pass p = {.s = s, .t = t, .v = {.reason = ""}};
    memcpy(p.entry + FIRST / 64, t->entry, sizeof(t->entry));
    memcpy(p.track, p.entry, sizeof(p.track));
    for (unsigned n = 0; n < ALL_VOTES; n++)
        add_votes(&p, (t->has_before ? 0 : FIRST) + n, 1);
    for (unsigned at = next_step(&p, 0); at < END && !p.v.refused;)
        at = step(&p, at);
    if (!p.v.refused)
        confirm(&p); /* goes on in the page behind */
    return p.v;
}

struct bt_verdict bt_scan_run(struct bt_scan *s, const uint8_t *code, unsigned len)
{
    struct bt_verdict v = {.refused = false, .reason = ""};
    for (unsigned at = 0; at < len && !v.refused;) {
        struct bt_insn insn;
        if (bt_decode(&s->decoder, true, code + at, len - at, &insn) != BT_DECODE_OK)
            break;
        judge(s, &insn, &v);
        v.refused = is_wrong(s, &insn);
        v.at = (uint16_t)at;
        at += insn.length;
    }
    return v;
}
