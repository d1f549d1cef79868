//! `out`: what a mapping tells of a person. The core checks the values; here only their types.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rhai::{Dynamic, EvalAltResult, NativeCallContext};
use serde_json::Value;

use super::builder::is_code;
use super::calls::Calls;
use super::engine::refuse;
use crate::signin::identity::{MappingOutput, UserKind};

/// The builder of one run.
#[derive(Clone, Default)]
pub(super) struct Out(Arc<Mutex<MappingOutput>>);

type Done = Result<(), Box<EvalAltResult>>;

impl Out {
    /// What the run told.
    pub fn take(&self) -> MappingOutput {
        std::mem::take(&mut *self.inner())
    }

    fn inner(&self) -> MutexGuard<'_, MappingOutput> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `()` tells nothing; a text tells itself; anything else is a mistake of the script.
fn text(c: &NativeCallContext, value: Dynamic) -> Result<Option<String>, Box<EvalAltResult>> {
    if value.is_unit() {
        return Ok(None);
    }
    match value.into_string() {
        Ok(text) => Ok(Some(text)),
        Err(found) => refuse(c.call_position(), format!("a text or () is expected, not {found}")),
    }
}

/// `()` is false: what is not known is not verified.
fn flag(c: &NativeCallContext, value: &Dynamic) -> Result<bool, Box<EvalAltResult>> {
    if value.is_unit() {
        return Ok(false);
    }
    match value.as_bool() {
        Ok(flag) => Ok(flag),
        Err(found) => refuse(c.call_position(), format!("true, false or () is expected, not {found}")),
    }
}

pub(super) fn plain(c: &NativeCallContext, value: Dynamic) -> Result<Option<Value>, Box<EvalAltResult>> {
    Ok(Some(match value {
        v if v.is_unit() => return Ok(None),
        v if v.is_bool() => v.as_bool().unwrap_or_default().into(),
        v if v.is_int() => v.as_int().unwrap_or_default().into(),
        v if v.is_float() => match serde_json::Number::from_f64(v.as_float().unwrap_or_default()) {
            Some(number) => number.into(),
            None => return refuse(c.call_position(), "an attribute is a finite number"),
        },
        v if v.is_string() => v.into_string().unwrap_or_default().into(),
        v if v.is_array() => {
            let items = v.into_array().unwrap_or_default();
            let items: Result<Vec<Value>, _> =
                items.into_iter().map(|i| plain(c, i).map(Option::unwrap_or_default)).collect();
            items?.into()
        }
        _ => return refuse(c.call_position(), "an attribute is a text, number, true, false or a list of them"),
    }))
}

pub(super) fn register(calls: &mut Calls<'_>) {
    calls
        .of::<Out>("out")
        .call(
            "out.subject(value: ?)",
            "Who it is at the provider, where that is not the claim sub.",
            |c: NativeCallContext, out: &mut Out, v: Dynamic| -> Done {
                out.inner().subject = text(&c, v)?;
                Ok(())
            },
        )
        .call("out.service()", "It is a service and no person.", |out: &mut Out| {
            out.inner().kind = UserKind::Service
        })
        .call(
            "out.email(value: ?, verified: ?)",
            "The e-mail address; () for verified is not verified.",
            |c: NativeCallContext, out: &mut Out, v: Dynamic, verified: Dynamic| -> Done {
                let verified = flag(&c, &verified)?;
                out.inner().email = text(&c, v)?.map(|address| (address, verified));
                Ok(())
            },
        )
        .call(
            "out.name(value: ?)",
            "The name to show.",
            |c: NativeCallContext, out: &mut Out, v: Dynamic| -> Done {
                out.inner().name = text(&c, v)?;
                Ok(())
            },
        )
        .call(
            "out.username(value: ?)",
            "The name to sign in by.",
            |c: NativeCallContext, out: &mut Out, v: Dynamic| -> Done {
                out.inner().username = text(&c, v)?;
                Ok(())
            },
        )
        .call(
            "out.phone(value: ?, verified: ?)",
            "The telephone number; () for verified is not verified.",
            |c: NativeCallContext, out: &mut Out, v: Dynamic, verified: Dynamic| -> Done {
                let verified = flag(&c, &verified)?;
                out.inner().phone = text(&c, v)?.map(|number| (number, verified));
                Ok(())
            },
        )
        .call("out.locale(value: ?)", "The language.", |c: NativeCallContext, out: &mut Out, v: Dynamic| -> Done {
            out.inner().locale = text(&c, v)?;
            Ok(())
        })
        .call(
            "out.attribute(key: String, value: ?)",
            "A text, number, true, false or a list of them; () sets nothing.",
            |c: NativeCallContext, out: &mut Out, key: &str, v: Dynamic| -> Done {
                if !is_code(key) {
                    return refuse(
                        c.call_position(),
                        "an attribute's name is 1 to 48 characters of a-z, 0-9 and _",
                    );
                }
                if let Some(value) = plain(&c, v)? {
                    out.inner().attributes.insert(key.to_owned(), value);
                }
                Ok(())
            },
        )
        .call(
            "out.group(group: String)",
            "A group of the user. At most 256.",
            |c: NativeCallContext, out: &mut Out, group: &str| -> Done {
                let mut inner = out.inner();
                if group.is_empty() || group.len() > 128 || inner.groups.len() >= 256 {
                    return refuse(c.call_position(), "a group has 1 to 128 bytes, and there are at most 256");
                }
                inner.groups.push(group.to_owned());
                Ok(())
            },
        )
        .call(
            "out.role(role: String)",
            "A role of the user. At most 256.",
            |c: NativeCallContext, out: &mut Out, role: &str| -> Done {
                let mut inner = out.inner();
                if role.is_empty() || role.len() > 128 || inner.roles.len() >= 256 {
                    return refuse(c.call_position(), "a role has 1 to 128 bytes, and there are at most 256");
                }
                inner.roles.push(role.to_owned());
                Ok(())
            },
        )
        .call(
            "out.reject(code: String)",
            "The sign-in is refused.",
            |c: NativeCallContext, out: &mut Out, code: &str| -> Done {
                if !is_code(code) {
                    return refuse(c.call_position(), "a reason is 1 to 48 characters of a-z, 0-9 and _");
                }
                out.inner().reject = Some(code.to_owned());
                Ok(())
            },
        );
}
