/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What `culvert preflight` tries out on sockets of its own: nothing here ever sees an application's. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* The sender at 0, the receiver at 1. */
struct {
    __uint(type, BPF_MAP_TYPE_SOCKMAP);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u64);
} sockets SEC(".maps");

SEC("sk_msg")
int probe_message(struct sk_msg_md *message)
{
    return bpf_msg_redirect_map(message, &sockets, 1, BPF_F_INGRESS);
}

/* Attached as BPF_SK_SKB_VERDICT: with it a receiver's bytes take the path on which FIONREAD counts them. */
SEC("sk_skb")
int probe_verdict(struct __sk_buff *packet)
{
    (void)packet;
    return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
