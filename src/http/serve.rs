//! The listener. poem's own server sets no limit that matters here, so hyper is driven directly:
//! `TCP_NODELAY`, a bound on connections, a time for headers, and a shutdown that lets requests finish.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use poem::Endpoint;
use poem::endpoint::BoxEndpoint;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at one time; further ones wait in the listener's queue.
const CONNECTIONS: usize = 10_000;
/// How long a client may take to send the headers of a request; also how long a connection may idle.
const HEADER_TIME: Duration = Duration::from_secs(15);
/// How long running requests may take to finish after the signal to stop.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// The greatest size of a request's head.
const HEAD_BYTES: usize = 32 * 1024;

/// Serves until `stop` resolves, then lets running requests finish.
pub async fn serve(listener: TcpListener, endpoint: BoxEndpoint<'static>, stop: impl Future<Output = ()>) {
    let endpoint = Arc::new(endpoint);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let draining = GracefulShutdown::new();
    let local = listener.local_addr().ok();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_headers(64).max_buf_size(HEAD_BYTES);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = &mut stop => break,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let endpoint = Arc::clone(&endpoint);
        let service = service_fn(move |request| {
            let endpoint = Arc::clone(&endpoint);
            let remote = RemoteAddr(peer.into());
            let local = LocalAddr(local.map(Into::into).unwrap_or_default());
            async move {
                let request = poem::Request::from((request, local, remote, Scheme::HTTP));
                let response = endpoint.get_response(request).await;
                Ok::<hyper::Response<_>, std::convert::Infallible>(response.into())
            }
        });
        let connection = draining.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIME, draining.shutdown()).await.is_err() {
        tracing::warn!("some requests were not finished within 10 s of the signal to stop");
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Without it, small answers wait for the client's delayed acknowledgement.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, permit))
        }
        Err(error) => {
            tracing::warn!(error = %error, "a connection could not be accepted");
            // Out of file descriptors: a pause lets some come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}
