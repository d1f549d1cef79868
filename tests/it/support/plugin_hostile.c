/* A plugin that attacks its host; -DACT=… says how an operation does it, -DEARLY=… how its constructor does. */
#include "countersign_plugin.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const cs_host *host;

#define MAYBE_UNUSED __attribute__((unused))

static cs_str text_of(const char *text) {
  cs_str s = {(const uint8_t *)text, strlen(text)};
  return s;
}

static cs_status answer(cs_sink *out, const char *text) { return host->put(out, text_of(text)); }

/* The socket to the server, in a process of its own. */
MAYBE_UNUSED static int line(void) {
  struct stat seen;
  int fd;
  for (fd = 0; fd < 256; fd++)
    if (fstat(fd, &seen) == 0 && S_ISSOCK(seen.st_mode)) return fd;
  return -1;
}

MAYBE_UNUSED static void send_bytes(const void *bytes, size_t length) {
  const char *at = bytes;
  while (length > 0) {
    ssize_t sent = write(line(), at, length);
    if (sent <= 0) return;
    at += sent, length -= (size_t)sent;
  }
}

MAYBE_UNUSED static void send_frame(uint8_t kind, uint64_t number, const void *body, uint32_t length) {
  uint8_t frame[512];
  if (length > sizeof frame - 13) return;
  memcpy(frame, &length, 4);
  frame[4] = kind;
  memcpy(frame + 5, &number, 8);
  memcpy(frame + 13, body, length);
  send_bytes(frame, 13 + length);
}

MAYBE_UNUSED static cs_status wait_long(void) {
  sleep(120);
  return CS_OK;
}

/* What is no frame. */
MAYBE_UNUSED static cs_status garbage(const cs_call *call, cs_sink *out) {
  static const uint8_t NONE[4096] = {9, 9, 9, 0, 200};
  (void)call, (void)out;
  send_bytes(NONE, sizeof NONE);
  return wait_long();
}

/* A frame of 4 GiB less a byte. */
MAYBE_UNUSED static cs_status giant(const cs_call *call, cs_sink *out) {
  static const uint8_t HEAD[13] = {0xff, 0xff, 0xff, 0xff, 12};
  (void)call, (void)out;
  send_bytes(HEAD, sizeof HEAD);
  return wait_long();
}

/* Answers to what was never asked, each twice, and too short ones. */
MAYBE_UNUSED static cs_status false_replies(const cs_call *call, cs_sink *out) {
  static const uint8_t REPLY[] = {0, 0, 0, 0, 0, '{', '}'};
  uint64_t number;
  (void)call;
  for (number = 1000; number < 1100; number++) {
    send_frame(12, number, REPLY, sizeof REPLY);
    send_frame(12, number, REPLY, sizeof REPLY);
    send_frame(12, number, REPLY, 2);
    send_frame(13, number, REPLY, 1);
    send_frame(14, number, REPLY, 3);
    send_frame(15, number, REPLY, 7);
    send_frame(1, number, REPLY, 7);
  }
  return answer(out, "{\"done\":true}");
}

/* Requests without end, whose answers nobody reads. */
MAYBE_UNUSED static cs_status flood(const cs_call *call, cs_sink *out) {
  static const uint8_t GET[] = {2, 0x10, 0x27, 0, 0, 'k'};
  uint64_t number;
  (void)call;
  for (number = 1; number <= 5000; number++) send_frame(13, number << 32, GET, sizeof GET);
  return answer(out, "{\"done\":true}");
}

/* Reads what the server sends from standard input, where a clumsy library would. */
MAYBE_UNUSED static cs_status read_stdin(const cs_call *call, cs_sink *out) {
  char bytes[64];
  char told[64];
  (void)call;
  (void)snprintf(told, sizeof told, "{\"read\":%d}", (int)read(0, bytes, sizeof bytes));
  return answer(out, told);
}

/* First leaves a process behind and tells its number; then dies. */
MAYBE_UNUSED static cs_status fork_then_die(const cs_call *call, cs_sink *out) {
  static int calls;
  char told[64];
  pid_t pid;
  (void)call;
  if (calls++ > 0) abort();
  pid = fork();
  if (pid == 0) {
    sleep(120);
    _exit(0);
  }
  (void)snprintf(told, sizeof told, "{\"pid\":%d}", (int)pid);
  return answer(out, told);
}

/* So many processes as it gets, up to 400, each of a second. */
MAYBE_UNUSED static cs_status fork_often(const cs_call *call, cs_sink *out) {
  char told[64];
  int made = 0;
  (void)call;
  for (; made < 400; made++) {
    pid_t pid = fork();
    if (pid < 0) break;
    if (pid == 0) {
      sleep(1);
      _exit(0);
    }
  }
  (void)snprintf(told, sizeof told, "{\"made\":%d}", made);
  return answer(out, told);
}

/* Hangs up and lives on. */
MAYBE_UNUSED static cs_status hang_up(const cs_call *call, cs_sink *out) {
  int fd;
  (void)call, (void)out;
  while ((fd = line()) >= 0) {
    shutdown(fd, SHUT_RDWR);
    close(fd);
  }
  return wait_long();
}

/* Stands still, with every signal but one ignored. */
MAYBE_UNUSED static cs_status stop(const cs_call *call, cs_sink *out) {
  (void)call, (void)out;
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  raise(SIGSTOP);
  return wait_long();
}

/* Starts with a frame that never gets whole. */
MAYBE_UNUSED static cs_status drip(const cs_call *call, cs_sink *out) {
  static const uint8_t LOG[] = {0, 0, 1, 0, 14, 0, 0, 0, 0, 0, 0, 0, 0};
  int n;
  (void)call, (void)out;
  send_bytes(LOG, sizeof LOG);
  for (n = 0; n < 120; n++) {
    send_bytes("x", 1);
    sleep(1);
  }
  return CS_OK;
}

/* Uses what belonged to the call before, and has another thread use what belongs to this one. */
static struct {
  const cs_call *call;
  cs_sink *sink;
  cs_status put;
  int64_t left;
} kept;

MAYBE_UNUSED static void *use_kept(void *unused) {
  (void)unused;
  host->log(host->ctx, kept.call, CS_LOG_ERROR, text_of("late"), text_of(""));
  kept.left = host->remaining_ms(kept.call);
  kept.put = host->put(kept.sink, text_of("{\"late\":true}"));
  return NULL;
}

MAYBE_UNUSED static cs_status late(const cs_call *call, cs_sink *out) {
  const cs_host_env *env = host->get_extension(host->ctx, CS_HOST_ENV);
  char told[256];
  cs_status late_put = -1, late_secret = -1;
  int64_t late_left = -1;
  pthread_t other;
  if (kept.sink != NULL) {
    use_kept(NULL);
    late_put = kept.put, late_left = kept.left;
    late_secret = env->secret(host->ctx, kept.call, text_of("s"), NULL, NULL);
  }
  kept.call = call, kept.sink = out;
  if (pthread_create(&other, NULL, use_kept, NULL) != 0) return CS_INTERNAL;
  pthread_join(other, NULL);
  (void)snprintf(told, sizeof told, "{\"put\":%d,\"left\":%d,\"secret\":%d,\"other_put\":%d,\"has_time\":%s}",
                 (int)late_put, (int)late_left, (int)late_secret, (int)kept.put,
                 host->remaining_ms(call) > 0 ? "true" : "false");
  return answer(out, told);
}

/* Uses the host after its own end. */
MAYBE_UNUSED static void *live_on(void *unused) {
  int n;
  (void)unused;
  for (n = 0; n < 200; n++) {
    const cs_host_env *env = host->get_extension(host->ctx, CS_HOST_ENV);
    uint8_t byte;
    (void)env->random(host->ctx, &byte, 1);
    (void)env->secret(host->ctx, NULL, text_of("s"), NULL, NULL);
    host->log(host->ctx, NULL, CS_LOG_DEBUG, text_of("still here"), text_of(""));
    usleep(5000);
  }
#ifdef LIVED_FILE
  {
    FILE *f = fopen(LIVED_FILE, "w");
    if (f != NULL) fclose(f);
  }
#endif
  return NULL;
}

/* Arguments that make no sense; each must be refused, and nothing be written. */
MAYBE_UNUSED static void take_none(void *user, cs_str value) {
  (void)value;
  ++*(int *)user;
}

MAYBE_UNUSED static cs_status nonsense(const cs_call *call, cs_sink *out) {
  const cs_host_env *env = host->get_extension(host->ctx, CS_HOST_ENV);
  const cs_str nowhere = {NULL, 7}, endless = {(const uint8_t *)"x", SIZE_MAX};
  uint8_t buffer[4] = {7, 7, 7, 7};
  int taken = 0, wrong = 0;
  if (env == NULL || host->get_extension(host->ctx, NULL) != NULL || host->get_extension(NULL, CS_HOST_ENV) != NULL)
    return CS_INTERNAL;
  wrong += env->random(host->ctx, NULL, 4) != CS_INVALID;
  wrong += env->random(host->ctx, buffer, SIZE_MAX) != CS_INVALID;
  wrong += env->random(NULL, buffer, 4) != CS_INVALID;
  wrong += env->random(host->ctx, NULL, 0) != CS_OK;
  wrong += env->secret(host->ctx, call, nowhere, take_none, &taken) != CS_INVALID;
  wrong += env->secret(host->ctx, call, endless, take_none, &taken) != CS_INVALID;
  wrong += env->secret(NULL, call, text_of("s"), take_none, &taken) != CS_INVALID;
  wrong += env->secret(host->ctx, call, text_of("s"), NULL, NULL) != CS_INVALID;
  wrong += env->secret(host->ctx, call, text_of("../s"), take_none, &taken) != CS_REJECT;
  env->count(host->ctx, call, nowhere, 1, endless);
  env->count(NULL, call, text_of("a"), 1, text_of(""));
  env->count(host->ctx, call, text_of("a"), 0.0 / 0.0, text_of("["));
  env->count(host->ctx, call, text_of("a"), 1.0 / 0.0, text_of("{}"));
  host->log(host->ctx, call, CS_LOG_INFO, nowhere, endless);
  wrong += host->put(out, nowhere) != CS_INVALID;
  wrong += host->put(NULL, text_of("{}")) != CS_INVALID;
  wrong += host->remaining_ms(NULL) != 0;
  if (wrong != 0 || taken != 0 || memcmp(buffer, "\7\7\7\7", 4) != 0) return CS_INTERNAL;
  /* The second counts. */
  (void)answer(out, "{\"first\":true}");
  return answer(out, "{\"second\":true}");
}

/* Keeps something when the time is over. */
MAYBE_UNUSED static cs_status keep_late(const cs_call *call, cs_sink *out) {
  const cs_host_kv *kv = host->get_extension(host->ctx, CS_HOST_KV);
  char told[64];
  if (kv == NULL) return CS_INTERNAL;
  while (host->remaining_ms(call) > 0) usleep(1000);
  /* The last millisecond is told as none. */
  usleep(2000);
  (void)snprintf(told, sizeof told, "{\"status\":%d}", (int)kv->set(host->ctx, call, text_of("k"), text_of("v"), 60));
  return answer(out, told);
}

/* Tells of how many bytes the configuration was that this library last got: state of the library and not of the
 * instance, as clumsy plugins have it. */
static size_t configured;

MAYBE_UNUSED static cs_status tell_config(const cs_call *call, cs_sink *out) {
  char told[64];
  (void)call;
  (void)snprintf(told, sizeof told, "{\"bytes\":%zu}", configured);
  return answer(out, told);
}

/* Lines without end, outside of any call. */
MAYBE_UNUSED static cs_status log_often(const cs_call *call, cs_sink *out) {
  int n;
  (void)call;
  for (n = 0; n < 100000; n++) host->log(host->ctx, NULL, CS_LOG_ERROR, text_of("flood"), text_of(""));
  return answer(out, "{\"done\":true}");
}

/* Labels that would spoil the page of the metrics. */
MAYBE_UNUSED static cs_status label(const cs_call *call, cs_sink *out) {
  const cs_host_env *env = host->get_extension(host->ctx, CS_HOST_ENV);
  env->count(host->ctx, call, text_of("hostile"), 1,
             text_of("{\"__name__\":\"other\",\"0a\":\"b\",\"_a\":\"c\",\"line\":\"d\\ne\",\"fine\":\"f\"}"));
  return answer(out, "{\"done\":true}");
}

/* Leaves a byte in a file. */
#ifdef NOTE_FILE
MAYBE_UNUSED static cs_status note(const cs_call *call, cs_sink *out) {
  FILE *f = fopen(NOTE_FILE, "a");
  (void)call, (void)out;
  if (f == NULL) return CS_INTERNAL;
  (void)fputc('x', f);
  fclose(f);
  return CS_OK;
}
#endif

/* Ends the process as if all were well. */
MAYBE_UNUSED static cs_status leave(const cs_call *call, cs_sink *out) {
  (void)call, (void)out;
  exit(0);
}

/* Is inside for two seconds; destroy must not come before its end. */
static atomic_int inside;

MAYBE_UNUSED static cs_status slow(const cs_call *call, cs_sink *out) {
  (void)call;
  atomic_fetch_add(&inside, 1);
  sleep(2);
  atomic_fetch_sub(&inside, 1);
  return answer(out, "{}");
}

/* A few bytes that this plugin was built to answer. */
#ifdef ANSWER
static cs_status fixed(const cs_call *call, cs_sink *out) {
  static const char BYTES[] = ANSWER;
  cs_str bytes = {(const uint8_t *)BYTES, sizeof BYTES - 1};
  (void)call;
  return host->put(out, bytes);
}
#endif

MAYBE_UNUSED static cs_status nothing(const cs_call *call, cs_sink *out) {
  (void)call;
  return answer(out, "{}");
}

#ifndef ACT
#define ACT nothing
#endif
#ifndef REQUESTS
#define REQUESTS ""
#endif
#ifndef HOOK
#define HOOK "signal.signals"
#endif

static cs_status signals(void *self, const cs_call *call, cs_str in, cs_sink *out) {
  (void)self, (void)in;
  return ACT(call, out);
}

#ifdef EARLY
__attribute__((constructor)) static void on_load(void) { (void)EARLY(NULL, NULL); }
#endif

static cs_status create(const cs_host *given, cs_str config, void **self, cs_sink *err) {
  (void)err;
  host = given;
  configured = config.len;
  *self = &host;
#ifndef ANY_CONFIG
  if (config.len > 1000) return CS_UNAVAILABLE;
#endif
#ifdef REFUSE
  return CS_UNAVAILABLE;
#else
  return CS_OK;
#endif
}

static void destroy(void *self) {
  (void)self;
  if (atomic_load(&inside) != 0) abort();
#if defined(NOTE_FILE) && defined(NOTE_END)
  (void)note(NULL, NULL);
#endif
#ifdef LIVE_ON
  {
    pthread_t other;
    if (pthread_create(&other, NULL, live_on, NULL) == 0) pthread_detach(other);
  }
#endif
}

static const void *get_extension(void *self, const char *id) {
  static const cs_ext_signal SIGNAL = {sizeof(cs_ext_signal), signals};
  static const cs_ext_meta META = {sizeof(cs_ext_meta), "{\"hooks\":[\"" HOOK "\"],\"requests\":{" REQUESTS "}}", NULL};
  static const cs_ext_provider KEYS = {sizeof(cs_ext_provider), signals, NULL, NULL};
  (void)self;
  if (strcmp(id, CS_EXT_PROVIDER) == 0) return &KEYS;
  if (strcmp(id, CS_EXT_SIGNAL) == 0) return &SIGNAL;
  return strcmp(id, CS_EXT_META) == 0 ? &META : NULL;
}

static const cs_plugin PLUGIN = {sizeof(cs_plugin), CS_ABI_MAJOR, CS_ABI_MINOR, CS_FLAG_THREAD_SAFE, "test.fixture", "1.0.0", "Test", create, destroy, get_extension};

const cs_plugin *countersign_plugin_entry(uint32_t major, uint32_t minor) {
  (void)major, (void)minor;
  return &PLUGIN;
}
