//! Whether any broker answers: what decides that an append is refused before it is tried.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use rdkafka::producer::Producer as _;

use super::Client;
use crate::stranded::{self, Lookout, Patience, Sight};

/// Down from the client's word that all brokers are, until one answers.
pub(super) struct Health {
    down: AtomicBool,
    /// While it is down.
    patience: Mutex<Option<Patience>>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
    timeout: Duration,
}

impl Health {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            down: AtomicBool::new(false),
            patience: Mutex::default(),
            asking: tokio::sync::Mutex::new(()),
            timeout,
        }
    }

    /// How long a question may take.
    pub(super) fn patience(&self) -> Duration {
        self.timeout
    }

    pub(super) fn went_down(&self) {
        let mut patience = self.patience.lock();
        patience.get_or_insert_with(Patience::new);
        self.down.store(true, Ordering::Release);
    }

    pub(super) fn is_up(&self) {
        // For every record that is written: the flag alone is looked at.
        if self.is_down() {
            let mut patience = self.patience.lock();
            *patience = None;
            self.down.store(false, Ordering::Release);
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// Asks the brokers anything at all; what `client` sees of them. Many callers share one question.
    pub(super) async fn ask(&self, lookout: &Lookout, client: &Client) -> Sight {
        let _one_at_a_time = self.asking.lock().await;
        if !self.is_down() {
            return Sight::Found;
        }
        let thoroughly = self.patience.lock().as_mut().is_some_and(Patience::is_over);
        let (lookout, client) = (lookout.clone(), client.clone());
        let asked = tokio::task::spawn_blocking(move || match client.client() {
            client if thoroughly => lookout.sight(client),
            client if stranded::sees_brokers(client) => Sight::Found,
            _ => Sight::Away,
        });
        let sight = asked.await.unwrap_or(Sight::Away);
        if sight == Sight::Found {
            self.is_up();
        }
        sight
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
