//! Headers that pretend another place, so that risk rules can be tried on one machine. Whoever builds the
//! request's context asks for them with `--dev` only; nothing else looks at them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::signin::facts::{GeoQuality, Location, NetworkKind, Point};

/// The address that the request is taken to come from.
pub const ASSUMED_IP_HEADER: &str = "Countersign-Dev-Ip";
/// The country, as ISO 3166-1 alpha-2: `DE`.
pub const ASSUMED_COUNTRY_HEADER: &str = "Countersign-Dev-Country";
/// The position in degrees north and east: `52.52,13.40`. It is taken to be exact to 10 km.
pub const ASSUMED_LOCATION_HEADER: &str = "Countersign-Dev-Location";
/// The kind of network: `residential`, `mobile`, `business`, `hosting`, `anonymizer`, `private`, `unknown`.
pub const ASSUMED_NETWORK_HEADER: &str = "Countersign-Dev-Network";

const ACCURACY_KM: f64 = 10.0;

const NETWORK_KINDS: [NetworkKind; 7] = [
    NetworkKind::Residential,
    NetworkKind::Mobile,
    NetworkKind::Business,
    NetworkKind::Hosting,
    NetworkKind::Anonymizer,
    NetworkKind::Private,
    NetworkKind::Unknown,
];

/// The address that `Countersign-Dev-Ip` names.
///
/// # Errors
/// When it is no IP address.
pub fn assumed_ip(get: impl Fn(&str) -> Option<String>) -> Result<Option<IpAddr>, String> {
    let Some(text) = get(ASSUMED_IP_HEADER) else { return Ok(None) };
    let ip = text.trim().parse().map_err(|_| mend(ASSUMED_IP_HEADER, &text, "an IP address such as 192.0.2.7"))?;
    Ok(Some(ip))
}

/// The place that `Countersign-Dev-Country`, `-Location` and `-Network` describe; `None` without any of them,
/// and the address is then looked up as always.
///
/// A position makes the quality `ok`, a country alone `coarse`, a private network alone `private`.
///
/// # Errors
/// Names the header, what it holds and what would be right.
pub fn assumed_location(get: impl Fn(&str) -> Option<String>) -> Result<Option<Location>, String> {
    let country = get(ASSUMED_COUNTRY_HEADER).map(|text| country(&text)).transpose()?;
    let point = get(ASSUMED_LOCATION_HEADER).map(|text| point(&text)).transpose()?;
    let network = get(ASSUMED_NETWORK_HEADER).map(|text| network(&text)).transpose()?;
    if country.is_none() && point.is_none() && network.is_none() {
        return Ok(None);
    }
    let quality = match (point, &country, network) {
        (Some(_), ..) => GeoQuality::Ok,
        (None, Some(_), _) => GeoQuality::Coarse,
        (None, None, Some(NetworkKind::Private)) => GeoQuality::Private,
        _ => GeoQuality::Missing,
    };
    let network_kind = network.unwrap_or_default();
    Ok(Some(Location { country, point, network_kind, quality, ..Location::default() }))
}

fn country(text: &str) -> Result<Arc<str>, String> {
    let code = text.trim();
    if code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic()) {
        Ok(code.to_ascii_uppercase().into())
    } else {
        Err(mend(ASSUMED_COUNTRY_HEADER, text, "two letters such as DE (ISO 3166-1 alpha-2)"))
    }
}

fn point(text: &str) -> Result<Point, String> {
    let degrees = |part: &str, limit: f64| part.trim().parse().ok().filter(|d: &f64| d.abs() <= limit);
    text.split_once(',')
        .and_then(|(north, east)| Some((degrees(north, 90.0)?, degrees(east, 180.0)?)))
        .map(|(latitude, longitude)| Point { latitude, longitude, accuracy_km: ACCURACY_KM })
        .ok_or_else(|| mend(ASSUMED_LOCATION_HEADER, text, "degrees north and east such as 52.52,13.40"))
}

fn network(text: &str) -> Result<NetworkKind, String> {
    let word = text.trim();
    NETWORK_KINDS.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| {
        let words = NETWORK_KINDS.map(NetworkKind::as_str).join(", ");
        mend(ASSUMED_NETWORK_HEADER, text, &format!("one of {words}"))
    })
}

fn mend(header: &str, found: &str, wanted: &str) -> String {
    let found: String = found.chars().filter(|c| !c.is_control()).take(60).collect();
    format!("the header {header} holds \"{found}\"; it should hold {wanted}")
}
