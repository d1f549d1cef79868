//! Settings of a provider or an OAuth client as a request and an answer hold them: the words of `[[providers]]`
//! and `[[clients]]`, passed on as they are. What they mean is judged by the rules of the configuration alone; the shape here only
//! describes them, and a test holds it against the table of keys.

use std::borrow::Cow;

use poem_openapi::Object;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::{Map, Value};

/// The settings as they are written. [`ProviderSettingsShape`] describes them.
#[derive(Debug, Clone, Default)]
pub struct ProviderSettings(pub Map<String, Value>);

/// The settings of a provider, in the words of `[[providers]]` in the configuration file; what is absent
/// has the default that stands there. An unknown member is refused.
#[derive(Debug, Object)]
#[oai(rename = "dto.ProviderSettings", skip_serializing_if_is_none)]
pub struct ProviderSettingsShape {
    /// Whether sign-ins through it are let in. Default true.
    pub enabled: Option<bool>,
    /// A known provider that fills what is absent: `google`, `apple`, `microsoft`, `gitlab`, ….
    pub preset: Option<String>,
    /// The exact `iss`, several of them, or one with `{tenantid}`.
    pub issuer: Option<TextOrList>,
    /// Needed with `{tenantid}`: the upstream tenants that are let in.
    pub allowed_tenant_ids: Option<Vec<String>>,
    /// The application's client ids at the provider. Empty: it cannot be enabled.
    pub client_ids: Option<Vec<String>>,
    /// Further `azp` values that are fine.
    pub authorized_parties: Option<Vec<String>>,
    /// Pinned algorithms, asymmetric ones. Default `["RS256"]`.
    pub algorithms: Option<Vec<String>>,
    /// `optional` (default), `required`, `server_issued` or `forbidden`.
    pub nonce: Option<String>,
    /// `single_use` (default) or `allow`.
    pub replay: Option<String>,
    /// The greatest age of a token, such as `10m` (default).
    pub max_token_age: Option<String>,
    /// Allowed difference of the two clocks, such as `60s` (default), at most `300s`.
    pub clock_leeway: Option<String>,
    /// `never`, `claim` (default), or a list of domains.
    pub email_trust: Option<TextOrList>,
    /// What a verified address of another user means: `never` (default) refuses, `verified_email` links,
    /// `confirm` links once that user's account is proved.
    pub linking: Option<String>,
    /// What becomes of an identity that nobody has: `create` (default), `invite` or `refuse`.
    pub provisioning: Option<String>,
    /// With `create`: only with a verified address in one of these domains, in which `email_trust` must believe
    /// addresses. Empty (default): with any or none.
    pub provisioning_domains: Option<Vec<String>>,
    /// For setting a provider up: its refusals list every check of the token. Default false.
    pub test_mode: Option<bool>,
    /// Upstream `amr` values that count as MFA.
    pub trust_amr: Option<Vec<String>>,
    /// The mapping script.
    pub mapping: Option<String>,
    /// What of a user is stored only while there is none: `email`, `name`, `username`, `phone`, `locale`,
    /// `attributes`, `groups`, `roles`.
    pub remap_once: Option<Vec<String>>,
    /// What of a user is not stored at all, in the same words.
    pub remap_never: Option<Vec<String>>,
    /// Groups that the mapping may grant.
    pub allowed_groups: Option<Vec<String>>,
    /// Roles that the mapping may grant.
    pub allowed_roles: Option<Vec<String>>,
    /// Roles that everybody who comes through it has, beside what the mapping grants.
    pub default_roles: Option<Vec<String>>,
    /// What a plugin out of reach means: `deny` (default) or `continue`.
    pub enrich_failure: Option<String>,
    /// Where the keys are, when there is no discovery document.
    pub jwks_uri: Option<String>,
    /// Notices of a form of the provider's own that `POST /auth/security-events` takes: `none` (default), `apple`.
    pub notices: Option<String>,
}

/// The settings of an OAuth client as they are written. [`ClientSettingsShape`] describes them.
#[derive(Debug, Clone, Default)]
pub struct ClientSettings(pub Map<String, Value>);

/// The settings of an OAuth client, in the words of `[[clients]]` in the configuration file; what is absent has
/// the default that stands there. An unknown member is refused, and so is `secret_hash`: the server makes secrets.
#[derive(Debug, Object)]
#[oai(rename = "dto.ClientSettings", skip_serializing_if_is_none)]
pub struct ClientSettingsShape {
    /// `web` (default) and `machine` run on a server and have a secret; `spa` and `native` cannot keep one.
    pub kind: Option<String>,
    /// The providers whose ID tokens it may exchange. Needed with the grant `token-exchange`. The sessions through one that
    /// is taken away are refused.
    pub providers: Option<Vec<String>>,
    /// The audiences that it may ask for, besides this server. One that is taken away is refused at the next refresh.
    pub audiences: Option<Vec<String>>,
    /// What it may do at the token endpoint: `token-exchange`, `refresh_token`; both by default. Empty: it only
    /// asks about tokens.
    pub grants: Option<Vec<String>>,
}

/// A text, or a list of texts.
#[derive(Debug, Clone)]
pub struct TextOrList(pub Value);

impl Type for TextOrList {
    const IS_REQUIRED: bool = true;

    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "text_or_list".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        let text = || MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")));
        let list = MetaSchema { items: Some(Box::new(text())), ..MetaSchema::new("array") };
        let either = MetaSchema { one_of: vec![text(), MetaSchemaRef::Inline(Box::new(list))], ..MetaSchema::ANY };
        MetaSchemaRef::Inline(Box::new(either))
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl ParseFromJSON for TextOrList {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Ok(Self(value.unwrap_or_default()))
    }
}

impl ToJSON for TextOrList {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone())
    }
}

/// An object that is passed on as it is, described by another type.
macro_rules! passed_on {
    ($name:ident, $shape:ident) => {
        impl Type for $name {
            const IS_REQUIRED: bool = true;

            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> Cow<'static, str> {
                $shape::name()
            }

            fn schema_ref() -> MetaSchemaRef {
                $shape::schema_ref()
            }

            fn register(registry: &mut Registry) {
                $shape::register(registry);
            }

            fn as_raw_value(&self) -> Option<&Self::RawValueType> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
                Box::new(self.as_raw_value().into_iter())
            }
        }

        impl ParseFromJSON for $name {
            fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
                match value {
                    Some(Value::Object(members)) => Ok(Self(members)),
                    other => Err(ParseError::expected_type(other.unwrap_or_default())),
                }
            }
        }

        impl ToJSON for $name {
            fn to_json(&self) -> Option<Value> {
                Some(Value::Object(self.0.clone()))
            }
        }
    };
}

passed_on!(ProviderSettings, ProviderSettingsShape);
passed_on!(ClientSettings, ClientSettingsShape);
