/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Follows the sockets that the connect hook decided about: notes the connection for the server's lookup program before
 * the SYN leaves, and reports it when it is over. The storage made by the connect hook says which sockets these are;
 * all others are left alone, at the cost of one look. */
#include <stdbool.h>

#include <asm/socket.h>
#include <linux/bpf.h>
#include <linux/errno.h>

#include <bpf/bpf_helpers.h>

#include "address.h"
#include "atomic.h"
#include "culvert_abi.h"
#include "enrol.h"
#include "maps.h"
#include "tuple.h"

#define DONE 1
#define FIN_RECEIVED 1
#define FIN_ACKNOWLEDGED 2

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, CULVERT_RING_BYTES);
} closed SEC(".maps");

const volatile struct culvert_flows_config config = {};

/* Another program, behind our hook, sent the connection elsewhere than where it was allowed to go. The mark makes the
 * kernel look for a route once more, the one to the proxy, which judges what the connection has become. */
static __always_inline void take_back(struct bpf_sock_ops *ctx, struct culvert_socket *socket)
{
    __u32 mark = CULVERT_MARK_CAPTURED;

    count(socket->flow.source, bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark))
                                   ? CULVERT_EVENT_DIRECT_LOST
                                   : CULVERT_EVENT_DIRECT_MOVED);
    socket->flow.kind = CULVERT_FLOW_NONE;
}

/* All of the connection is known and its SYN is about to be made. */
static __always_inline void begin(struct bpf_sock_ops *ctx, struct culvert_socket *socket)
{
    struct culvert_address decided = socket->tuple.server;
    __u16 decided_port = socket->tuple.server_port;
    __u64 *live = live_flows();
    long error;

    NOTE_ADDRESSES(ctx, &socket->tuple);
    if (socket->flow.kind == CULVERT_FLOW_DIRECT && (socket->tuple.server_port != decided_port ||
                                                     !address_equal(&socket->tuple.server, &decided))) {
        take_back(ctx, socket);
        return;
    }
    socket->flow.started_ns = bpf_ktime_get_ns();
    socket->fins = 0;
    socket->established = 0;
    if (config.accelerate && is_accelerated(&socket->flow))
        bpf_map_delete_elem(&shortcuts, &socket->tuple);
    error = bpf_map_update_elem(&flows, &socket->tuple, &socket->flow, BPF_NOEXIST);
    if (!error) {
        if (live)
            add_atomically(live, 1);
    } else if (error == -EEXIST) {
        error = bpf_map_update_elem(&flows, &socket->tuple, &socket->flow, BPF_EXIST);
    }
    if (!error)
        error = bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
    if (error) {
        /* The server's side does not know it then, and takes it for what it is without proof: plaintext. */
        if (socket->flow.kind == CULVERT_FLOW_PROBE)
            count(socket->flow.destination, CULVERT_EVENT_PROBE_LOST);
        else
            count(socket->flow.source, CULVERT_EVENT_DIRECT_LOST);
        socket->flow.kind = CULVERT_FLOW_NONE;
    }
}

/* The kernel counts SYN and FIN as a byte each; they are not the application's. */
static __always_inline void report(struct bpf_sock_ops *ctx, struct culvert_socket *socket)
{
    struct culvert_closed *record = bpf_ringbuf_reserve(&closed, sizeof(*record), 0);
    bool accelerated = config.accelerate && is_accelerated(&socket->flow);
    struct culvert_shortcut *shortcut;

    if (!record) {
        count(socket->flow.source, CULVERT_EVENT_RECORD_LOST);
    } else {
        __u64 sent = ctx->bytes_acked, received = ctx->bytes_received;
        __u32 overhead = socket->established + (socket->fins & FIN_ACKNOWLEDGED ? 1 : 0);

        __builtin_memset(record, 0, sizeof(*record));
        record->tuple = socket->tuple;
        record->flow = socket->flow;
        record->ended_ns = bpf_ktime_get_ns();
        record->bytes_sent = sent > overhead ? sent - overhead : 0;
        record->bytes_received = socket->fins & FIN_RECEIVED && received ? received - 1 : received;
        shortcut = accelerated ? bpf_map_lookup_elem(&shortcuts, &socket->tuple) : NULL;
        if (shortcut) {
            __u64 to_server = shortcut->lanes[CULVERT_SIDE_CLIENT].bytes;
            __u64 to_client = shortcut->lanes[CULVERT_SIDE_SERVER].bytes;

            record->bytes_sent += to_server;
            record->bytes_received += to_client;
            record->bytes_short = to_server + to_client;
        }
        record->srtt_us = ctx->srtt_us >> 3;
        record->retransmits = ctx->total_retrans;
        record->established = socket->established;
        record->asked = socket->asked;
        record->orderly = socket->fins & FIN_ACKNOWLEDGED ? 1 : 0;
        /* Waking the daemon for each would cost more than all the rest. It looks now and then by itself. */
        bpf_ringbuf_submit(record, bpf_ringbuf_query(&closed, BPF_RB_AVAIL_DATA) > CULVERT_RING_BYTES / 4
                                       ? BPF_RB_FORCE_WAKEUP
                                       : BPF_RB_NO_WAKEUP);
    }
    if (accelerated)
        bpf_map_delete_elem(&shortcuts, &socket->tuple);
}

/* The proxy reports its own connections. */
static __always_inline void end(struct bpf_sock_ops *ctx, struct culvert_socket *socket)
{
    __u64 *live = live_flows();

    if (!bpf_map_delete_elem(&flows, &socket->tuple) && live)
        add_atomically(live, -1);
    if (socket->flow.kind == CULVERT_FLOW_DIRECT)
        report(ctx, socket);
    socket->flow.kind = CULVERT_FLOW_NONE;
}

static __always_inline void change(struct bpf_sock_ops *ctx, struct culvert_socket *socket, __u32 from, __u32 to)
{
    if (to == BPF_TCP_ESTABLISHED) {
        socket->established = 1;
    } else if (to == BPF_TCP_CLOSE_WAIT || to == BPF_TCP_CLOSING) {
        socket->fins |= FIN_RECEIVED;
    } else if (to == BPF_TCP_FIN_WAIT2) {
        socket->fins |= FIN_ACKNOWLEDGED;
        socket->fin_wait_rcv_nxt = ctx->rcv_nxt;
    }
    if (to != BPF_TCP_CLOSE)
        return;
    /* TIME_WAIT is no state of the socket: it closes. In FIN_WAIT2 the peer's FIN did that if anything came, unless the
     * application was gone already and nobody waits for it. */
    if (from == BPF_TCP_FIN_WAIT2 && ctx->rcv_nxt != socket->fin_wait_rcv_nxt)
        socket->fins |= FIN_RECEIVED;
    if ((from == BPF_TCP_LAST_ACK || from == BPF_TCP_CLOSING) && ctx->snd_una == ctx->snd_nxt)
        socket->fins |= FIN_ACKNOWLEDGED;
    end(ctx, socket);
}

SEC("sockops")
int culvert_flows(struct bpf_sock_ops *ctx)
{
    struct culvert_socket *socket;
    struct bpf_sock *sk;

    if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_STATE_CB &&
        !(config.accelerate && (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB ||
                                ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)))
        return DONE;
    sk = ctx->sk;
    if (!sk)
        return DONE;
    if (config.accelerate && ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
        enrol_server(ctx, sk);
        return DONE;
    }
    socket = bpf_sk_storage_get(&sockets, sk, 0, 0);
    if (!socket || socket->flow.kind == CULVERT_FLOW_NONE)
        return DONE;
    if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
        begin(ctx, socket);
    else if (config.accelerate && ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
        enrol_client(ctx, sk, socket);
    else
        change(ctx, socket, ctx->args[0], ctx->args[1]);
    return DONE;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
