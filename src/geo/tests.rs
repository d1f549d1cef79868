use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// 2026-01-15T10:30:00Z.
const NOW: UnixTime = UnixTime::from_secs(1_768_473_000);

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().expect("a directory"))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    }
}

fn open(city: &[(&str, Value)], asn: &[(&str, Value)]) -> GeoDatabases {
    let files = Files::new();
    let city = files.put("city.mmdb", &test_mmdb::write("Test-City", city));
    let asn = files.put("asn.mmdb", &test_mmdb::write("Test-ASN", asn));
    GeoDatabases::open(Some(&city), Some(&asn)).expect("both open")
}

fn berlin() -> Value {
    json!({
        "country": {"iso_code": "DE", "geoname_id": 2_921_044, "names": {"en": "Germany"}},
        "registered_country": {"iso_code": "US"},
        "subdivisions": [{"iso_code": "BE"}, {"iso_code": "XX"}],
        "city": {"names": {"de": "Berlin", "en": "Berlin"}},
        "location": {"latitude": 52.52, "longitude": 13.4, "accuracy_radius": 20, "time_zone": "Europe/Berlin"},
        "postal": {"code": "10115"},
    })
}

fn locate(record: Value) -> Location {
    open(&[("8.8.8.0/24", record)], &[]).locate(ip("8.8.8.8"), NOW)
}

#[test]
fn a_place_and_its_network_are_found_by_both_kinds_of_address() {
    let network = json!({"autonomous_system_number": 64500, "autonomous_system_organization": "Example Net"});
    let geo = open(
        &[("8.8.8.0/24", berlin()), ("2606:4700::/32", berlin())],
        &[("8.8.0.0/16", network.clone()), ("2606:4700::/32", network)],
    );
    for address in ["8.8.8.8", "8.8.8.255", "::ffff:8.8.8.8", "2606:4700::1"] {
        let found = geo.locate(ip(address), NOW);
        assert_eq!(found.quality, GeoQuality::Ok, "{address}");
        assert_eq!(found.country.as_deref(), Some("DE"));
        assert_eq!(found.region.as_deref(), Some("BE"));
        assert_eq!(found.city.as_deref(), Some("Berlin"));
        assert_eq!(found.asn, Some(64500));
        assert_eq!(found.asn_name.as_deref(), Some("Example Net"));
        assert_eq!(found.point, Some(Point { latitude: 52.52, longitude: 13.4, accuracy_km: 20.0 }));
        assert_eq!(found.local_hour, Some(11));
        assert_eq!(found.network_kind, NetworkKind::Unknown);
    }
    let neighbour = geo.locate(ip("8.8.9.1"), NOW);
    assert_eq!((neighbour.quality, neighbour.asn), (GeoQuality::Missing, Some(64500)));
    assert!(neighbour.country.is_none() && neighbour.point.is_none() && neighbour.local_hour.is_none());
}

#[test]
fn a_private_address_is_private_whatever_the_database_says() {
    let geo = open(&[("0.0.0.0/1", berlin()), ("fc00::/7", berlin())], &[]);
    for address in [
        "127.0.0.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "169.254.0.9",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "::",
        "fd00::1",
        "fe80::1",
        "::ffff:10.0.0.1",
    ] {
        let found = geo.locate(ip(address), NOW);
        assert_eq!(found.quality, GeoQuality::Private, "{address}");
        assert_eq!(found.network_kind, NetworkKind::Private, "{address}");
        assert!(found.country.is_none() && found.point.is_none(), "{address}");
    }
}

#[test]
fn without_databases_nothing_is_known() {
    let found = GeoDatabases::open(None, None).expect("nothing to open").locate(ip("8.8.8.8"), NOW);
    assert_eq!((found.quality, found.network_kind), (GeoQuality::Missing, NetworkKind::Unknown));
    assert!(found.country.is_none() && found.asn.is_none() && found.local_hour.is_none());
}

#[test]
fn a_country_alone_or_a_wide_circle_is_coarse() {
    let at =
        |latitude: f64, radius: u32| json!({"latitude": latitude, "longitude": 13.4, "accuracy_radius": radius});
    for (location, quality) in [
        (json!({}), GeoQuality::Coarse),
        (at(52.5, 200), GeoQuality::Ok),
        (at(52.5, 201), GeoQuality::Coarse),
        (at(91.0, 5), GeoQuality::Coarse),
        (json!({"latitude": 52, "longitude": 13, "accuracy_radius": 5.5}), GeoQuality::Ok),
        (json!({"latitude": 52, "longitude": 13, "accuracy_radius": -5.5}), GeoQuality::Coarse),
        (json!({"latitude": 52.5, "longitude": 13.4}), GeoQuality::Coarse),
        (json!({"latitude": 52.5, "accuracy_radius": 5}), GeoQuality::Coarse),
    ] {
        let found = locate(json!({"country": {"iso_code": "DE"}, "location": location}));
        assert_eq!(found.quality, quality, "{location}");
        assert_eq!(found.point.is_some_and(|p| p.accuracy_km <= 200.0), quality == GeoQuality::Ok, "{location}");
    }
}

#[test]
fn no_country_is_made_of_a_registration_or_of_nonsense() {
    for record in [
        json!({"registered_country": {"iso_code": "US"}}),
        json!({"country": {"iso_code": "us"}}),
        json!({"country": {"iso_code": "USA"}}),
        json!({"country": {"names": {"en": "Germany"}}}),
        json!({"country": {"iso_code": 49}}),
        json!({"country": "DE"}),
        json!([1, 2]),
        json!("DE"),
    ] {
        let found = locate(record.clone());
        assert!(found.country.is_none(), "{record}");
        assert_eq!(found.quality, GeoQuality::Missing, "{record}");
    }
}

#[test]
fn the_local_hour_follows_the_zone_and_its_summer_time() {
    let summer = UnixTime::from_secs(1_784_111_400); // 2026-07-15T10:30:00Z
    for (zone, winter_hour, summer_hour) in [
        ("UTC", Some(10), Some(10)),
        ("Europe/Berlin", Some(11), Some(12)),
        ("America/New_York", Some(5), Some(6)),
        ("Pacific/Auckland", Some(23), Some(22)),
        ("Mars/Olympus", None, None),
        ("../../etc/passwd", None, None),
        ("", None, None),
    ] {
        let geo = open(&[("8.8.8.0/24", json!({"location": {"time_zone": zone}}))], &[]);
        assert_eq!(geo.locate(ip("8.8.8.8"), NOW).local_hour, winter_hour, "{zone}");
        assert_eq!(geo.locate(ip("8.8.8.8"), summer).local_hour, summer_hour, "{zone}");
    }
}

#[test]
fn the_kind_of_network_is_known_only_when_the_database_says_it() {
    use NetworkKind as K;
    for (traits, kind) in [
        (json!({}), K::Unknown),
        (json!({"autonomous_system_organization": "Best VPN Hosting Ltd"}), K::Unknown),
        (json!({"is_anonymous": true, "is_anonymous_vpn": true, "is_hosting_provider": true}), K::Anonymizer),
        (json!({"is_tor_exit_node": true}), K::Anonymizer),
        (json!({"is_public_proxy": true}), K::Anonymizer),
        (json!({"is_residential_proxy": true, "user_type": "residential"}), K::Anonymizer),
        (json!({"is_anonymous": true, "is_hosting_provider": true}), K::Hosting),
        (json!({"is_anonymous": true}), K::Anonymizer),
        (json!({"is_anonymous": false}), K::Unknown),
        (json!({"user_type": "hosting"}), K::Hosting),
        (json!({"user_type": "residential", "connection_type": "Cable/DSL"}), K::Residential),
        (json!({"user_type": "business"}), K::Business),
        (json!({"user_type": "college", "connection_type": "Corporate"}), K::Unknown),
        (json!({"connection_type": "Cellular"}), K::Mobile),
        (json!({"connection_type": "Corporate"}), K::Business),
        (json!({"connection_type": "Cable/DSL"}), K::Unknown),
    ] {
        assert_eq!(locate(json!({"traits": traits})).network_kind, kind, "{traits}");
        let network = open(&[], &[("8.8.8.0/24", traits.clone())]);
        assert_eq!(network.locate(ip("8.8.8.8"), NOW).network_kind, kind, "{traits}");
    }
}

#[test]
fn a_missing_foreign_or_swapped_file_is_an_error_that_names_it() {
    let files = Files::new();
    let missing = files.0.path().join("none.mmdb");
    let text = files.put("text.mmdb", b"this is no database");
    let city = files.put("c.mmdb", &test_mmdb::write("GeoLite2-City", &[("8.8.8.0/24", berlin())]));
    let asn = files.put("a.mmdb", &test_mmdb::write("GeoLite2-ASN", &[]));
    let error = GeoDatabases::open(Some(&missing), None).expect_err("no file").to_string();
    assert!(error.contains("none.mmdb") && error.contains("[geoip] city"), "{error}");
    for (city, asn, part) in [
        (Some(&text), None, "text.mmdb"),
        (None, Some(&text), "[geoip] asn"),
        (Some(&asn), None, "GeoLite2-ASN"),
        (None, Some(&city), "GeoLite2-City"),
    ] {
        let error = GeoDatabases::open(city.map(|p| p.as_path()), asn.map(|p| p.as_path())).expect_err(part);
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(GeoDatabases::open(Some(&city), Some(&asn)).is_ok());
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    let whole = test_mmdb::write("Test-City", &[("8.8.8.0/24", berlin())]);
    for length in 0..whole.len() {
        let result = parse(&CITY, Path::new("cut.mmdb"), whole[..length].to_vec());
        assert!(matches!(result, Err(GeoError::Damaged { .. })), "{length} bytes");
    }
}

#[test]
fn a_damaged_byte_anywhere_never_panics() {
    let whole = test_mmdb::write("Test-City", &[("8.8.8.0/24", berlin()), ("2606:4700::/32", json!({"x": 1}))]);
    for position in 0..whole.len() {
        for mask in [0xff, 0x01, 0x80, 0x20] {
            let mut bytes = whole.clone();
            bytes[position] ^= mask;
            if let Ok(city) = parse(&CITY, Path::new("damaged.mmdb"), bytes) {
                let geo = GeoDatabases { city: Some(city), asn: None };
                for address in ["8.8.8.8", "9.9.9.9", "2606:4700::1", "2a00::1"] {
                    let found = geo.locate(ip(address), NOW);
                    assert!(found.country.is_none_or(|c| c.len() == 2));
                }
            }
        }
    }
}
