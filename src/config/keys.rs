//! The one table of what may be configured: sections, keys, the form of their values, their defaults.

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A text in quotes.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number,
    /// A list of texts.
    List,
    /// A text, or a list of texts.
    TextOrList,
}

impl Form {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Text => "a text in quotes",
            Self::Flag => "true or false",
            Self::Number => "a whole number such as 10",
            Self::List => "a list of texts such as [\"a\", \"b\"]",
            Self::TextOrList => "a text in quotes, or a list of them",
        }
    }
}

/// What holds when a key is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    /// It must be given.
    Must,
    /// Its absence means something, or a preset says it.
    Absent,
    /// This text; a duration in the same words.
    Text(&'static str),
    /// This flag.
    Flag(bool),
    /// This number.
    Number(i64),
    /// The empty list.
    Empty,
    /// The list of this one text.
    One(&'static str),
    /// The list of these texts.
    Many(&'static [&'static str]),
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) default: Default,
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    /// Whether it is an array of tables.
    pub(super) repeated: bool,
    pub(super) keys: &'static [Key],
}

impl Section {
    /// As it stands in a file: `[server]`, `[[providers]]`.
    pub(super) fn shown(&self) -> String {
        if self.repeated { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }

    pub(super) fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name)
    }

    /// The message for a key that this section does not have.
    pub(super) fn unknown(&self, name: &str) -> String {
        let place = self.shown();
        let elsewhere = || SECTIONS.iter().find(|s| s.find(name).is_some());
        match (nearest(name, self.keys.iter().map(|k| k.name)), elsewhere()) {
            (_, Some(other)) => format!("unknown key \"{name}\" in {place}; it belongs in {}", other.shown()),
            (Some(near), None) => format!("unknown key \"{name}\" in {place}; nearest is \"{near}\""),
            (None, None) => format!("unknown key \"{name}\" in {place}"),
        }
    }
}

const fn key(name: &'static str, form: Form, default: Default) -> Key {
    Key { name, form, default }
}

const fn text(name: &'static str, default: &'static str) -> Key {
    key(name, Form::Text, Default::Text(default))
}

const fn optional(name: &'static str) -> Key {
    key(name, Form::Text, Default::Absent)
}

const fn list(name: &'static str) -> Key {
    key(name, Form::List, Default::Empty)
}

const fn flag(name: &'static str, default: bool) -> Key {
    key(name, Form::Flag, Default::Flag(default))
}

/// Everything that may be configured.
pub(super) static SECTIONS: &[Section] = &[
    Section {
        name: "server",
        repeated: false,
        keys: &[
            text("listen", "127.0.0.1:8080"),
            key("public_url", Form::Text, Default::Must),
            text("base_path", ""),
            list("trusted_proxies"),
            flag("allow_insecure_issuers", false),
            list("cors_origins"),
        ],
    },
    Section { name: "store", repeated: false, keys: &[text("url", "sqlite://data/countersign.db")] },
    Section { name: "secrets", repeated: false, keys: &[text("master_key_file", "data/master.key")] },
    Section {
        name: "tokens",
        repeated: false,
        keys: &[
            text("access_ttl", "30m"),
            text("refresh_ttl", "30d"),
            text("refresh_grace", "10s"),
            text("signing_algorithm", "EdDSA"),
            text("rotate_signing_key_every", "90d"),
        ],
    },
    Section {
        name: "limits",
        repeated: false,
        keys: &[key("sign_ins_per_minute", Form::Number, Default::Number(600)), list("exempt")],
    },
    Section {
        name: "policies",
        repeated: false,
        keys: &[text("dir", "policies"), list("signing_keys"), list("require_signature")],
    },
    Section { name: "records", repeated: false, keys: &[text("keep", "30d")] },
    Section { name: "plugins", repeated: false, keys: &[optional("lock"), optional("secrets_dir")] },
    Section { name: "geoip", repeated: false, keys: &[optional("city"), optional("asn")] },
    Section { name: "network", repeated: false, keys: &[list("granted")] },
    Section { name: "keys_cache", repeated: false, keys: &[optional("dir")] },
    Section {
        name: "tenants",
        repeated: true,
        keys: &[
            key("id", Form::Text, Default::Must),
            list("hosts"),
            optional("session_idle"),
            optional("session_ttl"),
            key("max_sessions", Form::Number, Default::Absent),
        ],
    },
    Section {
        name: "clients",
        repeated: true,
        keys: &[
            text("tenant", "default"),
            key("id", Form::Text, Default::Must),
            text("kind", "web"),
            key("secret_hash", Form::TextOrList, Default::Absent),
            key("providers", Form::List, Default::Absent),
            list("audiences"),
            key("grants", Form::List, Default::Many(&["token-exchange", "refresh_token"])),
        ],
    },
    Section {
        name: "providers",
        repeated: true,
        keys: &[
            text("tenant", "default"),
            key("name", Form::Text, Default::Must),
            flag("enabled", true),
            optional("preset"),
            key("issuer", Form::TextOrList, Default::Absent),
            list("allowed_tenant_ids"),
            key("client_ids", Form::List, Default::Must),
            list("authorized_parties"),
            key("algorithms", Form::List, Default::One("RS256")),
            text("nonce", "optional"),
            text("replay", "single_use"),
            text("max_token_age", "10m"),
            text("clock_leeway", "60s"),
            key("email_trust", Form::TextOrList, Default::Text("claim")),
            text("linking", "never"),
            text("provisioning", "create"),
            list("provisioning_domains"),
            list("trust_amr"),
            optional("mapping"),
            list("remap_once"),
            list("remap_never"),
            list("allowed_groups"),
            list("allowed_roles"),
            list("default_roles"),
            text("enrich_failure", "deny"),
            optional("jwks_uri"),
            text("notices", "none"),
            flag("test_mode", false),
        ],
    },
];

pub(super) fn find_section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|s| s.name == name)
}

/// The known word that looks most like this one.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |k: &str| strsim::normalized_damerau_levenshtein(word, k);
    known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// The variable of a key: `COUNTERSIGN_SERVER__LISTEN`, `COUNTERSIGN_PROVIDERS__0__ISSUER`.
pub(super) fn variable(section: &Section, index: usize, key: &str) -> String {
    let place = if section.repeated { format!("{}__{index}", section.name) } else { section.name.to_owned() };
    format!("{PREFIX}{place}__{key}").to_uppercase()
}

/// What every variable of ours begins with.
pub(super) const PREFIX: &str = "COUNTERSIGN_";
