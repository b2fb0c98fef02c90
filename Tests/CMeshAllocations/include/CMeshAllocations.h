// Counts what the process takes from the heap: linking this target puts counting wrappers in front of the C library's
// allocator, in every library of the test process.
#pragma once

#include <stdint.h>

/// Allocations (malloc, calloc, realloc and the aligned kinds) made by the calling thread so far.
uint64_t culvert_allocations_count(void);
/// Allocations made by the whole process so far.
uint64_t culvert_allocations_count_of_process(void);
/// Bytes asked for by the calling thread so far.
uint64_t culvert_allocations_bytes(void);

/// Gives the calling thread a descriptor table of its own with nothing but 0, 1 and 2 in it, so that a test may count
/// or use up descriptors beside tests running in other threads. 0, or a negated errno. (close_range, Linux 5.9)
int culvert_private_descriptors(void);
/// Descriptors open in the calling thread's table.
int culvert_open_descriptors(void);
/// Duplicates `descriptor` until there are no more, and says how many that made; the last one is stored.
int culvert_exhaust_descriptors(int descriptor, int *last);
