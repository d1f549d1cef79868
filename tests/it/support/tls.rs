//! TLS before a server on loopback, with a certificate that whoever trusts its file accepts.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use data_encoding::BASE64;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::sign_in::plugin_ports::der;

/// Object identifiers: ecdsa-with-SHA256, commonName, subjectAltName.
const SIGNED: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
const ALTERNATIVE_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];

/// A key and its certificate, for `127.0.0.1`.
pub struct Tls {
    pub certificate_pem: String,
    acceptor: TlsAcceptor,
}

impl Tls {
    pub fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let certificate = certificate(&pair);
        let certificate_pem =
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(&certificate));
        let key = pair.to_pkcs8v1().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_ref().to_vec()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![CertificateDer::from(certificate)], key).unwrap();
        Self { certificate_pem, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    /// An address over TLS that leads to this one without it.
    pub async fn before(&self, url: &str) -> String {
        let rest = url.strip_prefix("http://").unwrap();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let secured = format!("https://{}/{path}", listener.local_addr().unwrap());
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, host) = (acceptor.clone(), host.clone());
                tokio::spawn(async move {
                    let mut client = acceptor.accept(stream).await?;
                    let mut server = TcpStream::connect(host).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        secured
    }
}

/// Signed by itself (RFC 5280 section 4.1).
fn certificate(pair: &EcdsaKeyPair) -> Vec<u8> {
    let algorithm = der(0x30, SIGNED);
    let name = der(0x30, &der(0x31, &der(0x30, &[COMMON_NAME, &der(0x0c, b"loopback")].concat())));
    let validity = der(0x30, &[der(0x17, b"200101000000Z"), der(0x17, b"491231235959Z")].concat());
    let key: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let addresses = der(0x04, &der(0x30, &der(0x87, &[127, 0, 0, 1])));
    let extensions = der(0xa3, &der(0x30, &der(0x30, &[ALTERNATIVE_NAME, &addresses].concat())));
    let version = der(0xa0, &der(0x02, &[2]));
    let parts = [
        version,
        der(0x02, &[1]),
        algorithm.clone(),
        name.clone(),
        validity,
        name,
        key.as_ref().to_vec(),
        extensions,
    ];
    let signed = der(0x30, &parts.concat());
    let signature = pair.sign(&SystemRandom::new(), &signed).unwrap();
    let signature = der(0x03, &[&[0], signature.as_ref()].concat());
    der(0x30, &[signed, algorithm, signature].concat())
}
