/* Actions that look at what a library is given. VERSION is the library's; with GREETING it needs libgreeting.so. */
#define _GNU_SOURCE
#include "acode_action.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef VERSION
#define VERSION 1
#endif

#ifdef GREETING
const char *greeting(void);
#else
static const char *greeting(void) {
    return "";
}
#endif

#ifdef CRASHES
__attribute__((constructor)) static void crash(void) {
    abort();
}
#endif

static int calls;

static acode_text text(const char *words) {
    return (acode_text){words, strlen(words)};
}

static int32_t say(const acode_host *host, int32_t code, const char *words) {
    host->error(host, text(words));
    return code;
}

static int32_t count(const acode_host *host) {
    char json[256];
    snprintf(json, sizeof json, "{\"version\": %d, \"calls\": %d, \"greeting\": \"%s\"}", VERSION, ++calls, greeting());
    return host->result(host, text(json));
}

static const char *or_none(acode_text given) {
    return given.bytes == NULL ? "none" : given.bytes;
}

static int32_t facts(const acode_host *host, acode_text params) {
    static char json[8192];
    acode_text id = host->task_id(host);
    snprintf(json, sizeof json,
             "{\"abi\": %u, \"whole\": %s, \"id\": \"%s\", \"same\": %s, \"attempt\": %u, \"slot\": %u, \"scratch\": \"%s\", "
             "\"cwd\": \"%s\", \"checkpoint\": \"%s\", \"colour\": \"%s\", \"missing\": \"%s\", \"params\": %s}",
             host->abi, host->size >= sizeof *host ? "true" : "false", id.bytes,
             host->task_id(host).bytes == id.bytes && strlen(id.bytes) == id.length ? "true" : "false", host->attempt(host),
             host->worker_slot(host), or_none(host->scratch(host)), or_none(host->working_directory(host)),
             or_none(host->checkpoint(host)), or_none(host->meta(host, text("colour"))),
             or_none(host->meta(host, text("no such key"))), params.bytes);
    return host->result(host, text(json));
}

/* What cannot be a result is refused, and the one before stays. */
static int32_t results(const acode_host *host) {
    static char large[70 * 1024];
    int refused = 0;
    memset(large, '1', sizeof large);
    host->result(host, text("[\"kept\"]"));
    refused += host->result(host, text("{not json")) == -1;
    refused += host->result(host, (acode_text){large, sizeof large}) == -1;
    refused += host->result(host, (acode_text){"\"\xff\"", 3}) == -1;
    refused += host->result(host, (acode_text){NULL, 5}) == -1;
    return refused == 4 ? ACODE_DONE : say(host, ACODE_FAILED, "something else was taken for a result");
}

static const acode_host *shared;

static void *work(void *sum) {
    for (int i = 0; i < 100; i++) {
        char *memory = malloc(10000);
        memset(memory, i, 10000);
        shared->write(shared, ACODE_STDOUT, text("."));
        __atomic_add_fetch((int *)sum, memory[9999] == i && shared->told_to_end(shared) == ACODE_GO_ON, __ATOMIC_SEQ_CST);
        free(memory);
    }
    return NULL;
}

static int32_t threads(const acode_host *host) {
    pthread_t ids[4];
    int sum = 0;
    char json[32];
    shared = host;
    for (int i = 0; i < 4; i++) {
        if (pthread_create(&ids[i], NULL, work, &sum) != 0) {
            return say(host, ACODE_FAILED, "no thread can be made");
        }
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(ids[i], NULL);
    }
    snprintf(json, sizeof json, "%d", sum);
    return host->result(host, text(json));
}

static int32_t wait_for_end(const acode_host *host) {
    host->progress(host, 50, text("waiting"));
    for (;;) {
        int32_t why = host->told_to_end(host);
        struct timespec pause = {0, 10000000};
        if (why != ACODE_GO_ON) {
            host->write(host, ACODE_STDERR, text("ended"));
            return say(host, ACODE_FAILED, why == ACODE_CANCELLED ? "cancelled" : "ended");
        }
        nanosleep(&pause, NULL);
    }
}

uint32_t acode_abi(void) {
#ifdef OTHER_ABI
    return 77;
#else
    return ACODE_ABI_VERSION;
#endif
}

#ifndef NO_EXECUTE
int32_t acode_execute(acode_text name, acode_text params, const acode_host *host) {
    const char *action = name.bytes;
    if (strcmp(action, "count") == 0) {
        return count(host);
    } else if (strcmp(action, "facts") == 0) {
        return facts(host, params);
    } else if (strcmp(action, "results") == 0) {
        return results(host);
    } else if (strcmp(action, "threads") == 0) {
        return threads(host);
    } else if (strcmp(action, "wait") == 0) {
        return wait_for_end(host);
    } else if (strcmp(action, "print") == 0) {
        host->write(host, ACODE_STDOUT, text("out"));
        host->write(host, ACODE_STDERR, text("err"));
        return ACODE_DONE;
    } else if (strcmp(action, "fail") == 0) {
        return say(host, ACODE_FAILED, "no luck");
    } else if (strcmp(action, "silent") == 0) {
        return 7;
    } else if (strcmp(action, "panic") == 0) {
        return say(host, ACODE_PANICKED, "a defect");
    } else if (strcmp(action, "crash") == 0) {
        *(volatile int *)NULL = 1;
    }
    return say(host, ACODE_REFUSED, "no such action");
}
#endif
