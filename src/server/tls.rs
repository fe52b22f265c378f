//! TLS (RFC 8446) in front of a listener, with a certificate whose key is derived from the site's: every controller of the site shows the same one.
//!
//! Leaves out: what is answered. Invariant: whoever connects waits for its own handshake alone, within the time that a request's head has. Shown by
//! `tests/boot/exchange.rs`.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::listen::Door;

/// RFC 8410, 7: OneAsymmetricKey of Ed25519 in its first version, but for the 32 octets of the key.
const ED25519_PRIVATE: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Nobody looks at the name: the key alone is known.
const NAME: &str = "embody";

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// The private key of the moment, if it is known.
type Key = dyn Fn() -> Option<zeroize::Zeroizing<[u8; 32]>> + Send + Sync;

struct Certificates {
    key: Box<Key>,
    made: Mutex<Option<([u8; 32], Arc<CertifiedKey>)>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = (self.key)()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, certified)) = made.as_ref().filter(|(of, _)| *of == *key) {
            return Some(Arc::clone(certified));
        }
        let certified = certified(&key).map(Arc::new).inspect_err(|error| tracing::error!(error = %error, "no certificate")).ok()?;
        *made = Some((*key, Arc::clone(&certified)));
        Some(certified)
    }
}

fn certified(key: &[u8; 32]) -> Result<CertifiedKey, TlsError> {
    let pkcs8 = [&ED25519_PRIVATE[..], key].concat();
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()), &rcgen::PKCS_ED25519)?;
    let certificate: CertificateDer<'static> = rcgen::CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&pair)?.into();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    Ok(CertifiedKey::from_der(vec![certificate], key, &rustls::crypto::ring::default_provider())?)
}

/// Connections of a listener, each with its handshake still to come.
pub(crate) struct TlsDoor {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsDoor {
    pub(crate) fn new(listener: TcpListener, key: Box<Key>) -> Result<TlsDoor, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = config.with_no_client_auth().with_cert_resolver(Arc::new(Certificates { key, made: Mutex::default() }));
        Ok(TlsDoor { listener, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

/// A connection whose handshake is done by whoever reads or writes first.
pub(crate) struct Secured {
    state: State,
    pub ends: Option<super::boot::Ends>,
}

enum State {
    Begins(Box<Accept<TcpStream>>),
    Open(Box<TlsStream<TcpStream>>),
    Failed,
}

impl Secured {
    fn open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut TlsStream<TcpStream>>> {
        if let State::Begins(accept) = &mut self.state {
            self.state = match ready!(Pin::new(accept.as_mut()).poll(cx)) {
                Ok(stream) => State::Open(Box::new(stream)),
                Err(error) => {
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            };
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(stream)),
            State::Begins(_) | State::Failed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl AsyncRead for Secured {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = ready!(self.get_mut().open(cx))?;
        Pin::new(stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let stream = ready!(self.get_mut().open(cx))?;
        Pin::new(stream).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = ready!(self.get_mut().open(cx))?;
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = ready!(self.get_mut().open(cx))?;
        Pin::new(stream).poll_shutdown(cx)
    }
}

impl Door for TlsDoor {
    type Connection = Secured;

    fn next(&self, cx: &mut Context<'_>) -> Poll<io::Result<Secured>> {
        let (stream, _) = ready!(self.listener.poll_accept(cx))?;
        let ends = super::boot::Ends::of(&stream);
        Poll::Ready(Ok(Secured { state: State::Begins(Box::new(self.acceptor.accept(stream))), ends }))
    }

    fn from(connection: &Secured) -> Option<IpAddr> {
        connection.ends.map(|ends| ends.theirs.ip())
    }

    /// Who has no seat hears nothing: there is no saying it before a handshake.
    fn turn_away(_: Secured) {}
}
