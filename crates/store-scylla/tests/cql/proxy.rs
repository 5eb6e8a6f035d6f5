//! A TCP proxy before one node that loses one answer, or one request, and with it the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is lost of the first request that holds the marker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lose {
    Answer,
    Request,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    marker: &'static [u8],
    lose: Lose,
    armed: AtomicBool,
    lost: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn before(node: String, marker: &'static [u8], lose: Lose) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            marker,
            lose,
            armed: AtomicBool::new(true),
            lost: AtomicUsize::new(0),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&node).await.unwrap();
                tokio::spawn(pass(client, server, shared.clone()));
            }
        });
        Self { address, state }
    }

    pub(crate) fn lost(&self) -> usize {
        self.state.lost.load(Ordering::SeqCst)
    }
}

/// Copies both ways until one side ends or something is to be lost.
async fn pass(mut client: TcpStream, mut server: TcpStream, state: Arc<State>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                let bytes = &up[..count];
                let marked = bytes.windows(state.marker.len()).any(|w| w == state.marker);
                losing |= marked && state.armed.swap(false, Ordering::SeqCst);
                if losing && state.lose == Lose::Request {
                    state.lost.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if server.write_all(bytes).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if losing {
                    state.lost.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if client.write_all(&down[..count]).await.is_err() { return }
            }
        }
    }
}
