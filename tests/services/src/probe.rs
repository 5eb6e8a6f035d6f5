//! Whether a service answers in its own protocol: an open port alone says too little.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const TIMEOUT: Duration = Duration::from_secs(2);

/// What a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Kafka's.
    Kafka,
    /// Native CQL, version 4.
    Cql,
}

impl Protocol {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Cql => "cql",
        }
    }

    /// Asks `address` (`host:port`) what it supports; fails unless it answers within two seconds.
    pub fn ask(self, address: &str) -> Result<()> {
        let target = address
            .to_socket_addrs()
            .with_context(|| format!("{address} is not host:port"))?
            .next()
            .with_context(|| format!("{address} has no address"))?;
        let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        match self {
            Self::Kafka => ask_kafka(&mut stream),
            Self::Cql => ask_cql(&mut stream),
        }
    }
}

/// `ApiVersions`, version 0, correlation 7, no client id; the answer repeats the correlation.
fn ask_kafka(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
    let mut head = [0; 10];
    stream.read_exact(&mut head)?;
    ensure!(head[4..8] == [0, 0, 0, 7], "not an answer of Kafka");
    let error = i16::from_be_bytes([head[8], head[9]]);
    ensure!(error == 0, "Kafka answers with error {error}");
    Ok(())
}

/// `OPTIONS`; the answer is `SUPPORTED`.
fn ask_cql(stream: &mut TcpStream) -> Result<()> {
    const SUPPORTED: u8 = 6;
    stream.write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 0])?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    if head[4] != SUPPORTED {
        bail!("CQL answers OPTIONS with opcode {}", head[4]);
    }
    Ok(())
}
