/*
 * params.h - reads the parameters of an action that are one JSON object of strings, such as {"path": "/etc/hosts"}.
 *
 * As much JSON as the example needs; a real library would take a JSON library for it.
 */
#ifndef PARAMS_H
#define PARAMS_H

#include <stdlib.h>
#include <string.h>

static const char *params_space(const char *at) {
    return at + strspn(at, " \t\r\n");
}

/* One UTF-16 unit in four hexadecimal digits; -1 if that is not what is there. */
static long params_unit(const char *at) {
    char digits[5] = {0};
    if (strspn(at, "0123456789abcdefABCDEF") < 4) {
        return -1;
    }
    memcpy(digits, at, 4);
    return strtol(digits, NULL, 16);
}

static char *params_utf8(char *out, unsigned long code) {
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xc0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *out++ = (char)(0xe0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3f));
        *out++ = (char)(0x80 | (code & 0x3f));
    } else {
        *out++ = (char)(0xf0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3f));
        *out++ = (char)(0x80 | (code >> 6 & 0x3f));
        *out++ = (char)(0x80 | (code & 0x3f));
    }
    return out;
}

/* Reads the string that begins at *at, and moves *at behind it. The text is the caller's to free; NULL if there is none. */
static char *params_string(const char **at) {
    const char *in = *at;
    /* No escape is shorter than what it stands for. */
    char *text = malloc(strlen(in) + 1), *out = text;
    if (text == NULL || *in++ != '"') {
        goto wrong;
    }
    while (*in != '"') {
        static const char escapes[] = "\"\\/bfnrt", plain[] = "\"\\/\b\f\n\r\t";
        const char *found;
        if ((unsigned char)*in < 0x20) {
            goto wrong;
        }
        if (*in != '\\') {
            *out++ = *in++;
        } else if (in[1] != '\0' && (found = strchr(escapes, in[1])) != NULL) {
            *out++ = plain[found - escapes];
            in += 2;
        } else if (in[1] == 'u') {
            long code = params_unit(in + 2), low;
            /* A NUL would end the text for whoever takes it as a path, and half a pair is no character. */
            if (code <= 0 || (code >= 0xdc00 && code <= 0xdfff)) {
                goto wrong;
            }
            in += 6;
            if (code >= 0xd800 && code <= 0xdbff) {
                if (in[0] != '\\' || in[1] != 'u' || (low = params_unit(in + 2)) < 0xdc00 || low > 0xdfff) {
                    goto wrong;
                }
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                in += 6;
            }
            out = params_utf8(out, (unsigned long)code);
        } else {
            goto wrong;
        }
    }
    *out = '\0';
    *at = in + 1;
    return text;
wrong:
    free(text);
    return NULL;
}

/*
 * The value of the only key that there may be. The text is the caller's to free. NULL: `json` is something else.
 */
static char *params_only(const char *json, const char *key) {
    const char *at = params_space(json);
    char *name, *value = NULL;
    if (*at != '{') {
        return NULL;
    }
    at = params_space(at + 1);
    name = params_string(&at);
    if (name == NULL) {
        return NULL;
    }
    at = params_space(at);
    if (*at == ':' && strcmp(name, key) == 0) {
        at = params_space(at + 1);
        value = params_string(&at);
        if (value != NULL && (*(at = params_space(at)) != '}' || *params_space(at + 1) != '\0')) {
            free(value);
            value = NULL;
        }
    }
    free(name);
    return value;
}

#endif
