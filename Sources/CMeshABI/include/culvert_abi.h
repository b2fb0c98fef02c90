/* The agreement between the BPF programs (BPF/) and the daemon (MeshKernel): map keys, values, limits, counters.
 * Whoever changes the layout or the meaning of anything here raises CULVERT_ABI_VERSION: the version is part of the
 * pin path, so an upgraded daemon never reads old maps with new eyes. Names ending in _be hold network byte order. */
#ifndef CULVERT_ABI_H
#define CULVERT_ABI_H

#include <linux/types.h>

#define CULVERT_ABI_VERSION 1u

/* Limits. */
#define CULVERT_MAX_PODS 4096u      /* captured workloads of one node */
#define CULVERT_MAX_PROXY_CGROUPS 8u
#define CULVERT_MAX_OWN_ADDRESSES 8u /* addresses of one workload, both families together */
#define CULVERT_NAME_BYTES 320u     /* NAMESPACE/NAME: 63 + 1 + 253 and a zero, rounded up */
#define CULVERT_ROLES_PER_SLOT 4u   /* one role is spare */

/* Marks live only inside a pod's network namespace: veth scrubs them. Both marks match the routing rule. */
#define CULVERT_MARK_MASK 0x00000ff0u
#define CULVERT_MARK_MATCH 0x00000c50u
#define CULVERT_MARK_CAPTURED 0x00000c51u /* an application's socket, set by the connect hook */
#define CULVERT_MARK_UPSTREAM 0x00000c52u /* the proxy's socket towards the application, bound to the client's address */
#define CULVERT_ROUTE_TABLE 3152u
#define CULVERT_RULE_PRIORITY 3152u

/* Ports inside a pod, as Istio's. */
#define CULVERT_PORT_OUTBOUND 15001u
#define CULVERT_PORT_INBOUND 15006u
#define CULVERT_PORT_TUNNEL 15008u

/* Which listener of a slot; the key of `lst` is slot * CULVERT_ROLES_PER_SLOT + role. */
enum culvert_role {
    CULVERT_ROLE_OUTBOUND = 0,
    CULVERT_ROLE_INBOUND = 1,
    CULVERT_ROLE_TUNNEL = 2,
};

/* Index of the per-CPU array `stats`. */
enum culvert_event {
    CULVERT_EVENT_OUTBOUND_MARKED = 0,      /* a connect() that will go to the outbound listener */
    CULVERT_EVENT_OUTBOUND_STEERED = 1,     /* its SYN arrived at the outbound listener */
    CULVERT_EVENT_INBOUND_STEERED = 2,      /* a plaintext SYN given to the inbound listener */
    CULVERT_EVENT_TUNNEL_STEERED = 3,       /* a SYN for 15008 given to the tunnel listener */
    CULVERT_EVENT_LOCAL_PASSED = 4,         /* loopback, self calls, the proxy's leg to the application */
    CULVERT_EVENT_EXEMPT_PROXY = 5,         /* a connect() of the proxy itself */
    CULVERT_EVENT_EXEMPT_LOCAL = 6,         /* a connect() to loopback, unspecified, multicast or an own address */
    CULVERT_EVENT_DEVICE_CLEARED = 7,       /* a socket bound to a device was unbound so that it cannot escape */
    CULVERT_EVENT_REFUSED_NO_LISTENER = 8,  /* connect() refused: no outbound listener (proxy_unavailable) */
    CULVERT_EVENT_REFUSED_NO_ADDRESS = 9,   /* connect() refused: the workload has no address of that family */
    CULVERT_EVENT_REFUSED_LINK_LOCAL = 10,  /* connect() refused: IPv6 link-local would bypass the capture route */
    CULVERT_EVENT_REFUSED_DEVICE = 11,      /* connect() refused: the bound device could not be cleared */
    CULVERT_EVENT_REFUSED_MARK = 12,        /* connect() refused: the kernel did not accept the mark */
    CULVERT_EVENT_DROPPED_NO_LISTENER = 13, /* SYN dropped: the slot is empty (proxy_unavailable) */
    CULVERT_EVENT_DROPPED_ASSIGN = 14,      /* SYN dropped: the listener was not assignable, e.g. wrong family */
    CULVERT_EVENTS = 15,
};

/* An address as 16 bytes; IPv4 in its mapped form ::ffff:a.b.c.d, so that both families compare alike. */
struct culvert_address {
    __u32 word_be[4];
};

enum culvert_pod_flags {
    CULVERT_POD_ACTIVE = 1, /* the hooks see the entry; without it the entry only remembers saved settings */
    CULVERT_POD_IPV4 = 2,   /* has at least one IPv4 address */
    CULVERT_POD_IPV6 = 4,
};

/* Value of `pods`; the key is the __u64 cookie of the network namespace. */
struct culvert_pod {
    __u32 slot;
    __u32 flags;
    __u32 namespace_inode;
    /* What the daemon found before it changed them, to be restored at detach, also by a restarted daemon. */
    __u8 saved_tcp_fwmark_accept;
    __u8 saved_fwmark_reflect_v4;
    __u8 saved_fwmark_reflect_v6;
    __u8 own_count;
    struct culvert_address own[CULVERT_MAX_OWN_ADDRESSES];
};

/* Value of `names`, read by the daemon alone: which workload an entry of `pods` stands for, as NAMESPACE/NAME. */
struct culvert_name {
    char text[CULVERT_NAME_BYTES]; /* ends with a zero */
};

/* Constants of the connect hooks (.rodata). */
struct culvert_connect_config {
    __u32 refuse_with_errno; /* bpf_set_retval exists (5.18): ECONNREFUSED instead of EPERM */
    __u32 padding;
};

/* Constants of one workload's lookup program (.rodata). */
struct culvert_lookup_config {
    __u32 slot;
    __u32 loopback_ifindex;
    __u32 own_count;
    __u32 padding;
    struct culvert_address own[CULVERT_MAX_OWN_ADDRESSES];
};

_Static_assert(sizeof(struct culvert_address) == 16, "culvert_address");
_Static_assert(sizeof(struct culvert_pod) == 144, "culvert_pod");
_Static_assert(__builtin_offsetof(struct culvert_pod, own) == 16, "culvert_pod.own");
_Static_assert(sizeof(struct culvert_connect_config) == 8, "culvert_connect_config");
_Static_assert(sizeof(struct culvert_lookup_config) == 144, "culvert_lookup_config");
_Static_assert(__builtin_offsetof(struct culvert_lookup_config, own) == 16, "culvert_lookup_config.own");
_Static_assert((CULVERT_MARK_CAPTURED & CULVERT_MARK_MASK) == CULVERT_MARK_MATCH, "captured mark");
_Static_assert((CULVERT_MARK_UPSTREAM & CULVERT_MARK_MASK) == CULVERT_MARK_MATCH, "upstream mark");

#endif
