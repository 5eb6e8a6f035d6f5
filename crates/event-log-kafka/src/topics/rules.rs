//! What a topic must be like.

use fanfare_event_log::Stream;

use crate::agreement::Partitions;
use crate::config::KafkaConfig;
use crate::error::OpenError;
use crate::layout::{Layout, Topic};

/// The settings of a topic that is created.
pub(super) fn settings(config: &KafkaConfig, topic: &Topic) -> Vec<(&'static str, String)> {
    vec![
        ("cleanup.policy", "delete".into()),
        ("retention.ms", retention_ms(config, topic).to_string()),
        ("retention.bytes", "-1".into()),
        (
            "min.insync.replicas",
            config.min_insync_replicas.to_string(),
        ),
        ("unclean.leader.election.enable", "false".into()),
        // A producer's old timestamp must not let retention delete a fresh record.
        ("message.timestamp.type", "LogAppendTime".into()),
        (
            "max.message.bytes",
            config.topic_record_max_bytes().to_string(),
        ),
    ]
}

/// Refuses a topic with settings that lose records. More retention, replicas or room than asked
/// for is no loss and passes.
pub(super) fn check_settings<'a>(
    config: &KafkaConfig,
    topic: &Topic,
    value: impl Fn(&str) -> Option<&'a str>,
) -> Result<(), OpenError> {
    for (key, wanted) in settings(config, topic) {
        let found = value(key).unwrap_or_default();
        let good = match key {
            "retention.ms" | "max.message.bytes" | "min.insync.replicas" => {
                at_least(found, &wanted)
            }
            _ => found == wanted,
        };
        if !good {
            return Err(OpenError::configuration(format!(
                "topic {} has {key}={found} and Fanfare needs {wanted}{}; alter the topic \
                 (kafka-configs.sh --alter) or change the configuration",
                topic.name,
                if at_least(&wanted, "1") && key != "retention.bytes" {
                    " or more"
                } else {
                    ""
                },
            )));
        }
    }
    Ok(())
}

/// Refuses a topic with fewer partitions than are in use.
pub(super) fn check_partitions(topic: &Topic, there: usize) -> Result<(), OpenError> {
    if there >= usize::from(topic.partitions) {
        return Ok(());
    }
    Err(OpenError::configuration(format!(
        "topic {} has {there} partitions and the configuration says {}; set {} to {there}, or use \
         another topic_prefix",
        topic.name,
        topic.partitions,
        setting(topic),
    )))
}

/// A topic that is missing and that this program cannot make.
pub(super) fn not_made(config: &KafkaConfig, topic: &Topic) -> OpenError {
    let settings = settings(config, topic).into_iter();
    let settings: Vec<_> = settings
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    OpenError::configuration(format!(
        "topic {} is missing, and Fanfare creates none when it logs in with oauthbearer; create it \
         with {} partitions, {} replicas and {}",
        topic.name,
        topic.partitions,
        config.replication_factor,
        settings.join(", "),
    ))
}

/// More partitions than configured, and records in them.
pub(super) fn used_by_another_configuration(topic: &Topic, there: usize) -> OpenError {
    OpenError::configuration(format!(
        "topic {} has {there} partitions with records in more than the {} of the configuration: \
         another program is configured otherwise; set {} to what it says",
        topic.name,
        topic.partitions,
        setting(topic),
    ))
}

/// Refuses a layout that is not what the programs of the log agreed on.
pub(super) fn check_agreed(layout: &Layout, agreed: &Partitions) -> Result<(), OpenError> {
    for (name, partitions) in agreed {
        let Some(topic) = layout.topics().iter().find(|t| *t.name == **name) else {
            return Err(OpenError::configuration(format!(
                "other programs use the topic {name} and this configuration leaves it out; set \
                 event_topics and dedicated_topics to what they say, or, once all of the topic is \
                 read, delete its row from the store's table layout"
            )));
        };
        if topic.partitions != *partitions {
            return Err(OpenError::configuration(format!(
                "other programs use {partitions} partitions of the topic {name} and this \
                 configuration says {}; set {} to {partitions}, or use another topic_prefix in all \
                 of them",
                topic.partitions,
                setting(topic),
            )));
        }
    }
    Ok(())
}

fn setting(topic: &Topic) -> &'static str {
    match topic.stream {
        Stream::Events => "event_partitions",
        Stream::Deliveries => "delivery_partitions",
    }
}

fn retention_ms(config: &KafkaConfig, topic: &Topic) -> u64 {
    let hours = match topic.stream {
        Stream::Events => config.event_retention_hours,
        Stream::Deliveries => config.delivery_retention_hours,
    };
    u64::from(hours) * 3_600_000
}

/// Numbers; -1 is without limit.
fn at_least(found: &str, wanted: &str) -> bool {
    match (found.parse::<i64>(), wanted.parse::<i64>()) {
        (Ok(found), Ok(wanted)) => found == -1 || found >= wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_refused_and_more_is_not() {
        let config = KafkaConfig::default();
        let layout = Layout::new(&config);
        let topic = &layout.topics()[0];
        let cases = [
            ("retention.ms", "1000", false),
            ("retention.ms", "-1", true),
            ("retention.ms", "99999999999", true),
            ("retention.bytes", "1000000", false),
            ("cleanup.policy", "compact", false),
            ("cleanup.policy", "compact,delete", false),
            ("min.insync.replicas", "1", false),
            ("min.insync.replicas", "3", true),
            ("unclean.leader.election.enable", "true", false),
            ("message.timestamp.type", "CreateTime", false),
            ("max.message.bytes", "1000", false),
        ];
        for (key, found, good) in cases {
            let all: Vec<(&str, String)> = settings(&config, topic);
            let value = |asked: &str| {
                if asked == key {
                    return Some(found);
                }
                let own = all.iter().find(|(name, _)| *name == asked);
                own.map(|(_, value)| value.as_str())
            };
            let checked = check_settings(&config, topic, value);
            assert_eq!(checked.is_ok(), good, "{key}={found}: {checked:?}");
            if let Err(error) = checked {
                let said = error.to_string();
                assert!(said.contains(key) && said.contains(found), "{said}");
            }
        }
    }
}
