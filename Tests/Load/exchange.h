/* One connection of a client that asks and checks the answer: connect, send a message, read the same bytes back. */
#pragma once

#include "load.h"

enum step { IDLE, CONNECTING, ASKING };

struct exchange {
    int descriptor;
    enum step step;
    uint64_t connection; /* unlike any other's, for the bytes it sends */
    uint64_t sequence;
    uint64_t started;  /* of this step, ns */
    uint64_t deadline; /* of this step, ns */
    size_t sent, received;
    bool waits_for_room;
    uint8_t *question, *answer;
};

enum progress { PENDING, CONNECTED, ANSWERED, FAILED };

void prepare(struct exchange *exchange, unsigned size);
/* Opens and starts a connect. PENDING or FAILED. */
enum progress begin(struct exchange *exchange, int poller, uint64_t tag, const struct target *target,
                    const struct options *options, struct failures *failures);
/* Sends the next message. PENDING or FAILED. */
enum progress ask(struct exchange *exchange, int poller, uint64_t tag, const struct options *options,
                  struct failures *failures);
/* Does what epoll says can be done. A FAILED exchange is counted and closed. */
enum progress advance(struct exchange *exchange, int poller, uint64_t tag, const struct options *options,
                      struct failures *failures);
/* Counts and closes an exchange that is past its deadline; true when it did. */
bool expire(struct exchange *exchange, uint64_t now, struct failures *failures);
void finish(struct exchange *exchange);
