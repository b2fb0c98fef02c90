#define _GNU_SOURCE
#include "CMeshAllocations.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *block);

// In the executable's own thread-local block: reading it never allocates.
static __thread uint64_t thread_count;
static __thread uint64_t thread_bytes;
static uint64_t process_count;

static void note(size_t size) {
    thread_count++;
    thread_bytes += size;
    __atomic_fetch_add(&process_count, 1, __ATOMIC_RELAXED);
}

void *malloc(size_t size) {
    note(size);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    note(count * size);
    return __libc_calloc(count, size);
}

void *realloc(void *block, size_t size) {
    note(size);
    return __libc_realloc(block, size);
}

void free(void *block) { __libc_free(block); }

void *memalign(size_t alignment, size_t size) {
    note(size);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
    if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0) {
        return EINVAL;
    }
    void *made = memalign(alignment, size);
    if (made == NULL) {
        return ENOMEM;
    }
    *block = made;
    return 0;
}

uint64_t culvert_allocations_count(void) { return thread_count; }

uint64_t culvert_allocations_bytes(void) { return thread_bytes; }

uint64_t culvert_allocations_count_of_process(void) { return __atomic_load_n(&process_count, __ATOMIC_RELAXED); }

int culvert_private_descriptors(void) {
    const unsigned int unshare_first = 1u << 1; // CLOSE_RANGE_UNSHARE
    return syscall(SYS_close_range, 3u, ~0u, unshare_first) < 0 ? -errno : 0;
}

int culvert_open_descriptors(void) {
    DIR *directory = opendir("/proc/thread-self/fd");
    if (directory == NULL) {
        return -errno;
    }
    int count = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        count += entry->d_name[0] != '.';
    }
    closedir(directory);
    return count - 1; // the directory itself
}

int culvert_exhaust_descriptors(int descriptor, int *last) {
    int count = 0;
    for (int made = dup(descriptor); made >= 0; made = dup(descriptor)) {
        *last = made;
        count++;
    }
    return count;
}
