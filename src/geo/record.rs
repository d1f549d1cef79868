//! What is read of a database's records; every member may be absent.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::signin::facts::{NetworkKind, Point};

/// A number of any width: files of different makers differ, and the decoder insists on the declared one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(pub(super) f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i32<E>(self, v: i32) -> Result<Number, E> {
        Ok(Number(f64::from(v)))
    }

    fn visit_u16<E>(self, v: u16) -> Result<Number, E> {
        Ok(Number(f64::from(v)))
    }

    fn visit_u32<E>(self, v: u32) -> Result<Number, E> {
        Ok(Number(f64::from(v)))
    }

    fn visit_f32<E>(self, v: f32) -> Result<Number, E> {
        Ok(Number(f64::from(v)))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Number, E> {
        Ok(Number(v))
    }
}

/// A record of a City, Country or Enterprise database.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Place {
    pub(super) country: Country,
    pub(super) subdivisions: Vec<Subdivision>,
    pub(super) city: City,
    pub(super) location: Position,
    pub(super) traits: Traits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Country {
    pub(super) iso_code: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subdivision {
    pub(super) iso_code: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct City {
    pub(super) names: Names,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Names {
    pub(super) en: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Position {
    latitude: Option<Number>,
    longitude: Option<Number>,
    accuracy_radius: Option<Number>,
    pub(super) time_zone: Option<String>,
}

impl Position {
    /// Both coordinates, within their ranges, with the accuracy that the database gives. Coordinates
    /// without an accuracy are no position: a country's centre looks the same.
    pub(super) fn point(&self) -> Option<Point> {
        let (Number(latitude), Number(longitude), Number(accuracy_km)) =
            (self.latitude?, self.longitude?, self.accuracy_radius?);
        let on_earth = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        let fine = on_earth && (0.0..=20_040.0).contains(&accuracy_km);
        fine.then_some(Point { latitude, longitude, accuracy_km })
    }
}

/// What a database says of the network: the `traits` of a place, or a whole record of an ASN, ISP or
/// anonymous-IP database.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Traits {
    pub(super) autonomous_system_number: Option<u32>,
    pub(super) autonomous_system_organization: Option<String>,
    is_anonymous: bool,
    is_anonymous_proxy: bool,
    is_anonymous_vpn: bool,
    is_public_proxy: bool,
    is_residential_proxy: bool,
    is_tor_exit_node: bool,
    is_hosting_provider: bool,
    connection_type: Option<String>,
    user_type: Option<String>,
}

impl Traits {
    /// The kind of network, only if the database says it outright.
    ///
    /// A proxy, VPN or Tor exit first; then a data centre (which databases also flag as `is_anonymous`);
    /// then anonymity of no named sort; then the kind of user or connection. A cable or dial-up line tells
    /// nothing: homes and companies have both.
    pub(super) fn kind(&self) -> Option<NetworkKind> {
        let hidden = self.is_anonymous_proxy
            || self.is_anonymous_vpn
            || self.is_public_proxy
            || self.is_residential_proxy
            || self.is_tor_exit_node;
        let user_type = self.user_type.as_deref().unwrap_or_default();
        let connection_type = self.connection_type.as_deref().unwrap_or_default();
        match (user_type, connection_type) {
            _ if hidden => Some(NetworkKind::Anonymizer),
            _ if self.is_hosting_provider => Some(NetworkKind::Hosting),
            _ if self.is_anonymous => Some(NetworkKind::Anonymizer),
            ("hosting" | "content_delivery_network", _) => Some(NetworkKind::Hosting),
            ("cellular", _) | ("", "Cellular") => Some(NetworkKind::Mobile),
            ("business", _) | ("", "Corporate") => Some(NetworkKind::Business),
            ("residential", _) => Some(NetworkKind::Residential),
            _ => None,
        }
    }
}
