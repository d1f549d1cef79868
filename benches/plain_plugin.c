/* The least that a plugin can do: it answers with the same object whatever it is asked. */
#include "countersign_plugin.h"
#include <string.h>

static const cs_host *host;

static cs_status create(const cs_host *given, cs_str config, void **self, cs_sink *err) {
  (void)config, (void)err;
  host = given;
  *self = &host;
  return CS_OK;
}

static void destroy(void *self) { (void)self; }

static cs_status signals(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  static const char ANSWER[] = "{\"plain\": true}";
  cs_str answer = {(const uint8_t *)ANSWER, sizeof ANSWER - 1};
  (void)self, (void)call, (void)in;
  return host->put(out, answer);
}

static cs_status selftest(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  (void)self, (void)call, (void)in, (void)out;
  return CS_INTERNAL;
}

static const void *get_extension(void *self, const char *id) {
  static const cs_ext_signal SIGNAL = {sizeof(cs_ext_signal), signals};
  static const cs_ext_meta META = {sizeof(cs_ext_meta), "{\"hooks\":[\"signal.signals\"]}", selftest};
  (void)self;
  if (strcmp(id, CS_EXT_SIGNAL) == 0) return &SIGNAL;
  if (strcmp(id, CS_EXT_META) == 0) return &META;
  return NULL;
}

static const cs_plugin PLUGIN = {sizeof(cs_plugin), CS_ABI_MAJOR, CS_ABI_MINOR, CS_FLAG_THREAD_SAFE,
                                 "countersign.plain", "1.0.0", "Countersign", create, destroy, get_extension};

const cs_plugin *countersign_plugin_entry(uint32_t major, uint32_t minor) {
  (void)major, (void)minor;
  return &PLUGIN;
}
