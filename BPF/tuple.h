/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How the client's socket knows its connection once the kernel has chosen all of it. */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "address.h"
#include "culvert_abi.h"

static __always_inline void note_addresses(struct bpf_sock_ops *ctx, struct culvert_tuple *tuple)
{
    tuple->client = address_pick(ctx->family, ctx->local_ip4, ctx->local_ip6[0], ctx->local_ip6[1],
                                 ctx->local_ip6[2], ctx->local_ip6[3]);
    tuple->server = address_pick(ctx->family, ctx->remote_ip4, ctx->remote_ip6[0], ctx->remote_ip6[1],
                                 ctx->remote_ip6[2], ctx->remote_ip6[3]);
    tuple->client_port = ctx->local_port;
    tuple->server_port = bpf_ntohl(ctx->remote_port);
    tuple->padding = 0;
}
