/* Little-endian fields at fixed offsets: boot images and boot parameter blocks are byte arrays, never structs
 * laid over hostile bytes, so that alignment and padding cannot surprise. The caller has checked the bounds.
 */
#ifndef MONITOR_LE_H
#define MONITOR_LE_H

#include <stdint.h>
#include <string.h>

static inline uint16_t le_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t le_get32(const uint8_t *p)
{
    return le_get16(p) | (uint32_t)le_get16(p + 2) << 16;
}

static inline uint64_t le_get64(const uint8_t *p)
{
    return le_get32(p) | (uint64_t)le_get32(p + 4) << 32;
}

/* The host is little-endian too (x86-64), so writing is a copy. */
static inline void le_put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof(v));
}

static inline void le_put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static inline void le_put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

#endif
