/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The part of tier T2 that flows.bpf.c does: enrolling and forgetting. */
#pragma once

#include <linux/in.h>

#include "shortcut.h"
#include "tuple.h"

static __always_inline bool is_home(struct bpf_sock_ops *ctx, const struct culvert_address *address, __u32 slot)
{
    __u64 cookie = bpf_get_netns_cookie(ctx);
    struct culvert_pod *pod = bpf_map_lookup_elem(&pods, &cookie);
    __u32 *owner = bpf_map_lookup_elem(&endpoints, address);

    return pod && pod->flags & CULVERT_POD_ACTIVE && pod->slot == slot && owner && *owner == slot;
}

/* Middle boxes and conntrack see nothing of what is redirected: without a sign of life they forget the connection and
 * then drop its FIN. An application that chose its own interval keeps it. */
static __always_inline void keep_alive(struct bpf_sock_ops *ctx)
{
    int on = 0, idle = CULVERT_SHORTCUT_KEEPALIVE;

    if (!bpf_getsockopt(ctx, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) && on)
        return;
    on = 1;
    bpf_setsockopt(ctx, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    bpf_setsockopt(ctx, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* What was sent with the SYN (fast open) is not read yet, and subflows of MPTCP are not the application's sockets. */
static __always_inline bool is_plain(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
    return !ctx->data_segs_out && !bpf_skc_to_mptcp_sock(sk);
}

static __always_inline bool enrol(struct bpf_sock_ops *ctx, struct bpf_sock *sk, struct culvert_socket *socket,
                                  enum culvert_side side)
{
    struct culvert_end end = {.tuple = socket->tuple, .side = side};

    socket->side = side;
    if (!is_plain(ctx, sk) ||
        !is_home(ctx, side == CULVERT_SIDE_CLIENT ? &end.tuple.client : &end.tuple.server,
                 side == CULVERT_SIDE_CLIENT ? socket->flow.source : socket->flow.destination) ||
        bpf_sock_hash_update(ctx, &ends, &end, BPF_NOEXIST)) {
        count(socket->flow.source, CULVERT_EVENT_ACCELERATION_REFUSED);
        return false;
    }
    keep_alive(ctx);
    return true;
}

static __always_inline void enrol_client(struct bpf_sock_ops *ctx, struct bpf_sock *sk, struct culvert_socket *socket)
{
    struct culvert_shortcut fresh = {};

    if (!is_accelerated(&socket->flow) || !may_accelerate())
        return;
    fresh.lanes[CULVERT_SIDE_SERVER].receiver = (__u64)sk;
    fresh.lanes[CULVERT_SIDE_SERVER].arrived = ctx->rcv_nxt;
    if (bpf_map_update_elem(&shortcuts, &socket->tuple, &fresh, BPF_ANY)) {
        count(socket->flow.source, CULVERT_EVENT_ACCELERATION_REFUSED);
        return;
    }
    if (!enrol(ctx, sk, socket, CULVERT_SIDE_CLIENT))
        bpf_map_delete_elem(&shortcuts, &socket->tuple);
}

/* The server's kernel knows of the connection what the client's noted before the SYN. */
static __always_inline void enrol_server(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
    struct culvert_socket *socket;
    struct culvert_shortcut *shortcut;
    struct culvert_tuple tuple;
    struct culvert_flow *flow;

    /* Looked at first: it is all that the connections of a node without acceleration pay. */
    if (!may_accelerate())
        return;
    NOTE_ADDRESSES(ctx, &tuple);
    turn_around(&tuple);
    flow = bpf_map_lookup_elem(&flows, &tuple);
    if (!flow || !is_accelerated(flow))
        return;
    shortcut = bpf_map_lookup_elem(&shortcuts, &tuple);
    if (!shortcut)
        return;
    socket = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!socket)
        return;
    socket->tuple = tuple;
    socket->flow = *flow;
    /* The client's socket alone reports the connection. */
    socket->flow.kind = CULVERT_FLOW_NONE;
    shortcut->lanes[CULVERT_SIDE_CLIENT].arrived = ctx->rcv_nxt;
    if (!enrol(ctx, sk, socket, CULVERT_SIDE_SERVER))
        return;
    shortcut->lanes[CULVERT_SIDE_CLIENT].receiver = (__u64)sk;
    count(flow->source, CULVERT_EVENT_ACCELERATED);
}
