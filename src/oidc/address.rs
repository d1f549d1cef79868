//! Which network addresses a fetch may reach: a pure rule.
//!
//! A provider's URLs are written by people, and the names in them resolve to whatever their owners say;
//! so the rule looks at the address that is really connected to, in every form it can be written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Which addresses may be reached.
#[derive(Debug, Clone, Default)]
pub struct AddressRule {
    allow_loopback: bool,
    only_loopback: bool,
    granted: Vec<IpNet>,
}

/// An address that may not be reached, told by its kind: the address itself stays out of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address is {kind}")]
pub struct RefusedAddress {
    /// What it is, such as `a private address`.
    pub kind: &'static str,
}

impl AddressRule {
    /// Public addresses, those in `granted`, and loopback if `allow_loopback`.
    #[must_use]
    pub const fn public(granted: Vec<IpNet>, allow_loopback: bool) -> Self {
        Self { allow_loopback, only_loopback: false, granted }
    }

    /// Loopback and nothing else, whatever is granted: for URLs without TLS.
    #[must_use]
    pub const fn only_loopback() -> Self {
        Self { allow_loopback: true, only_loopback: true, granted: Vec::new() }
    }

    /// Whether the address may be reached.
    ///
    /// # Errors
    /// Tells of what kind the refused address is.
    pub fn check(&self, ip: IpAddr) -> Result<(), RefusedAddress> {
        if self.only_loopback {
            return if ip.is_loopback() { Ok(()) } else { Err(RefusedAddress { kind: "not loopback" }) };
        }
        if ip.is_loopback() && self.allow_loopback || self.granted.iter().any(|net| net.contains(&ip)) {
            return Ok(());
        }
        special_kind(ip).map_or(Ok(()), |kind| Err(RefusedAddress { kind }))
    }
}

/// What is special about an address that no public server has (IANA special-purpose registries);
/// `None` for a public one. IPv6 forms that carry an IPv4 address are refused whole: where they lead
/// is decided by a gateway.
fn special_kind(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, d] = ip.octets();
    Some(match (a, b, c) {
        (0, _, _) => "unspecified",
        (127, _, _) => "a loopback address",
        (10, _, _) | (172, 16..=31, _) | (192, 168, _) => "a private address",
        (169, 254, 169) if d == 254 => "the metadata service of a cloud",
        (169, 254, _) => "a link-local address",
        (100, 64..=127, _) => "a carrier's shared address",
        (192, 0, 0) => "reserved for protocols",
        (192, 88, 99) => "a 6to4 relay",
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => "a documentation address",
        (198, 18..=19, _) => "a benchmark address",
        (224..=239, _, _) => "a multicast address",
        (255, 255, 255) if d == 255 => "the broadcast address",
        (240..=255, _, _) => "reserved",
        _ => return None,
    })
}

fn special_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    if ip.is_unspecified() {
        return Some("unspecified");
    }
    if ip.is_loopback() {
        return Some("a loopback address");
    }
    Some(match s {
        [0, 0, 0, 0, 0, 0xffff, ..] => "an IPv4 address in IPv6 form",
        [0, 0, 0, 0, 0xffff, 0, ..] => "a translated IPv4 address",
        [0, 0, 0, 0, 0, 0, ..] => "an IPv4 address in IPv6 form",
        [0x64, 0xff9b, ..] => "a NAT64 address",
        [0x100, 0, 0, 0 | 1, ..] => "a discard address",
        [0x2001, 0, ..] => "a Teredo address",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => "a documentation address",
        [0x2001, 0x0001..=0x01ff, ..] => "reserved for protocols",
        [0x2002, ..] => "a 6to4 address",
        [0x5f00, ..] => "a segment-routing address",
        [0xfc00..=0xfdff, ..] => "a unique-local address",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        // Global unicast is 2000::/3 (RFC 4291 section 2.4); nothing else is assigned.
        [0x2000..=0x3fff, ..] => return None,
        _ => "reserved",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn addresses_that_no_public_server_has_are_refused() {
        let rule = AddressRule::public(Vec::new(), false);
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::a00:1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::808:808",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:53aa:64c:0:fbff:808:808",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "4000::1",
            "e000::1",
            "fd00:ec2::254",
        ] {
            assert!(rule.check(ip(text)).is_err(), "{text} would be reached");
        }
    }

    #[test]
    fn public_addresses_next_to_the_special_ranges_are_reached() {
        let rule = AddressRule::public(Vec::new(), false);
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "3ffe::1",
        ] {
            assert_eq!(rule.check(ip(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_granted_network_is_reached_and_its_neighbour_is_not() {
        let nets = ["10.20.0.0/16", "fd00:1::/32"].map(|n| n.parse().expect("a network")).to_vec();
        let rule = AddressRule::public(nets, false);
        assert_eq!(rule.check(ip("10.20.3.4")), Ok(()));
        assert_eq!(rule.check(ip("fd00:1::9")), Ok(()));
        for text in ["10.21.0.1", "fd00:2::1", "::ffff:10.20.3.4", "64:ff9b::a14:304", "127.0.0.1"] {
            assert!(rule.check(ip(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_is_reached_only_when_allowed_and_a_mapped_form_never() {
        let rule = AddressRule::public(Vec::new(), true);
        assert_eq!(rule.check(ip("127.0.0.1")), Ok(()));
        assert_eq!(rule.check(ip("::1")), Ok(()));
        assert!(rule.check(ip("::ffff:127.0.0.1")).is_err());
        assert!(rule.check(ip("10.0.0.1")).is_err());
    }

    #[test]
    fn without_tls_only_loopback_is_reached() {
        let rule = AddressRule::only_loopback();
        assert_eq!(rule.check(ip("127.0.0.1")), Ok(()));
        for text in ["8.8.8.8", "10.0.0.1", "2606:4700::1111", "::ffff:127.0.0.1", "0.0.0.0"] {
            assert_eq!(rule.check(ip(text)), Err(RefusedAddress { kind: "not loopback" }), "{text}");
        }
    }
}
