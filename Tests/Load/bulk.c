#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

struct stream {
    int descriptor;
    bool connected, ended;
    uint64_t sent, arrived;
    size_t arrived_bytes; /* of `arrived` itself */
    uint64_t progressed;  /* when, ns */
};

static void stop(struct stream *stream)
{
    close(stream->descriptor);
    stream->descriptor = -1;
}

/* Reads the sink's count. True at the end of the stream, whichever. */
static bool take_count(struct stream *stream, struct failures *failures)
{
    ssize_t count = recv(stream->descriptor, (uint8_t *)&stream->arrived + stream->arrived_bytes,
                         sizeof(stream->arrived) - stream->arrived_bytes, 0);

    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count < 0) {
        count_failure(failures, errno);
        return true;
    }
    stream->arrived_bytes += (size_t)count;
    if (stream->arrived_bytes < sizeof(stream->arrived)) {
        if (count > 0)
            return false;
        failures->cut_short++;
    } else if (stream->arrived != stream->sent) {
        failures->corrupted++;
    }
    return true;
}

/* One turn of a stream; true when it is over. */
static bool turn(struct stream *stream, const uint8_t *chunk, uint64_t end, struct failures *failures)
{
    if (!stream->connected) {
        int error = finish_connect(stream->descriptor);

        if (error) {
            count_failure(failures, error);
            return true;
        }
        stream->connected = true;
    }
    if (!stream->ended && now_ns() < end) {
        ssize_t count = send(stream->descriptor, chunk, STREAM_CHUNK, MSG_NOSIGNAL);

        if (count < 0 && errno != EAGAIN && errno != EINTR) {
            count_failure(failures, errno);
            return true;
        }
        if (count > 0)
            stream->sent += (uint64_t)count;
        return false;
    }
    if (!stream->ended) {
        stream->ended = true;
        shutdown(stream->descriptor, SHUT_WR);
    }
    return take_count(stream, failures);
}

int bulk(const struct options *options)
{
    struct failures failures = {0};
    struct stream *streams = calloc(options->connections, sizeof(*streams));
    struct pollfd *ready = calloc(options->connections, sizeof(*ready));
    uint8_t *chunk = malloc(STREAM_CHUNK);
    uint64_t start = now_ns(), end = start + seconds_to_ns(options->seconds), elapsed, total = 0;
    unsigned alive = options->connections;

    if (!streams || !ready || !chunk)
        give_up("memory");
    fill(chunk, STREAM_CHUNK, 0, 0);
    for (unsigned i = 0; i < options->connections; i++) {
        int error;

        streams[i].descriptor = open_socket(&options->targets[0]);
        streams[i].progressed = start;
        error = start_connect(streams[i].descriptor, &options->targets[0]);
        if (error) {
            count_failure(&failures, error);
            stop(&streams[i]);
            alive--;
        }
    }
    while (alive) {
        uint64_t now;

        for (unsigned i = 0; i < options->connections; i++) {
            ready[i].fd = streams[i].descriptor;
            ready[i].events = streams[i].ended ? POLLIN : POLLOUT;
        }
        if (poll(ready, options->connections, 100) < 0 && errno != EINTR)
            give_up("poll");
        now = now_ns();
        for (unsigned i = 0; i < options->connections; i++) {
            struct stream *stream = &streams[i];
            bool over = false;

            if (stream->descriptor < 0)
                continue;
            if (ready[i].revents) {
                stream->progressed = now;
                over = turn(stream, chunk, end, &failures);
            } else if (now - stream->progressed > seconds_to_ns(options->patience)) {
                failures.timed_out++;
                over = true;
            }
            if (over) {
                stop(stream);
                alive--;
            }
        }
    }
    elapsed = now_ns() - start;
    for (unsigned i = 0; i < options->connections; i++)
        total += streams[i].arrived_bytes == sizeof(total) ? streams[i].arrived : 0;
    printf("{\"mode\": \"bulk\", \"streams\": %u, \"bytes\": %lu, \"seconds\": %.6f, \"gbit_per_second\": %.3f, ",
           options->connections, total, (double)elapsed / 1e9, (double)total * 8 / (double)elapsed);
    print_failures(&failures);
    puts("}");
    return failure_count(&failures) ? 1 : 0;
}
