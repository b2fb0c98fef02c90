/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tier T2: a message of an accelerated connection goes straight into the receiver's queue.
 *
 * Invariants, which are about not losing and not reordering a byte:
 * - A message may go by TCP at any time. One may be handed over only when every byte that went by TCP has arrived and
 *   was read, which the two sockets' sequence numbers show; else it could overtake them.
 * - What is handed over is not held back by the receiver's window. At most CULVERT_SHORTCUT_UNREAD bytes and, of every
 *   thread that sends, one more message wait unread; then it is TCP's turn, whose flow control is real. The same holds
 *   while the kernel is short of socket memory: a hand-over that finds none fails, where TCP waits.
 * - What comes by TCP is put into the receiver's queue too, by the verdict program: a reader that waited inside TCP's
 *   own call for the rest of what it wants (MSG_WAITALL) would not see what is handed over meanwhile.
 * - Only pass and redirect: nothing is held or joined here, and FIN, RST and refusals are TCP's. */
#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "shortcut.h"
#include "tuple.h"

/* Of the kernel's structs, what is read here; where it is, the kernel's own type information says. */
struct atomic {
    int counter;
} __attribute__((preserve_access_index));

struct tcp_skb_cb___here {
    __u32 seq;
} __attribute__((preserve_access_index));

struct sk_buff___here {
    char cb[1];
} __attribute__((preserve_access_index));

struct proto___here {
    unsigned long *memory_pressure;
} __attribute__((preserve_access_index));

struct sock_common___here {
    struct proto___here *skc_prot;
} __attribute__((preserve_access_index));

struct sock___here {
    struct sock_common___here __sk_common;
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
    __u32 rcv_nxt;
    __u32 copied_seq;
    __u32 write_seq;
} __attribute__((preserve_access_index));

static __always_inline int by_tcp(struct culvert_lane *lane, __u32 slot, enum culvert_event event)
{
    if (lane->path != CULVERT_PATH_TCP)
        count(slot, event);
    lane->path = CULVERT_PATH_TCP;
    return SK_PASS;
}

/* Kernels that miscount copied_seq put it ahead of what has arrived. */
static __always_inline bool has_read_all(struct tcp_sock___here *receiver, __u32 write_seq)
{
    return BPF_CORE_READ(receiver, copied_seq) == write_seq && BPF_CORE_READ(receiver, rcv_nxt) == write_seq;
}

static __always_inline bool memory_is_short(const struct tcp_sock___here *tcp)
{
    unsigned long since = 0;

    bpf_core_read(&since, sizeof(since), tcp->inet_conn.icsk_inet.sk.__sk_common.skc_prot->memory_pressure);
    return since;
}

SEC("sk_msg")
int culvert_accelerate(struct sk_msg_md *msg)
{
    struct bpf_sock *sk = msg->sk;
    struct culvert_shortcut *shortcut;
    struct culvert_socket *socket;
    struct tcp_sock___here *tcp, *receiver;
    struct culvert_lane *lane;
    struct culvert_end peer;
    __u32 unread, slot;

    if (!sk)
        return SK_PASS;
    socket = bpf_sk_storage_get(&sockets, sk, 0, 0);
    if (!socket)
        return SK_PASS;
    shortcut = bpf_map_lookup_elem(&shortcuts, &socket->tuple);
    if (!shortcut)
        return SK_PASS;
    lane = &shortcut->lanes[socket->side == CULVERT_SIDE_CLIENT ? CULVERT_SIDE_CLIENT : CULVERT_SIDE_SERVER];
    if (lane->tcp_only)
        return SK_PASS;
    tcp = (struct tcp_sock___here *)bpf_skc_to_tcp_sock(sk);
    /* After the end of stream TCP has to refuse the message. */
    if (!tcp || (sk->state != BPF_TCP_ESTABLISHED && sk->state != BPF_TCP_CLOSE_WAIT))
        return SK_PASS;

    slot = socket->flow.source;
    receiver = (void *)lane->receiver;
    if (!receiver)
        return by_tcp(lane, slot, CULVERT_EVENT_WIRE_FIRST);
    /* Should the other end be closed by now these are stray numbers, and the redirection finds nobody. */
    if (tcp->inet_conn.icsk_ulp_ops || BPF_CORE_READ(receiver, inet_conn.icsk_ulp_ops) || !may_accelerate())
        return by_tcp(lane, slot, CULVERT_EVENT_WIRE_CHANGED);
    if (!has_read_all(receiver, tcp->write_seq))
        return by_tcp(lane, slot, CULVERT_EVENT_WIRE_FIRST);
    unread = BPF_CORE_READ(receiver, inet_conn.icsk_inet.sk.sk_backlog.rmem_alloc.counter);
    if (unread > CULVERT_SHORTCUT_UNREAD || memory_is_short(tcp))
        return by_tcp(lane, slot, CULVERT_EVENT_WIRE_BULK);

    peer.tuple = socket->tuple;
    peer.side = socket->side == CULVERT_SIDE_CLIENT ? CULVERT_SIDE_SERVER : CULVERT_SIDE_CLIENT;
    peer.padding = 0;
    if (bpf_msg_redirect_hash(msg, &ends, &peer, BPF_F_INGRESS) != SK_PASS)
        return by_tcp(lane, slot, CULVERT_EVENT_WIRE_CHANGED);
    lane->path = CULVERT_PATH_SHORT;
    lane->bytes += msg->size;
    return SK_PASS;
}

/* What the kernel cuts off at once, and how often: twice the largest packet without BIG TCP. */
#define MOST_CUT 4095u
#define MOST_CUTS 32

/* The start of a packet that begins with bytes that arrived before. */
static __always_inline void cut(struct __sk_buff *skb, __u32 count)
{
    for (int i = 0; i < MOST_CUTS && count; i++) {
        __u32 part = count < MOST_CUT ? count : MOST_CUT;

        if (bpf_skb_adjust_room(skb, -(__s32)part, 0, 0))
            break;
        count -= part;
    }
}

/* Passes everything. That it is there puts what comes by TCP into one queue with what is handed over, where it is counted
 * when an application asks how much there is to read (FIONREAD). The kernel takes a packet for that as it is, even one
 * sent again that begins with bytes which arrived before, and would have them read twice: they are cut off. */
SEC("sk_skb")
int culvert_verdict(struct __sk_buff *skb)
{
    struct tcp_skb_cb___here *packet = (void *)skb + bpf_core_field_offset(struct sk_buff___here, cb);
    struct culvert_shortcut *shortcut;
    struct culvert_tuple tuple;
    struct culvert_lane *lane;
    __u32 sequence = 0, length = skb->len, known;

    bpf_core_read(&sequence, sizeof(sequence), &packet->seq);
    NOTE_ADDRESSES(skb, &tuple);
    shortcut = bpf_map_lookup_elem(&shortcuts, &tuple);
    if (shortcut) {
        lane = &shortcut->lanes[CULVERT_SIDE_SERVER];
    } else {
        turn_around(&tuple);
        shortcut = bpf_map_lookup_elem(&shortcuts, &tuple);
        if (!shortcut)
            return SK_PASS;
        lane = &shortcut->lanes[CULVERT_SIDE_CLIENT];
    }
    known = lane->arrived - sequence;
    lane->arrived = sequence + length;
    if (known && known <= length)
        cut(skb, known);
    return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
