// Shims for system calls that Swift cannot spell: macros, variadic functions, packed structs, hidden feature tests.
// Every function that can fail returns a negated errno, taken before anything else can run, so that no caller reads
// `errno` itself. Calls interrupted by a signal are repeated here.
#pragma once

#include "culvert_kernel.h"
#include "mesh_packet.h"
#include "mesh_poll.h"
#include "mesh_probe.h"
#include "mesh_socket.h"
#include "mesh_system.h"
