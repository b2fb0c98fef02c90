/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What all hooks on socket addresses have in common. */
#pragma once

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "address.h"
#include "culvert_abi.h"
#include "workloads.h"

#define ALLOW 1
#define REFUSE 0
#define SOCKET_STREAM 1 /* <linux/net.h> keeps SOCK_STREAM from user space */

/* Sockets of the daemon, by their cookies, that ask for the cookie of their network namespace: connect() is the
 * question, for kernels without SO_NETNS_COOKIE (before 5.14). */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_QUESTIONS);
    __type(key, __u64);
    __type(value, __u64);
} questions SEC(".maps");

const volatile struct culvert_connect_config config = {};

static __always_inline void answer_question(struct bpf_sock_addr *ctx, __u64 namespace_cookie)
{
    __u64 socket_cookie, *answer;

    if (!config.answers_questions)
        return;
    socket_cookie = bpf_get_socket_cookie(ctx);
    answer = bpf_map_lookup_elem(&questions, &socket_cookie);
    if (answer)
        *answer = namespace_cookie;
}

/* By the cgroup of the task that connects, which an application cannot forge. */
static __always_inline bool is_proxy(void)
{
    __u64 cgroup = bpf_get_current_cgroup_id();

    return bpf_map_lookup_elem(&proxy_cg, &cgroup);
}

static __always_inline bool is_tcp(struct bpf_sock_addr *ctx)
{
    return ctx->type == SOCKET_STREAM && ctx->protocol == IPPROTO_TCP;
}

/* Puts an address in the place of the one that was given, or that is shown. Only the hook's own family of fields may be
 * written. */
static __always_inline void put_v4(struct bpf_sock_addr *ctx, const struct culvert_address *address, __u16 port)
{
    ctx->user_ip4 = address->word_be[3];
    ctx->user_port = bpf_htons(port);
}

static __always_inline void put_v6(struct bpf_sock_addr *ctx, const struct culvert_address *address, __u16 port)
{
    ctx->user_ip6[0] = address->word_be[0];
    ctx->user_ip6[1] = address->word_be[1];
    ctx->user_ip6[2] = address->word_be[2];
    ctx->user_ip6[3] = address->word_be[3];
    ctx->user_port = bpf_htons(port);
}

/* What a namespace keeps to itself: its loopback and own addresses. TCP to a multicast address goes nowhere. */
static __always_inline bool stays_inside(const struct culvert_pod *pod, const struct culvert_address *destination)
{
    return address_is_loopback(destination) || address_is_unspecified(destination) ||
           address_is_multicast(destination) || address_in(destination, pod->own, pod->own_count);
}

static __always_inline int refuse(__u32 slot, enum culvert_event event, int error)
{
    count(slot, event);
    /* The branch is dead code for the verifier where the helper does not exist; return 0 alone means EPERM. */
    if (config.refuse_with_errno)
        bpf_set_retval(-error);
    return REFUSE;
}
