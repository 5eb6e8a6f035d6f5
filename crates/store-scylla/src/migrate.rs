//! Migrations: numbered steps, compiled in, applied once each, by one process at a time.
//!
//! ```text
//!   fanfare_schema (name, version) -> runs_from     one row per applied step
//!   fanfare_lock   (name) -> holder, TTL            who migrates now, by a conditional insert
//! ```
//!
//! A step may be applied again: its statements say IF NOT EXISTS. So a process that dies in the
//! middle only leaves its lock, which runs out, and the next one begins the step again.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::response::query_result::QueryResult;
use scylla::value::{CqlValue, Row};
use tokio::time::Instant;

use crate::config::CqlConfig;
use crate::error::{self, OpenError, OpenErrorKind};
use crate::session::connect;

/// The schema that this program was written for.
pub const SCHEMA_VERSION: i32 = 2;

struct Step {
    version: i32,
    /// The lowest schema version that a program must know to run on it.
    runs_from: i32,
    cql: &'static str,
}

const STEPS: &[Step] = &[
    Step {
        version: 1,
        runs_from: 1,
        cql: include_str!("../../../schemas/cql/0001_first.cql"),
    },
    Step {
        version: 2,
        runs_from: 1,
        cql: include_str!("../../../schemas/cql/0002_layout.cql"),
    },
];

const OWN_TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS fanfare_schema (name text, version int, runs_from int, PRIMARY KEY (name, version))",
    "CREATE TABLE IF NOT EXISTS fanfare_lock (name text PRIMARY KEY, holder text)",
];
const TAKE_LOCK: &str =
    "INSERT INTO fanfare_lock (name, holder) VALUES ('migrate', ?) IF NOT EXISTS USING TTL 120";
const DROP_LOCK: &str = "DELETE FROM fanfare_lock WHERE name = 'migrate' IF holder = ?";
const APPLIED: &str = "SELECT version, runs_from FROM fanfare_schema WHERE name = 'fanfare'";
const RECORD: &str =
    "INSERT INTO fanfare_schema (name, version, runs_from) VALUES ('fanfare', ?, ?)";
const LOCK_WAIT: Duration = Duration::from_mins(3);
const LOCK_PAUSE: Duration = Duration::from_millis(250);
/// Making tables takes longer than an ordinary request.
const DDL_TIMEOUT_MIN: u64 = 60_000;

/// Makes the keyspace and its tables, or brings them up to this program's version. May be repeated
/// and run by several at once. Answers the version that is in place.
pub async fn migrate(config: &CqlConfig) -> Result<i32, OpenError> {
    let patient = CqlConfig {
        request_timeout_ms: config.request_timeout_ms.max(DDL_TIMEOUT_MIN),
        ..config.clone()
    };
    let session = connect(&patient).await?;
    let of = Of(&config.contact_points);
    of.run(&session, &create_keyspace(config)).await?;
    use_keyspace(&session, config).await?;
    for table in OWN_TABLES {
        of.run(&session, table).await?;
    }
    let holder = format!("{:032x}", rand::random::<u128>());
    of.lock(&session, &holder).await?;
    let applied = of.apply(&session).await;
    let unlocked = session.query_unpaged(DROP_LOCK, (&holder,)).await;
    unlocked.map_err(|error| of.error(&error))?;
    applied
}

/// Refuses a store whose tables this program cannot use.
pub(crate) async fn check(session: &Session, config: &CqlConfig) -> Result<(), OpenError> {
    let not_migrated = |why: &str| {
        let text = format!(
            "the keyspace {} {why}; run fanfare migrate",
            config.keyspace
        );
        OpenError::new(OpenErrorKind::NotMigrated, text)
    };
    let of = Of(&config.contact_points);
    let unless_unknown = |error: &(dyn std::error::Error + 'static), why| {
        if error::is_unknown_name(error) {
            not_migrated(why)
        } else {
            of.error(error)
        }
    };
    let used = session.use_keyspace(&config.keyspace, false).await;
    used.map_err(|e| unless_unknown(&e, "is not there"))?;
    let asked = session.query_unpaged(APPLIED, ()).await;
    let answer = asked.map_err(|e| unless_unknown(&e, "has no tables"))?;
    let Some((version, runs_from)) = of.newest(answer)? else {
        return Err(not_migrated("has no tables"));
    };
    if runs_from > SCHEMA_VERSION {
        let text = format!(
            "the store's schema {version} needs a program of schema {runs_from} or newer and this one knows {SCHEMA_VERSION}; run a newer fanfare"
        );
        return Err(OpenError::new(OpenErrorKind::NewerVersion, text));
    }
    if version < SCHEMA_VERSION {
        return Err(not_migrated("has older tables"));
    }
    Ok(())
}

fn create_keyspace(config: &CqlConfig) -> String {
    let copies = config.replication;
    let replication = match &config.datacenter {
        Some(name) => format!("'class': 'NetworkTopologyStrategy', '{name}': {copies}"),
        None => format!("'class': 'SimpleStrategy', 'replication_factor': {copies}"),
    };
    let keyspace = &config.keyspace;
    format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {{{replication}}}")
}

async fn use_keyspace(session: &Session, config: &CqlConfig) -> Result<(), OpenError> {
    let used = session.use_keyspace(&config.keyspace, false).await;
    used.map_err(|error| OpenError::of(&config.contact_points, &error))
}

/// Requests whose errors name the contact points.
struct Of<'a>(&'a [String]);

impl Of<'_> {
    fn error(&self, error: &(dyn std::error::Error + 'static)) -> OpenError {
        OpenError::of(self.0, error)
    }

    async fn run(&self, session: &Session, statement: &str) -> Result<(), OpenError> {
        let done = session.query_unpaged(statement, ()).await;
        done.map_err(|error| self.error(&error))?;
        let agreed = session.await_schema_agreement().await;
        agreed.map(drop).map_err(|error| self.error(&error))
    }

    async fn lock(&self, session: &Session, holder: &str) -> Result<(), OpenError> {
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            let answer = session.query_unpaged(TAKE_LOCK, (holder,)).await;
            // A time-out may have taken it: then the next try finds our name.
            if let Ok(answer) = answer {
                let rows = answer.into_rows_result().map_err(|e| self.error(&e))?;
                let first: Row = rows.first_row().map_err(|e| self.error(&e))?;
                let ours = |c: &Option<CqlValue>| {
                    c.as_ref().is_some_and(|v| {
                        v.as_boolean() == Some(true) || v.as_text().is_some_and(|t| t == holder)
                    })
                };
                if first.columns.iter().any(ours) {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                let text =
                    "another fanfare migrate holds the lock; wait for it to end, then run it again";
                return Err(OpenError::new(OpenErrorKind::Unreachable, text));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    /// Version and lowest program version of the newest step.
    async fn applied(&self, session: &Session) -> Result<Option<(i32, i32)>, OpenError> {
        let answer = session.query_unpaged(APPLIED, ()).await;
        self.newest(answer.map_err(|e| self.error(&e))?)
    }

    fn newest(&self, answer: QueryResult) -> Result<Option<(i32, i32)>, OpenError> {
        let rows = answer.into_rows_result().map_err(|e| self.error(&e))?;
        let rows = rows.rows::<(i32, i32)>().map_err(|e| self.error(&e))?;
        Ok(rows.flatten().max())
    }

    async fn apply(&self, session: &Session) -> Result<i32, OpenError> {
        let mut version = self
            .applied(session)
            .await?
            .map_or(0, |(version, _)| version);
        for step in STEPS.iter().filter(|step| step.version > version) {
            for statement in statements(step.cql) {
                self.run(session, &statement).await?;
            }
            let recorded = session
                .query_unpaged(RECORD, (step.version, step.runs_from))
                .await;
            recorded.map_err(|e| self.error(&e))?;
        }
        version = version.max(SCHEMA_VERSION);
        Ok(version)
    }
}

/// The statements of a file: without comment lines, apart at semicolons.
fn statements(file: &str) -> Vec<String> {
    let lines = file
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let each = text.split(';').map(str::trim);
    each.filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_may_be_applied_again() {
        let all = STEPS.iter().flat_map(|step| statements(step.cql));
        let once: Vec<_> = all.filter(|text| !text.contains("IF NOT EXISTS")).collect();
        assert!(
            once.is_empty(),
            "a crash in the middle of a step has it applied again: {once:?}"
        );
    }

    #[test]
    fn steps_are_numbered_up_to_the_version_of_this_program() {
        let numbers: Vec<_> = STEPS.iter().map(|step| step.version).collect();
        assert_eq!(numbers, (1..=SCHEMA_VERSION).collect::<Vec<_>>());
        assert!(STEPS.iter().all(|step| step.runs_from <= step.version));
    }
}
