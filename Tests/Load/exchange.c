#include "exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void prepare(struct exchange *exchange, unsigned size)
{
    exchange->descriptor = -1;
    exchange->question = malloc(size);
    exchange->answer = malloc(size);
    if (!exchange->question || !exchange->answer)
        give_up("memory");
}

void finish(struct exchange *exchange)
{
    close(exchange->descriptor);
    exchange->descriptor = -1;
    exchange->step = IDLE;
}

static enum progress fail(struct exchange *exchange, struct failures *failures, int error)
{
    count_failure(failures, error);
    finish(exchange);
    return FAILED;
}

enum progress begin(struct exchange *exchange, int poller, uint64_t tag, const struct target *target,
                    const struct options *options, struct failures *failures)
{
    int error;

    exchange->descriptor = open_socket(target);
    exchange->step = CONNECTING;
    exchange->waits_for_room = true;
    exchange->started = now_ns();
    exchange->deadline = exchange->started + seconds_to_ns(options->patience);
    error = start_connect(exchange->descriptor, target);
    if (error)
        return fail(exchange, failures, error);
    watch(poller, EPOLL_CTL_ADD, exchange->descriptor, EPOLLOUT, tag);
    return PENDING;
}

static enum progress push(struct exchange *exchange, int poller, uint64_t tag, const struct options *options,
                          struct failures *failures)
{
    ssize_t count = send(exchange->descriptor, exchange->question + exchange->sent, options->size - exchange->sent,
                         MSG_NOSIGNAL);
    bool waits;

    if (count < 0 && errno != EAGAIN && errno != EINTR)
        return fail(exchange, failures, errno);
    if (count > 0)
        exchange->sent += (size_t)count;
    waits = exchange->sent < options->size;
    if (waits != exchange->waits_for_room) {
        exchange->waits_for_room = waits;
        watch(poller, EPOLL_CTL_MOD, exchange->descriptor, waits ? EPOLLIN | EPOLLOUT : EPOLLIN, tag);
    }
    return PENDING;
}

enum progress ask(struct exchange *exchange, int poller, uint64_t tag, const struct options *options,
                  struct failures *failures)
{
    exchange->step = ASKING;
    exchange->sent = exchange->received = 0;
    fill(exchange->question, options->size, exchange->connection, ++exchange->sequence);
    exchange->started = now_ns();
    exchange->deadline = exchange->started + seconds_to_ns(options->patience);
    return push(exchange, poller, tag, options, failures);
}

enum progress advance(struct exchange *exchange, int poller, uint64_t tag, const struct options *options,
                      struct failures *failures)
{
    ssize_t count;

    if (exchange->step == CONNECTING) {
        int error = finish_connect(exchange->descriptor);

        return error ? fail(exchange, failures, error) : CONNECTED;
    }
    if (exchange->waits_for_room && push(exchange, poller, tag, options, failures) == FAILED)
        return FAILED;
    count = recv(exchange->descriptor, exchange->answer + exchange->received, options->size - exchange->received, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return PENDING;
    if (count < 0)
        return fail(exchange, failures, errno);
    if (count == 0) {
        failures->cut_short++;
        finish(exchange);
        return FAILED;
    }
    exchange->received += (size_t)count;
    if (exchange->received < options->size)
        return PENDING;
    if (memcmp(exchange->answer, exchange->question, options->size) != 0) {
        failures->corrupted++;
        finish(exchange);
        return FAILED;
    }
    return ANSWERED;
}

bool expire(struct exchange *exchange, uint64_t now, struct failures *failures)
{
    if (exchange->step == IDLE || now < exchange->deadline)
        return false;
    failures->timed_out++;
    finish(exchange);
    return true;
}
