//! For `serve --dev` alone: an OpenID provider on loopback that signs whatever it is asked to, and headers
//! that pretend another place.
//!
//! Its keys are made at each start and never stored. It answers loopback callers only: the issuer must be a
//! loopback URL, and a request that names another host or comes from another site's page is refused, so that
//! a page in the developer's browser cannot have tokens made.

mod assumed;
mod issuer;
mod routes;

#[cfg(test)]
mod tests;

pub use assumed::{
    ASSUMED_COUNTRY_HEADER, ASSUMED_IP_HEADER, ASSUMED_LOCATION_HEADER, ASSUMED_NETWORK_HEADER, assumed_ip,
    assumed_location,
};
pub use issuer::{DEFAULT_AUDIENCE, DevClaims, DevError, DevIssuer};
pub use routes::is_from_here;
