//! Groups whose members all live in this process: who is a member, and who holds which lease.
//!
//! For backends that no other process reads from. They supply how records are read and how
//! progress is kept; this is the rest of the seam's contract on leases:
//!
//! - Spans are balanced over the members; a change moves as few as it must.
//! - At most one lease per (stream, group, span) is good. A span that moves is first revoked; the
//!   next grant waits until the holder dropped its [`Hold`] or its deadline passed.
//! - [`LocalGroups::while_good`] runs a commit under the same lock that takes leases away, so a
//!   lost lease commits nothing and the next holder sees all that was committed before.
//!
//! There is no task: deadlines are looked at by whoever waits (a member, or one that leaves) and
//! by every commit. A frozen holder whose span nobody waits for keeps it.

mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use self::table::{MemberId, Table};
use crate::log::{Group, Lease, Phase, Span, Stream};

/// All groups of one log. Clones are the same.
#[derive(Clone)]
pub struct LocalGroups(Arc<Shared>);

/// Membership in one group. Dropping it leaves without waiting.
pub struct Member {
    shared: Arc<Shared>,
    key: Key,
    id: MemberId,
    changed: watch::Receiver<()>,
}

/// A lease that was taken up. Dropping it lets go of the lease, which is then lost.
pub struct Hold {
    shared: Arc<Shared>,
    lease: Lease,
}

type Key = (Stream, Group);

struct Shared {
    revoke_deadline: Duration,
    state: Mutex<State>,
    /// Told whenever a table changed.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    closed: bool,
    tables: HashMap<Key, Table>,
}

impl LocalGroups {
    /// No groups yet; a revoked lease is lost after `revoke_deadline`.
    pub fn new(revoke_deadline: Duration) -> Self {
        Self(Arc::new(Shared {
            revoke_deadline,
            state: Mutex::default(),
            changed: watch::channel(()).0,
        }))
    }

    /// Joins `group` on `stream`, whose spans are `spans` (the same at every call).
    pub fn join(&self, stream: Stream, group: &Group, spans: &[Span]) -> Member {
        let key = (stream, group.clone());
        let deadline = self.0.revoke_deadline;
        let mut state = self.0.state.lock();
        let table = state
            .tables
            .entry(key.clone())
            .or_insert_with(|| Table::new(stream, group.clone(), spans, deadline));
        let id = table.join(Instant::now());
        self.0.changed.send_replace(());
        Member {
            shared: self.0.clone(),
            key,
            id,
            changed: self.0.changed.subscribe(),
        }
    }

    /// Runs `commit` unless `lease` is lost. No lease is taken away or granted meanwhile, so
    /// `commit` must be short and must not come back here.
    pub fn while_good<T>(&self, lease: &Lease, commit: impl FnOnce() -> T) -> Option<T> {
        self.0
            .look(&key_of(lease), |_| {
                (lease.phase() != Phase::Lost).then(commit)
            })
            .flatten()
    }

    /// Whether `lease` could commit now.
    pub fn is_good(&self, lease: &Lease) -> bool {
        self.while_good(lease, || ()).is_some()
    }

    /// Takes `lease` away at once, as from a holder that died or froze; its span is granted anew.
    pub fn lose(&self, lease: &Lease) {
        self.0.release(lease);
    }

    /// Takes every lease away and forgets every member at once: what remains of the groups when
    /// the process dies. [`Member::next`] ends; whoever joins afterwards starts them anew, and sees
    /// what `meanwhile` did. It must be short and must not come back here.
    pub fn reset(&self, meanwhile: impl FnOnce()) {
        let mut state = self.0.state.lock();
        state.tables.values_mut().for_each(Table::clear);
        meanwhile();
        self.0.changed.send_replace(());
    }

    /// As [`LocalGroups::reset`], for good: who joins later is told so by [`Member::next`].
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.reset(|| ());
    }
}

impl Member {
    /// Waits for the next lease; `None` once this member left or the groups were closed or reset.
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Hold> {
        loop {
            self.changed.borrow_and_update();
            let (lease, deadline) = self.table(|table| (table.take(self.id), table.deadline()))?;
            if let Some(lease) = lease {
                return Some(Hold {
                    shared: self.shared.clone(),
                    lease,
                });
            }
            self.changed_or(deadline).await;
        }
    }

    /// Leaves: every lease of this member turns `Revoking`. Resolves when they are all let go, or
    /// lost by their deadline. A dropped call has left all the same.
    pub async fn leave(&mut self) {
        self.start_to_leave();
        loop {
            self.changed.borrow_and_update();
            let look = |table: &mut Table| (table.holds(self.id), table.deadline());
            match self.shared.look(&self.key, look) {
                Some((true, deadline)) => self.changed_or(deadline).await,
                _ => return,
            }
        }
    }

    fn start_to_leave(&self) {
        self.shared.look(&self.key, |table| {
            table.leave(self.id, Instant::now());
            self.shared.changed.send_replace(());
        });
    }

    /// What `look` sees, while this is a member of groups that are open.
    fn table<T>(&self, look: impl FnOnce(&mut Table) -> T) -> Option<T> {
        let as_member = |table: &mut Table| table.is_member(self.id).then(|| look(table));
        self.shared.look(&self.key, as_member).flatten()
    }

    async fn changed_or(&mut self, deadline: Option<Instant>) {
        let passed = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender lives in `shared`, so this cannot fail.
            _ = self.changed.changed() => {}
            () = passed => {}
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.start_to_leave();
    }
}

impl Hold {
    /// The lease that is held.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.release(&self.lease);
    }
}

impl Shared {
    fn release(&self, lease: &Lease) {
        self.look(&key_of(lease), |table| {
            table.release(lease.span.index, lease.epoch, Instant::now());
            self.changed.send_replace(());
        });
    }

    /// What `look` sees or does once the leases past their deadline are lost; `None` when there is
    /// no such group or the groups are closed.
    fn look<T>(&self, key: &Key, look: impl FnOnce(&mut Table) -> T) -> Option<T> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        let table = state.tables.get_mut(key)?;
        if table.expire(Instant::now()) {
            self.changed.send_replace(());
        }
        Some(look(table))
    }
}

fn key_of(lease: &Lease) -> Key {
    (lease.stream, lease.group.clone())
}

#[cfg(test)]
mod tests;
