/* A C target needs a translation unit; compiling the header here checks its assertions for this machine. */
#include "culvert_abi.h"
