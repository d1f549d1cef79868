// Whether the verified e-mail address belongs to a provider of disposable ones: a plugin in C++17.
//
//   c++ -std=c++17 -shared -fPIC -O2 -Wall -Wextra -Wpedantic -Werror -I ../sdk/include disposable_email.cpp -o libdisposable_email.so
//   config = { domains = "mailinator.com trashmail.example" }
//   grants = { claims = ["email"] }
//
// gives {"disposable": true}; without an address it declines, so that "not known" is not taken for "no".
#include "countersign_plugin.h"

#include <cctype>
#include <exception>
#include <set>
#include <stdexcept>
#include <sstream>
#include <string>
#include <string_view>

namespace {

std::string_view view(cs_str text) { return {reinterpret_cast<const char *>(text.ptr), text.len}; }

// The text behind the first "name" of the input. Escapes are not undone: a domain has none. A plugin that needs more
// of the input takes a JSON library.
bool find_text(std::string_view json, std::string_view name, std::string &text) {
  const std::string key = "\"" + std::string(name) + "\"";
  std::size_t at = json.find(key);
  if (at == std::string_view::npos) return false;
  at = json.find_first_not_of(" \t\r\n:", at + key.size());
  if (at == std::string_view::npos || json[at] != '"') return false;
  const std::size_t end = json.find('"', at + 1);
  if (end == std::string_view::npos) return false;
  text = json.substr(at + 1, end - at - 1);
  return true;
}

class Disposable {
 public:
  Disposable(const cs_host *host, std::string_view config) : host_(host) {
    std::string domains, one;
    if (!find_text(config, "domains", domains)) throw std::invalid_argument("config: domains is missing");
    for (std::istringstream words(domains); words >> one;) domains_.insert(one);
  }

  cs_status judge(std::string_view in, cs_sink *out) const {
    std::string address;
    if (!find_text(in, "email", address)) return CS_DECLINED;
    const std::size_t at = address.rfind('@');
    if (at == std::string::npos) return CS_DECLINED;
    std::string domain = address.substr(at + 1);
    for (char &c : domain) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return put(out, domains_.count(domain) != 0 ? "{\"disposable\":true}" : "{\"disposable\":false}");
  }

  cs_status put(cs_sink *out, std::string_view text) const {
    return host_->put(out, {reinterpret_cast<const uint8_t *>(text.data()), text.size()});
  }

 private:
  const cs_host *host_;
  std::set<std::string> domains_;
};

// No exception may leave a function of the header.
template <typename Work>
cs_status contained(Work work) noexcept {
  try {
    return work();
  } catch (...) {
    return CS_INTERNAL;
  }
}

cs_status create(const cs_host *host, cs_str config, void **self, cs_sink *err) {
  return contained([&]() -> cs_status {
    try {
      *self = new Disposable(host, view(config));
      return CS_OK;
    } catch (const std::invalid_argument &wrong) {
      const std::string told = std::string("{\"message\":\"") + wrong.what() + "\"}";
      (void)host->put(err, {reinterpret_cast<const uint8_t *>(told.data()), told.size()});
      return CS_INVALID;
    }
  });
}

void destroy(void *self) { delete static_cast<Disposable *>(self); }

cs_status signals(void *self, const cs_call *, cs_str in, cs_sink *out) {
  return contained([&] { return static_cast<const Disposable *>(self)->judge(view(in), out); });
}

cs_status selftest(void *, const cs_call *, cs_str, cs_sink *) {
  return contained([]() -> cs_status { throw std::runtime_error("the self-test throws on purpose"); });
}

const void *get_extension(void *, const char *id) {
  static const cs_ext_signal signal = {sizeof(cs_ext_signal), signals};
  static const cs_ext_meta meta = {
      sizeof(cs_ext_meta), "{\"hooks\":[\"signal.signals\"],\"requests\":{\"claims\":[\"email\"]}}", selftest};
  const std::string_view wanted = id;
  if (wanted == CS_EXT_SIGNAL) return &signal;
  if (wanted == CS_EXT_META) return &meta;
  return nullptr;
}

const cs_plugin plugin = {sizeof(cs_plugin), CS_ABI_MAJOR, CS_ABI_MINOR, CS_FLAG_THREAD_SAFE,
                          "countersign.disposable_email", "1.0.0", "Countersign", create, destroy, get_extension};

}  // namespace

extern "C" const cs_plugin *countersign_plugin_entry(uint32_t, uint32_t) { return &plugin; }
