/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The maps that capture by sk_lookup (L0, L1) shares between its programs; the loader makes every object use the pinned
 * ones. */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "culvert_abi.h"
#include "workloads.h"

/* Listening sockets of the proxy inside the pods. An entry disappears by itself when its listener closes, so a killed
 * daemon leaves empty slots behind, never stale ones. Eight-byte values let the daemon read socket cookies back. */
struct {
    __uint(type, BPF_MAP_TYPE_SOCKMAP);
    __uint(max_entries, CULVERT_MAX_PODS * CULVERT_ROLES_PER_SLOT);
    __type(key, __u32);
    __type(value, __u64);
} lst SEC(".maps");

/* Connections that the lookup program at the server's side lets through. An entry goes when its client's socket closes:
 * with SYN cookies the last ACK of the handshake is looked up once more. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_FLOWS);
    __type(key, struct culvert_tuple);
    __type(value, struct culvert_flow);
} flows SEC(".maps");

/* How many entries `flows` has. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} flow_count SEC(".maps");

/* What the connect hook decided about a socket. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct culvert_socket);
} sockets SEC(".maps");

/* Which workload of this node has an address. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_ENDPOINTS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct culvert_address);
    __type(value, __u32);
} endpoints SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct culvert_control);
} control SEC(".maps");

static __always_inline __u64 *live_flows(void)
{
    __u32 first = 0;

    return bpf_map_lookup_elem(&flow_count, &first);
}

static __always_inline __u32 listener_key(__u32 slot, enum culvert_role role)
{
    return slot * CULVERT_ROLES_PER_SLOT + role;
}
