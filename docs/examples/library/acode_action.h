/*
 * acode_action.h - actions for acode out of a shared object.
 *
 * A library with actions exports two functions, acode_abi() and acode_execute(). acode loads it into a worker process, in a
 * link namespace of its own, and calls acode_execute() once for each task that names the library:
 *
 *     acode task submit --type custom --library /opt/actions/libwords.so --action word_count --params '{"path": "..."}'
 *
 * Of one worker's tasks one runs at a time. The library stays loaded from task to task, and its static data with it; it
 * should keep nothing there that the next task must not see. Each worker of a pool is a process of its own and loads it for
 * itself.
 *
 * What holds for everything here:
 *   - A text is a pointer and a length. Texts are UTF-8, but for paths and output, which are bytes. Those that acode gives
 *     are followed by a NUL, which is not counted, so that one without a NUL inside can be used as a C string.
 *   - No ownership crosses the border: what acode gives is valid until acode_execute() returns; what the library gives needs
 *     to be valid only while it calls. Each side frees what it has allocated.
 *   - The functions of the host may be called from any thread, until acode_execute() returns and not afterwards. Threads and
 *     processes that the library has started must have ended by then, and been waited for.
 *   - No exception, panic or longjmp may leave acode_execute().
 *   - A library that crashes, or calls exit(), ends the worker: the task ends as worker-lost, and is tried again like after
 *     any crash.
 *   - Standard output of the process is the pool's own log; a task's output is what it gives to write().
 *
 * This header is the contract, version 1. It grows only at the end of struct acode_host, and `size` tells how much of it is
 * there; anything else would be another version, and acode refuses a library of a version that it does not know.
 */
#ifndef ACODE_ACTION_H
#define ACODE_ACTION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ACODE_ABI_VERSION 1u

/* What acode_execute() returns. Every other value counts as ACODE_FAILED. */
#define ACODE_DONE 0       /* It has done its work. */
#define ACODE_FAILED 1     /* It could not: error() has said why. */
#define ACODE_REFUSED 2    /* It has done nothing: it has no such action, or params are wrong. error() has said which. */
#define ACODE_PANICKED 101 /* It has found a defect of its own, which was caught at the border. */

/* What told_to_end() says. */
#define ACODE_GO_ON 0
#define ACODE_TIMED_OUT 1  /* The task's time is over. */
#define ACODE_CANCELLED 2  /* Somebody has cancelled it. */
#define ACODE_GIVE_BACK 3  /* The pool stops, and will run the task again. */

/* Where write() writes. */
#define ACODE_STDOUT 1
#define ACODE_STDERR 2

typedef struct acode_text {
    const char *bytes; /* NULL if there is no such text. */
    size_t length;     /* In bytes. */
} acode_text;

typedef struct acode_host acode_host;

/* What an action may ask for while it runs. Each function takes the host that acode_execute() was given. */
struct acode_host {
    /* The size of this structure, in bytes, as the worker knows it. Functions beyond it are not there. */
    size_t size;
    /* ACODE_ABI_VERSION, as the worker knows it. */
    uint32_t abi;
    uint32_t reserved;

    /* Whether the action is to end, and why. Costs next to nothing: ask at least ten times a second, clean up, and return
     * ACODE_FAILED. When the grace period is over the worker is ended, and the library with it. */
    int32_t (*told_to_end)(const acode_host *host);

    /* How far it is: 0 to 100, and a few words. As often as it likes: what is told too often is left out. */
    void (*progress)(const acode_host *host, double percent, acode_text message);

    /* Some of the task's output. `stream` is ACODE_STDOUT or ACODE_STDERR. */
    void (*write)(const acode_host *host, int32_t stream, acode_text bytes);

    /* The task's result: one JSON value, at most 64 KiB. The last one counts. Returns 0, or -1 if it is not JSON or too
     * long; then the one before stays. */
    int32_t (*result)(const acode_host *host, acode_text json);

    /* Why it fails, in words for people. The last ones count, and only if it fails. */
    void (*error)(const acode_host *host, acode_text words);

    /* A private directory, empty at first and gone when the task has ended. No text if it cannot be made. */
    acode_text (*scratch)(const acode_host *host);

    /* Where relative paths of the parameters start: the directory that was asked for, else the scratch directory. The
     * process itself is somewhere else, and must not be moved: there is no chdir() for one task. */
    acode_text (*working_directory)(const acode_host *host);

    /* The directory that outlives the attempts of the task; no text if none was asked for. */
    acode_text (*checkpoint)(const acode_host *host);

    /* The task's id, as people see it. */
    acode_text (*task_id)(const acode_host *host);

    /* What the submitter has noted under this key (--meta); no text if nothing. */
    acode_text (*meta)(const acode_host *host, acode_text key);

    /* Which attempt this is, from 1. */
    uint32_t (*attempt)(const acode_host *host);

    /* The number of the worker's slot, from 0: no two tasks of a pool run in one at a time. */
    uint32_t (*worker_slot)(const acode_host *host);
};

#if defined(__GNUC__)
#define ACODE_EXPORT __attribute__((visibility("default")))
#else
#define ACODE_EXPORT
#endif

/* The version of this header that the library was built with: return ACODE_ABI_VERSION. */
ACODE_EXPORT uint32_t acode_abi(void);

/* Does the work of one task. `name` is that of the action, empty if the task names none; `params` is JSON text, `null` if the
 * task has none. */
ACODE_EXPORT int32_t acode_execute(acode_text name, acode_text params, const acode_host *host);

#ifdef __cplusplus
}
#endif

#endif
