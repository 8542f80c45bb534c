/* What a library with actions needs; with NEEDS_NAME it needs another in its turn. */
#ifdef NEEDS_NAME
const char *greeting_name(void);

const char *greeting(void) {
    return greeting_name();
}
#else
const char *NAME(void) {
    return SAYS;
}
#endif
