//! Where an address is, from files in MaxMind's format that the operator provides.
//!
//! What a file does not say stays unknown: no country is guessed from a registration, no accuracy is
//! assumed, no kind of network is read out of a company's name. No database comes with this server.

mod record;

#[cfg(test)]
mod test_mmdb;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxminddb::{MaxMindDbError, Reader};
use serde::de::DeserializeOwned;

use crate::clock::UnixTime;
use crate::signin::facts::{GeoQuality, Location, NetworkKind, Point};
use crate::signin::ports::GeoLookup;
use record::{Place, Traits};

/// Beyond this a position says no more than the country.
const MAX_ACCURACY_KM: f64 = 200.0;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// The file cannot be read.
    #[error("[geoip] {key}: {} cannot be read", path.display())]
    Unreadable {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no database in MaxMind's format, or is damaged.
    #[error("[geoip] {key}: {} is no intact database in MaxMind's format (.mmdb); fetch it again", path.display())]
    Damaged {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: MaxMindDbError,
    },
    /// It is a database of another kind.
    #[error("[geoip] {key}: {} holds \"{found}\"; a database of {wanted} belongs here", path.display())]
    OtherKind {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The type that the file names.
        found: String,
        /// What belongs there.
        wanted: &'static str,
    },
}

/// The databases of one server, read into memory once.
#[derive(Default)]
pub struct GeoDatabases {
    city: Option<Reader<Vec<u8>>>,
    asn: Option<Reader<Vec<u8>>>,
}

impl fmt::Debug for GeoDatabases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |db: &Option<Reader<Vec<u8>>>| db.as_ref().map(|db| db.metadata().database_type.clone());
        f.debug_struct("GeoDatabases").field("city", &kind(&self.city)).field("asn", &kind(&self.asn)).finish()
    }
}

impl GeoDatabases {
    /// Reads the files: `city` with places (a City, Country or Enterprise database), `asn` with networks (an
    /// ASN or ISP database). An absent one leaves its facts unknown.
    ///
    /// # Errors
    /// When a file cannot be read, is damaged, or is the other one.
    pub fn open(city: Option<&Path>, asn: Option<&Path>) -> Result<Self, GeoError> {
        Ok(Self {
            city: city.map(|path| read(&CITY, path)).transpose()?,
            asn: asn.map(|path| read(&ASN, path)).transpose()?,
        })
    }
}

/// One of the two places for a file.
struct Slot {
    key: &'static str,
    wanted: &'static str,
    /// Words in the type of a database that belongs elsewhere.
    foreign: &'static [&'static str],
}

const CITY: Slot = Slot { key: "city", wanted: "places", foreign: &["asn", "isp"] };
const ASN: Slot = Slot { key: "asn", wanted: "networks", foreign: &["city", "country", "enterprise"] };

fn read(slot: &Slot, path: &Path) -> Result<Reader<Vec<u8>>, GeoError> {
    let bytes =
        std::fs::read(path).map_err(|source| GeoError::Unreadable { key: slot.key, path: path.into(), source })?;
    parse(slot, path, bytes)
}

fn parse(slot: &Slot, path: &Path, bytes: Vec<u8>) -> Result<Reader<Vec<u8>>, GeoError> {
    let Slot { key, wanted, foreign } = *slot;
    let reader =
        Reader::from_source(bytes).map_err(|source| GeoError::Damaged { key, path: path.into(), source })?;
    let found: String = reader.metadata().database_type.chars().filter(|c| !c.is_control()).take(60).collect();
    let words = found.to_ascii_lowercase();
    if words.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| foreign.contains(&word)) {
        return Err(GeoError::OtherKind { key, path: path.into(), found, wanted });
    }
    Ok(reader)
}

impl GeoLookup for GeoDatabases {
    fn locate(&self, ip: IpAddr, now: UnixTime) -> Location {
        let ip = ip.to_canonical();
        if is_private(ip) {
            let (network_kind, quality) = (NetworkKind::Private, GeoQuality::Private);
            return Location { network_kind, quality, ..Location::default() };
        }
        let place: Place = self.city.as_ref().and_then(|db| find("city", db, ip)).unwrap_or_default();
        let network: Traits = self.asn.as_ref().and_then(|db| find("asn", db, ip)).unwrap_or_default();
        let country = place.country.iso_code.filter(|c| c.len() == 2 && c.bytes().all(|b| b.is_ascii_uppercase()));
        let point = place.location.point();
        let numbered = if network.autonomous_system_number.is_some() { &network } else { &place.traits };
        Location {
            quality: quality(country.is_some(), point),
            country: country.map(Arc::from),
            region: place.subdivisions.into_iter().next().and_then(|s| s.iso_code).map(Arc::from),
            city: place.city.names.en.map(Arc::from),
            asn: numbered.autonomous_system_number.map(i64::from),
            asn_name: numbered.autonomous_system_organization.as_deref().map(Arc::from),
            point,
            local_hour: place.location.time_zone.and_then(|zone| local_hour(&zone, now)),
            network_kind: network.kind().or_else(|| place.traits.kind()).unwrap_or_default(),
        }
    }
}

/// The record of an address; `None` when there is none or it cannot be read.
fn find<T: DeserializeOwned>(key: &'static str, database: &Reader<Vec<u8>>, ip: IpAddr) -> Option<T> {
    if ip.is_ipv6() && database.metadata().ip_version == 4 {
        return None;
    }
    match database.lookup(ip).and_then(|found| found.decode()) {
        Ok(record) => record,
        Err(error) => {
            metrics::counter!("countersign_geo_errors_total", "database" => key).increment(1);
            tracing::debug!(database = key, %error, "a record of the geo database cannot be read");
            None
        }
    }
}

fn quality(has_country: bool, point: Option<Point>) -> GeoQuality {
    match point {
        Some(point) if point.accuracy_km <= MAX_ACCURACY_KM => GeoQuality::Ok,
        Some(_) => GeoQuality::Coarse,
        None if has_country => GeoQuality::Coarse,
        None => GeoQuality::Missing,
    }
}

/// The hour of the day in a time zone of the IANA database; `None` for an unknown zone.
fn local_hour(zone: &str, now: UnixTime) -> Option<i64> {
    let zone = jiff::tz::TimeZone::get(zone).ok()?;
    let moment = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?;
    Some(i64::from(zone.to_datetime(moment).hour()))
}

/// Loopback, private, link-local, unique-local and carriers' shared addresses, and the unspecified one:
/// they are in no database, and mean the operator's own network.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || shared
        }
        IpAddr::V6(v6) => {
            v6 == Ipv6Addr::LOCALHOST || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()
        }
    }
}
