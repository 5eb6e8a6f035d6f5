//! What an operator's tools do to a cluster, in Kafka's own protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fanfare_event_log::Lease;
use fanfare_event_log_kafka::{KafkaConfig, KafkaLog};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::groups::GroupInfo;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A client for administration.
pub(crate) fn admin(config: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    client(config).create().expect("an admin client")
}

/// Time-outs of administration.
pub(crate) fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT))
}

/// A client that asks.
pub(crate) fn asking(config: &KafkaConfig) -> BaseConsumer {
    client(config).create().expect("a client")
}

fn client(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", config.bootstrap_servers.join(","));
    client
}

/// Removes the member that holds `lease` from its group, as `kafka-consumer-groups.sh
/// --remove-members` does. Waits until the broker says so.
pub(crate) fn expel(config: &KafkaConfig, log: &KafkaLog, lease: &Lease) -> Result<bool> {
    let group = log.consumer_group(lease.stream, &lease.group);
    let seat = log.layout().seat(lease.stream, lease.span.index);
    let seat = seat.context("a span of the log")?;
    let asked = asking(config);
    let list = asked.fetch_group_list(Some(&group), TIMEOUT)?;
    let members = list.groups().iter().flat_map(GroupInfo::members);
    let holder = members
        .filter(|member| {
            let assignment = member.assignment().unwrap_or_default();
            assigned(assignment).contains(&(seat.topic.to_string(), seat.partition))
        })
        .map(|member| member.id().to_owned())
        .next();
    match holder {
        None => Ok(false),
        Some(holder) => leave_group(&config.bootstrap_servers[0], &group, &holder),
    }
}

/// How many members `group` has.
pub(crate) fn members(config: &KafkaConfig, group: &str) -> usize {
    let list = asking(config).fetch_group_list(Some(group), TIMEOUT);
    let list = list.expect("the group");
    list.groups().iter().map(|g| g.members().len()).sum()
}

/// Reads a member's assignment: version, then topics with their partitions.
fn assigned(mut bytes: &[u8]) -> Vec<(String, i32)> {
    let mut all = Vec::new();
    let mut take = |count: usize| {
        let (taken, rest) = bytes.split_at(count.min(bytes.len()));
        bytes = rest;
        taken
    };
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0usize, |sum, b| sum << 8 | usize::from(*b))
    };
    take(2);
    for _ in 0..number(take(4)) {
        let length = number(take(2));
        let topic = String::from_utf8_lossy(take(length)).into_owned();
        for _ in 0..number(take(4)) {
            let partition = i32::try_from(number(take(4))).expect("a partition");
            all.push((topic.clone(), partition));
        }
    }
    all
}

/// `LeaveGroup` version 3; whether the group knew the member.
fn leave_group(server: &str, group: &str, member: &str) -> Result<bool> {
    const UNKNOWN_MEMBER: i16 = 25;
    let mut request = Vec::new();
    // API key, version, correlation, no client id.
    request.extend([0, 13, 0, 3, 0, 0, 0, 1, 0xff, 0xff]);
    put_string(&mut request, group)?;
    request.extend(1i32.to_be_bytes());
    put_string(&mut request, member)?;
    // No group instance.
    request.extend((-1i16).to_be_bytes());
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&i32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size))?];
    stream.read_exact(&mut answer)?;
    // Correlation, throttle time, error; then per member the same at the end.
    ensure!(answer.len() >= 12, "a short answer");
    let error = |at: usize| i16::from_be_bytes([answer[at], answer[at + 1]]);
    ensure!(error(8) == 0, "LeaveGroup answers {}", error(8));
    let own = error(answer.len() - 2);
    ensure!(
        own == 0 || own == UNKNOWN_MEMBER,
        "LeaveGroup answers {own}"
    );
    Ok(own == 0)
}

fn put_string(bytes: &mut Vec<u8>, text: &str) -> Result<()> {
    bytes.extend(i16::try_from(text.len())?.to_be_bytes());
    bytes.extend(text.as_bytes());
    Ok(())
}

/// Whether a member of `group` was given `partition` of `topic`.
pub(crate) fn is_assigned(config: &KafkaConfig, group: &str, topic: &str, partition: i32) -> bool {
    let asked = asking(config);
    let list = asked
        .fetch_group_list(Some(group), TIMEOUT)
        .expect("groups");
    let members = list.groups().iter().flat_map(GroupInfo::members);
    let mut all = members.flat_map(|member| assigned(member.assignment().unwrap_or_default()));
    all.any(|(of, number)| of == topic && number == partition)
}
