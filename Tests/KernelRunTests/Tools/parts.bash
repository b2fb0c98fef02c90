# For scripts that run inside run-in-kernel and report several results.
# part NAME COMMAND…: runs it and frames what it prints and its exit status, for GuestRun to read.
part() {
    local name=$1
    shift
    printf '\n##begin %s\n' "$name"
    "$@" 2>&1
    printf '\n##end %s %s\n' "$name" $?
}
