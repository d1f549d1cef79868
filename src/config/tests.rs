use std::time::Duration;

use super::keys::{Default as KeyDefault, SECTIONS};
use super::*;
use crate::signin::provider::{
    EmailTrust, EnrichFailure, IssuerRule, Linking, NoncePolicy, Provisioning, ReplayPolicy, SignatureAlgorithm,
};

const EXAMPLE: &str = include_str!("../../countersign.example.toml");
pub(super) const HEAD: &str = "[server]\npublic_url = \"https://id.example.com\"\n";

pub(super) fn read(source: &str, env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse(Path::new("countersign.toml"), source, env)
}

fn error(source: &str, env: &[(&str, &str)]) -> String {
    read(source, env).expect_err("this configuration must be refused").to_string()
}

/// A provider on lines 3 to 6, and further lines from 7 on.
pub(super) fn with_provider(lines: &str) -> String {
    format!("{HEAD}[[providers]]\nname = \"own\"\nissuer = \"https://a.example\"\nclient_ids = [\"web\"]\n{lines}")
}

#[test]
fn the_smallest_file_has_the_documented_defaults() {
    let settings = read(&with_provider(""), &[]).unwrap();
    let server = &settings.server;
    assert_eq!(server.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!((server.public_url.as_str(), server.base_path.as_str()), ("https://id.example.com", ""));
    assert!(server.trusted_proxies.is_empty() && server.cors_origins.is_empty());
    assert!(!server.allow_insecure_issuers);
    assert_eq!(settings.store_url, "sqlite://data/countersign.db");
    assert_eq!(settings.master_key_file, Path::new("data/master.key"));
    assert_eq!(settings.tokens.issuer, "https://id.example.com");
    assert_eq!(settings.tokens.access_ttl, Duration::from_secs(30 * 60));
    assert_eq!(settings.tokens.refresh_ttl, Duration::from_secs(30 * 86_400));
    assert_eq!(settings.tokens.refresh_grace, Duration::from_secs(10));
    assert_eq!(settings.signing_algorithm, SigningAlgorithm::EdDsa);
    assert_eq!(settings.policies_dir, Path::new("policies"));
    assert_eq!((&settings.plugins_lock, &settings.geoip_city, &settings.geoip_asn), (&None, &None, &None));
    assert_eq!(settings.tenants.len(), 1);
    assert_eq!(settings.tenants[0].id.as_str(), "default");
    let provider = &settings.providers[0];
    assert_eq!((provider.tenant.as_str(), &*provider.name), ("default", "own"));
    assert_eq!(provider.issuer, IssuerRule::Exact(vec!["https://a.example".into()]));
    assert_eq!(provider.algorithms, [SignatureAlgorithm::Rs256]);
    assert_eq!((provider.nonce, provider.replay), (NoncePolicy::Optional, ReplayPolicy::SingleUse));
    assert_eq!(provider.max_token_age, Duration::from_secs(600));
    assert_eq!(provider.clock_leeway, Duration::from_secs(60));
    assert_eq!(provider.email_trust, EmailTrust::Claim);
    assert_eq!((provider.linking, provider.provisioning), (Linking::Never, Provisioning::Create));
    assert_eq!(provider.enrich_failure, EnrichFailure::Deny);
    assert_eq!(provider.mapping, ["own", "default"]);
    assert!(provider.trust_amr.is_empty() && provider.allowed_groups.is_empty());
    assert!(provider.authorized_parties.is_empty() && provider.jwks_uri.is_none());
}

#[test]
fn the_example_file_loads_as_it_stands() {
    let settings = read(EXAMPLE, &[]).unwrap();
    assert_eq!(settings.tenants[0].hosts, ["id.example.com"]);
    assert_eq!(settings.providers[0].mapping, ["google", "default"]);
}

#[test]
fn the_example_file_shows_every_key_in_its_table_with_its_default() {
    let mut table = String::new();
    let mut shown = Vec::new();
    for line in EXAMPLE.lines() {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']).to_owned();
        }
        let plain = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, value)) = plain.split_once(" = ") {
            shown.push((table.clone(), key.to_owned(), value.to_owned()));
        }
    }
    for section in SECTIONS {
        for key in section.keys {
            let found = shown.iter().find(|(t, k, _)| t == section.name && k == key.name);
            let (.., value) = found.unwrap_or_else(|| panic!("{} {} is not shown", section.shown(), key.name));
            match key.default {
                KeyDefault::Text(text) => assert_eq!(value, &format!("\"{text}\""), "{}", key.name),
                KeyDefault::Flag(flag) => assert_eq!(value, &flag.to_string(), "{}", key.name),
                KeyDefault::Number(number) => assert_eq!(value, &number.to_string(), "{}", key.name),
                KeyDefault::Empty if key.name != "hosts" => assert_eq!(value, "[]", "{}", key.name),
                KeyDefault::One(text) => assert_eq!(value, &format!("[\"{text}\"]"), "{}", key.name),
                _ => {}
            }
        }
    }
}

#[test]
fn a_variable_wins_over_the_file_and_every_key_has_one() {
    let file = with_provider("");
    let env = [
        ("COUNTERSIGN_SERVER__LISTEN", "127.0.0.1:9000"),
        ("COUNTERSIGN_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8"),
        ("COUNTERSIGN_SERVER__ALLOW_INSECURE_ISSUERS", "true"),
        ("COUNTERSIGN_TENANTS__0__ID", "acme"),
        ("COUNTERSIGN_PROVIDERS__0__TENANT", "acme"),
        ("COUNTERSIGN_PROVIDERS__0__CLIENT_IDS", "[\"a,b\", \"c\"]"),
        ("COUNTERSIGN_PROVIDERS__1__NAME", "second"),
        ("COUNTERSIGN_PROVIDERS__1__TENANT", "acme"),
        ("COUNTERSIGN_PROVIDERS__1__PRESET", "google"),
        ("COUNTERSIGN_PROVIDERS__1__CLIENT_IDS", "12345"),
        ("OTHER_SERVER__LISTN", "left alone"),
    ];
    let settings = read(&file, &env).unwrap();
    assert_eq!(settings.server.listen.port(), 9000);
    assert_eq!(settings.server.trusted_proxies.len(), 2);
    assert!(settings.server.allow_insecure_issuers);
    assert_eq!(settings.providers[0].client_ids, ["a,b", "c"]);
    assert_eq!(&*settings.providers[0].name, "own");
    assert_eq!(settings.providers[1].client_ids, ["12345"]);
    for section in SECTIONS {
        for key in section.keys {
            let name = keys::variable(section, 0, key.name);
            let told = read(&file, &[(&name, "true")]).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(!told.contains("unknown variable"), "{name}: {told}");
        }
    }
}

#[test]
fn unknown_keys_and_wrong_forms_are_told_with_their_line_and_the_mend() {
    let cases = [
        (
            with_provider("mapings = \"google\"\n"),
            "countersign.toml:7: unknown key \"mapings\" in [[providers]]; nearest is \"mapping\"",
        ),
        (
            format!("{HEAD}[[tenants]]\nid = \"a\"\nhost = [\"a.example\"]\n"),
            "countersign.toml:5: unknown key \"host\" in [[tenants]]; nearest is \"hosts\"",
        ),
        (
            format!("{HEAD}access_ttl = \"30m\"\n"),
            "countersign.toml:3: unknown key \"access_ttl\" in [server]; it belongs in [tokens]",
        ),
        (
            format!("listen = \"127.0.0.1:1\"\n{HEAD}"),
            "countersign.toml:1: unknown key \"listen\" outside any table; it belongs in [server]",
        ),
        (format!("{HEAD}[tokns]\n"), "countersign.toml:3: unknown table \"tokns\"; nearest is [tokens]"),
        (
            format!("{HEAD}[server.tls]\n"),
            "countersign.toml:3: unknown key \"tls\" in [server]; nearest is \"listen\"",
        ),
        (format!("{HEAD}[providers]\n"), "countersign.toml:3: providers is a table; write [[providers]]"),
        (format!("{HEAD}[[store]]\n"), "countersign.toml:3: store is an array of tables; write [store]"),
        (
            format!("{HEAD}listen = 8080\n"),
            "countersign.toml:3: listen in [server] is a number; it must be a text in quotes",
        ),
        (
            format!("{HEAD}cors_origins = \"https://a.example\"\n"),
            "countersign.toml:3: cors_origins in [server] is a text; it must be a list of texts such as [\"a\", \"b\"]",
        ),
        (
            format!("{HEAD}cors_origins = [1]\n"),
            "countersign.toml:3: cors_origins in [server] is a list with other things than texts; it must be a list of texts such as [\"a\", \"b\"]",
        ),
        (
            format!("{HEAD}allow_insecure_issuers = \"yes\"\n"),
            "countersign.toml:3: allow_insecure_issuers in [server] is a text; it must be true or false",
        ),
        (format!("{HEAD}listen = \"a\"\nlisten = \"b\"\n"), "countersign.toml:4: duplicate key"),
    ];
    for (source, expected) in cases {
        assert_eq!(error(&source, &[]), expected);
    }
}

#[test]
fn wrong_variables_are_told_by_their_name() {
    let cases = [
        ("COUNTERSIGN_SERVER__LISTN", "x", "unknown variable; nearest is COUNTERSIGN_SERVER__LISTEN"),
        ("COUNTERSIGN_LISTEN", "x", "unknown variable; nearest is COUNTERSIGN_SERVER__LISTEN"),
        ("COUNTERSIGN_SERVER__0__LISTEN", "x", "unknown variable; nearest is COUNTERSIGN_SERVER__LISTEN"),
        ("COUNTERSIGN_PROVIDERS__NAME", "x", "unknown variable; nearest is COUNTERSIGN_PROVIDERS__0__NAME"),
        (
            "COUNTERSIGN_PROVIDERS__01__NAME",
            "x",
            "\"01\" is not a number from 0 to 999; 0 is the first of the file",
        ),
        (
            "COUNTERSIGN_PROVIDERS__1000__NAME",
            "x",
            "\"1000\" is not a number from 0 to 999; 0 is the first of the file",
        ),
        ("COUNTERSIGN_SERVER__ALLOW_INSECURE_ISSUERS", "yes", "must be true or false"),
        ("COUNTERSIGN_PROVIDERS__0__CLIENT_IDS", "[1]", "must be a list of texts such as [\"a\", \"b\"]"),
        ("COUNTERSIGN_PROVIDERS__0__CLIENT_IDS", "[\"a\"", "must be a list of texts such as [\"a\", \"b\"]"),
        (
            "COUNTERSIGN_TOKENS__ACCESS_TTL",
            "30",
            "access_ttl = \"30\" is not a duration; write a whole number and s, m, h or d: \"30m\"",
        ),
    ];
    for (name, value, expected) in cases {
        assert_eq!(error(&with_provider(""), &[(name, value)]), format!("{name}: {expected}"));
    }
}

#[test]
fn every_wrong_value_is_told_once_with_its_line() {
    let server = |line: &str| format!("{HEAD}{line}\n");
    let url = |text: &str| format!("[server]\npublic_url = \"{text}\"\n");
    let tokens = |line: &str| format!("{HEAD}[tokens]\n{line}\n");
    let cases = [
        (
            url("http://id.example.com"),
            "2: public_url = \"http://id.example.com\" must be https; http is for loopback addresses only",
        ),
        (
            url("https://id.example.com/"),
            "2: public_url = \"https://id.example.com/\" must end without /, query or fragment: it is the `iss` of tokens",
        ),
        (url("https://u:p@id.example.com"), "2: public_url holds a user name or password; take it out"),
        (
            url("ftp://id.example.com"),
            "2: public_url = \"ftp://id.example.com\" is not a web address; write https://…",
        ),
        (url("id.example.com"), "2: public_url = \"id.example.com\" is not a URL: relative URL without a base"),
        (
            "[server]\n".into(),
            "1: public_url is missing in [server]; write the address that clients use: \"https://id.example.com\"",
        ),
        (
            server("listen = \"localhost:80\""),
            "3: listen = \"localhost:80\" is not an address with a port; write one such as \"127.0.0.1:8080\"",
        ),
        (
            server("base_path = \"api/\""),
            "3: base_path = \"api/\" must be \"\" or begin with / and end without it: \"/identity/api/v1\"",
        ),
        (
            server("base_path = \"/a/../b\""),
            "3: base_path = \"/a/../b\" must be \"\" or begin with / and end without it: \"/identity/api/v1\"",
        ),
        (
            format!("{HEAD}[network]\ngranted = [\"10.20.0.1\"]\n"),
            "4: granted: \"10.20.0.1\" is an address, not a network; write \"10.20.0.1/32\"",
        ),
        (
            format!("{HEAD}[network]\ngranted = [\"10.20.0.0/16\", \"10.20.0.1/16\"]\n"),
            "4: granted: \"10.20.0.1/16\" names a host inside a network; write \"10.20.0.0/16\"",
        ),
        (
            format!("{HEAD}[network]\ngranted = [\"0.0.0.0/0\"]\n"),
            "4: granted: \"0.0.0.0/0\" would reach everything inside; name the networks of your providers",
        ),
        (
            format!("{HEAD}[network]\ngrantet = []\n"),
            "4: unknown key \"grantet\" in [network]; nearest is \"granted\"",
        ),
        (
            server("trusted_proxies = [\"10.0.0.1\"]"),
            "3: trusted_proxies: \"10.0.0.1\" is an address, not a network; write \"10.0.0.1/32\"",
        ),
        (
            server("trusted_proxies = [\"10.0.0.1/8\"]"),
            "3: trusted_proxies: \"10.0.0.1/8\" names a host inside a network; write \"10.0.0.0/8\"",
        ),
        (
            server("trusted_proxies = [\"::/0\"]"),
            "3: trusted_proxies: \"::/0\" would believe everybody; name the proxies' networks",
        ),
        (
            server("trusted_proxies = [\"lan\"]"),
            "3: trusted_proxies: \"lan\" is not a network; write one such as \"10.0.0.0/8\"",
        ),
        (server("cors_origins = [\"*\"]"), "3: cors_origins: \"*\" would let every web page in; name each origin"),
        (
            server("cors_origins = [\"https://A.example/\"]"),
            "3: cors_origins: \"https://A.example/\" is not what browsers send; write \"https://a.example\"",
        ),
        (
            server("[store]\nurl = \"postgres://u:secret@h/d\""),
            "4: url in [store] names PostgreSQL, which is not supported by this build yet; use \"sqlite://FILE\"",
        ),
        (
            server("[store]\nurl = \"mysql://u:secret@h/d\""),
            "4: url in [store] is of an unknown kind; write \"sqlite://data/countersign.db\"",
        ),
        (
            server("[store]\nurl = \"sqlite://:memory:\""),
            "4: url in [store] names no file; write \"sqlite://data/countersign.db\"",
        ),
        (
            server("[store]\nurl = \"sqlite://a.db?mode=ro\""),
            "4: url in [store] has ?, # or % in it; write the plain path of a file after sqlite://",
        ),
        (server("[plugins]\nlock = \"\""), "4: lock is empty; name a file or directory, or leave the key out"),
        (tokens("access_ttl = \"59s\""), "4: access_ttl = \"59s\" is out of bounds; it must be from 1m to 24h"),
        (tokens("access_ttl = \"2d\""), "4: access_ttl = \"2d\" is out of bounds; it must be from 1m to 24h"),
        (
            tokens("access_ttl = \"20h\"\nrefresh_ttl = \"1h\""),
            "5: refresh_ttl is shorter than access_ttl; it must be at least as long",
        ),
        (
            tokens("refresh_ttl = \"99999999999999999999d\""),
            "4: refresh_ttl = \"99999999999999999999d\" is not a duration; write a whole number and s, m, h or d: \"30m\"",
        ),
        (
            tokens("refresh_grace = \"61s\""),
            "4: refresh_grace = \"61s\" is out of bounds; it must be from 0s to 60s",
        ),
        (
            tokens("signing_algorithm = \"HS256\""),
            "4: signing_algorithm = \"HS256\" is not known; use \"EdDSA\" or \"ES256\" or \"RS256\"; nearest is \"RS256\"",
        ),
        (
            tokens("rotate_signing_key_every = \"59m\""),
            "4: rotate_signing_key_every = \"59m\" is out of bounds; it must be from 1h to 400d",
        ),
        (
            server("[[tenants]]\nid = \"a\"\nmax_sessions = 0"),
            "5: max_sessions = 0 is out of bounds; it must be from 1 to 1000",
        ),
        (
            server("[[tenants]]\nid = \"a\"\nmax_sessions = \"3\""),
            "5: max_sessions in [[tenants]] is a text; it must be a whole number such as 10",
        ),
        (
            server("[[tenants]]\nid = \"a\"\nsession_idle = \"1s\""),
            "5: session_idle = \"1s\" is out of bounds; it must be from 1m to 400d",
        ),
        (
            server("[[clients]]\nid = \"a\"\ngrants = []"),
            "3: secret_hash is missing: a client of kind web or machine has a secret",
        ),
        (
            server("[[clients]]\nid = \"a\"\nkind = \"spa\"\ngrants = []\nsecret_hash = \"hunter2\""),
            "7: secret_hash is not SHA-256 in hex, 64 characters; the example file shows how to make it",
        ),
        (
            server("[[clients]]\nid = \"a\"\nkind = \"spa\"\nproviders = [\"No Body\"]"),
            "6: providers = \"No Body\" must be 1 to 64 characters of a-z, 0-9, _ and -",
        ),
        (
            server("[[tenants]]\nid = \"A b\""),
            "4: id = \"A b\": a tenant id is 1 to 64 characters of a-z, 0-9, _ and -",
        ),
        (server("[[tenants]]\nhosts = []"), "3: id is missing in [[tenants]]; write one such as id = \"default\""),
        (
            server("[[tenants]]\nid = \"a\"\n[[tenants]]\nid = \"a\""),
            "6: tenant \"a\" is there already; give each its own id",
        ),
        (
            server(
                "[[tenants]]\nid = \"a\"\nhosts = [\"x.example\"]\n[[tenants]]\nid = \"b\"\nhosts = [\"X.example\"]",
            ),
            "8: host \"x.example\" is named already by tenant \"a\"",
        ),
        (
            server("[[tenants]]\nid = \"a\"\nhosts = [\"https://x.example\"]"),
            "5: hosts: \"https://x.example\" is not a host name; write it without scheme, port and path: \"id.example.com\"",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(error(&source, &[]), format!("countersign.toml:{expected}"));
    }
}

#[test]
fn every_wrong_provider_is_told_once_with_its_line() {
    let all = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA";
    let cases: Vec<(&str, String)> = vec![
        ("tenant = \"acme\"", "7: provider of an unknown tenant \"acme\"; known are: default".into()),
        ("preset = \"gogle\"", "7: unknown preset \"gogle\"; known are google, apple, microsoft, gitlab, line, github-actions, okta, auth0, keycloak, cognito, firebase, kubernetes".into()),
        ("algorithms = []", "7: algorithms is empty: no token could be verified; write for example [\"RS256\"]".into()),
        ("algorithms = [\"RS256\", \"HS256\"]", format!("7: algorithms: \"HS256\" is symmetric: whoever checks such a token could forge one; use one of {all}")),
        ("algorithms = [\"none\"]", format!("7: algorithms: \"none\" means unsigned tokens; use one of {all}")),
        ("algorithms = [\"ES512\"]", format!("7: algorithms: \"ES512\" is not known; use one of {all}")),
        ("nonce = \"requird\"", "7: nonce = \"requird\" is not known; use \"optional\" or \"required\" or \"server_issued\" or \"forbidden\"; nearest is \"required\"".into()),
        ("replay = \"deny\"", "7: replay = \"deny\" is not known; use \"single_use\" or \"allow\"; nearest is \"single_use\"".into()),
        ("max_token_age = \"0s\"", "7: max_token_age = \"0s\" is out of bounds; it must be from 1s to 24h".into()),
        ("clock_leeway = \"301s\"", "7: clock_leeway = \"301s\" is out of bounds; it must be from 0s to 300s".into()),
        ("clock_leeway = \"-1s\"", "7: clock_leeway = \"-1s\" is not a duration; write a whole number and s, m, h or d: \"30m\"".into()),
        ("email_trust = []", "7: email_trust is an empty list; write \"never\" when no address is to be believed".into()),
        ("email_trust = [\"@a.example\"]", "7: email_trust: \"@a.example\" is not a domain; write one such as \"example.com\"".into()),
        ("email_trust = \"never\"\nprovisioning_domains = [\"a.example\"]", "8: provisioning_domains lets nobody in with email_trust = \"never\": no address is believed, and only a verified one counts; take provisioning_domains out, or write email_trust = \"claim\" or its domains".into()),
        ("email_trust = [\"a.example\"]\nprovisioning_domains = [\"A.example\", \"b.example\"]", "8: provisioning_domains names \"b.example\", where email_trust believes no address, so nobody of it gets in; add it to email_trust, or take it out of provisioning_domains".into()),
        ("email_trust = \"always\"", "7: email_trust = \"always\" is not known; use \"never\" or \"claim\"; nearest is \"claim\"".into()),
        ("mapping = \"../x\"", "7: mapping = \"../x\" must be 1 to 64 characters of a-z, 0-9, _ and -".into()),
        ("trust_amr = [\"\"]", "7: trust_amr holds \"\", which is empty or has white space around it".into()),
        ("enrich_failure = \"ignore\"", "7: enrich_failure = \"ignore\" is not known; use \"deny\" or \"continue\"; nearest is \"continue\"".into()),
        ("jwks_uri = \"http://a.example/k\"", "7: jwks_uri = \"http://a.example/k\" must be https; http is for loopback addresses only, and with allow_insecure_issuers".into()),
        ("allowed_tenant_ids = [\"t\"]", "7: allowed_tenant_ids does nothing without {tenantid} in issuer; take it out".into()),
        ("[[providers]]\nname = \"own\"\nissuer = \"https://b.example\"\nclient_ids = [\"x\"]", "8: provider \"own\" of tenant \"default\" is there already at countersign.toml:4; give each its own name".into()),
    ];
    for (lines, expected) in cases {
        assert_eq!(error(&with_provider(lines), &[]), format!("countersign.toml:{expected}"));
    }
}

#[test]
fn a_provider_without_name_issuer_or_client_ids_is_refused() {
    let provider = |lines: &str| format!("{HEAD}[[providers]]\n{lines}\n");
    let no_ids = "client_ids is empty: the provider cannot be enabled; list your client ids at the provider, or set enabled = false";
    let cases = [
        (
            "issuer = \"https://a.example\"\nclient_ids = [\"w\"]",
            "3: name is missing in [[providers]]; write one such as name = \"google\"".to_owned(),
        ),
        (
            "name = \"A\"\nissuer = \"https://a.example\"\nclient_ids = [\"w\"]",
            "4: name = \"A\" must be 1 to 64 characters of a-z, 0-9, _ and -".to_owned(),
        ),
        (
            "name = \"a\"\nclient_ids = [\"w\"]",
            "3: issuer is missing in [[providers]]; write it exactly as in the provider's tokens, or name a preset"
                .to_owned(),
        ),
        (
            "name = \"a\"\npreset = \"okta\"\nclient_ids = [\"w\"]",
            "3: issuer is missing: with preset \"okta\" everybody has an own one; write https://YOUR-ORG.okta.com or https://YOUR-ORG.okta.com/oauth2/default".to_owned(),
        ),
        ("name = \"a\"\npreset = \"google\"", format!("3: {no_ids}")),
        ("name = \"a\"\npreset = \"google\"\nclient_ids = []", format!("6: {no_ids}")),
        (
            "name = \"a\"\npreset = \"google\"\nclient_ids = [\"\"]",
            "6: client_ids holds \"\", which is empty or has white space around it".to_owned(),
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(error(&provider(lines), &[]), format!("countersign.toml:{expected}"));
    }
}

#[test]
fn issuers_that_could_not_match_or_not_be_trusted_are_refused() {
    let issuer =
        |value: &str| format!("{HEAD}[[providers]]\nname = \"own\"\nclient_ids = [\"web\"]\nissuer = {value}\n");
    let template = "https://a.example/{tenantid}/v2.0";
    let cases = [
        ("\"https://a.example \"", "issuer = \"https://a.example \" has white space in it; take it out".to_owned()),
        ("\"https://a.example\\u0000\"", "issuer = \"https://a.example\\0\" has white space in it; take it out".to_owned()),
        ("\"https://a.example?x=1\"", "issuer = \"https://a.example?x=1\" has a query or a fragment; issuers have none".to_owned()),
        ("\"https://a.example#x\"", "issuer = \"https://a.example#x\" has a query or a fragment; issuers have none".to_owned()),
        ("\"http://a.example\"", "issuer = \"http://a.example\" must be https; http is for loopback addresses only, and with allow_insecure_issuers".to_owned()),
        ("\"http://127.0.0.1:1\"", "issuer = \"http://127.0.0.1:1\" must be https; for a loopback provider in development set allow_insecure_issuers = true in [server]".to_owned()),
        ("\"http://localhost.evil.example\"", "issuer = \"http://localhost.evil.example\" must be https; http is for loopback addresses only, and with allow_insecure_issuers".to_owned()),
        ("[\"https://a.example\", \"https://u@b.example\"]", "issuer holds a user name or password; take it out".to_owned()),
        ("\"https://a.example/{tenantid}/v2.0\"", format!("issuer = \"{template}\" needs allowed_tenant_ids: without it every tenant of the provider could sign in")),
        ("\"https://a.example/{tenantid}/{tenantid}\"", "issuer = \"https://a.example/{tenantid}/{tenantid}\" has {tenantid} twice; once is enough".to_owned()),
        ("[\"https://a.example/{tenantid}/v2.0\", \"https://b.example\"]", format!("issuer = \"{template}\" with {{tenantid}} must stand alone")),
    ];
    for (value, expected) in cases {
        assert_eq!(error(&issuer(value), &[]), format!("countersign.toml:6: {expected}"));
    }
    let allowed = format!("{}allowed_tenant_ids = [\"a/b\"]\n", issuer("\"https://a.example/{tenantid}\""));
    assert_eq!(
        error(&allowed, &[]),
        "countersign.toml:7: allowed_tenant_ids: \"a/b\" is no tenant id; write its letters, digits and -"
    );
    let insecure = [("COUNTERSIGN_SERVER__ALLOW_INSECURE_ISSUERS", "true")];
    for fine in ["\"http://127.0.0.1:9/x\"", "\"http://[::1]:9\"", "\"http://localhost\"", "\"https://a.example/\""]
    {
        assert!(read(&issuer(fine), &insecure).is_ok(), "{fine}");
    }
    assert!(read(&issuer("\"http://10.0.0.1\""), &insecure).is_err());
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_no_value_of_the_store_is_shown() {
    let source = "[server]\nlisten = \"x\"\n[store]\nurl = \"db://u:hunter2@h\"\n[[providers]]\nname = \"a\"\n";
    let told = error(source, &[("COUNTERSIGN_TOKENS__ACCESS_TTL", "1")]);
    let places: Vec<&str> = told.lines().map(|l| l.split_once(": ").unwrap().0).collect();
    let file = |line: &str| format!("countersign.toml:{line}");
    assert_eq!(
        places,
        [&file("2"), &file("1"), &file("5"), &file("5"), &file("4"), "COUNTERSIGN_TOKENS__ACCESS_TTL"]
    );
    assert!(!told.contains("hunter2"));
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    assert!(error("[server\n", &[]).starts_with("countersign.toml:1: "), "{}", error("[server\n", &[]));
    assert!(error("[server]\nlisten = \n", &[]).starts_with("countersign.toml:2: "));
    let absent = load(Path::new("no/such/file.toml"), std::iter::empty()).unwrap_err().to_string();
    assert!(absent.starts_with("no/such/file.toml: cannot be read ("), "{absent}");
    assert!(absent.ends_with("); name another with --config FILE"), "{absent}");
}

#[test]
fn presets_fill_in_what_is_not_given() {
    let provider = |lines: &str| {
        let source = format!("{HEAD}[[providers]]\nname = \"p\"\nclient_ids = [\"w\"]\n{lines}\n");
        read(&source, &[]).unwrap().providers[0].clone()
    };
    let apple = provider("preset = \"apple\"");
    let both = vec!["https://appleid.apple.com".to_owned(), "https://account.apple.com".to_owned()];
    assert_eq!(apple.issuer, IssuerRule::Exact(both));
    assert_eq!(apple.mapping, ["p", "apple", "default"]);
    let microsoft = provider("preset = \"microsoft\"\nallowed_tenant_ids = [\"9188040d-6c67\"]");
    assert!(microsoft.issuer.may_match("https://login.microsoftonline.com/9188040d-6c67/v2.0"));
    assert!(!microsoft.issuer.may_match("https://login.microsoftonline.com/other/v2.0"));
    assert_eq!(microsoft.email_trust, EmailTrust::Never);
    let given = provider(
        "preset = \"google\"\nissuer = \"https://b.example\"\nalgorithms = [\"ES256\", \"ES256\"]\nmapping = \"own\"\nemail_trust = [\"Example.COM\"]\nnonce = \"required\"",
    );
    assert_eq!(given.issuer, IssuerRule::Exact(vec!["https://b.example".into()]));
    assert_eq!(given.algorithms, [SignatureAlgorithm::Es256]);
    assert_eq!(given.mapping, ["own", "google", "default"]);
    assert_eq!(given.email_trust, EmailTrust::Domains(vec!["example.com".into()]));
    assert_eq!(given.nonce, NoncePolicy::Required);
    for preset in presets::PRESETS.iter().filter(|p| p.issuers.len() == 1 && p.name != "microsoft") {
        assert_eq!(provider(&format!("preset = \"{}\"", preset.name)).issuer.shown(), preset.issuers[0]);
    }
}

#[test]
fn granted_networks_and_the_folder_of_cached_keys_are_read() {
    let settings = read(HEAD, &[]).unwrap();
    assert!(settings.granted_networks.is_empty());
    assert_eq!(settings.keys_cache_dir, Path::new("data/provider-keys"));
    let moved = format!("{HEAD}[secrets]\nmaster_key_file = \"/run/keys/master.key\"\n");
    assert_eq!(read(&moved, &[]).unwrap().keys_cache_dir, Path::new("/run/keys/provider-keys"));
    let env = [("COUNTERSIGN_NETWORK__GRANTED", "10.20.0.0/16, fd00:1::/32")];
    let given = format!("{moved}[keys_cache]\ndir = \"/var/cache/keys\"\n");
    let settings = read(&given, &env).unwrap();
    assert_eq!(settings.granted_networks, ["10.20.0.0/16", "fd00:1::/32"].map(|n| n.parse().unwrap()));
    assert_eq!(settings.keys_cache_dir, Path::new("/var/cache/keys"));
    assert!(error(&format!("{HEAD}[keys_cache]\ndir = \"\"\n"), &[]).contains("4: dir is empty"));
}

#[test]
fn presets_of_workloads_believe_no_address_and_link_nobody() {
    let provider = |lines: &str| {
        let source = format!("{HEAD}[[providers]]\nname = \"p\"\nclient_ids = [\"w\"]\n{lines}\n");
        read(&source, &[]).unwrap().providers[0].clone()
    };
    let github = provider("preset = \"github-actions\"");
    let kubernetes = provider("preset = \"kubernetes\"\nissuer = \"https://kubernetes.default.svc.cluster.local\"");
    for workload in [&github, &kubernetes] {
        assert_eq!((&workload.email_trust, workload.linking), (&EmailTrust::Never, Linking::Never));
    }
    assert_eq!((github.replay, github.max_token_age), (ReplayPolicy::SingleUse, Duration::from_secs(600)));
    assert_eq!((kubernetes.replay, kubernetes.max_token_age), (ReplayPolicy::Allow, Duration::from_secs(3600)));
    let strict =
        "preset = \"kubernetes\"\nissuer = \"https://a.example\"\nreplay = \"single_use\"\nmax_token_age = \"5m\"";
    let strict = provider(strict);
    assert_eq!((strict.replay, strict.max_token_age), (ReplayPolicy::SingleUse, Duration::from_secs(300)));
    let firebase = "preset = \"firebase\"\nissuer = \"https://securetoken.google.com/my-project\"";
    assert!(provider(firebase).jwks_uri.as_deref().unwrap().starts_with("https://www.googleapis.com/"));
    let elsewhere = provider(&format!("{firebase}\njwks_uri = \"https://keys.example/\""));
    assert_eq!(elsewhere.jwks_uri.as_deref(), Some("https://keys.example/"));
    assert_eq!(provider("preset = \"line\"").algorithms, [SignatureAlgorithm::Es256]);
}

#[test]
fn a_disabled_provider_is_checked_and_left_out() {
    let disabled = "[server]\npublic_url = \"http://[::1]:8080\"\n[[providers]]\nname = \"a\"\npreset = \"google\"\nenabled = false\n";
    assert!(read(disabled, &[]).unwrap().providers.is_empty());
    assert!(read(&format!("{disabled}linking = \"sometimes\"\n"), &[]).is_err());
}

#[test]
fn development_settings_trust_their_own_issuer_and_stay_on_loopback() {
    let listen = "127.0.0.1:4321".parse().unwrap();
    let settings = dev_settings(Path::new("here"), Some(listen)).unwrap();
    assert_eq!(settings.server.listen, listen);
    assert_eq!(settings.tokens.issuer, "http://127.0.0.1:4321");
    assert_eq!(settings.store_url, "sqlite://here/data/countersign.db");
    assert_eq!(settings.master_key_file, Path::new("here/data/master.key"));
    assert_eq!(settings.policies_dir, Path::new("here/policies"));
    let provider = &settings.providers[0];
    assert_eq!((&*provider.name, provider.issuer.shown().as_str()), ("dev", "http://127.0.0.1:4321/dev/issuer"));
    assert_eq!(provider.client_ids, ["dev-client"]);
    assert_eq!((provider.linking, provider.provisioning), (Linking::Never, Provisioning::Create));
    assert_eq!(provider.nonce, NoncePolicy::Optional);
    assert_eq!(dev_settings(Path::new(""), None).unwrap().store_url, "sqlite://data/countersign.db");
    assert!(dev_settings(Path::new("."), Some("[::1]:8080".parse().unwrap())).is_ok());
    for refused in ["0.0.0.0:8080", "[::]:8080", "192.168.0.1:8080", "127.0.0.1:0"] {
        let told = dev_settings(Path::new("."), Some(refused.parse().unwrap())).unwrap_err().to_string();
        assert!(told.starts_with(&format!("--dev refuses to listen on {refused}: ")), "{told}");
    }
    assert!(dev_settings(Path::new("50%"), None).is_err());
}
