/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How a socket knows its connection once the kernel has chosen all of it. */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "address.h"
#include "culvert_abi.h"

/* As the client's socket does. `ctx` is a context with the addresses of a socket: sock_ops or sk_skb. */
#define NOTE_ADDRESSES(ctx, tuple)                                                                                     \
    do {                                                                                                               \
        (tuple)->client = address_pick((ctx)->family, (ctx)->local_ip4, (ctx)->local_ip6[0], (ctx)->local_ip6[1],      \
                                       (ctx)->local_ip6[2], (ctx)->local_ip6[3]);                                      \
        (tuple)->server = address_pick((ctx)->family, (ctx)->remote_ip4, (ctx)->remote_ip6[0], (ctx)->remote_ip6[1],   \
                                       (ctx)->remote_ip6[2], (ctx)->remote_ip6[3]);                                    \
        (tuple)->client_port = (ctx)->local_port;                                                                      \
        (tuple)->server_port = bpf_ntohl((ctx)->remote_port);                                                          \
        (tuple)->padding = 0;                                                                                          \
    } while (0)

/* The same, seen from the other end. */
static __always_inline void turn_around(struct culvert_tuple *tuple)
{
    struct culvert_address client = tuple->client;
    __u16 port = tuple->client_port;

    tuple->client = tuple->server;
    tuple->client_port = tuple->server_port;
    tuple->server = client;
    tuple->server_port = port;
}
