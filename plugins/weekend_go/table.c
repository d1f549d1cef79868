/* The tables: Go cannot make static C structs with function pointers. */
#include "_cgo_export.h"
#include <string.h>

static const cs_host *host;

cs_status weekend_put(cs_sink *out, cs_str answer) { return host->put(out, answer); }

static cs_status create(const cs_host *given, cs_str config, void **self, cs_sink *err) {
  (void)config, (void)err;
  host = given;
  *self = &host;
  return CS_OK;
}

static void destroy(void *self) { (void)self; }

static cs_status signals(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  (void)self, (void)call;
  return weekendSignals(in, out);
}

static cs_status selftest(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  (void)self, (void)call, (void)in, (void)out;
  return weekendSelftest();
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
                                 "countersign.weekend", "1.0.0", "Countersign", create, destroy, get_extension};

const cs_plugin *countersign_plugin_entry(uint32_t host_major, uint32_t host_minor) {
  (void)host_major, (void)host_minor; /* the host compares the versions in the table */
  return &PLUGIN;
}
