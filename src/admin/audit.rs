//! What stays of a change: who, what, where, when, and the difference. Written in the transaction of the
//! change itself. Holds no secret and nothing personal: users stand here by their identifier alone.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::clock::UnixTime;
use crate::ids::{AdminKeyId, EventId, InvalidId, RequestId, TenantId, UserId};
use crate::secret::Entropy;

/// Whoever makes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The holder of an admin key.
    AdminKey(AdminKeyId),
    /// Somebody at the command line of the server's machine.
    CommandLine,
    /// A user, about its own account.
    User(UserId),
    /// The server of its own accord.
    System,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdminKey(key) => fmt::Display::fmt(key, f),
            Self::CommandLine => f.write_str("command_line"),
            Self::User(user) => fmt::Display::fmt(user, f),
            Self::System => f.write_str("system"),
        }
    }
}

impl FromStr for Actor {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text {
            "command_line" => Ok(Self::CommandLine),
            "system" => Ok(Self::System),
            user if user.starts_with(UserId::PREFIX) => user.parse().map(Self::User),
            key => key.parse().map(Self::AdminKey),
        }
    }
}

/// The frame of one audit record: all but what was changed. One for each change.
#[derive(Debug, Clone)]
pub struct Author {
    /// The record's identifier.
    pub event: EventId,
    /// When.
    pub at: UnixTime,
    /// Who.
    pub actor: Actor,
    /// Where; `None` for the server itself.
    pub tenant: Option<TenantId>,
    /// The request that did it.
    pub request: Option<RequestId>,
}

impl Author {
    /// Somebody at the command line.
    #[must_use]
    pub fn command_line(tenant: Option<TenantId>, now: UnixTime, entropy: &dyn Entropy) -> Self {
        Self { event: EventId::generate(now, entropy), at: now, actor: Actor::CommandLine, tenant, request: None }
    }
}

/// What was changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// `resource.verb`, such as `user.status`; never changes its meaning.
    pub action: &'static str,
    /// What was changed: an identifier or a name.
    pub target: String,
    /// By member: `{"before": …, "after": …}`.
    pub difference: Value,
}

impl Change {
    /// The members of two objects that are not the same in both. One side is `Value::Null` when the
    /// target is new or gone.
    #[must_use]
    pub fn between(action: &'static str, target: impl Into<String>, before: &Value, after: &Value) -> Self {
        Self { action, target: target.into(), difference: difference(before, after) }
    }
}

fn difference(before: &Value, after: &Value) -> Value {
    let empty = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter_map(|name| {
        let (old, new) = (before.get(name), after.get(name));
        (old != new).then(|| (name.clone(), json!({"before": old, "after": new})))
    });
    Value::Object(changed.collect())
}

/// A record as it is read.
#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// Who, when, where.
    pub author: Author,
    /// What.
    pub action: String,
    /// On what.
    pub target: String,
    /// By member: `{"before": …, "after": …}`.
    pub difference: Value,
}

/// Which records to list; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this tenant; `None` for all of them and the server itself.
    pub tenant: Option<TenantId>,
    /// By this actor.
    pub actor: Option<Actor>,
    /// With this action, or, when it ends in `.`, with an action that begins so.
    pub action: Option<String>,
    /// On this target.
    pub target: Option<String>,
    /// Not before.
    pub from: Option<UnixTime>,
    /// Before.
    pub until: Option<UnixTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_holds_what_changed_came_and_went_and_nothing_else() {
        let before = json!({"same": 1, "changed": "a", "gone": true});
        let after = json!({"same": 1, "changed": "b", "new": [1]});
        let expected = json!({
            "changed": {"before": "a", "after": "b"},
            "gone": {"before": true, "after": null},
            "new": {"before": null, "after": [1]},
        });
        assert_eq!(difference(&before, &after), expected);
        assert_eq!(difference(&Value::Null, &json!({"a": 1})), json!({"a": {"before": null, "after": 1}}));
    }

    #[test]
    fn an_actor_survives_its_text_form() {
        let now = UnixTime::from_secs(1);
        let key = AdminKeyId::generate(now, &crate::secret::SystemEntropy);
        let user = UserId::generate(now, &crate::secret::SystemEntropy);
        for actor in [Actor::AdminKey(key), Actor::User(user), Actor::CommandLine, Actor::System] {
            assert_eq!(actor.to_string().parse(), Ok(actor));
        }
        assert!("somebody".parse::<Actor>().is_err());
    }
}
