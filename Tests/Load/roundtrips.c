#include <errno.h>
#include <stdlib.h>

#include "exchange.h"

/* Waits for at most a tenth of a second: deadlines are looked at this often. */
static int wait_for(int poller, struct epoll_event *events)
{
    int count = epoll_wait(poller, events, EVENTS_PER_WAIT, 100);

    if (count < 0 && errno != EINTR)
        give_up("epoll_wait");
    return count < 0 ? 0 : count;
}

int round_trips(const struct options *options)
{
    static struct histogram times;
    struct failures failures = {0};
    struct epoll_event events[EVENTS_PER_WAIT];
    struct exchange *exchanges = calloc(options->connections, sizeof(*exchanges));
    int poller = epoll_create1(EPOLL_CLOEXEC);
    unsigned alive = 0, connected = 0;
    uint64_t done = 0, start = 0, end = 0, last_look = now_ns(), elapsed;
    bool started = false;

    if (!exchanges || poller < 0)
        give_up("start");
    for (unsigned i = 0; i < options->connections; i++) {
        prepare(&exchanges[i], options->size);
        exchanges[i].connection = i;
        if (begin(&exchanges[i], poller, i, &options->targets[0], options, &failures) == PENDING)
            alive++;
    }
    while (alive) {
        int count = wait_for(poller, events);
        uint64_t now = now_ns();

        for (int e = 0; e < count; e++) {
            uint64_t i = events[e].data.u64;
            enum progress progress = advance(&exchanges[i], poller, i, options, &failures);

            if (progress == CONNECTED) {
                /* Until the others are there too. */
                connected++;
                exchanges[i].step = IDLE;
                watch(poller, EPOLL_CTL_MOD, exchanges[i].descriptor, EPOLLIN, i);
                exchanges[i].waits_for_room = false;
            } else if (progress == ANSWERED) {
                now = now_ns();
                record(&times, now - exchanges[i].started);
                done++;
                if (now >= end) {
                    finish(&exchanges[i]);
                    alive--;
                } else if (ask(&exchanges[i], poller, i, options, &failures) == FAILED) {
                    alive--;
                }
            } else if (progress == FAILED) {
                alive--;
            }
        }
        if (!started && connected && connected >= alive) {
            started = true;
            start = now_ns();
            end = start + seconds_to_ns(options->seconds);
            for (unsigned i = 0; i < options->connections; i++) {
                if (exchanges[i].descriptor >= 0 && ask(&exchanges[i], poller, i, options, &failures) == FAILED)
                    alive--;
            }
        }
        if (now - last_look > 100000000) {
            last_look = now;
            for (unsigned i = 0; i < options->connections; i++)
                alive -= expire(&exchanges[i], now, &failures);
        }
    }
    elapsed = started ? now_ns() - start : 0;
    printf("{\"mode\": \"rr\", \"connections\": %u, \"size\": %u, \"round_trips\": %lu, \"seconds\": %.6f, "
           "\"per_second\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, ",
           options->connections, options->size, done, (double)elapsed / 1e9,
           elapsed ? (double)done * 1e9 / (double)elapsed : 0, (double)quantile(&times, 0.5) / 1e3,
           (double)quantile(&times, 0.99) / 1e3);
    print_failures(&failures);
    puts("}");
    return failure_count(&failures) ? 1 : 0;
}

int short_connections(const struct options *options)
{
    static struct histogram times;
    struct failures failures = {0};
    struct epoll_event events[EVENTS_PER_WAIT];
    struct exchange *exchanges = calloc(options->connections, sizeof(*exchanges));
    uint64_t *opened = calloc(options->connections, sizeof(*opened));
    int poller = epoll_create1(EPOLL_CLOEXEC);
    uint64_t tried = 0, done = 0, start = now_ns(), end = start + seconds_to_ns(options->seconds), elapsed;
    uint64_t last_look = start;
    unsigned alive;

    if (!exchanges || !opened || poller < 0)
        give_up("start");
    for (unsigned i = 0; i < options->connections; i++)
        prepare(&exchanges[i], options->size);
    do {
        uint64_t now = now_ns();
        int count;

        alive = 0;
        for (unsigned i = 0; i < options->connections; i++) {
            struct exchange *exchange = &exchanges[i];

            if (exchange->step == IDLE && now < end && (!options->count || tried < options->count)) {
                exchange->connection = tried;
                opened[i] = now_ns();
                begin(exchange, poller, i, &options->targets[tried++ % options->target_count], options, &failures);
            }
            alive += exchange->step != IDLE;
        }
        /* A refusal is known at once; without the wait the loop comes back for the next try. */
        if (!alive)
            continue;
        count = wait_for(poller, events);
        for (int e = 0; e < count; e++) {
            uint64_t i = events[e].data.u64;
            enum progress progress = advance(&exchanges[i], poller, i, options, &failures);

            if (progress == CONNECTED)
                ask(&exchanges[i], poller, i, options, &failures);
            if (progress == ANSWERED) {
                finish(&exchanges[i]);
                record(&times, now_ns() - opened[i]);
                done++;
            }
        }
        now = now_ns();
        if (now - last_look > 100000000) {
            last_look = now;
            for (unsigned i = 0; i < options->connections; i++)
                expire(&exchanges[i], now, &failures);
        }
    } while (alive || (now_ns() < end && (!options->count || tried < options->count)));
    elapsed = now_ns() - start;
    printf("{\"mode\": \"connect\", \"tried\": %lu, \"done\": %lu, \"size\": %u, \"seconds\": %.6f, "
           "\"per_second\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, ",
           tried, done, options->size, (double)elapsed / 1e9, (double)done * 1e9 / (double)elapsed,
           (double)quantile(&times, 0.5) / 1e3, (double)quantile(&times, 0.99) / 1e3);
    print_failures(&failures);
    puts("}");
    return failure_count(&failures) || done != tried ? 1 : 0;
}
