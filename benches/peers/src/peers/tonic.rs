//! tonic (gRPC) over a Unix socket: a unary call of a value, and streams of bytes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ::tonic::transport::{Channel, Endpoint, Server};
use ::tonic::{Request, Response, Status, Streaming};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};

use super::Peer;
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row, Workload};
use crate::measure::{Flood, Reading, RoundTrips, payload, stamp_of, write_stamp};

mod generated {
    include!(concat!(env!("OUT_DIR"), "/peers.Peer.rs"));
}
use generated::peer_client::PeerClient;
use generated::peer_server::{Peer as Service, PeerServer};

/// Bytes, taken in and given out without a copy of prost's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Block {
    #[prost(bytes = "bytes", tag = "1")]
    pub bytes: Bytes,
}

/// The value of the other peers' typed rows.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub stamp: u64,
    #[prost(double, tag = "3")]
    pub value: f64,
    #[prost(string, tag = "4")]
    pub label: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Sum {
    #[prost(uint64, tag = "1")]
    pub sum: u64,
}

/// Windows that never run out, instead of the 64 KiB of HTTP/2's default.
const WINDOW: u32 = 64 << 20;
/// The largest that HTTP/2 allows.
const FRAME: u32 = (1 << 24) - 1;
const MESSAGE: usize = 8 << 20;

pub struct Tonic;

impl Peer for Tonic {
    fn rows(&self) -> &'static [Row] {
        &[
            Row {
                name: "tonic stream",
                kind: Kind::Copied,
                takes: |workload, _| matches!(workload, Workload::Rtt | Workload::Throughput),
            },
            Row { name: "tonic unary", kind: Kind::Typed, takes: |workload, _| workload == Workload::Call },
        ]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        second.hear()?;
        runtime()?.block_on(async {
            let mut client = connect(socket(job)).await?;
            match job.workload {
                Workload::Call => call(job, &mut client).await,
                Workload::Rtt => round_trips(job, &mut client).await,
                _ => flood(job, second, client).await,
            }
        })
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        runtime()?.block_on(async {
            let listener = UnixListener::bind(socket(job))?;
            first.tell("listening");
            let service = PeerServer::new(Served::default())
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE);
            let serving = Server::builder()
                .initial_connection_window_size(WINDOW)
                .initial_stream_window_size(WINDOW)
                .max_frame_size(FRAME)
                .add_service(service)
                .serve_with_incoming(UnixListenerStream::new(listener));
            tokio::select! {
                ended = serving => Ok(ended?),
                () = async { while let Ok(Some(_)) = first.batch_async().await {} } => Ok(()),
            }
        })
    }
}

/// Each process has one CPU, so one thread.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn socket(job: &Job) -> PathBuf {
    job.dir.join("tonic")
}

async fn connect(path: PathBuf) -> Result<PeerClient<Channel>> {
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://peers")
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .connect_with_connector(connector)
        .await?;
    Ok(PeerClient::new(channel).max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE))
}

async fn call(job: &Job, client: &mut PeerClient<Channel>) -> Result<Figure> {
    let value = super::typed::Event::new(0);
    let mut trips = RoundTrips::new(job);
    while let Some(stamp) = trips.next() {
        let event = Event { id: stamp, stamp: value.stamp, value: value.value, label: value.label.clone() };
        trips.came(client.call(event).await?.get_ref().id)?;
    }
    trips.figure()
}

async fn round_trips(job: &Job, client: &mut PeerClient<Channel>) -> Result<Figure> {
    let (requests, stream) = mpsc::channel(1);
    let mut answers = client.echo(ReceiverStream::new(stream)).await?.into_inner();
    let mut message = payload(job.payload);
    let mut trips = RoundTrips::new(job);
    while let Some(stamp) = trips.next() {
        write_stamp(&mut message, stamp);
        requests.send(Block { bytes: Bytes::copy_from_slice(&message) }).await?;
        let answer = answers.message().await?.ok_or("the stream ended")?;
        trips.came(stamp_of(&answer.bytes))?;
    }
    trips.figure()
}

/// A stream for each batch, which makes its messages when the connection asks for them.
async fn flood(job: &Job, second: &mut Second, mut client: PeerClient<Channel>) -> Result<Figure> {
    let mut flood = Flood::new(job, 1);
    while let Some(batch) = flood.batch(second)? {
        let mut message = payload(job.payload);
        let blocks = batch.map(move |stamp| {
            write_stamp(&mut message, stamp);
            Block { bytes: Bytes::copy_from_slice(&message) }
        });
        let answer = client.flood(tokio_stream::iter(blocks)).await?;
        flood.done(&answer.get_ref().sum.to_string())?;
    }
    flood.figure()
}

#[derive(Default)]
struct Served {
    reading: Arc<Mutex<Reading>>,
}

#[::tonic::async_trait]
impl Service for Served {
    async fn call(&self, request: Request<Event>) -> Result<Response<Event>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    /// What comes in goes out.
    type EchoStream = Streaming<Block>;

    async fn echo(&self, request: Request<Streaming<Block>>) -> Result<Response<Streaming<Block>>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn flood(&self, request: Request<Streaming<Block>>) -> Result<Response<Sum>, Status> {
        let mut blocks = request.into_inner();
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner).clone();
        while let Some(block) = blocks.message().await? {
            reading.take(&block.bytes).map_err(|error| Status::internal(error.to_string()))?;
        }
        let sum = reading.take_sum();
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = reading;
        Ok(Response::new(Sum { sum }))
    }
}
