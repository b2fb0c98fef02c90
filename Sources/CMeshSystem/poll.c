#define _GNU_SOURCE
#include "mesh_poll.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

const uint32_t mesh_ready_input = EPOLLIN;
const uint32_t mesh_ready_output = EPOLLOUT;
const uint32_t mesh_ready_peer_finished = EPOLLRDHUP;
const uint32_t mesh_ready_hangup = EPOLLHUP;
const uint32_t mesh_ready_error = EPOLLERR;

static int result(int value) { return value < 0 ? -errno : value; }

static int control(int poll, int operation, int descriptor, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data.u64 = token};
    return result(epoll_ctl(poll, operation, descriptor, &event));
}

int mesh_poll_create(void) { return result(epoll_create1(EPOLL_CLOEXEC)); }

int mesh_poll_make_signal(void) { return result(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

int mesh_poll_raise(int signal) {
    const uint64_t one = 1;
    ssize_t written;
    do {
        written = write(signal, &one, sizeof one);
    } while (written < 0 && errno == EINTR);
    return written < 0 ? -errno : 0;
}

int mesh_poll_add_edges(int poll, int descriptor, uint64_t token) {
    return control(poll, EPOLL_CTL_ADD, descriptor, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, token);
}

int mesh_poll_add_listener(int poll, int descriptor, uint64_t token) {
    return control(poll, EPOLL_CTL_ADD, descriptor, EPOLLIN, token);
}

int mesh_poll_set_listener(int poll, int descriptor, uint64_t token, bool enabled) {
    return control(poll, EPOLL_CTL_MOD, descriptor, enabled ? EPOLLIN : 0, token);
}

int mesh_poll_remove(int poll, int descriptor) { return control(poll, EPOLL_CTL_DEL, descriptor, 0, 0); }

int mesh_poll_wait(int poll, struct mesh_event *events, int milliseconds) {
    struct epoll_event batch[MESH_POLL_BATCH];
    int count = epoll_wait(poll, batch, MESH_POLL_BATCH, milliseconds);
    if (count < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    for (int i = 0; i < count; i++) {
        events[i].token = batch[i].data.u64;
        events[i].ready = batch[i].events;
    }
    return count;
}

static uint64_t nanoseconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t mesh_clock_monotonic(void) { return nanoseconds(CLOCK_MONOTONIC); }
