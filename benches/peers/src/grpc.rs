//! gRPC as tonic does it: one client stream a connection, and a unary call for the round trip.

use crate::{
    load::{Client, Load},
    process::Control,
    tag,
};
use bytes::{Buf, BufMut, Bytes};
use futures_util::StreamExt;
use std::{
    convert::Infallible,
    path::Path,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};
use tokio::{
    net::TcpStream,
    sync::{Mutex, mpsc},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, http},
    server::NamedService,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig},
};

/// Bytes as they are: what Protocol Buffers would cost on top is not counted.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[derive(Clone)]
struct Peer(Arc<Control>);

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl NamedService for Peer {
    const NAME: &'static str = "fleetwire.Peer";
}

impl Service<http::Request<Body>> for Peer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            Ok(match request.uri().path() {
                "/fleetwire.Peer/Stream" => grpc.client_streaming(this, request).await,
                _ => grpc.unary(this, request).await,
            })
        })
    }
}

impl Service<Request<Streaming<Bytes>>> for Peer {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = Answer<Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let control = Arc::clone(&self.0);
        Box::pin(async move {
            let mut messages = request.into_inner();
            while let Some(message) = messages.message().await? {
                tag::check(&message);
                control.messages.fetch_add(1, Relaxed);
            }
            Ok(Response::new(Bytes::new()))
        })
    }
}

impl Service<Request<Bytes>> for Peer {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = Answer<Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        tag::check(request.get_ref());
        self.0.messages.fetch_add(1, Relaxed);
        Box::pin(async { Ok(Response::new(tag::signed())) })
    }
}

pub async fn serve(folder: &Path, control: Arc<Control>) -> String {
    let read = |name| std::fs::read_to_string(folder.join(name)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("{} {}", listener.local_addr().unwrap(), folder.display());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(read("cert.pem"), read("key.pem")));
    let incoming = TcpListenerStream::new(listener).map(|socket| socket.and_then(without_delay));
    let server = Server::builder().tls_config(tls).unwrap().add_service(Peer(control));
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    address
}

fn without_delay(socket: TcpStream) -> std::io::Result<TcpStream> {
    socket.set_nodelay(true).map(|()| socket)
}

pub struct Grpc {
    messages: mpsc::Sender<Bytes>,
    calls: Mutex<tonic::client::Grpc<Channel>>,
}

pub async fn connect(address: String, _number: usize) -> Grpc {
    let (address, folder) = address.split_once(' ').unwrap();
    let authority = std::fs::read_to_string(Path::new(folder).join("cert.pem")).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    let channel = endpoint.tcp_nodelay(true).connect().await.unwrap();
    let (messages, waiting) = mpsc::channel(64);
    let (mut stream, calls) = (tonic::client::Grpc::new(channel.clone()), tonic::client::Grpc::new(channel));
    tokio::spawn(async move {
        stream.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/fleetwire.Peer/Stream");
        let _ = stream.client_streaming(Request::new(ReceiverStream::new(waiting)), path, Raw).await;
    });
    Grpc { messages, calls: Mutex::new(calls) }
}

impl Client for Grpc {
    async fn send(&self, load: Load) {
        for _ in 0..load.burst {
            self.messages.send(tag::signed()).await.unwrap();
        }
        tokio::task::yield_now().await;
    }

    async fn echo(&self) {
        let mut calls = self.calls.lock().await;
        calls.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/fleetwire.Peer/Call");
        let answer: Response<Bytes> = calls.unary(Request::new(tag::signed()), path, Raw).await.unwrap();
        tag::check(answer.get_ref());
    }

    async fn receive(&self) {
        std::future::pending().await
    }
}
