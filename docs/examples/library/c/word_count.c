/*
 * word_count.c - a library with one action: it counts the lines, words and bytes of a file.
 *
 *     cc -std=c99 -O2 -Wall -shared -fPIC -I.. -o libwords.so word_count.c
 *     acode task submit --type custom --library ./libwords.so --action word_count --params '{"path": "/etc/services"}'
 *
 * It shows what every action should do: tell how far it is, ask whether it is to end, leave nothing behind, and say in words
 * why it fails. It keeps no memory from task to task.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include "acode_action.h"
#include "params.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int32_t fail(const acode_host *host, int32_t code, const char *format, ...) {
    char words[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(words, sizeof words, format, list);
    va_end(list);
    host->error(host, (acode_text){words, strlen(words)});
    return code;
}

/* A path of the parameters, as a file can be opened by it; the caller's to free. */
static char *resolve(const acode_host *host, const char *path) {
    acode_text start = host->working_directory(host);
    char *whole;
    if (path[0] == '/' || start.bytes == NULL) {
        return strdup(path);
    }
    whole = malloc(start.length + 1 + strlen(path) + 1);
    if (whole != NULL) {
        sprintf(whole, "%s/%s", start.bytes, path);
    }
    return whole;
}

struct counts {
    unsigned long long lines, words, bytes;
    int in_word;
};

static void count(struct counts *counts, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        int is_space = bytes[i] == ' ' || (bytes[i] >= '\t' && bytes[i] <= '\r');
        counts->lines += bytes[i] == '\n';
        counts->words += !is_space && !counts->in_word;
        counts->in_word = !is_space;
    }
    counts->bytes += length;
}

/* Counts all that can be read from the file. */
static int32_t count_file(const acode_host *host, const char *path, int file) {
    char buffer[64 * 1024], text[256];
    struct counts counts = {0, 0, 0, 0};
    struct stat status;
    unsigned long long size = fstat(file, &status) == 0 ? (unsigned long long)status.st_size : 0;
    int length;
    for (;;) {
        ssize_t got = read(file, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail(host, ACODE_FAILED, "cannot read %s: %s", path, strerror(errno));
        }
        if (got == 0) {
            break;
        }
        count(&counts, buffer, (size_t)got);
        if (host->told_to_end(host) != ACODE_GO_ON) {
            return fail(host, ACODE_FAILED, "told to end after %llu bytes", counts.bytes);
        }
        if (size > 0) {
            length = snprintf(text, sizeof text, "%llu words", counts.words);
            host->progress(host, 100.0 * (double)counts.bytes / (double)size, (acode_text){text, (size_t)length});
        }
    }
    length = snprintf(text, sizeof text, "%llu lines, %llu words\n", counts.lines, counts.words);
    host->write(host, ACODE_STDOUT, (acode_text){text, (size_t)length});
    length = snprintf(text, sizeof text, "{\"lines\": %llu, \"words\": %llu, \"bytes\": %llu}", counts.lines, counts.words,
                      counts.bytes);
    host->result(host, (acode_text){text, (size_t)length});
    return ACODE_DONE;
}

static int32_t word_count(const acode_host *host, const char *params) {
    int32_t code;
    int file;
    char *path, *given = params_only(params, "path");
    if (given == NULL) {
        return fail(host, ACODE_REFUSED, "word_count takes {\"path\": \"...\"}, and not %.200s", params);
    }
    path = resolve(host, given);
    free(given);
    if (path == NULL) {
        return fail(host, ACODE_FAILED, "out of memory");
    }
    /* Close-on-exec, so that no child of the worker inherits it. */
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        code = fail(host, ACODE_FAILED, "cannot open %s: %s", path, strerror(errno));
    } else {
        code = count_file(host, path, file);
        close(file);
    }
    free(path);
    return code;
}

uint32_t acode_abi(void) {
    return ACODE_ABI_VERSION;
}

int32_t acode_execute(acode_text name, acode_text params, const acode_host *host) {
    if (strcmp(name.bytes, "word_count") == 0) {
        return word_count(host, params.bytes);
    }
    return fail(host, ACODE_REFUSED, "there is no action '%s': there is word_count", name.bytes);
}
