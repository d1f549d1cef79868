/* Whether a sign-in falls into office hours (UTC), from request.time_unix_s: a whole plugin in C.
 *
 *   cc -std=c11 -shared -fPIC -O2 -Wall -Wextra -Wpedantic -Werror -I ../sdk/include office_hours.c -o liboffice_hours.so
 *   config = { first_day = 1, last_day = 5, from_hour = 8, to_hour = 18 }    # 1 is Monday; to_hour is exclusive
 *
 * gives {"office_hours": true, "weekday": 2, "hour": 9}. It needs no grant. */
#include "countersign_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Just enough JSON to find a member of one object. The host sends valid JSON; nonetheless no read goes
 * past the end, whatever the bytes are, and nothing recurses. */
typedef struct { const uint8_t *at, *end; } cursor;

static void skip_space(cursor *c) {
  while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r')) c->at++;
}

/* Skips a string that begins at the cursor; its bytes, still escaped, go to *text. */
static int skip_string(cursor *c, cs_str *text) {
  if (c->at >= c->end || *c->at != '"') return 0;
  text->ptr = ++c->at;
  while (c->at < c->end && *c->at != '"') {
    if (*c->at == '\\') c->at++;
    if (c->at < c->end) c->at++;
  }
  if (c->at >= c->end) return 0;
  text->len = (size_t)(c->at - text->ptr);
  c->at++;
  return 1;
}

/* Skips any value, counting brackets outside of strings. */
static int skip_value(cursor *c) {
  size_t depth = 0;
  cs_str ignored;
  while (c->at < c->end) {
    uint8_t b = *c->at;
    if (b == '"') {
      if (!skip_string(c, &ignored)) return 0;
    } else if (b == '{' || b == '[') {
      depth++;
      c->at++;
    } else if (b == '}' || b == ']') {
      if (depth == 0) return 1;
      depth--;
      c->at++;
    } else if (b == ',' && depth == 0) {
      return 1;
    } else {
      c->at++;
    }
  }
  return depth == 0;
}

/* The value of a member of the object that json is; 0 when there is none. Names with escapes do not match. */
static int find_member(cs_str json, const char *name, cs_str *value) {
  cursor c;
  if (json.ptr == NULL || json.len == 0) return 0;
  c.at = json.ptr;
  c.end = json.ptr + json.len;
  skip_space(&c);
  if (c.at >= c.end || *c.at++ != '{') return 0;
  for (;;) {
    cs_str key;
    skip_space(&c);
    if (!skip_string(&c, &key)) return 0;
    skip_space(&c);
    if (c.at >= c.end || *c.at++ != ':') return 0;
    skip_space(&c);
    value->ptr = c.at;
    if (!skip_value(&c)) return 0;
    value->len = (size_t)(c.at - value->ptr);
    if (key.len == strlen(name) && memcmp(key.ptr, name, key.len) == 0) return 1;
    if (c.at >= c.end || *c.at++ != ',') return 0;
  }
}

/* A whole number of at most 15 digits, nothing but space after it. */
static int read_integer(cs_str json, int64_t *number) {
  size_t i = 0, digits = 0;
  int negative = 0;
  int64_t n = 0;
  if (i < json.len && json.ptr[i] == '-') {
    negative = 1;
    i++;
  }
  for (; i < json.len && json.ptr[i] >= '0' && json.ptr[i] <= '9'; i++, digits++) {
    if (digits == 15) return 0;
    n = n * 10 + (json.ptr[i] - '0');
  }
  if (digits == 0) return 0;
  for (; i < json.len; i++)
    if (json.ptr[i] != ' ' && json.ptr[i] != '\t' && json.ptr[i] != '\n' && json.ptr[i] != '\r') return 0;
  *number = negative ? -n : n;
  return 1;
}

typedef struct {
  const cs_host *host;
  int64_t first_day, last_day, from_hour, to_hour;
} office_hours;

static void put_text(const cs_host *host, cs_sink *sink, const char *text) {
  cs_str s;
  s.ptr = (const uint8_t *)text;
  s.len = strlen(text);
  (void)host->put(sink, s);
}

/* An absent member keeps its default; a present one must be a number from least to most. */
static int read_setting(cs_str config, const char *name, int64_t least, int64_t most, int64_t *number) {
  cs_str value;
  if (!find_member(config, name, &value)) return 1;
  return read_integer(value, number) && *number >= least && *number <= most;
}

static cs_status create(const cs_host *host, cs_str config, void **self, cs_sink *err) {
  office_hours *o = (office_hours *)malloc(sizeof *o);
  if (o == NULL) return CS_INTERNAL;
  o->host = host;
  o->first_day = 1;
  o->last_day = 5;
  o->from_hour = 8;
  o->to_hour = 18;
  if (!read_setting(config, "first_day", 1, 7, &o->first_day) || !read_setting(config, "last_day", 1, 7, &o->last_day)) {
    put_text(host, err, "{\"message\":\"config: first_day and last_day are 1 (Monday) to 7\"}");
  } else if (!read_setting(config, "from_hour", 0, 23, &o->from_hour) ||
             !read_setting(config, "to_hour", 1, 24, &o->to_hour) || o->from_hour >= o->to_hour) {
    put_text(host, err, "{\"message\":\"config: from_hour is 0 to 23, to_hour is 1 to 24 and after it\"}");
  } else {
    *self = o;
    return CS_OK;
  }
  free(o);
  return CS_INVALID;
}

static void destroy(void *self) { free(self); }

static cs_status signals(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  const office_hours *o = (const office_hours *)self;
  cs_str request, time;
  int64_t t, day, hour, weekday;
  int in_days;
  char answer[96];
  (void)call;
  if (!find_member(in, "request", &request) || !find_member(request, "time_unix_s", &time) || !read_integer(time, &t))
    return CS_INVALID;
  day = t / 86400 - (t % 86400 < 0);
  hour = (t - day * 86400) / 3600;
  weekday = ((day + 3) % 7 + 7) % 7 + 1; /* 1970-01-01 was a Thursday */
  in_days = o->first_day <= o->last_day ? weekday >= o->first_day && weekday <= o->last_day
                                        : weekday >= o->first_day || weekday <= o->last_day;
  (void)snprintf(answer, sizeof answer, "{\"office_hours\":%s,\"weekday\":%d,\"hour\":%d}",
                 in_days && hour >= o->from_hour && hour < o->to_hour ? "true" : "false", (int)weekday, (int)hour);
  put_text(o->host, out, answer);
  return CS_OK;
}

static const cs_ext_signal SIGNAL = {sizeof(cs_ext_signal), signals};

/* Nothing here can panic, so the self-test has nothing to contain. */
static cs_status selftest(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  (void)self, (void)call, (void)in, (void)out;
  return CS_INTERNAL;
}

static const cs_ext_meta META = {
    sizeof(cs_ext_meta), "{\"hooks\":[\"signal.signals\"],\"requests\":{\"facts\":[],\"claims\":[]}}", selftest};

static const void *get_extension(void *self, const char *id) {
  (void)self;
  if (strcmp(id, CS_EXT_SIGNAL) == 0) return &SIGNAL;
  if (strcmp(id, CS_EXT_META) == 0) return &META;
  return NULL;
}

static const cs_plugin PLUGIN = {sizeof(cs_plugin), CS_ABI_MAJOR, CS_ABI_MINOR, CS_FLAG_THREAD_SAFE,
                                 "countersign.office_hours", "1.0.0", "Countersign", create, destroy, get_extension};

const cs_plugin *countersign_plugin_entry(uint32_t host_major, uint32_t host_minor) {
  (void)host_major, (void)host_minor; /* the host compares the versions in the table */
  return &PLUGIN;
}
