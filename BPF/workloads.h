/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Who is who to every connect hook, and what is counted of each workload. */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "culvert_abi.h"

/* The workloads captured here, by the cookie of their network namespace. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_PODS);
    __type(key, __u64);
    __type(value, struct culvert_pod);
} pods SEC(".maps");

/* The cgroup the proxy runs in. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_PROXY_CGROUPS);
    __type(key, __u64);
    __type(value, __u32);
} proxy_cg SEC(".maps");

/* One entry a workload, made by the daemon before the workload's programs run. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __uint(max_entries, CULVERT_MAX_PODS + 1);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __type(value, struct culvert_counters);
} stats SEC(".maps");

static __always_inline void count(__u32 slot, enum culvert_event event)
{
    struct culvert_counters *counters = bpf_map_lookup_elem(&stats, &slot);

    /* A workload that is being taken away may miss. */
    if (counters)
        counters->events[event] += 1;
}
