//! `token(s, d, token)`: what a tenant's script adds to local access tokens, once it is decided that
//! there will be some.

use std::sync::{Arc, Mutex, PoisonError};

use rhai::{Dynamic, EvalAltResult, ImmutableString, NativeCallContext};
use serde_json::{Map, Value};

use super::builder::is_code;
use super::calls::Calls;
use super::engine::refuse;
use super::mapping::plain;
use crate::mfa::MfaMethod;
use crate::session::RESERVED_CLAIMS;
use crate::signin::rules::TokenInput;

/// The most claims of a script.
const CLAIMS: usize = 16;
/// All of them together, as JSON.
const BYTES: usize = 2048;

/// `d`: what was decided.
#[derive(Clone)]
pub(super) struct Decided(pub Arc<TokenInput>);

/// `token`: what the script adds.
#[derive(Clone, Default)]
pub(super) struct Token(Arc<Mutex<Map<String, Value>>>);

impl Token {
    /// The claims.
    pub fn take(&self) -> Map<String, Value> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn words<'a>(list: impl Iterator<Item = &'a str>) -> Dynamic {
    Dynamic::from_array(list.map(|word| Dynamic::from(ImmutableString::from(word))).collect())
}

pub(super) fn register(calls: &mut Calls<'_>) {
    calls
        .of::<Decided>("decision")
        .get("d.level -> String", "The level: low, medium or high.", |d: &mut Decided| -> Dynamic {
            d.0.level.as_str().into()
        })
        .get("d.score -> int", "The score, 0 to 100.", |d: &mut Decided| -> Dynamic { d.0.score.into() })
        .get("d.reasons -> Array", "The codes of the reasons.", |d: &mut Decided| {
            words(d.0.reasons.iter().map(|reason| &**reason))
        })
        .get(
            "d.factors_used -> Array",
            "The methods of the local second factors that were used, such as totp.",
            |d: &mut Decided| words(d.0.factor.map(MfaMethod::as_str).into_iter()),
        )
        .of::<Token>("token")
        .call(
            "token.claim(name: String, value: ?)",
            "Adds a claim to local access tokens; none of the server's own.",
            |c: NativeCallContext, token: &mut Token, name: &str, v: Dynamic| -> Result<(), Box<EvalAltResult>> {
                let at = c.call_position();
                if !is_code(name) {
                    return refuse(at, "a claim's name is 1 to 48 characters of a-z, 0-9 and _");
                }
                if RESERVED_CLAIMS.contains(&name) {
                    return refuse(at, format!("the claim {name} is the server's own"));
                }
                let Some(value) = plain(&c, v)? else { return Ok(()) };
                let mut claims = token.0.lock().unwrap_or_else(PoisonError::into_inner);
                claims.insert(name.to_owned(), value);
                let bytes: usize = claims.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
                if claims.len() > CLAIMS || bytes > BYTES {
                    return refuse(at, format!("a script adds at most {CLAIMS} claims and {BYTES} bytes"));
                }
                Ok(())
            },
        );
}
