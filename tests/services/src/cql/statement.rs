//! One statement, as cqlsh would run it: what an operator, or another version of a program, did.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Opcodes of version 4 of the protocol.
const STARTUP: u8 = 1;
const READY: u8 = 2;
const QUERY: u8 = 7;
const RESULT: u8 = 8;
/// Of all replicas.
const ALL: [u8; 2] = [0, 5];

/// Runs `statement` on the node at `address` (`host:port`) without a password; its rows are not read.
pub fn run(address: &str, statement: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut options = vec![0, 1];
    for text in ["CQL_VERSION", "3.0.0"] {
        options.extend(u16::try_from(text.len())?.to_be_bytes());
        options.extend(text.as_bytes());
    }
    ask(&mut stream, (STARTUP, READY), &options)?;
    let mut query = u32::try_from(statement.len())?.to_be_bytes().to_vec();
    query.extend(statement.as_bytes());
    query.extend(ALL);
    query.push(0);
    ask(&mut stream, (QUERY, RESULT), &query).with_context(|| statement.to_owned())
}

fn ask(stream: &mut TcpStream, (question, wanted): (u8, u8), body: &[u8]) -> Result<()> {
    let mut frame = vec![4, 0, 0, 0, question];
    frame.extend(u32::try_from(body.len())?.to_be_bytes());
    frame.extend(body);
    stream.write_all(&frame)?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [.., a, b, c, d] = head;
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes([a, b, c, d]))?];
    stream.read_exact(&mut answer)?;
    let said = String::from_utf8_lossy(&answer);
    ensure!(head[4] == wanted, "the node refuses: {said}");
    Ok(())
}
