/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#pragma once

#include <linux/types.h>

#include <bpf/bpf_helpers.h>

/* Nobody wants the sum. The compiler makes one that fetches of __sync_fetch_and_add, which the kernel knows from 5.12 on. */
static __always_inline void add_atomically(__u64 *to, __s64 more)
{
    asm volatile("lock *(u64 *)(%[to] + 0) += %[more]" : : [to] "r"(to), [more] "r"(more) : "memory");
}
