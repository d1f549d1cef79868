//! A running server, and a client that checks every answer against the generated document.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use countersign::admin::access::{Role, Scope};
use countersign::admin::audit::Author;
use countersign::admin::failures::FailedKeys;
use countersign::admin::keys::{KeyCheck, NewAdminKey};
use countersign::app::App;
use countersign::app::likelihood::CountKeeper;
use countersign::clock::Clock;
use countersign::config;
use countersign::http::{openapi_document, spec};
use countersign::ids::TenantId;
use countersign::plugin_host::PluginHost;
use countersign::secret::SystemEntropy;
use countersign::session::rotation::KeyKeeper;
use countersign::store::Store;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::clock::TestClock;
use super::issuer::TestIssuer;

/// `.json(…)` for requests; the product itself has no use for that feature of the client.
pub trait JsonBody {
    fn json(self, body: &Value) -> Self;
}

impl JsonBody for reqwest::RequestBuilder {
    fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }
}

/// A server with one provider, `acme`, that a test issuer stands behind.
pub struct Service {
    pub clock: TestClock,
    pub issuer: TestIssuer,
    pub dir: Arc<TempDir>,
    pub store: Arc<Store>,
    test_mode: bool,
    keys: Arc<KeyKeeper>,
    counts: Arc<CountKeeper>,
    plugins: Arc<PluginHost>,
    base: String,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    /// The stable word of a refusal.
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or("")
    }

    /// Asserts a refusal.
    #[track_caller]
    pub fn expect(&self, status: u16, error: &str) -> &Self {
        assert_eq!((self.status, self.error()), (status, error), "{}", self.text);
        self
    }

    /// Asserts tokens, and gives the body.
    #[track_caller]
    pub fn signed_in(&self) -> &Value {
        assert_eq!(self.status, 200, "{}", self.text);
        assert_eq!(self.body["requires_mfa"], false, "{}", self.text);
        assert!(self.body["access_token"].is_string() && self.body["challenge_token"].is_null(), "{}", self.text);
        &self.body
    }

    /// Asserts a challenge, and gives the body.
    #[track_caller]
    pub fn challenged(&self) -> &Value {
        assert_eq!(self.status, 200, "{}", self.text);
        assert_eq!(self.body["requires_mfa"], true, "{}", self.text);
        for absent in ["access_token", "refresh_token", "token_type", "user"] {
            assert!(self.body.get(absent).is_none(), "{absent} in {}", self.text);
        }
        &self.body
    }
}

/// What a test changes of the ordinary server.
pub struct Setup {
    /// Further lines in the table of tenant `default`.
    pub tenant: String,
    /// Lines in `[limits]`: none is set by default, since all tests come from one network.
    pub limits: String,
    /// Further lines in `[server]`.
    pub server: String,
    pub provider: String,
    pub more_config: String,
    pub policies: PathBuf,
    /// Further lines in `[policies]`.
    pub policies_config: String,
    pub plugins_lock: Option<PathBuf>,
    pub base_path: String,
    /// Certificates that a program of its own trusts. Then nothing is fetched without TLS, nor from loopback.
    pub trusted: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            tenant: String::new(),
            limits: "sign_ins_per_minute = 0".to_owned(),
            server: String::new(),
            provider: String::new(),
            more_config: String::new(),
            policies: Path::new(env!("CARGO_MANIFEST_DIR")).join("policies"),
            policies_config: String::new(),
            plugins_lock: None,
            base_path: String::new(),
            trusted: None,
        }
    }
}

impl Setup {
    /// With further lines in the table of provider `acme`.
    pub fn provider(lines: &str) -> Self {
        Self { provider: lines.to_owned(), ..Self::default() }
    }

    /// With lines in `[tokens]`.
    pub fn tokens(lines: &str) -> Self {
        Self { more_config: format!("[tokens]\n{lines}\n"), ..Self::default() }
    }

    /// With further lines in the table of tenant `default`.
    pub fn tenant(lines: &str) -> Self {
        Self { tenant: lines.to_owned(), ..Self::default() }
    }

    /// With lines in `[limits]`, and requests over a trusted proxy on this machine.
    pub fn limits(lines: &str) -> Self {
        let server = "trusted_proxies = [\"127.0.0.0/8\"]".to_owned();
        Self { limits: lines.to_owned(), server, ..Self::default() }
    }

    /// With policies of the test's own: the shipped ones, and these files over them.
    pub fn with_policies(dir: &Path, files: &[(&str, &str)]) -> Self {
        let policies = dir.join("policies");
        copy_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("policies"), &policies);
        for (name, text) in files {
            let path = policies.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self { policies, ..Self::default() }
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Service {
    /// The ordinary server.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    pub async fn start_with(setup: Setup) -> Self {
        let clock = TestClock::fixed();
        let issuer = TestIssuer::start(clock.clone()).await;
        Self::start_on(Arc::new(TempDir::new().unwrap()), issuer, clock, setup).await
    }

    async fn start_on(dir: Arc<TempDir>, issuer: TestIssuer, clock: TestClock, setup: Setup) -> Self {
        let file = dir.path().join("countersign.toml");
        std::fs::write(&file, configuration(dir.path(), &issuer, &setup)).unwrap();
        let settings = config::load(&file, std::iter::empty()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let app = App::start_with(settings, None, Arc::new(clock.clone()), Arc::new(SystemEntropy)).await.unwrap();
        let (store, keys) = (Arc::clone(app.store()), Arc::clone(app.keys()));
        let counts = Arc::clone(app.counts());
        let plugins = Arc::clone(app.plugins());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.serve(listener, async move {
            let _ = stopped.await;
        }));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let test_mode = setup.provider.contains("test_mode = true");
        Self {
            clock,
            issuer,
            dir,
            store,
            test_mode,
            keys,
            counts,
            plugins,
            base,
            client,
            stop: Some(stop),
            running: Some(running),
        }
    }

    /// Another server on the same files, beside this one.
    pub async fn second_node(&self, setup: Setup) -> Self {
        Self::start_on(Arc::clone(&self.dir), self.issuer.clone(), self.clock.clone(), setup).await
    }

    /// Stops the server as SIGTERM would, and starts another one on the same files.
    pub async fn restart(self, setup: Setup) -> Self {
        self.stop().await.start_again(setup).await
    }

    /// Stops the server as SIGTERM would.
    pub async fn stop(mut self) -> Self {
        drop(self.stop.take());
        self.running.take().unwrap().await.unwrap();
        self
    }

    /// Starts another server on the files of a stopped one.
    pub async fn start_again(self, setup: Setup) -> Self {
        assert!(self.running.is_none(), "the server runs");
        Self::start_on(self.dir, self.issuer, self.clock, setup).await
    }

    /// Another server on the same files, beside this one.
    pub async fn beside(&self, setup: Setup) -> Self {
        Self::start_on(Arc::clone(&self.dir), self.issuer.clone(), self.clock.clone(), setup).await
    }

    /// The plugins of this server.
    pub fn plugins(&self) -> &Arc<PluginHost> {
        &self.plugins
    }

    /// The signing keys of this server.
    pub fn keys(&self) -> &KeyKeeper {
        &self.keys
    }

    /// Counts what is common, as the server does once a minute.
    pub async fn count(&self) {
        self.counts.refresh().await.unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.client
    }

    /// Sends any request, and checks the answer against the document.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        ask(&self.client, request, self.test_mode).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.client.post(self.url(path)).json(&body)).await
    }

    pub async fn get_with(&self, path: &str, access_token: &str) -> Answer {
        self.send(self.client.get(self.url(path)).bearer_auth(access_token)).await
    }

    pub async fn post_with(&self, path: &str, access_token: &str, body: Value) -> Answer {
        self.send(self.client.post(self.url(path)).bearer_auth(access_token).json(&body)).await
    }

    pub async fn put_with(&self, path: &str, bearer: &str, body: Value) -> Answer {
        self.send(self.client.put(self.url(path)).bearer_auth(bearer).json(&body)).await
    }

    pub async fn delete_with(&self, path: &str, bearer: &str) -> Answer {
        self.send(self.client.delete(self.url(path)).bearer_auth(bearer)).await
    }

    /// A new admin key, for one tenant or for all.
    pub async fn admin_key(&self, role: Role, tenant: Option<&str>) -> String {
        let tenant = tenant.map(|t| TenantId::parse(t).unwrap());
        let scope = tenant.clone().map_or(Scope::All, Scope::Tenant);
        let keys = KeyCheck {
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::new(SystemEntropy),
            keys: Arc::<Store>::clone(&self.store),
            failed: FailedKeys::default(),
        };
        // Written down for the server itself, so that a tenant's log holds what a test does and no more.
        let author = Author::command_line(None, self.clock.now(), &SystemEntropy);
        let new = NewAdminKey { role, scope, note: "test".to_owned(), lifetime: None };
        let (_, key) = keys.create(new, author).await.unwrap();
        String::from_utf8(key.expose().to_vec()).unwrap()
    }

    pub async fn sign_in(&self, id_token: &str) -> Answer {
        self.post("/auth/id-token/signin", json!({"id_token": id_token, "provider": "acme"})).await
    }

    /// From a certain device.
    pub async fn sign_in_from(&self, id_token: &str, agent: &str, device_id: &str) -> Answer {
        let body = json!({"id_token": id_token, "provider": "acme", "device_id": device_id});
        let request = self.client.post(self.url("/auth/id-token/signin")).header("user-agent", agent).json(&body);
        self.send(request).await
    }
}

/// Sends a request, and checks the answer against the document.
pub(super) async fn ask(client: &reqwest::Client, request: reqwest::RequestBuilder, test_mode: bool) -> Answer {
    let request = request.build().unwrap();
    let (method, path) = (request.method().as_str().to_lowercase(), request.url().path().to_owned());
    let response = client.execute(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    let answer = Answer { status, headers, text, body };
    check_documented(&method, &path, &answer, test_mode);
    answer
}

/// What a server of such a setup reads, with its data in this directory.
pub(super) fn configuration(dir: &Path, issuer: &TestIssuer, setup: &Setup) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let plugins = setup.plugins_lock.as_ref().map_or(String::new(), |lock| {
        let secrets = lock.with_file_name("secrets");
        format!("[plugins]\nlock = {lock:?}\nsecrets_dir = {secrets:?}\n")
    });
    format!(
        r#"
[server]
public_url = "http://127.0.0.1:8080"
allow_insecure_issuers = {}
base_path = {:?}
{}
[limits]
{}
[store]
url = "sqlite://{}"
[secrets]
master_key_file = {:?}
[policies]
dir = {:?}
{}
{plugins}
[[tenants]]
id = "default"
{}
[[tenants]]
id = "other"
hosts = ["other.example"]
{}
[[providers]]
tenant = "default"
name = "acme"
issuer = {:?}
client_ids = ["{}", "app-ios"]
algorithms = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
{}
"#,
        setup.trusted.is_none(),
        setup.base_path,
        setup.server,
        setup.limits,
        path("db/countersign.db"),
        path("keys/master.key"),
        setup.policies,
        setup.policies_config,
        setup.tenant,
        setup.more_config,
        if setup.trusted.is_some() { issuer.url.replace("http:", "https:") } else { issuer.url.clone() },
        TestIssuer::CLIENT,
        setup.provider,
    )
}

/// Every answer of a documented address is one that the document names; every refusal has the form of
/// the contract; nothing answers 500.
#[track_caller]
fn check_documented(method: &str, path: &str, answer: &Answer, test_mode: bool) {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    let document = DOCUMENT.get_or_init(openapi_document);
    assert_ne!(answer.status, 500, "{}", answer.text);
    assert!(answer.headers.contains_key("x-request-id"));
    if answer.status >= 400 {
        let body =
            answer.body.as_object().unwrap_or_else(|| panic!("not the form of the contract: {}", answer.text));
        let names: Vec<&str> = body
            .keys()
            .map(String::as_str)
            .filter(|name| *name != "link_token" && !(test_mode && *name == "checks"))
            .collect();
        assert!(body.get("link_token").is_none() || answer.error() == "account_exists", "{}", answer.text);
        let needed = ["code", "error", "message", "request_id", "timestamp"];
        let oauth = [
            "challenge_token",
            "description",
            "err",
            "error_description",
            "expires_in",
            "mfa_check_reason",
            "reason",
            "required_mfa_methods",
        ];
        let fits = if body.contains_key("error_description") {
            needed.iter().all(|n| names.contains(n))
                && names.iter().all(|n| needed.contains(n) || oauth.contains(n))
        } else {
            names == needed
        };
        assert!(fits, "{}", answer.text);
        assert_eq!(body["code"].as_u64().unwrap() / 1000, u64::from(answer.status));
        assert_eq!(body["request_id"].as_str().unwrap(), answer.headers["x-request-id"].to_str().unwrap());
    }
    let paths = document["paths"].as_object().unwrap();
    let known = paths.get(path).or_else(|| {
        let mut fitting = paths.iter().filter(|(template, _)| spec::fits(template, path));
        fitting.find(|(_, operations)| operations.get(method).is_some()).map(|(_, operations)| operations)
    });
    let Some(operation) = known.and_then(|p| p.get(method)) else { return };
    let documented = &operation["responses"][answer.status.to_string()];
    assert!(documented.is_object(), "{method} {path} answered {} undocumented: {}", answer.status, answer.text);
    if answer.status >= 400 {
        let listed = documented["description"].as_str().unwrap();
        assert!(
            listed.contains(&format!("`{}`", answer.error())),
            "{method} {path}: {} is not listed",
            answer.error()
        );
        return;
    }
    let Some(schema) = documented.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str) else {
        return;
    };
    let schema = document.pointer(&schema[1..]).unwrap();
    for (name, value) in answer.body.as_object().unwrap() {
        let property = schema["properties"].get(name).unwrap_or_else(|| panic!("{name} is not in the schema"));
        assert!(!value.is_null(), "{name} is null; the schema says it is absent then");
        if let Some(kind) = property["type"].as_str() {
            let fits = match kind {
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                "array" => value.is_array(),
                _ => true,
            };
            assert!(fits, "{name} should be a {kind}: {value}");
        }
    }
}
