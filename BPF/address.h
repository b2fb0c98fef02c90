/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Addresses as the programs compare them: 16 bytes in network order, IPv4 mapped (RFC 4291 section 2.5.5.2). */
#pragma once

#include <stdbool.h>

#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "culvert_abi.h"

#define FAMILY_INET 2 /* <linux/socket.h> does not give AF_INET to BPF programs */

static __always_inline struct culvert_address address_v4(__u32 ip4_be)
{
    struct culvert_address address = {{0, 0, bpf_htonl(0xffff), ip4_be}};
    return address;
}

/* The verifier wants context fields read at constant offsets; the barrier keeps the compiler from merging the reads of
 * the two families into one through a computed pointer. The fields of the other family read as zero. */
static __always_inline struct culvert_address address_pick(__u32 family, __u32 ip4, __u32 a, __u32 b, __u32 c,
                                                           __u32 d)
{
    struct culvert_address address = {{a, b, c, d}};

    barrier_var(ip4);
    barrier_var(address.word_be[0]);
    barrier_var(address.word_be[1]);
    barrier_var(address.word_be[2]);
    barrier_var(address.word_be[3]);
    return family == FAMILY_INET ? address_v4(ip4) : address;
}

static __always_inline bool address_is_v4(const struct culvert_address *address)
{
    return !address->word_be[0] && !address->word_be[1] && address->word_be[2] == bpf_htonl(0xffff);
}

static __always_inline bool address_equal(const struct culvert_address *a, const volatile struct culvert_address *b)
{
    return a->word_be[0] == b->word_be[0] && a->word_be[1] == b->word_be[1] && a->word_be[2] == b->word_be[2] &&
           a->word_be[3] == b->word_be[3];
}

static __always_inline bool address_in(const struct culvert_address *address,
                                       const volatile struct culvert_address *list, __u32 length)
{
#pragma clang loop unroll(full)
    for (__u32 i = 0; i < CULVERT_MAX_OWN_ADDRESSES; i++) {
        if (i < length && address_equal(address, &list[i]))
            return true;
    }
    return false;
}

/* 127.0.0.0/8 or ::1. */
static __always_inline bool address_is_loopback(const struct culvert_address *address)
{
    if (address_is_v4(address))
        return (bpf_ntohl(address->word_be[3]) >> 24) == 127;
    return !address->word_be[0] && !address->word_be[1] && !address->word_be[2] &&
           address->word_be[3] == bpf_htonl(1);
}

/* 0.0.0.0 or ::, which connect() turns into loopback. */
static __always_inline bool address_is_unspecified(const struct culvert_address *address)
{
    if (address_is_v4(address))
        return address->word_be[3] == 0;
    return !address->word_be[0] && !address->word_be[1] && !address->word_be[2] && !address->word_be[3];
}

/* 224.0.0.0/4 or ff00::/8. */
static __always_inline bool address_is_multicast(const struct culvert_address *address)
{
    if (address_is_v4(address))
        return (bpf_ntohl(address->word_be[3]) >> 28) == 0xe;
    return (bpf_ntohl(address->word_be[0]) >> 24) == 0xff;
}

/* fe80::/10. */
static __always_inline bool address_is_link_local_v6(const struct culvert_address *address)
{
    return (bpf_ntohl(address->word_be[0]) >> 22) == 0x3fa;
}
