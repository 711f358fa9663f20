/*
 * 16550A UART. Register and bit names, and the rules about when an interrupt is raised and what clears it,
 * are those of National Semiconductor's PC16550D data sheet (section 8). Of the PC around it this file
 * knows one thing: OUT2 enables the interrupt line's driver.
 *
 * The line itself takes no time: a byte leaves as soon as the back end accepts it, and arrives as soon as
 * there is room. Only the receive time-out is measured in character times.
 */
#include <stdlib.h>
#include <string.h>
#include "devices.h"

/*T:630 A serial line that is honest about waiting
 *
 * Both ends of a serial line can be slow. When the host's terminal does not take what the guest prints,
 * dropping bytes would be easy and blocking in write() would stop the whole machine, timer ticks included.
 * The chip has the right words for it: LSR.THRE stays 0 and no transmitter interrupt comes until chr.c has
 * room again, and a guest knows how to wait for that. The other way round, bytes are only taken from the
 * host as the FIFO has room, so that the host's pipe fills up and its writer waits. No overrun is ever
 * reported, because none ever happens.
 *
 * One subtlety: the interrupt controller sees edges. If a byte that is read were replaced at once by the
 * next, the line would never fall, and a handler that takes one byte per interrupt, good enough on real
 * wires, would never run again. So the FIFO is refilled only when it is empty, after the line has been seen
 * low.
 :*/

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR, REGISTERS };

enum { IER_RDA = 0x01, IER_THRE = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08, IER_BITS = 0x0f };
enum {
    IIR_NONE = 1,
    IIR_LINE = 6,
    IIR_RDA = 4,
    IIR_TIMEOUT = 0x0c,
    IIR_THRE = 2,
    IIR_MODEM = 0,
    IIR_FIFO = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04, FCR_KEPT = 0xc9 };
enum { LCR_DLAB = 0x80, LCR_PARITY = 0x08, LCR_STOP = 0x04, LCR_LENGTH = 0x03 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10, MCR_BITS = 0x1f };
enum { LSR_DR = 0x01, LSR_OE = 0x02, LSR_ERRORS = 0x1e, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_DELTA = 0x0f, MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80, MSR_TERI = 0x04 };

enum { FIFO = 16, BASE_BAUD = 115200, TIMEOUT_CHARS = 4 };

static const uint8_t trigger_level[4] = {1, 4, 8, 14};

struct fifo {
    uint8_t byte[FIFO];
    unsigned first, count;
};

struct ns16550 {
    uint8_t ier, fcr, lcr, mcr, msr, scr;
    uint8_t lsr_errors; /* OE PE FE BI: kept until LSR is read */
    uint16_t divisor;
    bool thre_pending, timeout_pending;
    struct fifo rx, tx;
    uint64_t tx_overruns; /* THR written while full: the byte is lost, as on the chip */
    const char *name;
    struct dev_irq irq;
    struct chr *chr;
    struct host_clock *clock;
    struct host_timer *timeout;
    bool timeout_set;
};

static void fifo_push(struct fifo *f, uint8_t v)
{
    f->byte[(f->first + f->count++) % FIFO] = v;
}

static uint8_t fifo_pop(struct fifo *f)
{
    uint8_t v = f->byte[f->first];
    f->first = (f->first + 1) % FIFO;
    f->count--;
    return v;
}

static unsigned fifo_depth(const struct ns16550 *u)
{
    return u->fcr & FCR_ENABLE ? FIFO : 1;
}

static unsigned uart_trigger(const struct ns16550 *u)
{
    return u->fcr & FCR_ENABLE ? trigger_level[u->fcr >> 6] : 1;
}

/* ---- Interrupts ---- */

/* The identification of the most urgent enabled cause, IIR_NONE if there is none. */
static uint8_t uart_cause(const struct ns16550 *u)
{
    if (u->ier & IER_LINE && u->lsr_errors)
        return IIR_LINE;
    if (u->ier & IER_RDA && u->rx.count >= uart_trigger(u))
        return IIR_RDA;
    if (u->ier & IER_RDA && u->timeout_pending)
        return IIR_TIMEOUT;
    if (u->ier & IER_THRE && u->thre_pending)
        return IIR_THRE;
    if (u->ier & IER_MODEM && u->msr & MSR_DELTA)
        return IIR_MODEM;
    return IIR_NONE;
}

/* In loop-back the modem control outputs are forced inactive, OUT2 and so the interrupt driver among them. */
static void uart_update(struct ns16550 *u)
{
    dev_irq_set(&u->irq, uart_cause(u) != IIR_NONE && (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2);
}

static uint64_t uart_char_ns(const struct ns16550 *u)
{
    unsigned half_bits = 2 * (1 + 5 + (u->lcr & LCR_LENGTH)) + (u->lcr & LCR_PARITY ? 2 : 0);
    half_bits +=
        u->lcr & LCR_STOP ? (u->lcr & LCR_LENGTH ? 4 : 3) : 2; /* five-bit characters have 1.5 stop bits */
    unsigned divisor = u->divisor ? u->divisor : 1;
    return UINT64_C(500000000) * half_bits * divisor / BASE_BAUD;
}

/* Bytes below the trigger level would wait forever: after four character times without traffic they are
 * announced. */
static void uart_restart_timeout(struct ns16550 *u)
{
    bool wanted = u->fcr & FCR_ENABLE && u->ier & IER_RDA && u->rx.count && !u->timeout_pending;
    if (wanted && u->rx.count < uart_trigger(u)) {
        host_timer_set(u->timeout, host_clock_ns(u->clock) + TIMEOUT_CHARS * uart_char_ns(u));
        u->timeout_set = true;
    } else if (u->timeout_set) {
        host_timer_cancel(u->timeout);
        u->timeout_set = false;
    }
}

static void uart_timeout(void *ctx)
{
    struct ns16550 *u = ctx;
    u->timeout_set = false;
    u->timeout_pending = u->rx.count != 0;
    uart_update(u);
}

/* ---- Receiver ---- */

static size_t uart_room(void *ctx)
{
    struct ns16550 *u = ctx;
    unsigned depth = fifo_depth(u);
    return u->mcr & MCR_LOOP || u->rx.count >= depth ? 0 : depth - u->rx.count;
}

static void uart_receive(void *ctx, const uint8_t *bytes, size_t n)
{
    struct ns16550 *u = ctx;
    for (size_t i = 0; i < n && u->rx.count < FIFO; i++)
        fifo_push(&u->rx, bytes[i]);
    uart_restart_timeout(u);
    uart_update(u);
}

static void uart_receive_looped(struct ns16550 *u, uint8_t v)
{
    if (u->rx.count >= fifo_depth(u)) {
        u->lsr_errors |= LSR_OE;
        if (u->fcr & FCR_ENABLE)
            return;      /* the FIFO keeps its contents */
        u->rx.count = 0; /* the lone buffer is overwritten */
    }
    uart_receive(u, &v, 1);
}

static uint8_t uart_read_rbr(struct ns16550 *u)
{
    uint8_t v = u->rx.count ? fifo_pop(&u->rx) : 0;
    u->timeout_pending = false;
    uart_restart_timeout(u);
    uart_update(u);
    if (!u->rx.count) /* only now, so that the line falls and rises: a handler may read one byte per edge */
        chr_resume(u->chr);
    return v;
}

/* ---- Transmitter ---- */

static void uart_transmit(struct ns16550 *u)
{
    bool had = u->tx.count;
    while (u->tx.count) {
        uint8_t v = u->tx.byte[u->tx.first];
        if (!(u->mcr & MCR_LOOP) && !chr_write(u->chr, &v, 1))
            break; /* the back end is full and will call uart_drained */
        fifo_pop(&u->tx);
        if (u->mcr & MCR_LOOP)
            uart_receive_looped(u, v);
    }
    if (had && !u->tx.count)
        u->thre_pending = true;
    uart_update(u);
}

static void uart_drained(void *ctx)
{
    uart_transmit(ctx);
}

static void uart_write_thr(struct ns16550 *u, uint8_t v)
{
    u->thre_pending = false;
    if (u->tx.count < fifo_depth(u))
        fifo_push(&u->tx, v);
    else
        u->tx_overruns++;
    uart_transmit(u);
}

/* ---- Control registers ---- */

static void uart_write_ier(struct ns16550 *u, uint8_t v)
{
    uint8_t risen = v & (uint8_t)~u->ier;
    u->ier = v & IER_BITS;
    if (risen & IER_THRE && !u->tx.count) /* enabling it with an empty transmitter is itself an event */
        u->thre_pending = true;
    uart_restart_timeout(u);
    uart_update(u);
}

static uint8_t uart_read_iir(struct ns16550 *u)
{
    uint8_t cause = uart_cause(u);
    if (cause == IIR_THRE) { /* reading it is the acknowledgement, but only if it is what was read */
        u->thre_pending = false;
        uart_update(u);
    }
    return cause | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static void uart_clear_tx(struct ns16550 *u)
{
    if (u->tx.count)
        u->thre_pending = true;
    u->tx.count = 0;
}

static void uart_write_fcr(struct ns16550 *u, uint8_t v)
{
    bool toggled = (v ^ u->fcr) & FCR_ENABLE;
    if (!(v & FCR_ENABLE))
        v = 0; /* the other bits are only programmed together with FCR0 */
    if (toggled || v & FCR_CLEAR_RX) {
        u->rx.count = 0;
        u->timeout_pending = false;
    }
    if (toggled || v & FCR_CLEAR_TX)
        uart_clear_tx(u);
    u->fcr = v & FCR_KEPT;
    chr_resume(u->chr);
    uart_restart_timeout(u);
    uart_update(u);
}

/* The wires: a ready modem with a carrier, or in loop-back our own outputs. */
static uint8_t uart_modem_inputs(const struct ns16550 *u)
{
    if (!(u->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
           (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void uart_write_mcr(struct ns16550 *u, uint8_t v)
{
    u->mcr = v & MCR_BITS;
    uint8_t now = uart_modem_inputs(u), moved = (now ^ u->msr) & 0xf0;
    uint8_t delta = moved >> 4 & ~MSR_TERI;
    if (moved & MSR_RI && !(now & MSR_RI)) /* of RI only the trailing edge counts */
        delta |= MSR_TERI;
    u->msr = now | (u->msr & MSR_DELTA) | delta;
    if (!(u->mcr & MCR_LOOP))
        chr_resume(u->chr);
    uart_transmit(u);
}

static uint8_t uart_read_lsr(struct ns16550 *u)
{
    uint8_t v = (u->rx.count ? LSR_DR : 0) | u->lsr_errors | (u->tx.count ? 0 : LSR_THRE | LSR_TEMT);
    u->lsr_errors = 0;
    uart_update(u);
    return v;
}

static uint8_t uart_read_msr(struct ns16550 *u)
{
    uint8_t v = u->msr;
    u->msr &= (uint8_t)~MSR_DELTA;
    uart_update(u);
    return v;
}

/* ---- The eight ports; DLAB makes the first two the divisor ---- */

static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    struct ns16550 *u = ctx;
    (void)size;
    switch (offset) {
    case RBR_THR:
        return u->lcr & LCR_DLAB ? u->divisor & 0xff : uart_read_rbr(u);
    case IER:
        return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
    case IIR_FCR:
        return uart_read_iir(u);
    case LCR:
        return u->lcr;
    case MCR:
        return u->mcr;
    case LSR:
        return uart_read_lsr(u);
    case MSR:
        return uart_read_msr(u);
    default:
        return u->scr;
    }
}

static void port_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct ns16550 *u = ctx;
    uint8_t v = (uint8_t)value;
    bool dlab = u->lcr & LCR_DLAB;
    (void)size;
    if (offset == RBR_THR && dlab)
        u->divisor = (u->divisor & 0xff00) | v;
    else if (offset == IER && dlab)
        u->divisor = (uint16_t)((u->divisor & 0xff) | v << 8);
    else if (offset == RBR_THR)
        uart_write_thr(u, v);
    else if (offset == IER)
        uart_write_ier(u, v);
    else if (offset == IIR_FCR)
        uart_write_fcr(u, v);
    else if (offset == LCR)
        u->lcr = v;
    else if (offset == MCR)
        uart_write_mcr(u, v);
    else if (offset == SCR)
        u->scr = v; /* LSR and MSR are read only: writing them is a factory test */
}

void ns16550_reset(struct ns16550 *u)
{
    u->ier = u->fcr = u->lcr = u->mcr = u->scr = u->lsr_errors = 0;
    u->thre_pending = u->timeout_pending = false;
    u->rx.count = u->tx.count = 0;
    u->divisor = BASE_BAUD / 9600;
    u->msr = uart_modem_inputs(u);
    uart_restart_timeout(u);
    uart_update(u);
}

int ns16550_create(struct ns16550 **out, struct dev_bus *bus, struct host_loop *loop, const char *name,
                   uint16_t base, struct dev_irq irq, struct chr *chr, struct host_err *err)
{
    struct ns16550 *u = *out = calloc(1, sizeof *u);
    if (!u)
        return host_fail(err, "no memory for a serial port");
    u->name = name;
    u->irq = irq;
    u->chr = chr;
    u->clock = host_loop_clock(loop);
    u->timeout = host_timer_create(loop, uart_timeout, u);
    if (!u->timeout)
        return host_fail(err, "no memory for a serial port's host timer");
    chr_attach(chr, &(struct chr_ops){u, uart_room, uart_receive, uart_drained});
    return dev_bus_add_io(bus, &(struct dev_region){name, base, REGISTERS, port_read, port_write, u, 1}, err);
}

void ns16550_destroy(struct ns16550 *u)
{
    if (u && u->timeout)
        host_timer_destroy(u->timeout);
    free(u);
}
