//! `node --metrics`: the figures of a node over HTTP, in the text format that Prometheus reads.
//! Whoever reaches the port may read them and do nothing else: few connections at a time, each
//! ended if it dawdles, and no request has a body that is looked at.

mod text;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::exit::Failure;
use super::online;
use crate::driver::Session;

/// The door, before anybody stands behind it.
#[derive(Debug)]
pub struct Metrics {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Metrics {
    /// Listens.
    pub async fn bind(addr: SocketAddr) -> Result<Self, Failure> {
        let failed =
            |e: std::io::Error| online::bind_failure("serve metrics", "--metrics", addr, &e);
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until it is dropped.
    pub async fn serve(self, session: Session) -> Infallible {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // Whoever comes when all places are taken waits in the system's own queue.
            let place = places.clone().acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let session = session.clone();
                    tokio::spawn(async move {
                        converse(stream, session).await;
                        tracing::trace!(%from, "metrics connection over");
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection for metrics was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, session: Session) {
    let service = service_fn(|request: Request<Incoming>| {
        let session = session.clone();
        async move { Ok::<_, Infallible>(answer(&request, &session).await) }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .max_buf_size(HEADERS_LEN_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // However it ends, it is the other side's affair.
    let _ = timeout(CONVERSATION_MAX, conversation).await;
}

async fn answer(request: &Request<Incoming>, session: &Session) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/metrics" if is_read => match session.status().await {
            Some(status) => say(StatusCode::OK, text::render(&status)),
            None => say(StatusCode::SERVICE_UNAVAILABLE, "the node is ending\n".to_owned()),
        },
        "/" if is_read => say(StatusCode::OK, "a trackless node: see /metrics\n".to_owned()),
        "/" | "/metrics" => {
            let mut refusal = say(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
            refusal.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("a header value"));
            refusal
        }
        _ => say(StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
    }
}

fn say(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = text::CONTENT_TYPE.parse().expect("a header value");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Connections at a time: a few monitors, and somebody who looks.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request's head. Real ones have some 300.
const HEADERS_LEN_MAX: usize = 16 * 1024;
const HEADER_READ_MAX: Duration = Duration::from_secs(5);
/// A monitor that keeps its connection open connects anew after that.
const CONVERSATION_MAX: Duration = Duration::from_secs(120);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
