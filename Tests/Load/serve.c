#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "load.h"

enum kind { SIGNALS, ECHO_LISTENER, SINK_LISTENER, ECHO, SINK };

/* Whatever is in the epoll set. */
struct source {
    enum kind kind;
    int descriptor;
    uint64_t received;  /* SINK: told to the peer at its end */
    uint8_t *unsent;    /* ECHO: what the peer did not take yet; while there is any, nothing is read */
    size_t unsent_from, unsent_to;
};

struct server {
    int poller;
    uint64_t accepted, received, reset, open;
    uint8_t buffer[STREAM_CHUNK];
};

static uint64_t tag(struct source *source) { return (uint64_t)(uintptr_t)source; }

static struct source *add(struct server *server, enum kind kind, int descriptor)
{
    struct source *source = calloc(1, sizeof(*source));

    if (!source)
        give_up("memory");
    source->kind = kind;
    source->descriptor = descriptor;
    watch(server->poller, EPOLL_CTL_ADD, descriptor, EPOLLIN, tag(source));
    return source;
}

static void drop(struct server *server, struct source *source)
{
    close(source->descriptor);
    free(source->unsent);
    free(source);
    server->open--;
}

static void fail(struct server *server, struct source *source)
{
    server->reset++;
    drop(server, source);
}

static void listen_at(struct server *server, enum kind kind, const struct target *target)
{
    int on = 1;
    int descriptor = open_socket(target);

    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(descriptor, (const struct sockaddr *)&target->address, target->length) < 0)
        give_up("bind");
    if (listen(descriptor, 4096) < 0)
        give_up("listen");
    add(server, kind, descriptor);
}

static void accept_all(struct server *server, const struct source *listener)
{
    int on = 1;

    for (;;) {
        int descriptor = accept4(listener->descriptor, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (descriptor < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
                return;
            give_up("accept");
        }
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        server->accepted++;
        server->open++;
        add(server, listener->kind == ECHO_LISTENER ? ECHO : SINK, descriptor);
    }
}

static void sink(struct server *server, struct source *source)
{
    for (int turns = 0; turns < 16; turns++) {
        ssize_t count = recv(source->descriptor, server->buffer, sizeof(server->buffer), 0);

        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count < 0) {
            fail(server, source);
            return;
        }
        if (count == 0) {
            /* Eight bytes always fit into the empty send buffer of a connection that sent nothing yet. */
            if (send(source->descriptor, &source->received, sizeof(source->received), MSG_NOSIGNAL) < 0)
                server->reset++;
            drop(server, source);
            return;
        }
        source->received += (uint64_t)count;
        server->received += (uint64_t)count;
    }
}

/* Sends `bytes`, keeps what does not go out. */
static void answer(struct server *server, struct source *source, const uint8_t *bytes, size_t length)
{
    ssize_t sent = send(source->descriptor, bytes, length, MSG_NOSIGNAL);

    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        fail(server, source);
        return;
    }
    if (sent < 0)
        sent = 0;
    if ((size_t)sent == length)
        return;
    source->unsent = malloc(length - (size_t)sent);
    if (!source->unsent)
        give_up("memory");
    source->unsent_from = 0;
    source->unsent_to = length - (size_t)sent;
    memcpy(source->unsent, bytes + sent, source->unsent_to);
    watch(server->poller, EPOLL_CTL_MOD, source->descriptor, EPOLLOUT, tag(source));
}

static void flush(struct server *server, struct source *source)
{
    ssize_t sent = send(source->descriptor, source->unsent + source->unsent_from,
                        source->unsent_to - source->unsent_from, MSG_NOSIGNAL);

    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            fail(server, source);
        return;
    }
    source->unsent_from += (size_t)sent;
    if (source->unsent_from < source->unsent_to)
        return;
    free(source->unsent);
    source->unsent = NULL;
    watch(server->poller, EPOLL_CTL_MOD, source->descriptor, EPOLLIN, tag(source));
}

static void echo(struct server *server, struct source *source)
{
    ssize_t count;

    if (source->unsent) {
        flush(server, source);
        return;
    }
    count = recv(source->descriptor, server->buffer, sizeof(server->buffer), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count < 0) {
        fail(server, source);
    } else if (count == 0) {
        drop(server, source);
    } else {
        server->received += (uint64_t)count;
        answer(server, source, server->buffer, (size_t)count);
    }
}

static void block_signals(struct server *server)
{
    sigset_t signals;
    int descriptor;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    descriptor = signalfd(-1, &signals, SFD_CLOEXEC);
    if (descriptor < 0)
        give_up("signalfd");
    add(server, SIGNALS, descriptor);
}

int serve(const struct options *options)
{
    struct server *server = calloc(1, sizeof(*server));
    struct epoll_event events[EVENTS_PER_WAIT];

    if (!server || (server->poller = epoll_create1(EPOLL_CLOEXEC)) < 0)
        give_up("start");
    block_signals(server);
    if (options->echo.length)
        listen_at(server, ECHO_LISTENER, &options->echo);
    if (options->sink.length)
        listen_at(server, SINK_LISTENER, &options->sink);
    puts("ready");
    fflush(stdout);

    for (;;) {
        int count = epoll_wait(server->poller, events, EVENTS_PER_WAIT, -1);

        if (count < 0 && errno != EINTR)
            give_up("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct source *source = (struct source *)(uintptr_t)events[i].data.u64;

            switch (source->kind) {
            case SIGNALS:
                printf("{\"mode\": \"serve\", \"accepted\": %lu, \"open\": %lu, \"bytes\": %lu, \"reset\": %lu}\n",
                       server->accepted, server->open, server->received, server->reset);
                return 0;
            case ECHO_LISTENER:
            case SINK_LISTENER: accept_all(server, source); break;
            case ECHO: echo(server, source); break;
            case SINK: sink(server, source); break;
            }
        }
    }
}
