/* A plugin for the tests of the handshake; each switch (-D) breaks one thing. */
#include "countersign_plugin.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef MAJOR
#define MAJOR CS_ABI_MAJOR
#endif
#ifndef SIZE
#define SIZE sizeof(cs_plugin)
#endif
#ifndef EXT_SIZE
#define EXT_SIZE sizeof(cs_ext_signal)
#endif
#ifndef CREATE
#define CREATE create
#endif
#ifndef DESTROY
#define DESTROY destroy
#endif
#ifndef GET_EXTENSION
#define GET_EXTENSION get_extension
#endif
#ifndef ID
#define ID "test.fixture"
#endif
#ifndef FLAGS
#define FLAGS 0u
#endif
#ifndef OP
#define OP signals
#endif

static const cs_host *host;
static atomic_int inside, overlaps;

/* A switch leaves some things without a use. */
#define MAYBE_UNUSED __attribute__((unused))

MAYBE_UNUSED static void touch(const char *path) {
  FILE *f = fopen(path, "w");
  if (f != NULL) fclose(f);
}

#ifdef CONSTRUCTOR_FILE
__attribute__((constructor)) static void on_load(void) { touch(CONSTRUCTOR_FILE); }
#endif

MAYBE_UNUSED static cs_status create(const cs_host *h, cs_str config, void **self, cs_sink *err) {
  (void)config, (void)err;
  host = h;
  *self = &host;
#ifdef REFUSE_SILENTLY
  return 77;
#else
  return CS_OK;
#endif
}

MAYBE_UNUSED static void destroy(void *self) {
  (void)self;
#ifdef DESTROY_FILE
  touch(DESTROY_FILE);
#endif
}

MAYBE_UNUSED static cs_status signals(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  struct timespec pause = {0, 5000000};
  cs_str answer;
  char text[64];
  (void)self, (void)call, (void)in;
  if (atomic_fetch_add(&inside, 1) != 0) atomic_fetch_add(&overlaps, 1);
  nanosleep(&pause, NULL);
  atomic_fetch_sub(&inside, 1);
  (void)snprintf(text, sizeof text, "{\"overlaps\":%d}", atomic_load(&overlaps));
  answer.ptr = (const uint8_t *)text;
  answer.len = strlen(text);
#ifdef NULL_ANSWER
  answer.ptr = NULL;
#endif
#ifdef NULL_SINK
  out = NULL;
#endif
  (void)host->put(out, answer);
  host->log(NULL, NULL, CS_LOG_INFO, answer, answer);
  host->log(host->ctx, NULL, 99, answer, answer);
  if (host->remaining_ms(NULL) != 0 || host->get_extension(host->ctx, CS_HOST_HTTP) != NULL) return CS_INTERNAL;
#ifdef STATUS
  return STATUS;
#else
  return CS_OK;
#endif
}

MAYBE_UNUSED static const cs_ext_signal SIGNAL = {EXT_SIZE, OP};

MAYBE_UNUSED static const void *get_extension(void *self, const char *id) {
  (void)self;
#ifndef NO_EXTENSION
  if (strcmp(id, CS_EXT_SIGNAL) == 0) return &SIGNAL;
#endif
  (void)id;
  return NULL;
}

MAYBE_UNUSED static const cs_plugin PLUGIN = {SIZE, MAJOR, CS_ABI_MINOR, FLAGS, ID, "1.0.0", "Test", CREATE, DESTROY, GET_EXTENSION};

#ifndef NO_ENTRY
const cs_plugin *countersign_plugin_entry(uint32_t major, uint32_t minor) {
  (void)major, (void)minor;
#ifdef NULL_TABLE
  return NULL;
#else
  return &PLUGIN;
#endif
}
#endif
