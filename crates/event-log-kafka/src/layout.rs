//! Which topic and partition a record goes to, and which span that is. Pure.
//!
//! A span's index is `block * 256 + partition`: shared event topic i is block i, dedicated topic
//! number n is block 128 + n, the delivery topic is block 0 of its stream. So an index never moves
//! when a dedicated topic is added or removed. Partition p of a topic with P partitions holds the
//! shards with `shard % P == p`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fanfare_domain::{Shard, ShardSet};
use fanfare_event_log::{Span, Stream};

use crate::config::KafkaConfig;

/// Most shared event topics, and most dedicated ones.
pub const BLOCKS: u16 = 128;
const BLOCK: u16 = 256;

/// A topic and partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// The topic's full name.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
}

/// A topic and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Full name.
    pub name: Arc<str>,
    /// Whose records it holds.
    pub stream: Stream,
    /// Partitions in use: 0 up to this.
    pub partitions: u16,
    block: u16,
}

/// Where everything lies. Constant while the process runs.
#[derive(Clone, Debug)]
pub struct Layout {
    topics: Vec<Topic>,
    /// How many of them are shared event topics; they come first.
    shared: u64,
    /// Index in `topics` by subject.
    dedicated: HashMap<String, usize>,
    deliveries: usize,
    seats: BTreeMap<(Stream, u16), Seat>,
    spans: HashMap<Seat, (Stream, Span)>,
}

impl Layout {
    /// The layout of a valid configuration.
    pub fn new(config: &KafkaConfig) -> Self {
        let prefix = &config.topic_prefix;
        let topic = |name: String, stream, block, partitions| Topic {
            name: name.into(),
            stream,
            partitions,
            block,
        };
        let mut topics: Vec<_> = (0..config.event_topics)
            .map(|n| {
                let name = format!("{prefix}.events.{n}");
                topic(name, Stream::Events, n, config.event_partitions)
            })
            .collect();
        let mut dedicated = HashMap::new();
        for own in &config.dedicated_topics {
            dedicated.insert(own.subject.clone(), topics.len());
            let name = format!("{prefix}.events-of.{}", own.subject);
            let block = BLOCKS + own.number;
            topics.push(topic(name, Stream::Events, block, config.event_partitions));
        }
        let deliveries = topics.len();
        let name = format!("{prefix}.deliveries");
        topics.push(topic(
            name,
            Stream::Deliveries,
            0,
            config.delivery_partitions,
        ));
        let mut layout = Self {
            shared: config.event_topics.into(),
            topics,
            dedicated,
            deliveries,
            seats: BTreeMap::new(),
            spans: HashMap::new(),
        };
        layout.number();
        layout
    }

    fn number(&mut self) {
        for topic in &self.topics {
            for partition in 0..topic.partitions {
                let span = span(topic, partition);
                let seat = Seat {
                    topic: topic.name.clone(),
                    partition: partition.into(),
                };
                self.spans.insert(seat.clone(), (topic.stream, span));
                self.seats.insert((topic.stream, span.index), seat);
            }
        }
    }

    /// All topics.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The names of a stream's topics.
    pub fn topic_names(&self, stream: Stream) -> Vec<&str> {
        let of_stream = self.topics.iter().filter(|t| t.stream == stream);
        of_stream.map(|t| &*t.name).collect()
    }

    /// The spans of `stream` by rising index.
    pub fn spans(&self, stream: Stream) -> Vec<Span> {
        let seats = self.seats.iter().filter(|((of, _), _)| *of == stream);
        seats
            .filter_map(|(_, seat)| self.spans.get(seat).map(|(_, span)| *span))
            .collect()
    }

    /// The topic and span of a record.
    pub fn route(&self, stream: Stream, shard: Shard, subject: &str) -> (&Topic, Span) {
        let topic = match stream {
            Stream::Deliveries => self.deliveries,
            Stream::Events => self.event_topic(subject),
        };
        let topic = &self.topics[topic];
        (topic, span(topic, u16::from(shard.0) % topic.partitions))
    }

    fn event_topic(&self, subject: &str) -> usize {
        let shared = || usize::try_from(hash(subject) % self.shared).unwrap_or(0);
        self.dedicated.get(subject).copied().unwrap_or_else(shared)
    }

    /// Where a span lies.
    pub fn seat(&self, stream: Stream, index: u16) -> Option<&Seat> {
        self.seats.get(&(stream, index))
    }

    /// The span at `seat`; `None` for a partition that is not in use.
    pub fn span_at(&self, seat: &Seat) -> Option<Span> {
        self.spans.get(seat).map(|(_, span)| *span)
    }
}

fn span(topic: &Topic, partition: u16) -> Span {
    let shards = ShardSet::try_new(partition, topic.partitions);
    Span {
        index: topic.block * BLOCK + partition,
        // A valid configuration has partition counts that divide 256.
        shards: shards.unwrap_or(ShardSet::ALL),
    }
}

/// FNV-1a. Where records lie depends on it: it never changes.
fn hash(subject: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    subject.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Dedicated;

    fn config() -> KafkaConfig {
        KafkaConfig {
            event_topics: 4,
            event_partitions: 8,
            delivery_partitions: 16,
            ..KafkaConfig::default()
        }
    }

    #[test]
    fn a_subject_keeps_its_topic() {
        let layout = Layout::new(&config());
        let names: Vec<_> = ["order", "invoice", "user", ""]
            .map(|subject| {
                layout
                    .route(Stream::Events, Shard(0), subject)
                    .0
                    .name
                    .to_string()
            })
            .into();
        assert_eq!(
            names,
            [
                "fanfare.events.3",
                "fanfare.events.0",
                "fanfare.events.2",
                "fanfare.events.1"
            ]
        );
    }

    #[test]
    fn a_dedicated_topic_moves_no_other_span() {
        let before = Layout::new(&config());
        let with = KafkaConfig {
            dedicated_topics: vec![Dedicated {
                subject: "order".into(),
                number: 7,
            }],
            ..config()
        };
        let after = Layout::new(&with);
        for span in before.spans(Stream::Events) {
            assert_eq!(
                before.seat(Stream::Events, span.index),
                after.seat(Stream::Events, span.index)
            );
        }
        let (topic, span) = after.route(Stream::Events, Shard(9), "order");
        assert_eq!(&*topic.name, "fanfare.events-of.order");
        assert_eq!(span.index, (128 + 7) * 256 + 1);
    }

    #[test]
    fn seats_and_spans_are_each_others_inverse() {
        let layout = Layout::new(&config());
        for (stream, count) in [(Stream::Events, 32), (Stream::Deliveries, 16)] {
            let spans = layout.spans(stream);
            assert_eq!(spans.len(), count);
            for span in spans {
                let seat = layout.seat(stream, span.index).unwrap();
                assert_eq!(layout.span_at(seat), Some(span));
            }
        }
    }
}
