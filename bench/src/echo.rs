//! The reference for unary publishes: a bare tonic server of the same service, in a process of its
//! own, that answers each publish at once.
//!
//! As a process it prints its address, and ends when its standard input does.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use fanfare_proto::v1;
use fanfare_proto::v1::event_service_server::{EventService, EventServiceServer};
use futures::stream::Empty;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Child;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::publish::{Load, Way};
use crate::{child, process};

/// A running echo. Dropping it kills it.
pub(crate) struct Echo {
    child: Child,
    load: Load,
}

impl Echo {
    /// Starts one.
    pub(crate) async fn start() -> Result<Self> {
        let mut child = child::command(&["echo"])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let address = lines.next_line().await?.context("the echo did not start")?;
        let channel = Endpoint::new(format!("http://{address}"))?
            .connect()
            .await?;
        let load = Load::unwatched(channel, "echo");
        Ok(Self { child, load })
    }

    /// CPU of its whole process per answer, in microseconds.
    pub(crate) async fn cpu_per_answer(&self, way: Way, length: Duration) -> Result<f64> {
        let pid = self.child.id().context("it has ended")?;
        self.load.run(way, length / 4, None).await?;
        let cpu = process::cpu(pid)?;
        let answers = self.load.run(way, length, None).await?;
        Ok((process::cpu(pid)? - cpu) as f64 / answers as f64)
    }
}

/// The process.
pub(crate) fn run() -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        // Whoever started this is gone.
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        Server::builder()
            .add_service(EventServiceServer::new(Answering))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await?;
        Ok(())
    })
}

struct Answering;

#[tonic::async_trait]
impl EventService for Answering {
    type PublishStreamStream = Empty<Result<v1::PublishStreamResponse, Status>>;
    type TailEventsStream = Empty<Result<v1::TailEventsResponse, Status>>;

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let event = request.into_inner().event.unwrap_or_default();
        Ok(Response::new(v1::PublishResponse {
            id: event.id,
            source: event.source,
            accept_time: Some(std::time::SystemTime::now().into()),
            duplicate: false,
            notes: Vec::new(),
        }))
    }

    async fn publish_batch(
        &self,
        _: Request<v1::PublishBatchRequest>,
    ) -> Result<Response<v1::PublishBatchResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn publish_stream(
        &self,
        _: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_event(
        &self,
        _: Request<v1::GetEventRequest>,
    ) -> Result<Response<v1::GetEventResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_events(
        &self,
        _: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn tail_events(
        &self,
        _: Request<v1::TailEventsRequest>,
    ) -> Result<Response<Self::TailEventsStream>, Status> {
        Err(Status::unimplemented(""))
    }
}
