//! The suites that every backend of the stores passes unchanged: one per role, one test per case.
//!
//! ```text
//! fanfare_store::store_conformance!(MyBackend); // MyBackend: fanfare_store::conformance::Backend
//! ```
//!
//! The cases assume nothing about time, nor about which of two allowed answers a backend gives:
//! they fit a backend behind a network as well as one in the process. They panic when they fail.

// Tests that live in the library so that every backend can run them.
#![allow(clippy::unwrap_used, clippy::cloned_ref_to_slice_refs)]

pub mod config;
pub mod dead_letters;
pub mod events;
pub mod fixtures;
pub mod history;
pub mod parking;
pub mod retries;
pub mod shards;

use async_trait::async_trait;
use fanfare_domain::{AcceptedEvent, Place};

use crate::error::StoreError;
use crate::page::{Page, PageToken};
use crate::{StoreErrorKind, Stores};

/// How many changes of a bucket a backend under test keeps, at least: small, so that a test can
/// outrun it.
pub const CHANGES_KEPT_IN_TESTS: u64 = 20;

/// A backend under test.
#[async_trait]
pub trait Backend: Sized + Send + Sync {
    /// An empty store that keeps [`CHANGES_KEPT_IN_TESTS`] changes.
    async fn create() -> Self;

    /// Its roles.
    fn stores(&self) -> Stores;

    /// Gives accepted events their places, rising, as the backend's log would.
    async fn accept(&self, events: Vec<AcceptedEvent>) -> Vec<Place>;

    /// Returns when everything that resolved before is durable.
    async fn sync(&self);

    /// Crashes, losing whatever is not durable, and opens what is left.
    async fn crash_and_reopen(self) -> Self;
}

/// Everything that a list gives, page by page.
async fn all_pages<T, F>(list: impl Fn(Option<PageToken>) -> F) -> Vec<T>
where
    F: Future<Output = Result<Page<T>, StoreError>>,
{
    let mut rows = Vec::new();
    let mut token = None;
    for _ in 0..10_000 {
        let page = list(token).await.unwrap();
        rows.extend(page.rows);
        token = page.next;
        if token.is_none() {
            return rows;
        }
    }
    panic!("the list has no end");
}

/// That a write was refused because its owner is none any more.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert_eq!(answer.unwrap_err().kind(), StoreErrorKind::NotOwner);
}

/// Expands to one `#[tokio::test]` per case of every suite, over a
/// [`conformance::Backend`](crate::conformance::Backend).
#[macro_export]
macro_rules! store_conformance {
    ($backend:ty) => {
        $crate::store_conformance! { @suites $backend;
            events: a_claim_is_fresh_once_and_then_its_own, the_lowest_place_wins,
                claims_of_one_batch_see_each_other, a_large_batch_is_judged_event_by_event,
                a_conflict_is_recorded_once,
                conflicts_are_bounded, tenants_and_sources_are_apart,
                a_crash_after_the_claim_changes_no_fan_out, an_unsynced_claim_is_whole_or_gone,
                bodies_come_back_as_they_were, what_is_known_is_right,
                lists_are_newest_first_and_complete, lists_keep_to_their_filter,
                a_foreign_token_is_refused, nothing_is_claimed_without_tenure;
            config: it_starts_empty, everything_written_is_loaded, a_write_on_an_old_head_is_refused,
                one_of_many_racing_writes_wins, the_feed_has_every_change_whole_and_in_order,
                buckets_are_apart, deleting_is_idempotent, a_resolved_write_survives_a_crash,
                the_feed_is_complete_or_refused;
            retries: the_last_state_counts, answers_match_their_questions,
                hints_rise_from_the_cursor, due_keeps_to_its_shards, a_new_time_is_hinted_too,
                forgotten_hints_stay_away, open_rows_are_paged, synced_state_survives_a_crash,
                a_state_never_lacks_its_hint, nothing_is_written_without_tenure;
            parking: first_parked_first_out, parking_again_is_one_row,
                a_drained_front_is_not_seen_again, parked_deliveries_are_found,
                endpoints_are_listed_while_they_wait, synced_queues_survive_a_crash,
                nothing_is_parked_without_tenure;
            history: attempts_come_by_number, an_event_in_no_log_is_named, the_last_attempts_are_kept_by_a_limit,
                writing_again_replaces, another_tenant_sees_nothing,
                lists_are_newest_first_and_adjacent, lists_keep_to_their_filter,
                a_foreign_token_is_refused, synced_attempts_survive_a_crash;
            dead_letters: the_last_row_counts, lists_are_newest_first_and_complete,
                lists_keep_to_their_filter, a_redriven_letter_leaves_the_list_until_it_dies_again,
                a_foreign_token_is_refused, synced_letters_survive_a_crash,
                nothing_is_written_without_tenure;
            shards: a_new_span_has_the_default, spans_are_apart, the_last_state_survives_a_crash,
                nothing_is_saved_without_tenure;
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
