/* Countersign's native plugin contract, ABI 1.0. C11 and C++17; ../README.md tells how to use it.
 *
 * Payloads are JSON objects in UTF-8. Unknown members are ignored, both ways. Structs with a `size`
 * are only ever appended to: set `size` to sizeof, and test it before you read a member that this
 * file does not have. The first two members of cs_plugin are the same in every major version.
 * Each side frees its own memory. No exception and no panic may leave a function of this file. */
#ifndef COUNTERSIGN_PLUGIN_H
#define COUNTERSIGN_PLUGIN_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define CS_ABI_MAJOR 1u /* must match exactly */
#define CS_ABI_MINOR 0u /* additive only */

/* An integer of fixed width, so that no compiler switch (-fshort-enums) changes the ABI. */
typedef int32_t cs_status;
enum {
  CS_OK = 0,          /* the output holds the answer */
  CS_DECLINED = 1,    /* "not mine": the host goes on without this plugin */
  CS_REJECT = 2,      /* verified bad: deny, never retried; the output may hold {"code": "…"} */
  CS_UNAVAILABLE = 3, /* transient: the host applies the failure policy */
  CS_TIMEOUT = 4,     /* transient, for want of time */
  CS_INVALID = 5,     /* the input, or what put() was given, is not usable */
  CS_INTERNAL = 6,    /* a fault of the plugin, a contained panic among them */
  CS_CANCELLED = 7
};

/* Borrowed for the call only. ptr may be NULL when len is 0. Not NUL-terminated. */
typedef struct { const uint8_t *ptr; size_t len; } cs_str;
/* How the host hands a value over: the callee copies what it wants to keep. user is the caller's own. */
typedef void (*cs_take)(void *user, cs_str value);
/* Host-owned output, written with put() by the called thread before it returns; otherwise put() gives CS_INVALID. */
typedef struct cs_sink cs_sink;
/* One call: its deadline and its log budget. Not used after the call returned, nor on another thread: then services
 * give CS_INVALID, remaining_ms() gives 0, log() does nothing. Neither of the two is an address. */
typedef struct cs_call cs_call;

enum { CS_LOG_ERROR = 1, CS_LOG_WARN = 2, CS_LOG_INFO = 3, CS_LOG_DEBUG = 4, CS_LOG_TRACE = 5 };

/* What the host offers. Lives as long as the process. */
typedef struct cs_host {
  uint32_t size, abi_minor;
  void *ctx; /* first argument of the functions below that take one */
  /* Copies json; a second put() replaces the first. More than 1 MiB: CS_INVALID, and the call counts
   * as failed, unless it gives CS_REJECT. The host may accept less for an operation (64 KiB for enrich and signals). */
  cs_status (*put)(cs_sink *, cs_str json);
  /* NULL: not offered, or not granted by the lock file. */
  const void *(*get_extension)(void *ctx, const char *id);
  /* Milliseconds left; 0 or less: stop now. */
  int64_t (*remaining_ms)(const cs_call *);
  /* call is NULL in create and on the plugin's own threads. fields_json may be empty. No secrets,
   * tokens or personal data. Cut at 2 KiB, at most 32 lines for one call and 200 a second for a plugin. */
  void (*log)(void *ctx, const cs_call *, uint32_t level, cs_str msg, cs_str fields_json);
} cs_host;

#define CS_FLAG_THREAD_SAFE 1u /* absent: the host serialises calls of an instance */
#define CS_FLAG_BLOCKING 2u    /* may wait for I/O: more calls at once by default */

/* Static: it and its strings live as long as the process. No pointer may be NULL. */
typedef struct cs_plugin {
  uint32_t size, abi_major;
  uint32_t abi_minor, flags;
  const char *id, *version, *vendor; /* "com.example.line", "1.2.0", "Example" */
  /* Sets *self and gives CS_OK, or puts {"message": "…"} into err and gives another status. */
  cs_status (*create)(const cs_host *, cs_str config_json, void **self, cs_sink *err);
  /* On the thread of create, after every call has returned. Not called when the process ends. */
  void (*destroy)(void *self);
  /* NULL: not implemented. The table lives as long as the process. self is NULL before create:
   * then only CS_EXT_META is asked for. */
  const void *(*get_extension)(void *self, const char *id);
} cs_plugin;

typedef cs_status (*cs_op)(void *self, const cs_call *, cs_str in_json, cs_sink *out_json);

/* An operation that is not implemented is NULL. A changed operation gets a new extension id. Inputs and
 * answers, member by member: ../OPERATIONS.md. */
#define CS_EXT_PROVIDER "countersign.provider/1"
typedef struct { uint32_t size; cs_op locate_keys, verify, enrich; } cs_ext_provider;
#define CS_EXT_SIGNAL "countersign.signal/1"
typedef struct { uint32_t size; cs_op signals; } cs_ext_signal;
#define CS_EXT_MFA "countersign.mfa/1"
typedef struct { uint32_t size; cs_op begin, verify; } cs_ext_mfa;
#define CS_EXT_EVENT "countersign.event/1"
typedef struct { uint32_t size; cs_op observe; } cs_ext_event;
/* manifest_json: {"hooks": […], "requests": {"facts": […], "claims": […], "http": ["host"], "secrets":
 * ["name"], "kv_kib": 64, "network": true}}, static, ends with NUL; a text and not an operation, since before
 * create there is no host to put() with. The lock file grants what the manifest requests, or less. "network": the
 * plugin opens connections itself, so a process of its own, which has no network, is refused.
 * selftest: fails inside on purpose (a Rust plugin panics) and must give CS_INTERNAL; self is NULL. */
#define CS_EXT_META "countersign.meta/1"
typedef struct { uint32_t size; const char *manifest_json; cs_op selftest; } cs_ext_meta;

/* Host extensions. ctx is cs_host.ctx; call is NULL in create and on the plugin's own threads, and such a
 * request has 10 s. take is called at most once, on the calling thread, before the function returns, and
 * only when that gives CS_OK. CS_DECLINED: there is no such value. CS_REJECT: the lock file does not grant
 * it. CS_UNAVAILABLE: try later. CS_TIMEOUT: no time is left. CS_INVALID: the request makes no sense. */
#define CS_HOST_HTTP "countersign.host.http/1"
typedef struct {
  uint32_t size;
  /* One HTTPS request to a granted host, 3 s at most. Any status of the answer is CS_OK. */
  cs_status (*fetch)(void *ctx, const cs_call *, cs_str request_json, cs_take take, void *user);
} cs_host_http;
#define CS_HOST_KV "countersign.host.kv/1"
typedef struct {
  uint32_t size;
  /* Keys have 1 to 128 bytes, values at most 64 KiB. Shared by the nodes of one store. */
  cs_status (*get)(void *ctx, const cs_call *, cs_str key, cs_take take, void *user);
  /* An empty value removes the key. ttl_s from 1 to 2592000. CS_REJECT also when the grant is full. */
  cs_status (*set)(void *ctx, const cs_call *, cs_str key, cs_str value, uint32_t ttl_s);
} cs_host_kv;
#define CS_HOST_ENV "countersign.host.env/1"
typedef struct {
  uint32_t size;
  cs_status (*secret)(void *ctx, const cs_call *, cs_str name, cs_take take, void *user);
  int64_t (*now_unix_ms)(void *ctx, const cs_call *);
  cs_status (*random)(void *ctx, uint8_t *buf, size_t len);
  /* Adds to a counter; metric is 1 to 48 of a-z 0-9 _, labels_json may be empty: names of 1 to 32 of a-z 0-9 _, a
   * letter first, and texts of at most 64 bytes; the first four. */
  void (*count)(void *ctx, const cs_call *, cs_str metric, double value, cs_str labels_json);
} cs_host_env;

#if defined(__GNUC__)
#define CS_EXPORT __attribute__((visibility("default")))
#else
#define CS_EXPORT
#endif
/* The one exported function. NULL: this host is not one the plugin can work with. */
CS_EXPORT const cs_plugin *countersign_plugin_entry(uint32_t host_major, uint32_t host_minor);

#ifdef __cplusplus
}
#endif
#endif
