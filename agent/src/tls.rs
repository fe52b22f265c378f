//! TLS 1.3 (RFC 8446) with a server that is known by its public key alone.
//!
//! Leaves out: names, times and issuers of certificates: the clock of a machine that starts may be anything, and the command line, which comes from the
//! same controller as the kernel, says whom to trust. Invariant: no octet of the caller's is sent before the server has shown the key, and has shown
//! that it holds it. Shown by the tests below.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, PeerIncompatible, SignatureScheme, StreamOwned, version,
};
use sha2::{Digest, Sha256};

use crate::http::{HttpError, Wire};

pub type Secure = StreamOwned<ClientConnection, Wire>;

/// The SHA-256 of a SubjectPublicKeyInfo (RFC 7469, section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

pub fn connect(at: SocketAddr, wire: Wire, key: Key) -> Result<Secure, HttpError> {
    let handshake = |source| HttpError::Handshake { at, source };
    let provider = Arc::new(ring::default_provider());
    let judge = Arc::new(Judge { key, other: Mutex::new(None), provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| handshake(io::Error::other(error)))?
        .dangerous()
        .with_custom_certificate_verifier(judge.clone());
    let mut config = config.with_no_client_auth();
    // Each connection is a new one: nothing is kept for the next.
    config.resumption = Resumption::disabled();
    let name = ServerName::IpAddress(at.ip().into());
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| handshake(io::Error::other(error)))?;
    let mut secure = StreamOwned::new(connection, wire);
    while secure.conn.is_handshaking() {
        if let Err(source) = secure.conn.complete_io(&mut secure.sock) {
            let other = judge.other.lock().ok().and_then(|other| *other);
            return Err(other.map_or_else(|| handshake(source), |found| HttpError::Key { at, found, expected: key }));
        }
    }
    Ok(secure)
}

#[derive(Debug)]
struct Judge {
    key: Key,
    /// What was shown instead.
    other: Mutex<Option<Key>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let found = Key(Sha256::digest(parsed.subject_public_key_info()).into());
        if found == self.key {
            return Ok(ServerCertVerified::assertion());
        }
        if let Ok(mut other) = self.other.lock() {
            *other = Some(found);
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;
    use crate::http::{Url, post, post_for_answer};

    /// Answers one connection after the other with these octets, and returns what was asked, which is nothing where there was no handshake.
    pub fn server(algorithm: &'static SignatureAlgorithm, answers: Vec<Vec<u8>>) -> (SocketAddr, Key, JoinHandle<Vec<String>>) {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(vec!["nobody".to_owned()]).unwrap().self_signed(&pair).unwrap();
        let key = Key(Sha256::digest(pair.subject_public_key_info()).into());
        let private = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let asked = thread::spawn(move || {
            let answered = answers.into_iter().map(|answer| {
                let (stream, _) = listener.accept().unwrap();
                let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
                let asked = question(&mut stream);
                let _ = stream.write_all(&answer).and_then(|()| stream.flush());
                stream.conn.send_close_notify();
                let _ = stream.conn.complete_io(&mut stream.sock);
                asked
            });
            answered.collect()
        });
        (at, key, asked)
    }

    fn question(stream: &mut impl Read) -> String {
        let mut reader = BufReader::new(stream);
        let (mut head, mut line) = (String::new(), String::new());
        while !head.ends_with("\r\n\r\n") {
            line.clear();
            match reader.read_line(&mut line) {
                Ok(length) if length > 0 => head += &line,
                _ => return head,
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        head + &String::from_utf8(body).unwrap()
    }

    pub fn ok(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn whoever_shows_the_key_is_asked() {
        for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
            let (at, key, asked) = server(algorithm, vec![ok("{\"a\":1}"), b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()]);
            let url = Url::of_key(at, "/run/web-1/T/identity".to_owned(), key);
            assert_eq!(post_for_answer(&url, "{}", "application/json").unwrap(), b"{\"a\":1}");
            assert_eq!(post(&url, "{}", "application/json").unwrap(), 204);
            let asked = asked.join().unwrap();
            assert!(asked[0].starts_with("POST /run/web-1/T/identity HTTP/1.1\r\n") && asked[0].ends_with("\r\n\r\n{}"), "{asked:?}");
        }
    }

    #[test]
    fn nothing_is_said_to_whoever_shows_another_key() {
        let (at, key, asked) = server(&PKCS_ED25519, vec![ok("{}")]);
        let error = post(&Url::of_key(at, "/secret".to_owned(), Key([7; 32])), "secret", "text/plain").unwrap_err();
        assert!(error.to_string().ends_with(&format!("its public key is {key}, expected {}", "07".repeat(32))), "{error}");
        assert!(!error.may_pass());
        assert_eq!(asked.join().unwrap(), [""]);
    }

    #[test]
    fn what_is_not_tls_is_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let plain = thread::spawn(move || listener.accept().unwrap().0.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
        let error = post_for_answer(&Url::of_key(at, "/".to_owned(), Key([7; 32])), "{}", "text/plain").unwrap_err();
        assert!(matches!(error, HttpError::Handshake { .. }) && error.may_pass(), "{error}");
        plain.join().unwrap().unwrap();
    }

    #[test]
    fn an_answer_has_its_bounds() {
        let too_long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", embody_protocol::MESSAGE_BYTES + 1).into_bytes();
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc".to_vec();
        let (at, key, _) = server(&PKCS_ED25519, vec![too_long, cut, b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec()]);
        let url = Url::of_key(at, "/".to_owned(), key);
        let said: Vec<_> = (0..3).map(|_| post_for_answer(&url, "", "text/plain").unwrap_err().to_string()).collect();
        assert!(said[0].contains("no Content-Length up to 1048576") && said[1].contains("broke off"), "{said:?}");
        assert!(said[2].ends_with("answered 403, expected 200"), "{said:?}");
    }
}
