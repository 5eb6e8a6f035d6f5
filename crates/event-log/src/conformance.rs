//! The suite that every backend of the log passes unchanged, one test per case.
//!
//! ```text
//! fanfare_event_log::log_conformance!(MyBackend); // MyBackend: conformance::Backend
//! ```
//!
//! The cases assume nothing about time, about how many spans there are, nor about which of two
//! allowed answers a backend gives: they fit a log behind a network as well as one in the process.
//! They panic when they fail; every wait is bounded by [`fixtures::WITHIN`] and says what it saw.

// Tests that live in the library so that every backend can run them.
#![allow(clippy::unwrap_used, clippy::unused_async)]

pub mod cancelling;
pub mod durability;
pub mod fixtures;
pub mod groups;
pub mod leases;
pub mod order;
pub mod progress;
pub mod reading;
pub mod tailing;

use std::sync::Arc;

use async_trait::async_trait;

use crate::log::{EventLog, Lease};

/// A backend under test.
#[async_trait]
pub trait Backend: Sized + Send + Sync {
    /// An empty log that nobody else uses, with a drain deadline of at least some seconds.
    async fn create() -> Self;

    /// The log.
    fn log(&self) -> Arc<dyn EventLog>;

    /// Crashes, losing whatever is not durable, and opens what is left. Calls that wait in the old
    /// log end somehow; its readers grant nothing any more.
    async fn crash_and_reopen(self) -> Self;

    /// Takes `lease` away without its holder's help, as from one that froze. Returns once a commit
    /// under it would be refused.
    async fn lose_lease(&self, lease: &Lease);
}

/// Expands to one `#[tokio::test]` per case of the suite, over a
/// [`conformance::Backend`](crate::conformance::Backend).
#[macro_export]
macro_rules! log_conformance {
    ($backend:ty) => {
        $crate::log_conformance! { @suites $backend;
            durability: acknowledged_records_survive_a_crash, acknowledged_commits_survive_a_crash,
                an_interrupted_batch_leaves_a_prefix, nothing_is_lost_over_many_crashes,
                a_durable_reader_sees_only_what_survives, no_commit_is_ahead_of_what_survives;
            order: every_shard_has_its_span, a_batch_keeps_its_order, later_calls_come_later,
                concurrent_appends_keep_to_their_own_order, positions_rise_across_a_crash,
                an_empty_batch_is_fine, streams_are_apart;
            leases: an_unsettled_record_is_read_again, a_lost_lease_commits_nothing,
                a_lost_lease_reads_nothing, dropping_the_records_lets_go,
                a_revoke_is_a_phase, a_late_joiner_gets_its_share, leaving_waits_for_the_holder,
                nothing_repeats_when_members_come_and_go_politely,
                nothing_is_missed_when_leases_are_lost;
            progress: a_span_never_consumed_starts_at_the_beginning,
                what_was_committed_is_granted, packed_parts_come_back,
                the_last_commit_counts, a_commit_may_be_repeated,
                too_large_a_commit_changes_nothing, a_full_commit_fits;
            reading: a_read_waits_for_a_record, limits_are_kept, a_large_record_is_read_whole,
                a_record_over_the_limit_is_refused_whole;
            cancelling: a_cancelled_read_loses_nothing, a_cancelled_wait_for_a_lease_loses_nothing,
                a_cancelled_append_is_whole_or_absent, a_cancelled_commit_may_be_repeated;
            groups: two_groups_do_not_disturb_each_other, one_group_on_two_streams_is_two;
            tailing: a_tail_sees_what_comes, a_tail_keeps_to_its_limit,
                a_slow_tail_counts_what_it_missed, a_tail_disturbs_nobody;
        }
    };
    (@suites $backend:ty; $($suite:ident: $($case:ident),+;)+) => { $(
        mod $suite {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    let backend = <$backend as $crate::conformance::Backend>::create().await;
                    $crate::conformance::$suite::$case(backend).await;
                }
            )+
        }
    )+ };
}
