/* culvert-load: traffic that counts exactly and checks every byte it gets back. One thread, one epoll set a process.
 *
 *     serve     echoes what it gets, and sinks what it gets on another port
 *     rr        round trips on connections that stay open
 *     connect   opens, one round trip, closes; as fast as it goes
 *     bulk      streams to a sink, which tells how much arrived
 *     times     how long connect() itself takes
 *     hold      many connections open at once
 *
 * Every client prints one line of JSON and exits 0 when nothing failed, 1 when anything did, 2 for bad usage. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    MAX_TARGETS = 16,
    MAX_MESSAGE = 64 << 10,
    STREAM_CHUNK = 256 << 10,
    EVENTS_PER_WAIT = 256,
};

struct target {
    struct sockaddr_storage address;
    socklen_t length;
};

/* What the command line asks for; a mode reads only what its usage line names. */
struct options {
    struct target targets[MAX_TARGETS];
    size_t target_count;
    struct target echo, sink;
    double seconds;       /* how long to go on */
    double patience;      /* how long one step of one connection may take */
    uint64_t count;       /* connections, or 0 for no limit but the time */
    unsigned connections; /* at a time */
    unsigned size;        /* bytes of a message */
};

/* Every way a connection can fail, each counted once per connection. */
struct failures {
    uint64_t refused;   /* ECONNREFUSED */
    uint64_t reset;     /* ECONNRESET, ECONNABORTED, EPIPE */
    uint64_t timed_out; /* no progress within the patience, or ETIMEDOUT */
    uint64_t no_port;   /* EADDRNOTAVAIL */
    uint64_t cut_short; /* closed in order before the whole answer */
    uint64_t corrupted; /* an answer that is not the question */
    uint64_t other;
    int last_other; /* errno */
};

/* Log-linear: 32 steps per power of two, so a value is known to 3 %. */
enum { HISTOGRAM_STEPS = 32, HISTOGRAM_BUCKETS = 60 * HISTOGRAM_STEPS };
struct histogram {
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t count;
};

int serve(const struct options *options);
int round_trips(const struct options *options);
int short_connections(const struct options *options);
int bulk(const struct options *options);
int connect_times(const struct options *options);
int hold(const struct options *options);

/* Prints why and exits with 2: the machine or the caller is at fault, not the network under test. */
_Noreturn void give_up(const char *what);

uint64_t now_ns(void);
uint64_t seconds_to_ns(double seconds);

bool parse_target(const char *text, struct target *target);

/* A non-blocking TCP socket without Nagle's delay. */
int open_socket(const struct target *target);
/* Starts a connect: 0 when under way or done, else errno. */
int start_connect(int socket, const struct target *target);
/* The outcome of a connect that epoll reported: 0 or errno. */
int finish_connect(int socket);

void watch(int poller, int operation, int descriptor, uint32_t events, uint64_t tag);

/* Bytes that differ for every (connection, sequence). */
void fill(uint8_t *bytes, size_t length, uint64_t connection, uint64_t sequence);

void count_failure(struct failures *failures, int error);
uint64_t failure_count(const struct failures *failures);
/* `"cpu_seconds": 0.5, "failed": 1, "refused": 1, …` without braces: what every report ends with. */
void print_failures(const struct failures *failures);

void record(struct histogram *histogram, uint64_t value);
/* The value below which `share` (0…1) of all values lie. */
uint64_t quantile(const struct histogram *histogram, double share);
