//! The connection: time-outs, consistency, speculation, and the few ways in which requests are made.
//!
//! Every statement but a conditional one may be repeated: writes carry their own timestamps. So all
//! of them are marked idempotent and asked of a second node when the first is slow, and a node that
//! is frozen costs one delay, not a time-out. Requests in flight are bounded.

use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{Tenure, Timestamp};
use fanfare_store::{StoreError, StoreErrorKind};
use futures::{StreamExt, TryStreamExt, stream};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use tokio::sync::Semaphore;

use crate::batches::{self, Placed};
use crate::config::CqlConfig;
use crate::error::{OpenError, OpenErrorKind, corrupt, failed};

/// Requests of one call in flight at once.
pub(crate) const ROUND_MAX: usize = 64;
/// A frozen node is told from a slow one after both.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// An open session.
pub(crate) struct Cql {
    session: Session,
    room: Semaphore,
}

/// A row to write.
pub(crate) struct Put<V> {
    /// About how large it is.
    pub(crate) bytes: usize,
    pub(crate) values: V,
}

/// The session, without a keyspace in use.
pub(crate) async fn connect(config: &CqlConfig) -> Result<Session, OpenError> {
    let wrong = |text: String| OpenError::new(OpenErrorKind::Config, text);
    config.check().map_err(wrong)?;
    let mut balancing = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = &config.datacenter {
        balancing = balancing.prefer_datacenter(datacenter.clone());
    }
    let speculation = SimpleSpeculativeExecutionPolicy {
        max_retry_count: 2,
        retry_interval: Duration::from_millis(config.speculative_delay_ms),
    };
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::Serial))
        .request_timeout(Some(config.request_timeout()))
        .load_balancing_policy(balancing.build())
        .speculative_execution_policy(Some(Arc::new(speculation)))
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&config.contact_points)
        .connection_timeout(config.request_timeout())
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .default_execution_profile_handle(profile.into_handle());
    if let Some(user) = &config.user {
        builder = builder.user(user, password(config)?);
    }
    if let Some(tls) = tls(config)? {
        builder = builder.tls_context(Some(tls));
    }
    let connected = builder.build().await;
    connected.map_err(|error| OpenError::of(&config.contact_points, &error))
}

fn password(config: &CqlConfig) -> Result<String, OpenError> {
    if let Some(file) = &config.password_file {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let text = format!("password_file {}: {error}", file.display());
            OpenError::new(OpenErrorKind::Config, text)
        })?;
        return Ok(text.trim_end().to_owned());
    }
    let password = config.password.as_ref();
    Ok(password.map_or_else(String::new, |p| p.reveal().to_owned()))
}

fn tls(config: &CqlConfig) -> Result<Option<Arc<rustls::ClientConfig>>, OpenError> {
    let Some(file) = &config.tls_ca_file else {
        return Ok(None);
    };
    let wrong = |error: &dyn std::fmt::Display| {
        let text = format!("tls_ca_file {}: {error}", file.display());
        OpenError::new(OpenErrorKind::Config, text)
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| wrong(&e))? {
        let certificate = certificate.map_err(|e| wrong(&e))?;
        roots.add(certificate).map_err(|e| wrong(&e))?;
    }
    let client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(Arc::new(client)))
}

impl Cql {
    pub(crate) fn new(session: Session, config: &CqlConfig) -> Self {
        Self {
            session,
            room: Semaphore::new(config.requests_max),
        }
    }

    /// Prepares a statement that may be repeated.
    pub(crate) async fn prepare(&self, text: &str) -> Result<PreparedStatement, OpenError> {
        let prepared = self.session.prepare(text).await;
        let mut prepared = prepared.map_err(|error| OpenError::of_prepare(text, &error))?;
        prepared.set_is_idempotent(true);
        Ok(prepared)
    }

    /// Rows of one partition, unpaged: the statement carries a limit.
    pub(crate) async fn rows<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'f> DeserializeRow<'f, 'f>,
    {
        let _room = self.room().await?;
        let answer = self.session.execute_unpaged(statement, values).await;
        let rows = answer
            .map_err(failed)?
            .into_rows_result()
            .map_err(corrupt)?;
        let rows = rows.rows::<R>().map_err(corrupt)?;
        rows.collect::<Result<_, _>>().map_err(corrupt)
    }

    /// All rows of one partition, page by page.
    pub(crate) async fn all_rows<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm> + 'static,
    {
        let _room = self.room().await?;
        let unavailable = |e| StoreError::because(StoreErrorKind::Unavailable, e);
        let pager = self.session.execute_iter(statement.clone(), values).await;
        let pager = pager.map_err(|e| StoreError::because(StoreErrorKind::Unavailable, e))?;
        let rows = pager.rows_stream::<R>().map_err(corrupt)?;
        rows.map_err(unavailable).try_collect().await
    }

    /// Writes `puts` by one statement, stamped `stamp`, in bounded batches, all at once; rows of one
    /// partition keep their order. An owner's tenure is checked before each.
    pub(crate) async fn put<V: SerializeRow>(
        &self,
        owner: Option<&Tenure>,
        stamp: i64,
        statement: &PreparedStatement,
        puts: Vec<Put<V>>,
    ) -> Result<(), StoreError> {
        let placed = self.placed(statement, puts)?;
        let batches = batches::cut(placed).into_iter().map(|values| async move {
            let _room = self.room().await?;
            if let Some(tenure) = owner {
                StoreError::unless_owner(tenure)?;
            }
            self.batch(stamp, statement, values).await
        });
        let batches: Vec<_> = batches.collect();
        let mut round = stream::iter(batches).buffer_unordered(ROUND_MAX);
        // Every batch is waited for, so that no write of this call is under way when it failed.
        let mut outcome = Ok(());
        while let Some(one) = round.next().await {
            outcome = outcome.and(one);
        }
        outcome
    }

    /// Where each row belongs: its partition, and the node that is its first replica.
    fn placed<V: SerializeRow>(
        &self,
        statement: &PreparedStatement,
        puts: Vec<Put<V>>,
    ) -> Result<Vec<Placed<V>>, StoreError> {
        let state = self.session.get_cluster_state();
        let table = statement.get_table_spec();
        let place = |put: Put<V>| {
            let token = statement.calculate_token(&put.values).map_err(corrupt)?;
            let replicas = token.zip(table).map(|(token, table)| {
                state.get_token_endpoints(table.ks_name(), table.table_name(), token)
            });
            let first = replicas.as_ref().and_then(|replicas| replicas.first());
            Ok(Placed {
                node: first.map_or(0, |(node, _)| node.host_id.as_u128()),
                partition: token.map_or(0, |token| token.value()),
                put,
            })
        };
        puts.into_iter().map(place).collect()
    }

    async fn batch<V: SerializeRow>(
        &self,
        stamp: i64,
        statement: &PreparedStatement,
        values: Vec<V>,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::new(BatchType::Unlogged);
        for _ in &values {
            batch.append_statement(statement.clone());
        }
        batch.set_is_idempotent(true);
        batch.set_timestamp(Some(stamp));
        let answer = self.session.batch(&batch, values).await;
        answer.map(drop).map_err(failed)
    }

    /// A conditional batch, which is never repeated by the driver; whether it was applied.
    pub(crate) async fn conditional<V: SerializeRow>(
        &self,
        batch: &Batch,
        values: Vec<V>,
    ) -> Result<bool, StoreError> {
        let _room = self.room().await?;
        let answer = self.session.batch(batch, values).await.map_err(failed)?;
        let rows = answer.into_rows_result().map_err(corrupt)?;
        // What follows `[applied]` differs between stores; it comes first in both.
        let first: scylla::value::Row = rows.first_row().map_err(corrupt)?;
        let applied = first.columns.first().and_then(Option::as_ref);
        Ok(applied.and_then(scylla::value::CqlValue::as_boolean) == Some(true))
    }

    async fn room(&self) -> Result<tokio::sync::SemaphorePermit<'_>, StoreError> {
        let room = self.room.acquire().await;
        room.map_err(|_| StoreErrorKind::Closed.into())
    }
}

/// The timestamp of an owner's write.
pub(crate) fn stamp(tenure: &Tenure) -> Result<i64, StoreError> {
    StoreError::unless_owner(tenure)?;
    let now = u64::try_from(Timestamp::now().micros()).unwrap_or(0);
    i64::try_from(tenure.stamp(now)).map_err(corrupt)
}

/// Runs `ask` for each, a bounded number at once; answers in order.
pub(crate) async fn each<T, F, R>(
    all: impl IntoIterator<Item = T>,
    ask: impl Fn(T) -> F,
) -> Result<Vec<R>, StoreError>
where
    F: Future<Output = Result<R, StoreError>>,
{
    let asked: Vec<F> = all.into_iter().map(ask).collect();
    stream::iter(asked).buffered(ROUND_MAX).try_collect().await
}

/// How long rows live, in seconds.
pub(crate) fn ttl(days: u32) -> i32 {
    i32::try_from(days.saturating_mul(86_400)).unwrap_or(i32::MAX)
}
