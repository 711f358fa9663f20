/* Interrupt lines. */
#include "devices.h"

void dev_irq_set(const struct dev_irq *irq, bool level)
{
    if (irq && irq->set)
        irq->set(irq->ctx, irq->pin, level);
}

static void irq_join_set(void *ctx, unsigned pin, bool level)
{
    struct irq_join *j = ctx;
    uint32_t old = j->levels;
    j->levels = level ? old | 1u << pin : old & ~(1u << pin);
    if (!old != !j->levels)
        dev_irq_set(&j->out, j->levels != 0);
}

struct dev_irq irq_join_input(struct irq_join *j, unsigned input)
{
    return (struct dev_irq){irq_join_set, j, input & 31};
}
