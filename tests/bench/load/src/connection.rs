//! Connections to a proxy, plain or by mutual TLS, with windows so wide that they do not limit a load.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Version};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Outcome;
use crate::arguments::Arguments;

pub const AUTHORITY: &str = "bench.example.com";
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// How a load reaches the proxy.
#[derive(Clone)]
pub struct Way {
    port: u16,
    tls: Option<TlsConnector>,
    stream_window: u32,
}

// === impl Way ===

impl Way {
    /// From `--port`, and `--ca`, `--certificate`, `--key` for mutual TLS.
    pub fn of(arguments: &Arguments) -> Outcome<Self> {
        let tls = match arguments.text("ca") {
            None => None,
            Some(ca) => Some(connector(arguments, Path::new(ca))?),
        };
        Ok(Self {
            port: arguments.required("port")?.parse()?,
            tls,
            stream_window: arguments.number("stream-window", STREAM_WINDOW)?,
        })
    }

    /// A connection that is ready for requests; its frames move in a task of their own.
    pub async fn connect(&self) -> Outcome<SendRequest<Bytes>> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => self.handshake(tcp).await,
            Some(tls) => {
                let name = ServerName::try_from(AUTHORITY)?;
                self.handshake(tls.connect(name, tcp).await?).await
            }
        }
    }

    async fn handshake<T>(&self, io: T) -> Outcome<SendRequest<Bytes>>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake::<_, Bytes>(io)
            .await?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection ended: {error}");
            }
        });
        Ok(requests.ready().await?)
    }
}

fn connector(arguments: &Arguments, ca: &Path) -> Outcome<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let chain = CertificateDer::pem_file_iter(arguments.required("certificate")?)?;
    let key = PrivateKeyDer::from_pem_file(arguments.required("key")?)?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A gRPC request for `path`.
pub fn request(path: &str) -> Outcome<Request<()>> {
    Ok(Request::builder()
        .version(Version::HTTP_2)
        .method(Method::POST)
        .uri(format!("http://{AUTHORITY}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?)
}

/// A gRPC message of `size` bytes, its prefix included.
pub fn message(size: usize) -> Bytes {
    let content = size.saturating_sub(5);
    let mut bytes = vec![0; 5 + content];
    bytes[1..5].copy_from_slice(&(content as u32).to_be_bytes());
    bytes.into()
}
