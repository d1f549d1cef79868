//! `token(s, d, token)`: what a tenant's script makes of local access tokens, once it is decided that
//! there will be some.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rhai::{Dynamic, EvalAltResult, ImmutableString, NativeCallContext};

use super::builder::is_code;
use super::calls::Calls;
use super::engine::refuse;
use super::mapping::plain;
use crate::mfa::MfaMethod;
use crate::session::{RESERVED_CLAIMS, TokenShape};
use crate::signin::rules::{Audiences, ShapedTokens, TokenInput};

/// The most claims of a script.
const CLAIMS: usize = 16;
/// All of them together, as JSON.
const BYTES: usize = 2048;
/// The greatest audience of a script that is tried without its clients; `[[clients]]` has the same bound.
const AUDIENCE_BYTES: usize = 512;

type Done = Result<(), Box<EvalAltResult>>;

struct Inner {
    input: TokenInput,
    asked_for_factor: AtomicBool,
    shape: Mutex<TokenShape>,
}

/// `d`: what was decided.
#[derive(Clone)]
pub(super) struct Decided(Arc<Inner>);

/// `token`: what the script makes of the tokens.
#[derive(Clone)]
pub(super) struct Token(Arc<Inner>);

impl Token {
    /// Of this decision.
    pub fn of(input: TokenInput) -> Self {
        Self(Arc::new(Inner { input, asked_for_factor: AtomicBool::new(false), shape: Mutex::default() }))
    }

    /// The decision.
    pub fn decided(&self) -> Decided {
        Decided(Arc::clone(&self.0))
    }

    /// What the script made of them.
    pub fn take(&self) -> ShapedTokens {
        let shape = std::mem::take(&mut *self.shape());
        ShapedTokens { shape, asked_for_factor: self.0.asked_for_factor.load(Relaxed) }
    }

    fn shape(&self) -> MutexGuard<'_, TokenShape> {
        self.0.shape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, c: &NativeCallContext, name: &str, value: Dynamic) -> Done {
        let at = c.call_position();
        if !is_code(name) {
            return refuse(at, "a claim's name is 1 to 48 characters of a-z, 0-9 and _");
        }
        if RESERVED_CLAIMS.contains(&name) {
            return refuse(at, format!("the claim {name} is the server's own"));
        }
        let Some(value) = plain(c, value)? else { return Ok(()) };
        let claims = &mut self.shape().claims;
        claims.insert(name.to_owned(), value);
        let bytes: usize = claims.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
        if claims.len() > CLAIMS || bytes > BYTES {
            return refuse(at, format!("a script adds at most {CLAIMS} claims and {BYTES} bytes"));
        }
        Ok(())
    }

    fn audience(&self, c: &NativeCallContext, wanted: &str) -> Done {
        let at = c.call_position();
        let found = match &self.0.input.audiences {
            Audiences::These(these) => these.iter().find(|audience| &***audience == wanted).cloned(),
            Audiences::Untold => (1..=AUDIENCE_BYTES).contains(&wanted.len()).then(|| wanted.into()),
        };
        let Some(found) = found else {
            return refuse(at, "this sign-in cannot have the audience; d.audiences has those that it can have");
        };
        match &mut self.shape().audience {
            Some(held) if *held != found => refuse(at, "a token has one audience, and the script names two"),
            held => {
                *held = Some(found);
                Ok(())
            }
        }
    }
}

/// `scope-token` of RFC 6749 section 3.3.
fn is_scope(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    (1..=128).contains(&text.len()) && text.bytes().all(fits)
}

fn words<'a>(list: impl Iterator<Item = &'a str>) -> Dynamic {
    Dynamic::from_array(list.map(|word| Dynamic::from(ImmutableString::from(word))).collect())
}

pub(super) fn register(calls: &mut Calls<'_>) {
    calls
        .of::<Decided>("decision")
        .get("d.level -> String", "The level: low, medium or high.", |d: &mut Decided| -> Dynamic {
            d.0.input.level.as_str().into()
        })
        .get("d.score -> int", "The score, 0 to 100.", |d: &mut Decided| -> Dynamic { d.0.input.score.into() })
        .get("d.reasons -> Array", "The codes of the reasons.", |d: &mut Decided| {
            words(d.0.input.reasons.iter().map(|reason| &**reason))
        })
        .get(
            "d.factors_used -> Array",
            "The methods of the local second factors that were used, such as totp.",
            |d: &mut Decided| {
                d.0.asked_for_factor.store(true, Relaxed);
                words(d.0.input.factor.iter().map(MfaMethod::as_str))
            },
        )
        .get(
            "d.audiences -> Array",
            "The audiences that token.audience takes: this server's and those of the registered client, or the one that was asked for.",
            |d: &mut Decided| match &d.0.input.audiences {
                Audiences::These(these) => words(these.iter().map(|audience| &**audience)),
                Audiences::Untold => words(std::iter::empty()),
            },
        )
        .of::<Token>("token")
        .call(
            "token.claim(name: String, value: ?)",
            "Adds a claim to local access tokens; none of the server's own.",
            |c: NativeCallContext, token: &mut Token, name: &str, value: Dynamic| token.claim(&c, name, value),
        )
        .call(
            "token.audience(audience: String)",
            "Narrows access tokens to one of d.audiences. It can neither add a second one nor name another.",
            |c: NativeCallContext, token: &mut Token, audience: &str| token.audience(&c, audience),
        )
        .call(
            "token.scope_remove(scope: String)",
            "Takes a scope away. Access tokens have none yet, so nothing is left to take; the name is checked (RFC 6749 section 3.3).",
            |c: NativeCallContext, _: &mut Token, scope: &str| -> Done {
                if is_scope(scope) {
                    return Ok(());
                }
                refuse(c.call_position(), "a scope is 1 to 128 visible ASCII characters without \" and \\")
            },
        );
}
