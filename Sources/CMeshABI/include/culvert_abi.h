/* The agreement between the BPF programs (BPF/) and the daemon (MeshKernel): map keys, values, limits, counters.
 * Whoever changes the layout or the meaning of anything here raises CULVERT_ABI_VERSION: the version is part of the
 * pin path, so an upgraded daemon never reads old maps with new eyes. Names ending in _be hold network byte order. */
#ifndef CULVERT_ABI_H
#define CULVERT_ABI_H

#include <linux/types.h>

#define CULVERT_ABI_VERSION 3u

/* Limits. */
#define CULVERT_MAX_PODS 4096u      /* captured workloads of one node */
#define CULVERT_MAX_PROXY_CGROUPS 8u
#define CULVERT_MAX_AGENT_CGROUPS 4u /* where the node's agent may run */
#define CULVERT_MAX_OWN_ADDRESSES 8u /* addresses of one workload, both families together */
#define CULVERT_NAME_BYTES 320u     /* NAMESPACE/NAME: 63 + 1 + 253 and a zero, rounded up */
#define CULVERT_ROLES_PER_SLOT 4u
#define CULVERT_MAX_ENDPOINTS (CULVERT_MAX_PODS * CULVERT_MAX_OWN_ADDRESSES)
#define CULVERT_MAX_RULES 65536u    /* pairs of workloads whose connections may be direct */
#define CULVERT_MAX_RULE_PORTS 28u  /* ports of one pair that are decided otherwise than the rest */
#define CULVERT_MAX_SERVICES 16384u /* addresses and ports of services whose endpoints are all on this node */
#define CULVERT_MAX_SERVICE_ENDPOINTS 8u
#define CULVERT_MAX_FLOWS 65536u    /* connections that a lookup program must know by their addresses */
#define CULVERT_FLOWS_RESERVED 4096u /* of those, what new direct connections leave free */
#define CULVERT_LEGS_RESERVED 64u   /* what the proxy's legs leave free: connects under way on all CPUs at once */
#define CULVERT_MAX_PORT_SCOPES 65536u /* ports that are excluded or included, of all workloads together */
#define CULVERT_MAX_RANGE_SCOPES 65536u /* ranges of addresses likewise */
#define CULVERT_MAX_SHORTCUTS 32768u /* accelerated connections */
#define CULVERT_SHORTCUT_UNREAD 1048576u /* with more bytes that wait unread the next message goes by TCP */
#define CULVERT_SHORTCUT_KEEPALIVE 300 /* seconds of silence on the wire before the kernel probes the peer */
#define CULVERT_MAX_QUESTIONS 64u
#define CULVERT_MAX_PENDING 16384u   /* connects whose destination was rewritten and that have no ports yet (L2) */
#define CULVERT_RING_BYTES (1u << 20) /* closed connections that wait for the daemon: about 7,700 */
#define CULVERT_EVENTS_ROOM 64u     /* counters of one workload, with room for later ones */

/* The key of `stats` under which the counters of workloads that are gone are kept. */
#define CULVERT_SLOT_RETIRED 0xffffffffu

/* Marks live only inside a pod's network namespace: veth scrubs them. Both marks match the routing rule. */
#define CULVERT_MARK_MASK 0x00000ff0u
#define CULVERT_MARK_MATCH 0x00000c50u
#define CULVERT_MARK_CAPTURED 0x00000c51u /* an application's socket, set by the connect hook */
#define CULVERT_MARK_UPSTREAM 0x00000c52u /* the proxy's socket towards the application, bound to the client's address */
/* At levels without programs: any other socket of the proxy inside a pod. Not for the rule; filter rules let it pass. */
#define CULVERT_MARK_PROXY 0x00000c61u
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
    CULVERT_ROLE_DNS = 3, /* a UDP socket */
};

/* Index into `culvert_counters`, the value of `stats`. */
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
    CULVERT_EVENT_DIRECT = 15,              /* a connect() allowed to go straight to a workload of this node */
    CULVERT_EVENT_DIRECT_PASSED = 16,       /* its SYN was let through to the application */
    CULVERT_EVENT_DIRECT_NO_RULE = 17,      /* to a workload of this node, but policy wants the proxy to decide */
    CULVERT_EVENT_DIRECT_STALE = 18,        /* the rule is of an older policy: the proxy decides */
    CULVERT_EVENT_DIRECT_FULL = 19,         /* no room to follow another direct connection: through the proxy */
    CULVERT_EVENT_DIRECT_DEVICE = 20,       /* a socket bound to a device: through the proxy */
    CULVERT_EVENT_DIRECT_LOST = 21,         /* a direct connection could not be noted and is judged as plaintext */
    CULVERT_EVENT_RECORD_LOST = 22,         /* the record of a closed direct connection found no room in the ring */
    CULVERT_EVENT_EXEMPT_EXCLUDED = 23,     /* a connect() that the operator keeps out of the mesh */
    CULVERT_EVENT_EXCLUDED_PASSED = 24,     /* a SYN from outside for a port that the operator keeps out of the mesh */
    CULVERT_EVENT_ACCELERATED = 25,         /* both ends of a direct connection may hand bytes to each other */
    CULVERT_EVENT_ACCELERATION_REFUSED = 26, /* an end could not be enrolled: MPTCP, fast open, a ULP, no room */
    CULVERT_EVENT_WIRE_FIRST = 27,          /* a direction began by TCP: the other end was not known yet */
    CULVERT_EVENT_WIRE_BULK = 28,           /* a turn to TCP: the reader fell behind, or memory is short */
    CULVERT_EVENT_WIRE_CHANGED = 29,        /* a turn to TCP: the switch, a ULP, or the peer is gone */
    CULVERT_EVENT_PROBE = 30,               /* a connect() of the node's agent to a workload of this node */
    CULVERT_EVENT_PROBE_PASSED = 31,        /* its SYN was let through to the application */
    CULVERT_EVENT_PROBE_LOST = 32,          /* such a connection could not be noted and is judged as plaintext */
    CULVERT_EVENT_REFUSED_LEG = 33,         /* L1: no room to note the proxy's leg to the application */
    CULVERT_EVENT_DNS_CAPTURED = 34,        /* a DNS server addressed by UDP: the proxy's takes its place */
    CULVERT_EVENT_DNS_REFUSED = 35,         /* refused: DNS is captured and the proxy's server is not there */
    CULVERT_EVENT_DNS_PASSED = 36,          /* left alone: the socket is bound to a device, or no alias was free */
    CULVERT_EVENT_REFUSED_UNNOTED = 37,     /* L2: no room to note where a connect() was going */
    CULVERT_EVENT_DIRECT_MOVED = 38,        /* another program sent a direct connection elsewhere: through the proxy */
    CULVERT_EVENT_CONNECTION_FORGOTTEN = 39, /* by rules (L2, L3): reset, for it has no entry in the connection table */
    CULVERT_EVENTS = 40,
};

/* Value of the per-CPU hash `stats`; the key is the workload's slot. */
struct culvert_counters {
    __u64 events[CULVERT_EVENTS_ROOM];
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

/* The one value of the array `control`, written by the daemon alone. */
struct culvert_control {
    __u32 generation; /* of the rules that count; a rule of another generation is as good as none */
    __u32 flags;      /* enum culvert_control_flags */
};

enum culvert_control_flags {
    CULVERT_CONTROL_DIRECT = 1,     /* same-node connections may be direct */
    CULVERT_CONTROL_ACCELERATE = 2, /* direct connections may bypass TCP; without it those that do stop at once */
};

/* Key of `rules`: who calls whom, both workloads of this node. */
struct culvert_pair {
    __u32 source;
    __u32 destination;
};

enum culvert_rule_flags {
    CULVERT_RULE_DIRECT = 1,      /* ports that are not listed: set, direct; else through the proxy */
    CULVERT_RULE_ACCELERATED = 2, /* direct connections of this pair may bypass the TCP stack */
};

/* In `culvert_flow` beside those of the rule. */
enum culvert_flow_flags {
    CULVERT_FLOW_BY_SERVICE = 4, /* the application asked for a service, and the hook chose the endpoint */
};

/* Value of `rules`: the ports listed are decided the other way round than CULVERT_RULE_DIRECT says. */
struct culvert_rule {
    __u32 generation;
    __u16 flags;
    __u16 port_count;
    __u16 ports[CULVERT_MAX_RULE_PORTS];
};

/* Key of `services`, in host order where not marked; also an endpoint in its value. */
struct culvert_endpoint {
    struct culvert_address address;
    __u16 port;
    __u16 padding;
};

/* Value of `services`: all the endpoints of one port of a service, each a workload of this node. */
struct culvert_service {
    __u32 count;
    struct culvert_endpoint endpoints[CULVERT_MAX_SERVICE_ENDPOINTS];
};

/* Value of the array `agent_cg`. */
struct culvert_cgroup {
    __u64 id;    /* 0: none */
    __u32 level; /* how many ancestors it has */
    __u32 padding;
};

enum culvert_direction {
    CULVERT_OUTBOUND = 0,
    CULVERT_INBOUND = 1,
};

/* Value of `port_scopes` and `range_scopes`. */
enum culvert_scope {
    CULVERT_SCOPE_OPEN = 0, /* nothing is said here */
    CULVERT_SCOPE_CAPTURED = 1,
    CULVERT_SCOPE_EXCLUDED = 2,
};

/* Key of `port_scopes`. The entry of port 0 holds for what no other entry of the slot and direction names; it is there
 * as long as any other is. */
struct culvert_port {
    __u32 slot;
    __u16 port;      /* host order */
    __u16 direction; /* enum culvert_direction */
};

/* Key of `range_scopes`, a trie of prefixes: `prefix_bits` counts those of the slot and of the address. */
struct culvert_range {
    __u32 prefix_bits;
    __u32 slot;
    struct culvert_address address;
};

#define CULVERT_RANGE_BITS 160u /* of a whole address, behind its slot */

/* A connection as its server sees it. Ports in host order. */
struct culvert_tuple {
    struct culvert_address client;
    struct culvert_address server;
    __u16 client_port;
    __u16 server_port;
    __u32 padding;
};

enum culvert_flow_kind {
    CULVERT_FLOW_NONE = 0,
    CULVERT_FLOW_DIRECT = 1,      /* allowed by a rule, between two workloads of this node */
    CULVERT_FLOW_APPLICATION = 2, /* the proxy's leg to the application */
    CULVERT_FLOW_PROBE = 3,       /* a health probe of the node's own agent */
};

/* Value of `flows`: what the lookup program at the server's side has to let through. */
struct culvert_flow {
    __u64 started_ns; /* bpf_ktime_get_ns */
    __u32 source;     /* slot of the client; CULVERT_SLOT_RETIRED: no workload */
    __u32 destination;
    __u32 generation; /* of the rule that allowed it, or of the one that last confirmed it */
    __u16 kind;       /* enum culvert_flow_kind */
    __u16 flags;      /* enum culvert_rule_flags, enum culvert_flow_flags */
};

/* Storage of a socket that the hooks decided about. It lives as long as the socket, also across an upgrade of the
 * programs: within a version it is only ever appended to. */
struct culvert_socket {
    struct culvert_tuple tuple; /* set at connect, when all of it is known */
    struct culvert_flow flow;
    __u32 fin_wait_rcv_nxt;     /* rcv_nxt when the peer had acknowledged our FIN */
    __u8 fins;                  /* bit 0: the peer's FIN was received, bit 1: ours was acknowledged */
    __u8 established;
    __u8 padding[2];
    struct culvert_endpoint asked; /* the service that the application asked for; port 0: none */
    __u32 side;                    /* enum culvert_side, of accelerated connections alone */
};

/* Which end of a connection. */
enum culvert_side {
    CULVERT_SIDE_CLIENT = 0,
    CULVERT_SIDE_SERVER = 1,
    CULVERT_SIDES = 2,
};

/* Key of `ends`, the sockets of accelerated connections. */
struct culvert_end {
    struct culvert_tuple tuple;
    __u32 side;
    __u32 padding;
};

/* How the last message of a direction went. */
enum culvert_path {
    CULVERT_PATH_NONE = 0,  /* nothing was sent */
    CULVERT_PATH_SHORT = 1, /* straight into the receiver's queue */
    CULVERT_PATH_TCP = 2,
};

/* One direction of an accelerated connection. */
struct culvert_lane {
    __u64 bytes;    /* that did not go by TCP */
    __u64 receiver; /* where the kernel has the socket at the other end; 0: it is not enrolled */
    __u32 path;     /* enum culvert_path */
    __u32 tcp_only; /* from now on; never taken back */
    __u32 arrived;  /* TCP's next byte for the receiver's queue */
    __u32 padding;
};

/* Value of `shortcuts`, by the side that sends; the key is the connection's culvert_tuple. */
struct culvert_shortcut {
    struct culvert_lane lanes[CULVERT_SIDES];
};

/* A record of the ring `closed`: a direct connection that is over, told by the client's socket. */
struct culvert_closed {
    struct culvert_tuple tuple;
    struct culvert_flow flow;
    __u64 ended_ns;
    __u64 bytes_sent;     /* payload that the server acknowledged */
    __u64 bytes_received; /* payload from the server */
    __u64 bytes_short;    /* of both, what did not go by TCP */
    __u32 srtt_us;
    __u32 retransmits;
    __u8 established;     /* 0: the connection was never made */
    __u8 orderly;         /* the server acknowledged the client's end of stream: nothing sent was lost */
    __u8 padding[2];
    struct culvert_endpoint asked; /* the service that the application asked for; port 0: none */
};

/* Constants of the connect hooks (.rodata). */
struct culvert_connect_config {
    __u32 refuse_with_errno; /* bpf_set_retval exists (5.18): ECONNREFUSED instead of EPERM */
    __u32 notes_legs;        /* the lookup programs know the proxy's legs by their addresses alone (L1) */
    __u32 sees_multipath;    /* bpf_skc_to_mptcp_sock may be called (5.19, CAP_PERFMON) */
    __u32 answers_questions; /* the daemon learns the cookies of namespaces from the hooks */
};

/* Constants of the program that follows sockets (.rodata). */
struct culvert_flows_config {
    __u32 accelerate; /* what acceleration needs was found: without it its code is not even loaded */
    __u32 padding;
};

/* Constants of one workload's lookup program (.rodata). */
struct culvert_lookup_config {
    __u32 slot;
    __u32 loopback_ifindex;
    __u32 own_count;
    __u32 sees_ingress; /* bpf_sk_lookup has ingress_ifindex (5.17) */
    struct culvert_address own[CULVERT_MAX_OWN_ADDRESSES];
};

/* ---- DNS (dns.bpf.c) ----
 *
 * A DNS server that an application addresses by UDP is replaced by an alias: an address that lo takes, under which the
 * proxy listens. The alias stands for the server, so the proxy learns from the address a question came to whom it was
 * meant for, and whatever comes back from it is shown as coming from the server: for any number of servers a socket,
 * connected or not, without any state of the socket.
 *
 *     127.64.0.0/10 and CULVERT_DNS_PREFIX/96, in the lower 22 bits: the key of `dns_servers` */
#define CULVERT_PORT_DNS 15053u
#define CULVERT_PORT_DOMAIN 53u
#define CULVERT_DNS_ALIAS_MASK 0x003fffffu
#define CULVERT_DNS_ALIAS_V4 0x7f400000u /* with room: no alias is a broadcast address of 127.0.0.0/8 */
#define CULVERT_DNS_PREFIX_0 0xfd63756cu /* fd63:756c:7665:7274::/96, of RFC 4193: routed to lo where DNS is captured */
#define CULVERT_DNS_PREFIX_1 0x76657274u
#define CULVERT_DNS_PREFIX_BITS 96u
/* Servers in use; the one not used for longest is forgotten, and the node's own resolvers are asked in its place. */
#define CULVERT_MAX_DNS_SERVERS 8192u
#define CULVERT_DNS_PROBES 4u /* aliases tried for a server whose first choice stands for another */

/* Value of `dns_pods`: a workload whose DNS is captured; the key is the __u64 cookie of its network namespace. */
struct culvert_dns_pod {
    __u32 slot;
    __u32 ipv6; /* the prefix is routed to lo */
};

_Static_assert(sizeof(struct culvert_dns_pod) == 8, "culvert_dns_pod");
_Static_assert(sizeof(struct culvert_address) == 16, "culvert_address");
_Static_assert(sizeof(struct culvert_pod) == 144, "culvert_pod");
_Static_assert(__builtin_offsetof(struct culvert_pod, own) == 16, "culvert_pod.own");
_Static_assert(sizeof(struct culvert_connect_config) == 16, "culvert_connect_config");
_Static_assert(sizeof(struct culvert_lookup_config) == 144, "culvert_lookup_config");
_Static_assert(__builtin_offsetof(struct culvert_lookup_config, own) == 16, "culvert_lookup_config.own");
_Static_assert(sizeof(struct culvert_rule) == 64, "culvert_rule");
_Static_assert(sizeof(struct culvert_cgroup) == 16, "culvert_cgroup");
_Static_assert(sizeof(struct culvert_port) == 8, "culvert_port");
_Static_assert(sizeof(struct culvert_range) == 24, "culvert_range");
_Static_assert(sizeof(struct culvert_tuple) == 40, "culvert_tuple");
_Static_assert(sizeof(struct culvert_flow) == 24, "culvert_flow");
_Static_assert(sizeof(struct culvert_endpoint) == 20, "culvert_endpoint");
_Static_assert(sizeof(struct culvert_service) == 164, "culvert_service");
_Static_assert(__builtin_offsetof(struct culvert_socket, asked) == 72, "culvert_socket.asked");
_Static_assert(sizeof(struct culvert_end) == 48, "culvert_end");
_Static_assert(sizeof(struct culvert_shortcut) == 64, "culvert_shortcut");
_Static_assert(__builtin_offsetof(struct culvert_socket, side) == 92, "culvert_socket.side");
_Static_assert(sizeof(struct culvert_closed) == 128, "culvert_closed");
_Static_assert(CULVERT_EVENTS <= CULVERT_EVENTS_ROOM, "room for counters");
_Static_assert((CULVERT_MARK_CAPTURED & CULVERT_MARK_MASK) == CULVERT_MARK_MATCH, "captured mark");
_Static_assert((CULVERT_MARK_UPSTREAM & CULVERT_MARK_MASK) == CULVERT_MARK_MATCH, "upstream mark");
_Static_assert((CULVERT_MARK_PROXY & CULVERT_MARK_MASK) != CULVERT_MARK_MATCH, "proxy mark");

#endif
