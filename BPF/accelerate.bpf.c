/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tier T2: a message of an accelerated connection goes straight into the receiver's queue.
 *
 * Invariants, which are about not losing and not reordering a byte:
 * - The receiver reads what was handed over before what came by TCP. So a direction may change from short to wire at
 *   any time, and never back; and it may start short only when no byte of it went by TCP, which write_seq shows.
 * - What is handed over is not held back by the receiver's window. At most CULVERT_SHORTCUT_UNREAD bytes and one more
 *   message wait unread: then the direction goes back to TCP, whose flow control is real. That a message was read is
 *   known when its reader sends and has nothing left in its queue; request and response keep it that way.
 * - Only pass and redirect: nothing is held, cut or joined here, and FIN, RST and refusals are TCP's. */
#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "shortcut.h"

/* Of the kernel's structs, what is read here; where it is, the kernel's own type information says. */
struct atomic {
    int counter;
} __attribute__((preserve_access_index));

struct sock___here {
    struct {
        struct atomic rmem_alloc;
    } sk_backlog;
} __attribute__((preserve_access_index));

struct inet_sock___here {
    struct sock___here sk;
} __attribute__((preserve_access_index));

struct inet_connection_sock___here {
    struct inet_sock___here icsk_inet;
    const void *icsk_ulp_ops;
} __attribute__((preserve_access_index));

struct tcp_sock___here {
    struct inet_connection_sock___here inet_conn;
    __u32 write_seq;
} __attribute__((preserve_access_index));

static __always_inline int stay_on_wire(struct culvert_lane *lane, __u32 slot, enum culvert_event event)
{
    lane->path = CULVERT_PATH_WIRE;
    count(slot, event);
    return SK_PASS;
}

SEC("sk_msg")
int culvert_accelerate(struct sk_msg_md *msg)
{
    struct bpf_sock *sk = msg->sk;
    struct culvert_lane *mine, *theirs;
    struct culvert_shortcut *shortcut;
    struct culvert_socket *socket;
    struct tcp_sock___here *tcp;
    struct culvert_end peer;
    __u32 unread;

    if (!sk)
        return SK_PASS;
    socket = bpf_sk_storage_get(&sockets, sk, 0, 0);
    if (!socket)
        return SK_PASS;
    shortcut = bpf_map_lookup_elem(&shortcuts, &socket->tuple);
    if (!shortcut)
        return SK_PASS;
    mine = &shortcut->lanes[socket->side == CULVERT_SIDE_CLIENT ? CULVERT_SIDE_CLIENT : CULVERT_SIDE_SERVER];
    theirs = &shortcut->lanes[socket->side == CULVERT_SIDE_CLIENT ? CULVERT_SIDE_SERVER : CULVERT_SIDE_CLIENT];
    if (mine->path == CULVERT_PATH_WIRE && theirs->path == CULVERT_PATH_WIRE)
        return SK_PASS;
    tcp = (struct tcp_sock___here *)bpf_skc_to_tcp_sock(sk);
    if (!tcp)
        return SK_PASS;

    unread = tcp->inet_conn.icsk_inet.sk.sk_backlog.rmem_alloc.counter;
    if (theirs->unread > unread)
        theirs->unread = unread;
    if (mine->path == CULVERT_PATH_WIRE)
        return SK_PASS;
    /* After the end of stream TCP has to refuse the message. */
    if (sk->state != BPF_TCP_ESTABLISHED && sk->state != BPF_TCP_CLOSE_WAIT)
        return SK_PASS;
    if (tcp->write_seq != socket->write_seq)
        return stay_on_wire(mine, socket->flow.source, CULVERT_EVENT_WIRE_FIRST);
    if (tcp->inet_conn.icsk_ulp_ops || !may_accelerate())
        return stay_on_wire(mine, socket->flow.source, CULVERT_EVENT_WIRE_CHANGED);
    if (mine->unread + msg->size > CULVERT_SHORTCUT_UNREAD)
        return stay_on_wire(mine, socket->flow.source, CULVERT_EVENT_WIRE_BULK);

    peer.tuple = socket->tuple;
    peer.side = socket->side == CULVERT_SIDE_CLIENT ? CULVERT_SIDE_SERVER : CULVERT_SIDE_CLIENT;
    peer.padding = 0;
    if (bpf_msg_redirect_hash(msg, &ends, &peer, BPF_F_INGRESS) != SK_PASS)
        return stay_on_wire(mine, socket->flow.source,
                            mine->path == CULVERT_PATH_OPEN ? CULVERT_EVENT_WIRE_FIRST : CULVERT_EVENT_WIRE_CHANGED);
    mine->path = CULVERT_PATH_SHORT;
    __sync_fetch_and_add(&mine->unread, msg->size);
    __sync_fetch_and_add(&mine->bytes, msg->size);
    return SK_PASS;
}

/* Changes nothing. Kernels that have it attached count what came by TCP when an application asks how much there is to
 * read (FIONREAD); some forget it otherwise. */
SEC("sk_skb")
int culvert_verdict(struct __sk_buff *skb)
{
    (void)skb;
    return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
