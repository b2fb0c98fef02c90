#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// `ECONNREFUSED` and `Connection refused`; null for a number that is no errno. Never a shared buffer.
const char *mesh_error_name(int code);
const char *mesh_error_text(int code);

/// Opens a path read-only and close-on-exec.
int mesh_open(const char *path);
/// An empty file that lives in memory until its last descriptor closes.
int mesh_memory_file(void);
/// A second, close-on-exec descriptor of the same open file.
int mesh_duplicate(int descriptor);
/// Removes a name; -ENOENT when there is none.
int mesh_unlink(const char *path);
/// The inode number of an open file.
int mesh_inode(int descriptor, uint64_t *inode);

/// Whether an open file is a network namespace: 1 or 0, or a negated errno (ENOTTY: no namespace at all).
int mesh_is_network_namespace(int descriptor);
/// The network namespace of the calling thread.
int mesh_open_current_network_namespace(void);
/// Moves the calling thread.
int mesh_enter_network_namespace(int descriptor);
/// Gives the calling thread a new, empty network namespace.
int mesh_unshare_network_namespace(void);
/// SO_NETNS_COOKIE (5.14) of the calling thread's network namespace, as eBPF's bpf_get_netns_cookie says it.
int mesh_network_namespace_cookie(uint64_t *cookie);

/// Raises the soft limit of open files to `wanted` (0: to the hard limit), and the hard limit where that is needed and
/// allowed; says what holds then.
int mesh_raise_open_files(uint64_t wanted, uint64_t *limit);
/// The type of the file system at a path (statfs f_type), for instance cgroup2 or bpf.
int mesh_file_system_type(const char *path, uint64_t *type);

/// Whole anonymous pages, zeroed; null when there are none.
void *mesh_pages_map(size_t bytes);
void mesh_pages_unmap(void *pages, size_t bytes);
/// Chance from the kernel (getrandom).
int mesh_random(void *into, size_t count);

/// Starts a thread with every signal blocked, so that signals stay with the main thread. The name is cut at 15 bytes.
int mesh_thread_start(void *(*entry)(void *), void *argument, const char *name, uint64_t *thread);
int mesh_thread_join(uint64_t thread);
