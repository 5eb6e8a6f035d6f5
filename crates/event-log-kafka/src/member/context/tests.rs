//! What a cooperative group is answered by a consumer that is being closed.

use std::sync::Weak;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::Consumer as _;
use rdkafka::mocking::MockCluster;

use super::{Consumer, Context};
use crate::client::Common;

const TOPIC: &str = "events";
const PARTITIONS: usize = 2;
const WITHIN: Duration = Duration::from_secs(30);

fn assigned(consumer: &Consumer) -> usize {
    consumer.assignment().expect("an assignment").count()
}

fn poll_until_assigned(consumer: &Consumer, count: usize) {
    let deadline = Instant::now() + WITHIN;
    while assigned(consumer) != count {
        let now = assigned(consumer);
        assert!(Instant::now() < deadline, "{now} of {count} are assigned");
        let _ = consumer.poll(Duration::from_millis(10));
    }
}

/// It refuses to be told that nothing is ours; and what is not answered is waited for.
#[test]
fn the_group_has_its_way() {
    let cluster = MockCluster::new(1).expect("brokers");
    let partitions = i32::try_from(PARTITIONS).expect("few");
    cluster.create_topic(TOPIC, partitions, 1).expect("a topic");
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "router")
        .set("partition.assignment.strategy", "cooperative-sticky");
    let context = Context::new(Common::default(), Weak::new());
    context.close();
    let consumer = Consumer::from_config_and_context(&config, context).expect("a consumer");
    consumer.subscribe(&[TOPIC]).expect("subscribed");
    poll_until_assigned(&consumer, PARTITIONS);
    consumer.unsubscribe();
    poll_until_assigned(&consumer, 0);
}
