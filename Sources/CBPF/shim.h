#pragma once
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
// A dependency of libbpf itself; reads the kernel's compressed configuration.
#include <zlib.h>
