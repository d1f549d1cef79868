//! `countersign token try`.

use std::io::Read;
use std::net::IpAddr;

use poem_openapi::types::ToJSON;
use serde_json::{Value, json};

use super::paint::{Lines, Mark, Paint};
use super::provider::enabled_provider;
use super::{FINDINGS, FINE, Failure, Place, UNREACHABLE, USAGE, runtime};
use crate::admin::directory::DirectoryRules;
use crate::app::offline::Offline;
use crate::clock::UnixTime;
use crate::codes::ErrorCode;
use crate::config::LiveDirectory;
use crate::dev;
use crate::http::dto::TokenCheck;
use crate::http::problem;
use crate::ids::{RequestId, TenantId};
use crate::signin::decision::{Decided, Decision};
use crate::signin::error::SignInError;
use crate::signin::facts::Facts;
use crate::signin::pipeline::Preview;
use crate::signin::ports::KeyError;
use crate::signin::request::{ClientContext, SignInRequest, TokenBinding};
use crate::signin::trace::{Checked, Status};
use crate::signin::user::PlannedChange;

/// The most that is read from standard input, in bytes.
const INPUT_BYTES: u64 = 64 * 1024;

#[derive(clap::Subcommand)]
pub(super) enum Token {
    /// Show what a sign-in with this ID token would do: every check, the mapping, the user, the facts, the score
    /// and the decision. Writes nothing, so the token stays unused.
    #[command(after_help = "Examples:\n  \
        countersign dev-token --sub ada | countersign token try - --dev\n  \
        countersign token try - --provider google --nonce n-0S6_WzA2Mj < token.txt\n  \
        countersign token try - --at 2026-01-15T10:30:00Z --json < token.txt\n\n\
        Exit codes: 0 would sign in or be challenged, 1 would be refused, 2 wrong usage or configuration,\n\
        3 keys or store out of reach.\n\nExample:\n  countersign token try - < token.txt")]
    Try(Box<Try>),
}

#[derive(clap::Args)]
pub(super) struct Try {
    /// The ID token, or - to read it from standard input, which keeps it out of the shell's history.
    token: String,
    #[command(flatten)]
    place: Place,
    /// The provider; found by issuer and audience when absent.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// The tenant.
    #[arg(long, value_name = "ID", default_value = TenantId::DEFAULT)]
    tenant: String,
    /// The raw nonce of the sign-in.
    #[arg(long)]
    nonce: Option<String>,
    /// The provider's access token, to check at_hash.
    #[arg(long, value_name = "TOKEN")]
    access_token: Option<String>,
    /// The device identifier that the application would send.
    #[arg(long, value_name = "ID")]
    device_id: Option<String>,
    /// The client's User-Agent.
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// The client's country (two letters), instead of what the address tells.
    #[arg(long, value_name = "CODE")]
    country: Option<String>,
    /// Walk as of this moment (RFC 3339). Keys are those of now.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Token {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let Self::Try(command) = self;
        runtime()?.block_on(command.run())
    }
}

impl Try {
    async fn run(self) -> Result<u8, Failure> {
        let settings = self.place.load()?;
        let at = self.at.as_deref().map(moment).transpose()?;
        let offline = Offline::open(&settings, at, !self.place.dev).await?;
        let request = self.request(offline.directory())?;
        let preview = offline.preview(&request).await;
        offline.close().await;
        if self.json {
            println!("{:#}", to_json(&preview));
        } else {
            print!("{}", to_text(&preview, &Paint::of_stdout()));
        }
        Ok(exit_code(&preview))
    }

    fn request(&self, directory: &LiveDirectory) -> Result<SignInRequest, Failure> {
        let tenants = directory.tenant_entries();
        if !tenants.iter().any(|t| t.tenant.id.as_str() == self.tenant) {
            return Err(unknown("tenant", &self.tenant, tenants.iter().map(|t| t.tenant.id.as_str())));
        }
        if let Some(name) = &self.provider {
            enabled_provider(directory, &self.tenant, name)?;
        }
        let country = self.country.clone();
        let location =
            dev::assumed_location(|name| country.clone().filter(|_| name == dev::ASSUMED_COUNTRY_HEADER));
        let location = location.map_err(|_| Failure::new(USAGE, "--country takes two letters such as DE"))?;
        Ok(SignInRequest {
            id: RequestId::from_bytes([0; 16]),
            tenant_header: Some(self.tenant.clone()),
            host: None,
            provider: self.provider.clone(),
            id_token: read_token(&self.token)?,
            nonce: self.nonce.clone(),
            access_token: self.access_token.clone(),
            name_hint: None,
            client: ClientContext {
                ip: self.ip,
                user_agent: self.user_agent.as_deref().map(Into::into),
                language: None,
                device_id: self.device_id.as_deref().map(Into::into),
                assumed_location: location,
            },
            binding: TokenBinding::default(),
            device_secret_hash: None,
        })
    }
}

pub(super) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    let known = if known.is_empty() { "none is configured".to_owned() } else { known.join(", ") };
    Failure::new(USAGE, format!("there is no {what} \"{name}\"; known: {known}"))
}

fn read_token(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.trim().to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(INPUT_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(USAGE, format!("standard input cannot be read as text: {error}")))?;
    Ok(text.trim().to_owned())
}

fn moment(text: &str) -> Result<UnixTime, Failure> {
    let at: jiff::Timestamp = text.parse().map_err(|_| {
        Failure::new(USAGE, format!("--at takes a time such as 2026-01-15T10:30:00Z, not \"{text}\""))
    })?;
    Ok(UnixTime::from_millis(at.as_millisecond()))
}

fn exit_code(preview: &Preview) -> u8 {
    match &preview.result {
        Ok(decided) if matches!(decided.decision(), Decision::Deny(_)) => FINDINGS,
        Ok(_) => FINE,
        Err(SignInError::Key(KeyError::Unavailable { .. }) | SignInError::EnrichUnavailable) => UNREACHABLE,
        Err(error) if error.code() == ErrorCode::StoreUnavailable => UNREACHABLE,
        Err(_) => FINDINGS,
    }
}

/// What it would come to: a word, and a sentence.
fn outcome(preview: &Preview) -> (&'static str, String) {
    match &preview.result {
        Ok(decided) => match decided.decision() {
            Decision::Issue { .. } => ("signed_in", "would sign in".to_owned()),
            Decision::Challenge { methods, reason, .. } => {
                let methods: Vec<&str> = methods.iter().map(|m| m.as_str()).collect();
                ("challenged", format!("would be challenged for {} ({reason})", methods.join(" or ")))
            }
            Decision::Deny(denial) => ("denied", format!("would be denied: {denial}")),
        },
        Err(error) => ("refused", format!("would be refused: {error}")),
    }
}

fn change_word(change: &PlannedChange) -> &'static str {
    match change {
        PlannedChange::None => "nothing",
        PlannedChange::Update { .. } => "the profile is brought up to date",
        PlannedChange::Link { .. } => "the identity is linked to an existing user",
        PlannedChange::Accept { .. } => "the invited user becomes active",
        PlannedChange::Create { .. } => "a user is created",
    }
}

/// An address as it may be shown: its domain.
fn domain(address: &str) -> String {
    format!("…@{}", address.rsplit_once('@').map_or("", |(_, domain)| domain))
}

fn facts_json(facts: &Facts) -> Value {
    let (request, history) = (&facts.request, &facts.history);
    json!({
        "request.country": request.location.country,
        "request.network_kind": request.location.network_kind.as_str(),
        "request.geo_quality": request.location.quality.as_str(),
        "upstream.amr": facts.upstream.amr,
        "upstream.acr": facts.upstream.acr,
        "upstream.enrich_missing": facts.upstream.enrich_missing,
        "upstream.trusted_mfa": facts.upstream.trusted_mfa,
        "upstream.auth_time_age_s": facts.upstream.auth_time_age_s,
        "upstream.token_age_s": facts.upstream.token_age_s,
        "user.is_new": facts.user.is_new,
        "user.age_days": facts.user.age_days,
        "user.privileged": facts.user.privileged,
        "user.link_method": facts.user.link_method.as_str(),
        "user.mfa_methods": facts.user.mfa_methods.iter().map(|f| f.method.as_str()).collect::<Vec<_>>(),
        "history.sign_ins_total": history.sign_ins_total,
        "history.failed_attempts_1h": history.failed_attempts_1h,
        "history.failed_attempts_24h": history.failed_attempts_24h,
        "history.denied_30d": history.denied_30d,
        "history.mfa_failed_24h": history.mfa_failed_24h,
        "history.known_prefix": history.known_prefix,
        "history.device": history.device.as_str(),
        "history.known_country": history.known_country,
        "history.known_asn": history.known_asn,
        "history.travel": history.travel.as_str(),
        "plugin_signals": facts.plugin_signals.iter().map(|(id, v)| (id, v.is_some())).collect::<Vec<_>>(),
    })
}

fn to_json(preview: &Preview) -> Value {
    let (word, _) = outcome(preview);
    let checks: Vec<Value> = preview.checks.iter().cloned().filter_map(|c| TokenCheck::from(c).to_json()).collect();
    let mut value = json!({
        "outcome": word,
        "tenant": preview.tenant.as_ref().map(TenantId::as_str),
        "provider": preview.provider.as_deref(),
        "checks": checks,
    });
    let refusal = |code: ErrorCode, message: String| json!({"code": problem::row(code).number, "error": code.as_str(), "message": message});
    match &preview.result {
        Err(error) => value["refusal"] = refusal(error.code(), error.to_string()),
        Ok(decided) => {
            if let Decision::Deny(denial) = decided.decision() {
                value["refusal"] = refusal(ErrorCode::SignInDenied, denial.to_string());
            }
            walked_json(decided, &mut value);
        }
    }
    value
}

fn walked_json(decided: &Decided, value: &mut Value) {
    let assessed = decided.assessed();
    let (resolved, assessment) = (assessed.resolved(), assessed.assessment());
    let profile = resolved.identity().profile();
    value["identity"] = json!({
        "email": profile.email.as_deref().map(domain),
        "email_verified": profile.email_verified,
        "has_name": profile.name.is_some(),
        "has_username": profile.username.is_some(),
        "has_phone": profile.phone.is_some(),
        "attributes": profile.attributes.keys().collect::<Vec<_>>(),
        "groups": profile.groups,
    });
    value["user"] = json!({
        "id": match resolved.change() {
            PlannedChange::Create { .. } => Value::Null,
            _ => resolved.known().user.id.to_string().into(),
        },
        "link_method": resolved.link_method().as_str(),
        "change": change_word(resolved.change()),
    });
    value["facts"] = facts_json(assessed.facts());
    let reasons: Vec<Value> =
        assessment.reasons.iter().map(|(code, points)| json!({"code": code, "points": points})).collect();
    value["assessment"] = json!({
        "score": assessment.score,
        "level": assessment.level.as_str(),
        "policy": assessment.policy,
        "reasons": reasons,
        "fault": assessment.fault.as_ref().map(ToString::to_string),
    });
    if let Decision::Challenge { methods, reason, .. } = decided.decision() {
        let methods: Vec<&str> = methods.iter().map(|m| m.as_str()).collect();
        value["challenge"] = json!({"methods": methods, "reason": reason});
    }
}

fn check_line(checked: &Checked, lines: &mut Lines) {
    let what = checked.check.as_str();
    match (checked.status, &checked.refusal) {
        (Status::Passed, _) => lines.ok(what, &checked.seen),
        (Status::Unproven, _) => {
            lines.add(what, Mark::Warn, format!("{}  (would fit, but nobody proved it)", checked.seen), None);
        }
        (Status::Failed, refusal) => {
            let (code, text) = refusal.as_ref().map_or(("", ""), |(code, text)| (code.as_str(), text.as_str()));
            let mend = format!("expected {}", checked.expected);
            lines.add(what, Mark::Fail, format!("{text}  [{code}]"), Some(mend));
        }
        (Status::Skipped, _) => lines.idle(what, &checked.seen),
        (Status::NotApplicable, _) => lines.idle(what, format!("{} (not asked for)", checked.seen)),
    }
}

fn to_text(preview: &Preview, paint: &Paint) -> String {
    let (_, sentence) = outcome(preview);
    let provider = preview.provider.as_deref().unwrap_or("no provider");
    let tenant = preview.tenant.as_ref().map_or("", TenantId::as_str);
    let mut text = format!("{}\n\nChecks  ({provider}, tenant {tenant})\n", paint.strong(&sentence));
    let mut lines = Lines::default();
    preview.checks.iter().for_each(|c| check_line(c, &mut lines));
    text.push_str(&lines.to_text(paint));
    let Ok(decided) = &preview.result else { return text + "\nNothing was written.\n" };
    let assessed = decided.assessed();
    let (resolved, assessment) = (assessed.resolved(), assessed.assessment());
    let profile = resolved.identity().profile();
    let email = profile.email.as_deref().map_or_else(|| "none".to_owned(), domain);
    let verified = if profile.email_verified { "verified" } else { "not verified" };
    text.push_str(&format!("\nIdentity  e-mail {email} ({verified}), groups [{}]\n", profile.groups.join(", ")));
    text.push_str(&format!(
        "User      {}; would change: {}\n",
        resolved.link_method().as_str(),
        change_word(resolved.change())
    ));
    text.push_str("Facts\n");
    for (name, value) in facts_json(assessed.facts()).as_object().into_iter().flatten() {
        text.push_str(&format!("  {:28} {}\n", name, paint.faint(&value.to_string())));
    }
    text.push_str(&format!("Score     {} ({}), by {}\n", assessment.score, assessment.level, assessment.policy));
    for (code, points) in &assessment.reasons {
        text.push_str(&format!("  {points:+4}  {code}\n"));
    }
    if let Some(fault) = &assessment.fault {
        text.push_str(&format!("  {} the script failed: {fault}\n", paint.mark(Mark::Fail)));
    }
    text + "\nNothing was written.\n"
}
