/* What a fuzz target offers its drivers: libFuzzer, or driver.c where there is no clang. */
#ifndef FUZZ_TARGET_H
#define FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry point; must return 0. Aborts when the loader broke its contract. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Writes the i-th well-formed input into buf and returns its length; 0 when there are no more. Accepted by
 * the loader: driver.c checks that, so that mutations start from behind the first check. */
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t capacity);
/* The loader's verdict on an input: did it load? */
int fuzz_loads(const uint8_t *data, size_t size);

#endif
