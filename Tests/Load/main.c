#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "load.h"

static const char usage[] =
    "usage: culvert-load serve   [--echo HOST:PORT] [--sink HOST:PORT]\n"
    "       culvert-load rr      --to HOST:PORT [--seconds S] [--connections N] [--size BYTES] [--patience S]\n"
    "       culvert-load connect --to HOST:PORT… [--seconds S] [--count N] [--connections N] [--size BYTES] "
    "[--patience S]\n"
    "       culvert-load bulk    --to HOST:PORT [--seconds S] [--connections N] [--patience S]\n"
    "       culvert-load times   --to HOST:PORT --count N\n"
    "       culvert-load hold    --to HOST:PORT… --count N [--connections N] [--size BYTES] [--patience S]\n"
    "\n"
    "HOST is an address; IPv6 in brackets. --connections: at a time. --count: in all (hold: for each --to).\n"
    "--seconds: 1 unless given; with --count, no limit unless given. --patience: of one step of a connection; 10.\n"
    "A server says `ready` when it listens and what it saw when it is terminated. A client prints one line of JSON;\n"
    "exit status 0: nothing failed; 1: something did; 2: bad usage, or this machine is at its limits.\n"
    "hold says `ready` when all are open and goes on at a line (or the end) of its input.\n";

_Noreturn static void misuse(const char *what, const char *word)
{
    fprintf(stderr, "culvert-load: %s: %s\n%s", word, what, usage);
    exit(2);
}

static uint64_t number(const char *flag, const char *text, uint64_t least, uint64_t most)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        misuse("not a number in its range", flag);
    return value;
}

static double seconds(const char *flag, const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value > 0 && value <= 3600))
        misuse("not a time in seconds, at most 3600", flag);
    return value;
}

static void target(const char *flag, const char *text, struct target *target)
{
    if (!parse_target(text, target))
        misuse("not an address and port", flag);
}

static struct options parse(int count, char **words)
{
    struct options options = {.patience = 10, .connections = 1, .size = 128};

    for (int i = 0; i < count; i += 2) {
        const char *flag = words[i], *value = words[i + 1];

        if (i + 1 == count)
            misuse("needs a value", flag);
        if (!strcmp(flag, "--to")) {
            if (options.target_count == MAX_TARGETS)
                misuse("given too often", flag);
            target(flag, value, &options.targets[options.target_count++]);
        } else if (!strcmp(flag, "--echo")) {
            target(flag, value, &options.echo);
        } else if (!strcmp(flag, "--sink")) {
            target(flag, value, &options.sink);
        } else if (!strcmp(flag, "--seconds")) {
            options.seconds = seconds(flag, value);
        } else if (!strcmp(flag, "--patience")) {
            options.patience = seconds(flag, value);
        } else if (!strcmp(flag, "--count")) {
            options.count = number(flag, value, 1, 1000000000);
        } else if (!strcmp(flag, "--connections")) {
            options.connections = (unsigned)number(flag, value, 1, 100000);
        } else if (!strcmp(flag, "--size")) {
            options.size = (unsigned)number(flag, value, 1, MAX_MESSAGE);
        } else {
            misuse("unknown", flag);
        }
    }
    /* A count alone is to be reached however long it takes; each step's patience bounds it. */
    if (!options.seconds)
        options.seconds = options.count ? 86400 : 1;
    return options;
}

/* As many as root may have, else as many as this process may. */
static void raise_open_files(void)
{
    struct rlimit limit = {1 << 20, 1 << 20};

    if (setrlimit(RLIMIT_NOFILE, &limit) == 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int count, char **words)
{
    static const struct {
        const char *name;
        int (*run)(const struct options *);
        bool needs_target, needs_count;
    } modes[] = {
        {"serve", serve, false, false},
        {"rr", round_trips, true, false},
        {"connect", short_connections, true, false},
        {"bulk", bulk, true, false},
        {"times", connect_times, true, true},
        {"hold", hold, true, true},
    };

    if (count < 2 || !strcmp(words[1], "--help")) {
        fputs(usage, count < 2 ? stderr : stdout);
        return count < 2 ? 2 : 0;
    }
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct options options;

        if (strcmp(words[1], modes[i].name) != 0)
            continue;
        options = parse(count - 2, words + 2);
        if (modes[i].needs_target && !options.target_count)
            misuse("needs --to", words[1]);
        if (modes[i].needs_count && !options.count)
            misuse("needs --count", words[1]);
        if (modes[i].run == serve && !options.echo.length && !options.sink.length)
            misuse("needs --echo or --sink", words[1]);
        signal(SIGPIPE, SIG_IGN);
        raise_open_files();
        return modes[i].run(&options);
    }
    misuse("unknown mode", words[1]);
}
