//! `out`: what a mapping tells of a person. The core checks the values; here only their types.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rhai::{Dynamic, Engine, EvalAltResult, NativeCallContext};
use serde_json::Value;

use super::builder::is_code;
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

pub(super) fn register(engine: &mut Engine) {
    engine
        .register_type_with_name::<Out>("out")
        .register_fn("subject", |c: NativeCallContext, out: &mut Out, v: Dynamic| -> Done {
            out.inner().subject = text(&c, v)?;
            Ok(())
        })
        .register_fn("service", |out: &mut Out| out.inner().kind = UserKind::Service)
        .register_fn("email", |c: NativeCallContext, out: &mut Out, v: Dynamic, verified: Dynamic| -> Done {
            let verified = flag(&c, &verified)?;
            out.inner().email = text(&c, v)?.map(|address| (address, verified));
            Ok(())
        })
        .register_fn("name", |c: NativeCallContext, out: &mut Out, v: Dynamic| -> Done {
            out.inner().name = text(&c, v)?;
            Ok(())
        })
        .register_fn("username", |c: NativeCallContext, out: &mut Out, v: Dynamic| -> Done {
            out.inner().username = text(&c, v)?;
            Ok(())
        })
        .register_fn("phone", |c: NativeCallContext, out: &mut Out, v: Dynamic, verified: Dynamic| -> Done {
            let verified = flag(&c, &verified)?;
            out.inner().phone = text(&c, v)?.map(|number| (number, verified));
            Ok(())
        })
        .register_fn("locale", |c: NativeCallContext, out: &mut Out, v: Dynamic| -> Done {
            out.inner().locale = text(&c, v)?;
            Ok(())
        })
        .register_fn("attribute", |c: NativeCallContext, out: &mut Out, key: &str, v: Dynamic| -> Done {
            if !is_code(key) {
                return refuse(c.call_position(), "an attribute's name is 1 to 48 characters of a-z, 0-9 and _");
            }
            if let Some(value) = plain(&c, v)? {
                out.inner().attributes.insert(key.to_owned(), value);
            }
            Ok(())
        })
        .register_fn("group", |c: NativeCallContext, out: &mut Out, group: &str| -> Done {
            let mut inner = out.inner();
            if group.is_empty() || group.len() > 128 || inner.groups.len() >= 256 {
                return refuse(c.call_position(), "a group has 1 to 128 bytes, and there are at most 256");
            }
            inner.groups.push(group.to_owned());
            Ok(())
        })
        .register_fn("role", |c: NativeCallContext, out: &mut Out, role: &str| -> Done {
            let mut inner = out.inner();
            if role.is_empty() || role.len() > 128 || inner.roles.len() >= 256 {
                return refuse(c.call_position(), "a role has 1 to 128 bytes, and there are at most 256");
            }
            inner.roles.push(role.to_owned());
            Ok(())
        })
        .register_fn("reject", |c: NativeCallContext, out: &mut Out, code: &str| -> Done {
            if !is_code(code) {
                return refuse(c.call_position(), "a reason is 1 to 48 characters of a-z, 0-9 and _");
            }
            out.inner().reject = Some(code.to_owned());
            Ok(())
        });
}
