//! Plugins for tests, really built: the Rust ones by cargo, the C ones by the C compiler.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use countersign::clock::UnixTime;
use countersign::ids::{TenantId, UserId};
use countersign::plugin_host::{PluginHost, PluginLoadError, Services};
use countersign::secret::sha256;
use countersign::signin::facts::{
    Facts, HistoryFacts, LinkMethod, Location, ProviderFacts, RequestFacts, UpstreamFacts, UserFacts,
};
use countersign::signin::provider::{
    EmailTrust, EnrichFailure, IssuerRule, Linking, NoncePolicy, Provider, Provisioning, ReplayPolicy,
    SignatureAlgorithm,
};
use data_encoding::HEXLOWER;
use tempfile::TempDir;

/// 2023-11-14T22:13:20Z, a Tuesday.
pub const TUESDAY_NIGHT_S: i64 = 1_700_000_000;

pub const IP_LIST: &str = "countersign_plugin_ip_list";
pub const HS256_ISSUER: &str = "countersign_plugin_hs256_issuer";
pub const MFA_WEBHOOK: &str = "countersign_plugin_mfa_webhook";
pub const HEADER_TOKEN: &str = "countersign_plugin_header_token";
pub const LINE: &str = "countersign_plugin_line";
pub const FIREBASE: &str = "countersign_plugin_firebase";
pub const SSF: &str = "countersign_plugin_ssf";
pub const MISBEHAVING: &str = "countersign_plugin_misbehaving";

/// Where cargo puts what it builds for this test.
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.ancestors().nth(3).expect("a test lies in target/<profile>/deps").to_owned()
}

/// The library of a plugin crate of this workspace; the first call builds all of them.
pub fn rust_plugin(library: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let target = target_dir();
        let packages = [
            "countersign-plugin-sdk",
            "countersign-plugin-ip-list",
            "countersign-plugin-mfa-webhook",
            "countersign-plugin-misbehaving",
            "countersign-plugin-hs256-issuer",
            "countersign-plugin-header-token",
            "countersign-plugin-line",
            "countersign-plugin-firebase",
            "countersign-plugin-ssf",
        ];
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--target-dir"]).arg(&target);
        for package in packages {
            cargo.args(["-p", package]);
        }
        let done = cargo.output().expect("cargo runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        target.join("debug")
    });
    built.join(format!("{}{library}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX))
}

fn compile(source: &Path, switches: &[&str], output: &Path) {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/sdk/include");
    let done = Command::new("cc")
        .args(["-std=gnu11", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(include)
        .args(switches)
        .arg(source)
        .arg("-o")
        .arg(output)
        .output()
        .expect("these tests need a C compiler named cc");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A place with plugins, a lock file and a private store.
pub struct Bench {
    dir: TempDir,
    text: String,
}

/// An entry to be, with defaults that fit.
pub struct Entry {
    pub id: String,
    pub version: String,
    pub file: PathBuf,
    pub sha256: String,
    pub hooks: String,
    pub rest: String,
}

impl Entry {
    pub fn id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    pub fn hooks(mut self, hooks: &[&str]) -> Self {
        self.hooks = format!("{hooks:?}");
        self
    }

    /// Further lines of TOML.
    pub fn with(mut self, line: &str) -> Self {
        self.rest.push_str(line);
        self.rest.push('\n');
        self
    }
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        DirBuilder::new().mode(0o755).create(dir.path().join("lib")).expect("a directory");
        Self { dir, text: String::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file among the plugins, as an operator would.
    pub fn install(&self, from: &Path, name: &str) -> Entry {
        self.install_bytes(&fs::read(from).expect("a built plugin"), name)
    }

    pub fn install_bytes(&self, bytes: &[u8], name: &str) -> Entry {
        let file = self.path("lib").join(name);
        fs::write(&file, bytes).expect("written");
        fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("mode set");
        Entry {
            id: "test.fixture".to_owned(),
            version: "1.0.0".to_owned(),
            sha256: HEXLOWER.encode(&sha256(bytes)),
            file,
            hooks: "[\"signal.signals\"]".to_owned(),
            rest: String::new(),
        }
    }

    pub fn rust(&self, library: &str, id: &str) -> Entry {
        self.install(&rust_plugin(library), &format!("{library}.so")).id(id).version(env!("CARGO_PKG_VERSION"))
    }

    pub fn misbehaving(&self, config: &str) -> Entry {
        self.rust(MISBEHAVING, "countersign.misbehaving").with(&format!("config = {{ {config} }}"))
    }

    /// A C fixture, built with these switches.
    pub fn fixture(&self, switches: &[&str]) -> Entry {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        self.c(&root.join("tests/it/support/plugin_fixture.c"), switches)
    }

    /// The C plugin that attacks its host, built with these switches.
    pub fn hostile(&self, switches: &[&str]) -> Entry {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        self.c(&root.join("tests/it/support/plugin_hostile.c"), switches)
    }

    pub fn office_hours(&self) -> Entry {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = root.join("plugins/office_hours_c/office_hours.c");
        self.c(&source, &["-std=c11"]).id("countersign.office_hours")
    }

    fn c(&self, source: &Path, switches: &[&str]) -> Entry {
        let output = self.path("built.so");
        compile(source, switches, &output);
        self.install(&output, "c.so")
    }

    /// Writes the entry into the lock.
    pub fn lock(mut self, entry: &Entry) -> Self {
        let Entry { id, version, file, sha256, hooks, rest } = entry;
        let text = format!(
            "[[plugin]]\nid = \"{id}\"\nversion = \"{version}\"\nsha256 = \"{sha256}\"\nfile = \"{}\"\nhooks = {hooks}\n{rest}\n",
            file.display()
        );
        self.text.push_str(&text);
        self
    }

    pub fn lock_text(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// The written lock file.
    pub fn write(&self) -> PathBuf {
        // Renamed into place: a server that watches it must never read half of it.
        let (lock, next) = (self.path("plugins.lock"), self.path("plugins.lock.next"));
        fs::write(&next, &self.text).expect("written");
        fs::set_permissions(&next, Permissions::from_mode(0o644)).expect("mode set");
        fs::rename(next, &lock).expect("renamed");
        lock
    }

    pub fn load(&self) -> Result<PluginHost, PluginLoadError> {
        PluginHost::load(&self.write(), &self.path("store"), self.services())
    }

    /// Services with the program under test, and the secrets of the bench.
    pub fn services(&self) -> Services {
        Services {
            program: env!("CARGO_BIN_EXE_countersign").into(),
            secrets_dir: Some(self.path("secrets")),
            ..Services::default()
        }
    }

    /// A secret as an operator would put it there.
    pub fn secret(&self, name: &str, value: &str) -> &Self {
        let dir = self.path("secrets");
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(name), format!("{value}\n")).expect("written");
        fs::set_permissions(dir.join(name), Permissions::from_mode(0o600)).expect("mode set");
        self
    }

    /// The lock with this entry alone, from now on.
    pub fn relock(&mut self, entry: &Entry) {
        let old = std::mem::replace(self, Self::new());
        *self = Self { text: String::new(), ..old }.lock(entry);
        self.write();
    }

    pub fn must_load(&self) -> PluginHost {
        self.load().unwrap_or_else(|e| panic!("{e}"))
    }

    /// The message of the refusal, with its causes.
    pub fn refusal(&self) -> String {
        match self.load() {
            Ok(_) => panic!("it was loaded"),
            Err(error) => error.to_string(),
        }
    }
}

/// Facts of a sign-in from an address.
pub fn facts(ip: &str) -> Arc<Facts> {
    let mut claims = serde_json::Map::new();
    for (name, value) in
        [("iss", "https://issuer.example"), ("sub", "s-1"), ("email", "a@example.com"), ("nonce", "n")]
    {
        claims.insert(name.to_owned(), value.into());
    }
    Arc::new(Facts {
        tenant: TenantId::parse("default").expect("a tenant id"),
        client_id: "app".into(),
        provider: ProviderFacts { id: "google".into(), issuer: "https://issuer.example".into() },
        upstream: UpstreamFacts::default(),
        claims: Arc::new(claims),
        request: RequestFacts {
            ip: Some(ip.parse().expect("an address")),
            location: Location::default(),
            time: UnixTime::from_secs(TUESDAY_NIGHT_S),
            ..RequestFacts::default()
        },
        user: UserFacts {
            id: UserId::from_bytes([1; 16]),
            is_new: false,
            age_days: 3,
            status: "active",
            kind: countersign::signin::identity::UserKind::Person,
            email_verified: true,
            groups: vec!["staff".to_owned()],
            privileged: false,
            password: None,
            channels: Vec::new(),
            mfa_methods: Vec::new(),
            link_method: LinkMethod::Existing,
        },
        history: HistoryFacts::default(),
        plugin_signals: BTreeMap::new(),
    })
}

/// A provider with this name, of the tenant `default`.
pub fn provider(name: &str) -> Provider {
    Provider {
        tenant: TenantId::parse("default").expect("a tenant id"),
        name: name.into(),
        generation: 0,
        issuer: IssuerRule::Exact(vec!["https://issuer.example".to_owned()]),
        client_ids: vec!["app".to_owned()],
        authorized_parties: Vec::new(),
        algorithms: vec![SignatureAlgorithm::Es256],
        nonce: NoncePolicy::Optional,
        replay: ReplayPolicy::SingleUse,
        max_token_age: Duration::from_secs(600),
        clock_leeway: Duration::from_secs(30),
        email_trust: EmailTrust::Never,
        linking: Linking::Never,
        provisioning: Provisioning::Create,
        provisioning_domains: Vec::new(),
        trust_amr: Vec::new(),
        mapping: Vec::new(),
        allowed_groups: Vec::new(),
        allowed_roles: Vec::new(),
        default_roles: Vec::new(),
        remap: countersign::signin::provider::RemapRules::default(),
        enrich_failure: EnrichFailure::Deny,
        jwks_uri: None,
        notices: countersign::signin::provider::Notices::None,
        test_mode: false,
    }
}
