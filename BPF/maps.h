/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The maps both kinds of program share; the loader makes every object use the pinned ones. */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "culvert_abi.h"

/* Listening sockets of the proxy inside the pods. An entry disappears by itself when its listener closes, so a killed
 * daemon leaves empty slots behind, never stale ones. Eight-byte values let the daemon read socket cookies back. */
struct {
    __uint(type, BPF_MAP_TYPE_SOCKMAP);
    __uint(max_entries, CULVERT_MAX_PODS * CULVERT_ROLES_PER_SLOT);
    __type(key, __u32);
    __type(value, __u64);
} lst SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CULVERT_EVENTS);
    __type(key, __u32);
    __type(value, __u64);
} stats SEC(".maps");

static __always_inline void count(__u32 event)
{
    __u64 *counter = bpf_map_lookup_elem(&stats, &event);

    /* A miss cannot happen: the event is a constant below max_entries. */
    if (counter)
        *counter += 1;
}

static __always_inline __u32 listener_key(__u32 slot, enum culvert_role role)
{
    return slot * CULVERT_ROLES_PER_SLOT + role;
}
