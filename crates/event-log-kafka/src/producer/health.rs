//! Whether any broker answers: what decides that an append is refused before it is tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{Producer as _, ThreadedProducer};

use super::Context;

/// Down from the client's word that all brokers are, until one answers.
pub(super) struct Health {
    down: AtomicBool,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
    timeout: Duration,
}

impl Health {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            down: AtomicBool::new(false),
            asking: tokio::sync::Mutex::new(()),
            timeout,
        }
    }

    /// How long a question may take.
    pub(super) fn patience(&self) -> Duration {
        self.timeout
    }

    pub(super) fn went_down(&self) {
        self.down.store(true, Ordering::Release);
    }

    pub(super) fn is_up(&self) {
        self.down.store(false, Ordering::Release);
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// Asks the brokers anything at all; whether one answered. Many callers share one question.
    pub(super) async fn ask(&self, client: &Arc<ThreadedProducer<Context>>) -> bool {
        let _one_at_a_time = self.asking.lock().await;
        if !self.is_down() {
            return true;
        }
        let (client, timeout) = (client.clone(), self.timeout.min(ASK_MAX));
        let asked = tokio::task::spawn_blocking(move || {
            // Of one topic that need not exist: all topics would be a large answer.
            client
                .client()
                .fetch_metadata(Some("fanfare"), timeout)
                .is_ok()
        });
        let answered = asked.await.unwrap_or(false);
        if answered {
            self.is_up();
        }
        answered
    }
}

/// What keeps a topic from taking a record in each of its partitions, as a sentence.
pub(super) fn trouble(topic: &str, metadata: &Metadata, replicas: usize) -> Option<String> {
    let Some(known) = metadata.topics().iter().find(|t| t.name() == topic) else {
        return Some(format!("the Kafka brokers do not know topic {topic}"));
    };
    if let Some(error) = known.error() {
        let code = RDKafkaErrorCode::from(error);
        return Some(format!("topic {topic} is not usable ({code})"));
    }
    known.partitions().iter().find_map(|partition| {
        let (id, isr) = (partition.id(), partition.isr().len());
        if partition.leader() < 0 {
            return Some(format!("partition {id} of topic {topic} has no leader"));
        }
        (isr < replicas).then(|| {
            format!(
                "partition {id} of topic {topic} has {isr} replicas in sync and needs {replicas}; \
                 see which broker is away"
            )
        })
    })
}

/// Long enough for a broker that is there.
const ASK_MAX: Duration = Duration::from_secs(1);
