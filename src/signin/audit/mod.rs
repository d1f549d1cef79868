//! Attacks a provider's configuration with forged tokens, through the real path, and writes nothing.
//!
//! Nobody but the provider has its private key. Where an attack needs a valid signature, a throw-away key
//! stands in for the provider's, inside the audit alone; the provider's rules, its mapping and the tenant's
//! policies are the real ones. Users are made up: one victim, whose verified address attackers claim.

mod attacks;
mod forge;
mod stage;

use std::sync::Arc;

use self::attacks::{ATTACKS, Attempt, Goal};
use self::forge::Forge;
pub use self::stage::Stage;
use self::stage::{Memory, OneProvider};
use super::decision::Decision;
use super::error::SignInError;
use super::facts::LinkMethod;
use super::pipeline::{Pipeline, Preview};
use super::provider::Provider;
use super::request::{ClientContext, SignInRequest, TokenBinding};
use super::user::PlannedChange;
use crate::codes::ErrorCode;
use crate::ids::RequestId;

/// One attack and how it ended.
#[derive(Debug)]
pub struct Case {
    /// What was tried.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
}

/// How an attack ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was refused, with this code; or it had no effect, as the words say.
    Withstood {
        /// The code, or the words.
        by: &'static str,
    },
    /// The provider's rules leave nothing to attack here.
    NotApplicable {
        /// Why.
        why: &'static str,
    },
    /// It went through.
    Succeeded {
        /// What it came to.
        seen: String,
        /// The key of the configuration that stops it.
        mend: String,
    },
}

/// Runs all attacks. `pipeline` is the path to attack; its keys, users and directory are replaced by the
/// audit's own, so that the real ones are not touched.
pub async fn audit(mut pipeline: Pipeline, provider: &Arc<Provider>) -> Vec<Case> {
    let now = pipeline.clock.now();
    let Some(forge) = Forge::new(provider, now, &pipeline.nonces, &*pipeline.entropy) else {
        let seen = "no throw-away key could be made".to_owned();
        return vec![Case { name: "control", verdict: Verdict::Succeeded { seen, mend: "try again".to_owned() } }];
    };
    pipeline.keys = Arc::new(forge.published());
    pipeline.users = Arc::new(Stage::new(provider, now));
    let mut cases = vec![control(&mut pipeline, provider, &forge).await];
    for attack in ATTACKS {
        let verdict = match (attack.build)(&forge) {
            Err(why) => Verdict::NotApplicable { why },
            Ok(attempt) => run(&mut pipeline, provider, attempt, attack.mend).await,
        };
        cases.push(Case { name: attack.name, verdict });
    }
    cases
}

/// A genuine token must pass every check: else nothing follows from the refusals below.
async fn control(pipeline: &mut Pipeline, provider: &Arc<Provider>, forge: &Forge<'_>) -> Case {
    let attempt = Attempt::of(forge.token());
    let preview = walk(pipeline, provider, &attempt).await;
    let verdict = match token_refusal(&preview) {
        None => Verdict::Withstood { by: "a genuine token passes every check" },
        Some(_) => Verdict::Succeeded {
            seen: format!("a genuine token is refused: {}", refusal_text(&preview)),
            mend: "no token can pass, so the attacks below prove nothing; see `countersign token try`".to_owned(),
        },
    };
    Case { name: "control", verdict }
}

async fn run(pipeline: &mut Pipeline, provider: &Arc<Provider>, attempt: Attempt, mend: &str) -> Verdict {
    let preview = walk(pipeline, provider, &attempt).await;
    let mend = mend.to_owned();
    match attempt.goal {
        Goal::Verified => match token_refusal(&preview) {
            Some(code) => Verdict::Withstood { by: code.as_str() },
            None => Verdict::Succeeded { seen: "the token passed every check".to_owned(), mend },
        },
        Goal::Victim => match &preview.result {
            Err(error) => Verdict::Withstood { by: error.code().as_str() },
            Ok(decided) => {
                let resolved = decided.assessed().resolved();
                // Nothing is linked before the owner of the account answers with the factor.
                let is_asked = matches!(decided.decision(), Decision::Challenge { .. });
                if resolved.link_method() == LinkMethod::ConfirmedByFactor && is_asked {
                    return Verdict::Withstood { by: "not linked without the account's own factor" };
                }
                if let Decision::Deny(_) = decided.decision() {
                    return Verdict::Withstood { by: "denied" };
                }
                let linked = matches!(resolved.change(), PlannedChange::Link { .. });
                if linked || resolved.known().user.id == Stage::VICTIM {
                    let seen = "the identity was linked to the user who holds the address".to_owned();
                    Verdict::Succeeded { seen, mend }
                } else {
                    Verdict::Withstood { by: "not linked" }
                }
            }
        },
    }
}

async fn walk(pipeline: &mut Pipeline, provider: &Arc<Provider>, attempt: &Attempt) -> Preview {
    let attacked = attempt.provider.as_ref().unwrap_or(provider);
    pipeline.directory = Arc::new(OneProvider::new(attacked, attempt.enabled));
    let memory = Memory::default();
    let request = SignInRequest {
        id: RequestId::from_bytes([0; 16]),
        tenant_header: Some(provider.tenant.as_str().to_owned()),
        host: None,
        provider: Some(provider.name.to_string()),
        id_token: attempt.token.clone(),
        nonce: attempt.nonce.clone(),
        access_token: attempt.access_token.clone(),
        name_hint: None,
        client: ClientContext::default(),
        binding: TokenBinding::default(),
        device_secret_hash: None,
    };
    if attempt.twice {
        pipeline.preview(&request, &memory).await;
    }
    pipeline.preview(&request, &memory).await
}

/// The code, when the token or its provider was refused; a refusal further on comes after the checks.
fn token_refusal(preview: &Preview) -> Option<ErrorCode> {
    match &preview.result {
        Err(
            error @ (SignInError::Shape(_)
            | SignInError::Key(_)
            | SignInError::Verify(_)
            | SignInError::Replayed
            | SignInError::UnknownProvider
            | SignInError::ProviderDisabled
            | SignInError::NoProviderFits
            | SignInError::MissingToken),
        ) => Some(error.code()),
        _ => None,
    }
}

fn refusal_text(preview: &Preview) -> String {
    preview.result.as_ref().err().map(ToString::to_string).unwrap_or_default()
}
