#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

_Noreturn void give_up(const char *what)
{
    fprintf(stderr, "culvert-load: %s: %s\n", what, strerror(errno));
    exit(2);
}

uint64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t seconds_to_ns(double seconds) { return (uint64_t)(seconds * 1e9); }

bool parse_target(const char *text, struct target *target)
{
    char host[INET6_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');
    char *end;
    unsigned long port;
    size_t length;

    if (!colon)
        return false;
    port = strtoul(colon + 1, &end, 10);
    if (end == colon + 1 || *end || port == 0 || port > 65535)
        return false;
    length = (size_t)(colon - text);
    memset(target, 0, sizeof(*target));
    if (length > 2 && text[0] == '[' && colon[-1] == ']') {
        struct sockaddr_in6 *address = (struct sockaddr_in6 *)&target->address;

        length -= 2;
        if (length >= sizeof(host))
            return false;
        memcpy(host, text + 1, length);
        host[length] = 0;
        address->sin6_family = AF_INET6;
        address->sin6_port = htons((uint16_t)port);
        target->length = sizeof(*address);
        return inet_pton(AF_INET6, host, &address->sin6_addr) == 1;
    }
    struct sockaddr_in *address = (struct sockaddr_in *)&target->address;

    if (length >= sizeof(host))
        return false;
    memcpy(host, text, length);
    host[length] = 0;
    address->sin_family = AF_INET;
    address->sin_port = htons((uint16_t)port);
    target->length = sizeof(*address);
    return inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

int open_socket(const struct target *target)
{
    int on = 1;
    int descriptor = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (descriptor < 0)
        give_up("socket");
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return descriptor;
}

int start_connect(int socket, const struct target *target)
{
    if (connect(socket, (const struct sockaddr *)&target->address, target->length) == 0 || errno == EINPROGRESS)
        return 0;
    return errno;
}

int finish_connect(int socket)
{
    int error = 0;
    socklen_t length = sizeof(error);

    if (getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        return errno;
    return error;
}

void watch(int poller, int operation, int descriptor, uint32_t events, uint64_t tag)
{
    struct epoll_event event = {.events = events, .data.u64 = tag};

    if (epoll_ctl(poller, operation, descriptor, &event) < 0)
        give_up("epoll_ctl");
}

void fill(uint8_t *bytes, size_t length, uint64_t connection, uint64_t sequence)
{
    /* SplitMix64. */
    uint64_t state = connection * 0x9e3779b97f4a7c15u + sequence * 0xd1342543de82ef95u;

    for (size_t done = 0; done < length; done += sizeof(uint64_t)) {
        uint64_t word = state += 0x9e3779b97f4a7c15u;
        size_t part = length - done < sizeof(word) ? length - done : sizeof(word);

        word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
        word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
        word ^= word >> 31;
        memcpy(bytes + done, &word, part);
    }
}

void count_failure(struct failures *failures, int error)
{
    switch (error) {
    case ECONNREFUSED: failures->refused++; break;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE: failures->reset++; break;
    case ETIMEDOUT: failures->timed_out++; break;
    case EADDRNOTAVAIL: failures->no_port++; break;
    default:
        failures->other++;
        failures->last_other = error;
    }
}

uint64_t failure_count(const struct failures *failures)
{
    return failures->refused + failures->reset + failures->timed_out + failures->no_port + failures->cut_short +
           failures->corrupted + failures->other;
}

void print_failures(const struct failures *failures)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    printf("\"cpu_seconds\": %.6f, \"failed\": %lu, \"refused\": %lu, \"reset\": %lu, \"timed_out\": %lu, \"no_port\": %lu, "
           "\"cut_short\": %lu, \"corrupted\": %lu, \"other\": %lu",
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6,
           failure_count(failures), failures->refused, failures->reset, failures->timed_out, failures->no_port,
           failures->cut_short, failures->corrupted, failures->other);
    if (failures->other)
        printf(", \"last_other\": \"%s\"", strerror(failures->last_other));
}

void record(struct histogram *histogram, uint64_t value)
{
    size_t bucket = value;

    if (value >= HISTOGRAM_STEPS) {
        unsigned power = 63u - (unsigned)__builtin_clzll(value);

        /* `value` shifted so that its first bit is the one worth 32: the five bits after it are the step. */
        bucket = (size_t)(power - 4) * HISTOGRAM_STEPS + (value >> (power - 5)) % HISTOGRAM_STEPS;
    }
    histogram->buckets[bucket]++;
    histogram->count++;
}

uint64_t quantile(const struct histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)((double)histogram->count * share);
    uint64_t seen = 0;

    for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen > wanted || (seen && seen == histogram->count)) {
            size_t power = bucket / HISTOGRAM_STEPS;

            if (power == 0)
                return bucket;
            return (uint64_t)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS) << (power - 1);
        }
    }
    return 0;
}
