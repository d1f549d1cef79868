/* Whether a sign-in falls into the night (UTC): {"night": true}, which rules read as
 * s.signals.plugin["com.example.@NAME@"].night. Build it with build.sh. */
#include "countersign_plugin.h"
#include <stdio.h>
#include <string.h>

#define NIGHT_BEGINS 22

static const cs_host *host;

/* The number behind "time_unix_s". It stands once in the input, and the host sends valid JSON; nonetheless
 * nothing is read beyond the end. A plugin that needs more of the input takes a JSON library. */
static int find_time(cs_str in, int64_t *time) {
  static const char NAME[] = "\"time_unix_s\":";
  size_t at, length = sizeof NAME - 1;
  for (at = 0; at + length < in.len; at++) {
    int64_t n = 0;
    size_t digits = 0;
    if (memcmp(in.ptr + at, NAME, length) != 0) continue;
    for (at += length; at < in.len && in.ptr[at] == ' '; at++) {}
    for (; at < in.len && in.ptr[at] >= '0' && in.ptr[at] <= '9' && digits < 15; at++, digits++)
      n = n * 10 + (in.ptr[at] - '0');
    *time = n;
    return digits > 0;
  }
  return 0;
}

static cs_status create(const cs_host *given, cs_str config, void **self, cs_sink *err) {
  (void)config, (void)err;
  host = given;
  *self = &host;
  return CS_OK;
}

static void destroy(void *self) { (void)self; }

static cs_status signals(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  int64_t time;
  cs_str answer;
  (void)self, (void)call;
  if (!find_time(in, &time)) return CS_INVALID;
  answer.ptr = (const uint8_t *)(time % 86400 / 3600 >= NIGHT_BEGINS ? "{\"night\":true}" : "{\"night\":false}");
  answer.len = strlen((const char *)answer.ptr);
  return host->put(out, answer);
}

/* Nothing here can panic, so the self-test has nothing to contain. */
static cs_status selftest(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  (void)self, (void)call, (void)in, (void)out;
  return CS_INTERNAL;
}

static const void *get_extension(void *self, const char *id) {
  static const cs_ext_signal SIGNAL = {sizeof(cs_ext_signal), signals};
  static const cs_ext_meta META = {sizeof(cs_ext_meta), "{\"hooks\":[\"signal.signals\"],\"requests\":{}}", selftest};
  (void)self;
  if (strcmp(id, CS_EXT_SIGNAL) == 0) return &SIGNAL;
  if (strcmp(id, CS_EXT_META) == 0) return &META;
  return NULL;
}

static const cs_plugin PLUGIN = {sizeof(cs_plugin), CS_ABI_MAJOR, CS_ABI_MINOR, CS_FLAG_THREAD_SAFE,
                                 "com.example.@NAME@", "0.1.0", "Example", create, destroy, get_extension};

const cs_plugin *countersign_plugin_entry(uint32_t host_major, uint32_t host_minor) {
  (void)host_major, (void)host_minor; /* the host compares the versions in the table */
  return &PLUGIN;
}
