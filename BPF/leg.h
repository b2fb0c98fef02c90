/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Level L1: the lookup program cannot see where a SYN arrived (ingress_ifindex came with Linux 5.17), so it cannot tell
 * the proxy's leg to the application from the client it speaks for: both have the client's address. The connect hook
 * knows the leg by the proxy's cgroup and its mark; flows.bpf.c then notes its addresses and ports before the SYN. */
#pragma once

#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "culvert_abi.h"
#include "maps.h"

/* Whether a socket of the proxy may connect: not when it is a leg that could not be noted. It would be taken for its
 * client and come back to the proxy. */
static __always_inline bool note_leg(struct bpf_sock_addr *ctx, __u32 slot)
{
    struct bpf_sock *sk = ctx->sk;
    struct culvert_socket *socket;
    __u64 *live = live_flows();

    if (!sk || sk->mark != CULVERT_MARK_UPSTREAM)
        return true;
    if (!live || *live >= CULVERT_MAX_FLOWS - CULVERT_LEGS_RESERVED)
        return false;
    socket = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!socket)
        return false;
    socket->flow.source = CULVERT_SLOT_RETIRED;
    socket->flow.destination = slot;
    socket->flow.kind = CULVERT_FLOW_APPLICATION;
    return true;
}
