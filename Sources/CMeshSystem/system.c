#define _GNU_SOURCE
#include "mesh_system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

// Named since the headers of Linux 5.14.
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static int result(int value) { return value < 0 ? -errno : value; }

const char *mesh_error_name(int code) { return strerrorname_np(code); }

const char *mesh_error_text(int code) { return strerrordesc_np(code); }

int mesh_open(const char *path) { return result(open(path, O_RDONLY | O_CLOEXEC)); }

int mesh_memory_file(void) { return result(memfd_create("culvert", MFD_CLOEXEC)); }

int mesh_duplicate(int descriptor) { return result(fcntl(descriptor, F_DUPFD_CLOEXEC, 3)); }

int mesh_unlink(const char *path) { return result(unlink(path)); }

int mesh_inode(int descriptor, uint64_t *inode) {
    struct stat status;
    if (fstat(descriptor, &status) < 0) {
        return -errno;
    }
    *inode = status.st_ino;
    return 0;
}

int mesh_is_network_namespace(int descriptor) {
    int type = ioctl(descriptor, NS_GET_NSTYPE);
    return type < 0 ? -errno : type == CLONE_NEWNET;
}

int mesh_open_current_network_namespace(void) { return mesh_open("/proc/thread-self/ns/net"); }

int mesh_enter_network_namespace(int descriptor) { return result(setns(descriptor, CLONE_NEWNET)); }

int mesh_unshare_network_namespace(void) { return result(unshare(CLONE_NEWNET)); }

int mesh_network_namespace_cookie(uint64_t *cookie) {
    // A unix socket: it needs no protocol of the namespace and has the cookie all the same.
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe < 0) {
        return -errno;
    }
    socklen_t size = sizeof *cookie;
    int outcome = result(getsockopt(probe, SOL_SOCKET, SO_NETNS_COOKIE, cookie, &size));
    close(probe);
    return outcome;
}

int mesh_raise_open_files(uint64_t wanted, uint64_t *limit) {
    struct rlimit now;
    if (getrlimit(RLIMIT_NOFILE, &now) < 0) {
        return -errno;
    }
    rlim_t target = wanted == 0 ? now.rlim_max : (rlim_t)wanted;
    if (target > now.rlim_cur) {
        struct rlimit raised = {.rlim_cur = target, .rlim_max = target > now.rlim_max ? target : now.rlim_max};
        // Without CAP_SYS_RESOURCE, or past fs.nr_open, the hard limit stands: take all of it.
        if (setrlimit(RLIMIT_NOFILE, &raised) < 0) {
            raised = (struct rlimit){.rlim_cur = now.rlim_max, .rlim_max = now.rlim_max};
            if (setrlimit(RLIMIT_NOFILE, &raised) < 0) {
                return -errno;
            }
        }
        now = raised;
    }
    *limit = now.rlim_cur;
    return 0;
}

int mesh_file_system_type(const char *path, uint64_t *type) {
    struct statfs status;
    if (statfs(path, &status) < 0) {
        return -errno;
    }
    *type = (uint64_t)status.f_type;
    return 0;
}

void *mesh_pages_map(size_t bytes) {
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

void mesh_pages_unmap(void *pages, size_t bytes) { munmap(pages, bytes); }

int mesh_random(void *into, size_t count) {
    ssize_t got;
    do {
        got = getrandom(into, count, 0);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)count ? 0 : got < 0 ? -errno : -EIO;
}

int mesh_thread_start(void *(*entry)(void *), void *argument, const char *name, uint64_t *thread) {
    _Static_assert(sizeof(pthread_t) <= sizeof(uint64_t), "a thread is handed to Swift as a number");
    char short_name[16];
    snprintf(short_name, sizeof short_name, "%s", name);
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t started;
    int error = pthread_create(&started, NULL, entry, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        return -error;
    }
    pthread_setname_np(started, short_name);
    *thread = (uint64_t)started;
    return 0;
}

int mesh_thread_join(uint64_t thread) { return -pthread_join((pthread_t)thread, NULL); }
