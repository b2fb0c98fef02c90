#define _GNU_SOURCE
#include "mesh_packet.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/// A socket, and the name for `path`.
static int make(const char *path, struct sockaddr_un *place) {
    memset(place, 0, sizeof *place);
    place->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof place->sun_path) {
        return -ENAMETOOLONG;
    }
    strcpy(place->sun_path, path);
    int made = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    return made < 0 ? -errno : made;
}

static int close_with(int socket, int code) {
    close(socket);
    return code;
}

int mesh_packet_listen(const char *path) {
    struct sockaddr_un place;
    int made = make(path, &place);
    if (made < 0) {
        return made;
    }
    if (bind(made, (struct sockaddr *)&place, sizeof place) < 0) {
        return close_with(made, -errno);
    }
    // Before listen: nobody can have connected by then.
    if (chmod(path, 0600) < 0 || listen(made, 4) < 0) {
        int failure = -errno;
        unlink(path);
        return close_with(made, failure);
    }
    return made;
}

int mesh_packet_connect(const char *path) {
    struct sockaddr_un place;
    int made = make(path, &place);
    if (made < 0) {
        return made;
    }
    while (connect(made, (struct sockaddr *)&place, sizeof place) < 0) {
        if (errno != EINTR) {
            return close_with(made, -errno);
        }
    }
    return made;
}

int mesh_packet_accept(int listener) {
    while (true) {
        int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (accepted >= 0) {
            return accepted;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

int mesh_packet_peer(int socket, uint32_t *user, int32_t *process) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
        return -errno;
    }
    *user = peer.uid;
    *process = peer.pid;
    return 0;
}

int mesh_packet_set_patience(int socket, uint32_t milliseconds) {
    struct timeval time = {milliseconds / 1000, milliseconds % 1000 * 1000};
    if (setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) < 0 ||
        setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) < 0) {
        return -errno;
    }
    return 0;
}

union control {
    char room[CMSG_SPACE(sizeof(int) * MESH_PACKET_DESCRIPTORS)];
    struct cmsghdr alignment;
};

int mesh_packet_send(
    int socket, const void *bytes, size_t count, const int *descriptors, size_t descriptor_count) {
    struct iovec piece = {(void *)bytes, count};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    union control control;
    if (descriptor_count > MESH_PACKET_DESCRIPTORS) {
        return -EINVAL;
    }
    if (descriptor_count > 0) {
        size_t length = sizeof(int) * descriptor_count;
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(length);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(length);
        memcpy(CMSG_DATA(header), descriptors, length);
    }
    while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

ssize_t mesh_packet_receive(int socket, void *into, size_t count, int *descriptors, size_t *descriptor_count) {
    struct iovec piece = {into, count};
    union control control;
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.room};
    ssize_t received;
    size_t room = *descriptor_count;
    *descriptor_count = 0;
    do {
        message.msg_controllen = sizeof control.room;
        received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    if (received < 0) {
        return -errno;
    }
    bool is_cut = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t number = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < number; i++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int), sizeof descriptor);
            if (*descriptor_count < room) {
                descriptors[(*descriptor_count)++] = descriptor;
            } else {
                close(descriptor);
                is_cut = true;
            }
        }
    }
    if (is_cut) {
        for (size_t i = 0; i < *descriptor_count; i++) {
            close(descriptors[i]);
        }
        *descriptor_count = 0;
        return -EMSGSIZE;
    }
    return received;
}

void mesh_packet_shut(int socket) { shutdown(socket, SHUT_RDWR); }
