//! Topics are created as they must be, or checked; one that is wrong is refused and left as it is.

mod rules;

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use crate::agreement::{Agreement, Partitions};
use crate::asking::{ask, misconfigured, refused};
use crate::client::Common;
use crate::config::KafkaConfig;
use crate::error::OpenError;
use crate::layout::{Layout, Topic};

/// Creates what is missing and checks all; changes nothing that is there.
pub(crate) async fn prepare(
    config: &KafkaConfig,
    layout: &Layout,
    common: &Common,
    agreement: &dyn Agreement,
) -> Result<(), OpenError> {
    let present = present(config, layout, common).await?;
    if config.security.uses_tokens() {
        check_unaided(config, layout, &present)?;
        check_unused(config, layout, common, &present).await?;
        return agree(config, layout, agreement).await;
    }
    let admin = AdminClient::from_config_and_context(&config.client()?, common.clone())
        .map_err(|error| misconfigured(&error))?;
    // All that are there are checked before any is created: a refusal changes nothing.
    check(&admin, config, layout, &present).await?;
    check_unused(config, layout, common, &present).await?;
    agree(config, layout, agreement).await?;
    let missing: Vec<_> = layout
        .topics()
        .iter()
        .filter(|topic| !present.contains_key(&*topic.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    create(&admin, config, &missing).await?;
    settled(config, layout, common).await
}

/// Partition counts of the topics that are there.
type Present = BTreeMap<String, usize>;

async fn present(
    config: &KafkaConfig,
    layout: &Layout,
    common: &Common,
) -> Result<Present, OpenError> {
    let names: Vec<_> = layout.topics().iter().map(|t| t.name.clone()).collect();
    let timeout = config.request_timeout();
    ask(config, common, move |client| {
        let mut present = Present::new();
        for name in names {
            let metadata = client.fetch_metadata(Some(&name), timeout)?;
            for topic in metadata.topics() {
                match topic.error() {
                    None => {
                        present.insert(topic.name().to_owned(), topic.partitions().len());
                    }
                    Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => {}
                    Some(error) => return Err(KafkaError::MetadataFetch(error.into())),
                }
            }
        }
        Ok(present)
    })
    .await
}

/// What can be checked without the driver's client for administration, which never asks for a
/// token: whether the topics are there, and their partitions.
fn check_unaided(
    config: &KafkaConfig,
    layout: &Layout,
    present: &Present,
) -> Result<(), OpenError> {
    tracing::warn!("topics are neither created nor are their settings checked with oauthbearer");
    for topic in layout.topics() {
        let Some(partitions) = present.get(&*topic.name) else {
            return Err(rules::not_made(config, topic));
        };
        rules::check_partitions(topic, *partitions)?;
    }
    Ok(())
}

async fn check(
    admin: &AdminClient<Common>,
    config: &KafkaConfig,
    layout: &Layout,
    present: &Present,
) -> Result<(), OpenError> {
    for topic in layout.topics() {
        let Some(partitions) = present.get(&*topic.name) else {
            continue;
        };
        rules::check_partitions(topic, *partitions)?;
        let resource = ResourceSpecifier::Topic(&topic.name);
        let described = admin.describe_configs([&resource], &options(config)).await;
        let described = described.map_err(|error| refused(&error))?;
        for answer in described {
            let resource = answer.map_err(|code| refused(&KafkaError::AdminOp(code)))?;
            let value = |key: &str| resource.get(key).and_then(|entry| entry.value.as_deref());
            rules::check_settings(config, topic, value)?;
        }
    }
    Ok(())
}

/// Partitions beyond those in use: empty ones were added behind our back, others say that another
/// configuration wrote to them.
async fn check_unused(
    config: &KafkaConfig,
    layout: &Layout,
    common: &Common,
    present: &Present,
) -> Result<(), OpenError> {
    let more: Vec<(Topic, usize)> = layout
        .topics()
        .iter()
        .filter_map(|topic| Some((topic.clone(), *present.get(&*topic.name)?)))
        .filter(|(topic, there)| *there > usize::from(topic.partitions))
        .collect();
    if more.is_empty() {
        return Ok(());
    }
    let timeout = config.request_timeout();
    let used = ask(config, common, move |client| {
        for (topic, there) in more {
            for partition in usize::from(topic.partitions)..there {
                let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                let (_, high) = client.fetch_watermarks(&topic.name, partition, timeout)?;
                if high > 0 {
                    return Ok(Some((topic, there)));
                }
            }
            tracing::warn!(
                topic = &*topic.name,
                there,
                used = topic.partitions,
                "partitions were added to this topic; they stay unused"
            );
        }
        Ok(None)
    })
    .await?;
    used.map_or(Ok(()), |(topic, there)| {
        Err(rules::used_by_another_configuration(&topic, there))
    })
}

/// What is recorded must be what this program is configured to use. Comes after every check of
/// the topics: what they refuse must not become what the others are held to.
async fn agree(
    config: &KafkaConfig,
    layout: &Layout,
    agreement: &dyn Agreement,
) -> Result<(), OpenError> {
    let topics = layout.topics().iter();
    let own: Partitions = topics.map(|t| (t.name.to_string(), t.partitions)).collect();
    let agreed = agreement.agree(&config.topic_prefix, &own).await;
    let agreed = agreed.map_err(|error| {
        OpenError::unavailable(format!(
            "it cannot be found out how the other programs are configured: {error}"
        ))
    })?;
    rules::check_agreed(layout, &agreed)
}

async fn create(
    admin: &AdminClient<Common>,
    config: &KafkaConfig,
    topics: &[&Topic],
) -> Result<(), OpenError> {
    let settings: Vec<_> = topics
        .iter()
        .map(|topic| rules::settings(config, topic))
        .collect();
    let wanted: Vec<_> = topics
        .iter()
        .zip(&settings)
        .map(|(topic, settings)| {
            let replicas = TopicReplication::Fixed(i32::from(config.replication_factor));
            let new = NewTopic::new(&topic.name, i32::from(topic.partitions), replicas);
            settings
                .iter()
                .fold(new, |new, (key, value)| new.set(key, value))
        })
        .collect();
    let created = admin.create_topics(&wanted, &options(config)).await;
    for answer in created.map_err(|error| refused(&error))? {
        match answer {
            // Or another program was faster; it is checked when everything is there.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, RDKafkaErrorCode::InvalidReplicationFactor)) => {
                return Err(OpenError::configuration(format!(
                    "topic {name} cannot have {} replicas: there are fewer brokers; start more, or \
                     set replication_factor and min_insync_replicas lower",
                    config.replication_factor
                )));
            }
            Err((name, code)) => {
                return Err(OpenError::unavailable(format!(
                    "topic {name} could not be created ({code}); create it or allow this program to"
                )));
            }
        }
    }
    Ok(())
}

/// Waits until the brokers know all topics, and checks those that another program may have made.
async fn settled(config: &KafkaConfig, layout: &Layout, common: &Common) -> Result<(), OpenError> {
    let deadline = tokio::time::Instant::now() + config.request_timeout();
    loop {
        let there = present(config, layout, common).await?;
        let missing = layout
            .topics()
            .iter()
            .find(|topic| there.get(&*topic.name).is_none_or(|count| *count == 0));
        match missing {
            None => break,
            Some(topic) if tokio::time::Instant::now() > deadline => {
                return Err(OpenError::unavailable(format!(
                    "topic {} was created and the brokers do not show it; look at their log",
                    topic.name
                )));
            }
            Some(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    let admin = AdminClient::from_config_and_context(&config.client()?, common.clone())
        .map_err(|error| misconfigured(&error))?;
    let there = present(config, layout, common).await?;
    check(&admin, config, layout, &there).await
}

const PAUSE: Duration = Duration::from_millis(50);

fn options(config: &KafkaConfig) -> AdminOptions {
    let timeout = Some(config.request_timeout());
    AdminOptions::new()
        .request_timeout(timeout)
        .operation_timeout(timeout)
}
