//! What a request tells of its client and tenant. The address comes from the connection, and from
//! forwarding headers only through proxies that the configuration trusts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use poem::Request;
use poem::http::uri::Authority;
use poem::http::{HeaderValue, Version, header};

use crate::signin::request::ClientContext;

/// The greatest length of a `User-Agent` that is looked at.
const AGENT_BYTES: usize = 512;

/// The client of a request, without the parts that its body tells.
#[must_use]
pub fn context(request: &Request, trusted_proxies: &[IpNet]) -> ClientContext {
    let text = |name: header::HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok());
    let language = text(header::ACCEPT_LANGUAGE).and_then(|list| {
        let first = list.split([',', ';']).next()?.trim();
        (!first.is_empty() && first.len() <= 35).then(|| Arc::from(first))
    });
    ClientContext {
        ip: address_of(request, trusted_proxies),
        user_agent: text(header::USER_AGENT).map(|agent| cut(agent, AGENT_BYTES).into()),
        language,
        device_id: None,
        assumed_location: None,
    }
}

/// The address of a request's client.
#[must_use]
pub fn address_of(request: &Request, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
    peer(request).map(|peer| forwarded_for(request, peer, trusted_proxies))
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.remote_addr().as_socket_addr().map(SocketAddr::ip).map(|ip| ip.to_canonical())
}

/// Whether forwarding headers tell of one client. A proxy that writes one of them and passes the other on would let
/// a client choose its address.
#[must_use]
pub fn has_one_address(request: &Request, trusted_proxies: &[IpNet]) -> bool {
    let Some(peer) = peer(request) else { return true };
    match (forwarded(request), x_forwarded_for(request)) {
        (one, other) if one.is_empty() || other.is_empty() => true,
        (one, other) => client_of(one, peer, trusted_proxies) == client_of(other, peer, trusted_proxies),
    }
}

fn forwarded_for(request: &Request, peer: IpAddr, trusted_proxies: &[IpNet]) -> IpAddr {
    let hops = Some(forwarded(request)).filter(|hops| !hops.is_empty());
    client_of(hops.unwrap_or_else(|| x_forwarded_for(request)), peer, trusted_proxies)
}

/// Walks the chain of forwarders from the nearest on, as long as each is trusted; the first that is not
/// is the client. What that one claims of others is not looked at.
fn client_of(hops: Vec<Option<IpAddr>>, peer: IpAddr, trusted_proxies: &[IpNet]) -> IpAddr {
    let trusted = |ip: &IpAddr| trusted_proxies.iter().any(|net| net.contains(ip));
    let mut client = peer;
    for hop in hops.into_iter().rev() {
        if !trusted(&client) {
            break;
        }
        let Some(ip) = hop else { break };
        client = ip;
    }
    client
}

/// What each element of `Forwarded` tells of an address; nothing when none of them is about one.
fn forwarded(request: &Request) -> Vec<Option<IpAddr>> {
    let lines = lines(request, "forwarded");
    let told: Vec<_> = lines.iter().flat_map(|line| line.split(',')).map(forwarded_node).collect();
    if told.iter().all(Option::is_none) {
        return Vec::new();
    }
    told.into_iter().map(|node| node.and_then(address)).collect()
}

fn x_forwarded_for(request: &Request) -> Vec<Option<IpAddr>> {
    let lines = lines(request, "x-forwarded-for");
    lines.iter().flat_map(|line| line.split(',')).map(address).collect()
}

/// Also those that are no text: what a proxy added to a client's line is read all the same.
fn lines(request: &Request, name: &str) -> Vec<String> {
    let all = request.headers().get_all(name).iter();
    all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

/// `for=` of one element of `Forwarded` (RFC 7239 section 4).
fn forwarded_node(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').map(str::trim);
    let pair = pairs.find(|pair| pair.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("for=")))?;
    Some(pair[4..].trim_matches('"'))
}

/// An address, with or without port; IPv6 may stand in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(ip, _)| ip);
    let ip = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip())).ok()?;
    Some(ip.to_canonical())
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What a request brings in the header `DPoP`.
pub enum DpopHeader<'a> {
    /// Nothing.
    Absent,
    /// One proof.
    Proof(&'a str),
    /// Several, or one that is no text.
    Unusable,
}

/// The header `DPoP` (RFC 9449 section 4.3: there is at most one).
#[must_use]
pub fn dpop_header(request: &Request) -> DpopHeader<'_> {
    let mut values = request.headers().get_all("dpop").iter();
    match (values.next(), values.next()) {
        (None, _) => DpopHeader::Absent,
        (Some(value), None) => value.to_str().map_or(DpopHeader::Unusable, DpopHeader::Proof),
        (Some(_), Some(_)) => DpopHeader::Unusable,
    }
}

/// Marks a request whose access token came with the scheme `DPoP`.
#[derive(Clone, Copy)]
pub struct SentAsBound;

/// The operations know the scheme `Bearer` alone: an access token that came with `DPoP` is put under that, and
/// the request marked.
pub fn unify_scheme(request: &mut Request) {
    let token = request.header(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("DPoP").then(|| format!("Bearer {}", token.trim_start()))
    });
    if let Some(value) = token.and_then(|t| t.parse().ok()) {
        request.headers_mut().insert(header::AUTHORIZATION, value);
        request.extensions_mut().insert(SentAsBound);
    }
}

/// The tenant that the request names in `X-Tenant-ID`. Two headers, or one that is no text, name none that there is:
/// a proxy may have added the second, and whoever sent the first must not win.
#[must_use]
pub fn tenant_header(request: &Request) -> Option<String> {
    let mut values = request.headers().get_all("x-tenant-id").iter();
    match (values.next(), values.next()) {
        (None, _) => None,
        (Some(one), None) => Some(one.to_str().unwrap_or_default().to_owned()),
        (Some(_), Some(_)) => Some(String::new()),
    }
}

/// Whether the request names the host that it is for, once, in words that a host may have (RFC 9112 section 3.2);
/// an empty one names none (RFC 9110 section 4.2.1). HTTP/1.0 knows no such header, so there it may be absent.
#[must_use]
pub fn has_fit_host(request: &Request) -> bool {
    let mut values = request.headers().get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (None, _) => request.version() < Version::HTTP_11,
        (Some(host), None) => is_host(host),
        (Some(_), Some(_)) => false,
    }
}

fn is_host(value: &HeaderValue) -> bool {
    let authority = Authority::try_from(value.as_bytes());
    authority.is_ok_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
}

/// The host that the request was sent to, without the port, in lower case. One in the request line goes before the
/// header (RFC 9112 section 3.2.2). Forwarded hosts are never believed.
#[must_use]
pub fn host(request: &Request) -> Option<String> {
    let host = request.uri().host().or_else(|| request.header(header::HOST))?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    Some(bare.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, headers: &[(&str, &str)], trusted: &[&str]) -> IpAddr {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let nets: Vec<IpNet> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        forwarded_for(&request.finish(), peer.parse().unwrap(), &nets)
    }

    #[test]
    fn forwarding_headers_count_only_through_trusted_proxies() {
        let xff = |v: &'static str| [("x-forwarded-for", v)];
        let expected = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(from("198.51.100.9", &xff("203.0.113.1"), &[]), expected("198.51.100.9"));
        assert_eq!(from("10.0.0.1", &xff("203.0.113.1"), &["10.0.0.0/8"]), expected("203.0.113.1"));
        assert_eq!(from("10.0.0.1", &xff("9.9.9.9, 203.0.113.1"), &["10.0.0.0/8"]), expected("203.0.113.1"));
        assert_eq!(from("10.0.0.1", &xff("203.0.113.1, 10.0.0.7"), &["10.0.0.0/8"]), expected("203.0.113.1"));
        assert_eq!(from("10.0.0.1", &xff("203.0.113.1, nonsense"), &["10.0.0.0/8"]), expected("10.0.0.1"));
        assert_eq!(from("10.0.0.1", &xff("\u{e9}, 203.0.113.1"), &["10.0.0.0/8"]), expected("203.0.113.1"));
    }

    #[test]
    fn the_standard_header_is_read_with_ports_and_brackets() {
        let forwarded = |v: &'static str| [("forwarded", v)];
        let ip = from("10.0.0.1", &forwarded("for=\"[2001:db8::1]:4711\";proto=https"), &["10.0.0.0/8"]);
        assert_eq!(ip, "2001:db8::1".parse::<IpAddr>().unwrap());
        let mapped = from("10.0.0.1", &[("x-forwarded-for", "::ffff:203.0.113.1")], &["10.0.0.0/8"]);
        assert_eq!(mapped, "203.0.113.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn the_host_loses_port_and_case() {
        for (given, expected) in [("ID.example.com:8443", "id.example.com"), ("[::1]:80", "::1"), ("a", "a")] {
            let request = Request::builder().header("host", given).finish();
            assert_eq!(host(&request).as_deref(), Some(expected));
        }
    }
}
