/*
 * Side-by-side dump of a translated block: guest instructions at left, what became of them at right. Shown by
 * --trace=block, and by the verifier and lock step when a block is found guilty.
 */
#include <stdio.h>
#include <string.h>
#include "impl.h"

enum { GUEST_COLUMN = 58, GUEST_BYTES = 8 };

struct dump {
    struct bt_vcpu *v;
    const struct bt_block *b;
    FILE *out;
    ZydisDecoder guest, host;
    ZydisFormatter formatter;
};

static unsigned disassemble(const struct dump *d, const ZydisDecoder *decoder, const uint8_t *code,
                            unsigned len, uint64_t address, char *text, size_t size)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, code, len, &insn, op))) {
        snprintf(text, size, "db 0x%02x", code[0]);
        return 1;
    }
    ZydisFormatterFormatInstruction(&d->formatter, &insn, op, insn.operand_count_visible, text, size, address,
                                    NULL);
    return insn.length;
}

static void mode_words(uint32_t mode, char *text, size_t size)
{
    static const struct {
        uint32_t bit;
        const char *word;
    } word[] = {
        {RC_MODE_FPU_TRAP, "fpu-trap"}, {RC_MODE_NO_SSE, "no-sse"}, {RC_MODE_NO_AVX, "no-avx"},
        {RC_MODE_DS_ODD, "ds-odd"},     {RC_MODE_ES_ODD, "es-odd"}, {RC_MODE_SS_ODD, "ss-odd"},
        {RC_MODE_IOPL, "iopl"},         {RC_MODE_INTERP, "interp"},
    };
    int at = snprintf(text, size, "%s", mode & RC_MODE_USER ? "user" : "kernel");
    for (unsigned i = 0; i < sizeof word / sizeof *word && at >= 0 && (size_t)at < size; i++)
        if (mode & word[i].bit)
            at += snprintf(text + at, size - (size_t)at, " %s", word[i].word);
}

static const char *form_word(enum bt_form form)
{
    static const char *const word[] = {
        [BT_FORM_WINDOW] = "", [BT_FORM_DUAL] = "dual", [BT_FORM_SOFT] = "soft", [BT_FORM_INTERP] = "interp"};
    return form < sizeof word / sizeof *word ? word[form] : "?";
}

/* A stub's name for a branch that goes there; NULL for any other target. */
static const char *stub_name(const struct bt_stubs *s, uint32_t at)
{
    return at == s->miss ? "miss" : at == s->link ? "link" : at == s->callout ? "callout" : NULL;
}

/* Where the branch in code[0..len) at arena offset at leads, in words. */
static void branch_note(const struct dump *d, const uint8_t *code, unsigned len, uint32_t at, char *text,
                        size_t size)
{
    uint32_t rel, to;
    const char *name;
    *text = 0;
    if (len < 5 ||
        (code[0] != 0xe8 && code[0] != 0xe9 && !(len == 6 && code[0] == 0x0f && (code[1] & 0xf0) == 0x80)))
        return;
    memcpy(&rel, code + len - 4, 4);
    to = at + len + rel;
    name = stub_name(&d->v->stubs, to);
    if (name) {
        snprintf(text, size, "  ; %s", name);
        return;
    }
    for (unsigned k = 0; k < d->b->link_count; k++) {
        const struct bt_link *l = &d->v->link[d->b->first_link + k];
        if (l->at == at + len - 4)
            snprintf(text, size, "  ; -> %08x %s", l->target_eip, l->to ? "(chained)" : "(stub)");
    }
}

/* Host code [from, to), one line each; the first line's left column is guest. */
static void host_lines(const struct dump *d, uint32_t from, uint32_t to, const char *guest)
{
    char text[128], note[64];
    if (from >= to)
        fprintf(d->out, "  %s\n", guest);
    while (from < to) {
        const uint8_t *code = d->v->arena.rx + from;
        unsigned n = disassemble(d, &d->host, code, to - from, from, text, sizeof text);
        branch_note(d, code, n, from, note, sizeof note);
        fprintf(d->out, "  %-*s | %06x  %s%s\n", GUEST_COLUMN, guest, from, text, note);
        guest = "";
        from += n;
    }
}

static unsigned guest_bytes(const struct dump *d, uint64_t gpa, uint8_t *buf)
{
    const struct host_ram *ram = d->v->cfg.ram;
    unsigned left = HOST_PAGE - (unsigned)(gpa % HOST_PAGE), n = left < BT_MAX_INSN ? left : BT_MAX_INSN;
    if (gpa + n > ram->size)
        return 0;
    memcpy(buf, ram->base + gpa, n);
    if (n < BT_MAX_INSN && d->b->gpa2 && d->b->gpa2 + BT_MAX_INSN <= ram->size) {
        memcpy(buf + n, ram->base + d->b->gpa2, BT_MAX_INSN - n);
        n = BT_MAX_INSN;
    }
    return n;
}

static void guest_line(const struct dump *d, const struct bt_map *row, char *text, size_t size)
{
    uint8_t code[BT_MAX_INSN] = {0};
    char insn[96], hex[2 * GUEST_BYTES + 2] = "";
    uint64_t gpa = d->b->gpa + row->guest_off;
    uint32_t eip = d->b->eip + row->guest_off;
    unsigned len = guest_bytes(d, gpa, code), shown;
    if (!len) {
        snprintf(text, size, "%08x (outside RAM)", eip);
        return;
    }
    shown = len = disassemble(d, &d->guest, code, len, eip, insn, sizeof insn);
    if (shown > GUEST_BYTES)
        shown = GUEST_BYTES;
    for (unsigned i = 0; i < shown; i++)
        snprintf(hex + 2 * i, sizeof hex - 2 * i, "%02x", code[i]);
    if (len > shown)
        strcat(hex, "+");
    snprintf(text, size, "%08x %-*s %.30s %s", eip, 2 * GUEST_BYTES + 1, hex, insn,
             form_word((enum bt_form)row->form));
}

static uint32_t first_stub(const struct dump *d)
{
    uint32_t at = d->b->end;
    for (unsigned k = 0; k < d->b->link_count; k++) {
        uint32_t stub = d->v->link[d->b->first_link + k].stub;
        if (stub > d->b->main && stub < at)
            at = stub;
    }
    return at;
}

void bt_dump_block(struct bt_vcpu *v, const struct bt_block *b, FILE *out)
{
    struct dump d = {.v = v, .b = b, .out = out};
    char text[192];
    uint32_t stubs;
    ZydisDecoderInit(&d.guest, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&d.host, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&d.formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    stubs = first_stub(&d);
    mode_words(b->mode, text, sizeof text);
    fprintf(out, "block %u%s: eip %08x, physical %08llx, %s, %u instructions (%u bytes) -> %u bytes\n",
            (unsigned)(b - v->block), b->dead ? " (dead)" : "", b->eip, (unsigned long long)b->gpa, text,
            b->count, b->guest_len, b->end - b->host);
    host_lines(&d, b->host, b->main, "(indirect entry)");
    for (unsigned k = 0; k < b->count; k++) {
        const struct bt_map *row = &v->map[b->map + k];
        uint32_t to = k + 1u < b->count ? b->host + row[1].host_off : stubs;
        guest_line(&d, row, text, sizeof text);
        host_lines(&d, b->host + row->host_off, to, text);
    }
    if (stubs < b->end)
        host_lines(&d, stubs, b->end, "(exit stubs)");
}
