#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exchange.h"

static int in_order(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;

    return (first > second) - (first < second);
}

/* Blocking connects, one after the other, all kept open to the end so that no closing is timed. */
int connect_times(const struct options *options)
{
    struct failures failures = {0};
    int *descriptors = calloc(options->count, sizeof(*descriptors));
    uint64_t *times = calloc(options->count, sizeof(*times));
    const struct target *target = &options->targets[0];
    uint64_t done = 0;

    if (!descriptors || !times)
        give_up("memory");
    for (uint64_t i = 0; i < options->count; i++) {
        uint64_t start;

        descriptors[i] = socket(target->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (descriptors[i] < 0)
            give_up("socket");
        start = now_ns();
        if (connect(descriptors[i], (const struct sockaddr *)&target->address, target->length) < 0)
            count_failure(&failures, errno);
        else
            times[done++] = now_ns() - start;
    }
    for (uint64_t i = 0; i < options->count; i++)
        close(descriptors[i]);
    qsort(times, done, sizeof(*times), in_order);
    printf("{\"mode\": \"times\", \"done\": %lu, \"p10_ns\": %lu, \"p50_ns\": %lu, \"p90_ns\": %lu, ", done,
           times[done / 10], times[done / 2], times[done * 9 / 10]);
    print_failures(&failures);
    puts("}");
    return failure_count(&failures) ? 1 : 0;
}

/* Opens `count` connections to each target, one exchange each, and keeps them. Says `ready`, waits for a line or the
 * end of its input, and does one more exchange on every connection. */
struct crowd {
    const struct options *options;
    struct failures failures;
    struct exchange *members;
    uint64_t size;
    int poller;
};

/* One more exchange on each member, at most `connections` at a time; opens those that are not open when `opening`.
 * Returns how many succeeded. */
static uint64_t go_round(struct crowd *crowd, bool opening)
{
    const struct options *options = crowd->options;
    struct epoll_event events[EVENTS_PER_WAIT];
    uint64_t next = 0, done = 0, busy = 0, last_look = now_ns();

    while (busy || next < crowd->size) {
        uint64_t now;
        int count;

        while (busy < options->connections && next < crowd->size) {
            struct exchange *member = &crowd->members[next];
            enum progress progress = FAILED;

            if (opening) {
                prepare(member, options->size);
                member->connection = next;
                progress = begin(member, crowd->poller, next, &options->targets[next % options->target_count],
                                 options, &crowd->failures);
            } else if (member->descriptor >= 0) {
                progress = ask(member, crowd->poller, next, options, &crowd->failures);
            }
            busy += progress == PENDING;
            next++;
        }
        if (!busy)
            continue;
        count = epoll_wait(crowd->poller, events, EVENTS_PER_WAIT, 100);
        if (count < 0 && errno != EINTR)
            give_up("epoll_wait");
        for (int e = 0; e < count; e++) {
            uint64_t i = events[e].data.u64;
            struct exchange *member = &crowd->members[i];
            enum progress progress;

            /* Between the rounds only the end of a connection can be news. */
            if (member->step == IDLE) {
                crowd->failures.cut_short++;
                finish(member);
                continue;
            }
            progress = advance(member, crowd->poller, i, options, &crowd->failures);
            if (progress == CONNECTED)
                progress = ask(member, crowd->poller, i, options, &crowd->failures);
            if (progress == ANSWERED) {
                member->step = IDLE;
                done++;
            }
            busy -= progress == ANSWERED || progress == FAILED;
        }
        now = now_ns();
        if (now - last_look > 100000000) {
            last_look = now;
            for (uint64_t i = 0; i < next; i++)
                busy -= expire(&crowd->members[i], now, &crowd->failures);
        }
    }
    return done;
}

int hold(const struct options *options)
{
    struct crowd crowd = {.options = options, .size = options->count * options->target_count};
    uint64_t opened, answered;
    char line;

    crowd.members = calloc(crowd.size, sizeof(*crowd.members));
    crowd.poller = epoll_create1(EPOLL_CLOEXEC);
    if (!crowd.members || crowd.poller < 0)
        give_up("start");
    opened = go_round(&crowd, true);
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &line, 1) > 0 && line != '\n') {
    }
    answered = go_round(&crowd, false);
    printf("{\"mode\": \"hold\", \"targets\": %zu, \"opened\": %lu, \"answered\": %lu, ", options->target_count,
           opened, answered);
    print_failures(&crowd.failures);
    puts("}");
    return failure_count(&crowd.failures) || answered != crowd.size ? 1 : 0;
}
