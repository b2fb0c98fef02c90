/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Loads only where sk_lookup is told the device a SYN arrived at (Linux 5.17): what tells capture level L0 from L1. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("sk_lookup")
int probe_device(struct bpf_sk_lookup *context)
{
    return context->ingress_ifindex ? SK_PASS : SK_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
