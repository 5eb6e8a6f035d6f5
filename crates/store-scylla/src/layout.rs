//! What all programs of a log agree on: how many partitions of each topic they use.
//!
//! Each topic's row is written once, by a conditional insert of whoever comes first, and never
//! changed. An insert whose answer is lost is settled by the serial read that follows the next one.

use std::collections::BTreeMap;

use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;

use crate::config::CqlConfig;
use crate::error::{OpenError, OpenErrorKind};
use crate::session::connect;

const AGREED: &str = "SELECT topic, partitions FROM layout WHERE log = ?";
const ADD: &str = "INSERT INTO layout (log, topic, partitions) VALUES (?, ?, ?) IF NOT EXISTS";

/// Adds what nobody has recorded of `own`, partitions by topic, to what is recorded of `log`,
/// unless that differs from `own`. Answers what is recorded then.
pub async fn agree(
    config: &CqlConfig,
    log: &str,
    own: &BTreeMap<String, u16>,
) -> Result<BTreeMap<String, u16>, OpenError> {
    let of =
        |error: &(dyn std::error::Error + 'static)| OpenError::of(&config.contact_points, error);
    let session = connect(config).await?;
    let used = session.use_keyspace(&config.keyspace, false).await;
    used.map_err(|error| of(&error))?;
    let agreed = recorded(config, &session, log).await?;
    let differs = agreed
        .iter()
        .any(|(topic, count)| own.get(topic) != Some(count));
    if differs || agreed.len() == own.len() {
        return Ok(agreed);
    }
    for (topic, count) in own.iter().filter(|(topic, _)| !agreed.contains_key(*topic)) {
        let added = session.query_unpaged(ADD, (log, topic, i32::from(*count)));
        added.await.map_err(|error| of(&error))?;
    }
    recorded(config, &session, log).await
}

async fn recorded(
    config: &CqlConfig,
    session: &Session,
    log: &str,
) -> Result<BTreeMap<String, u16>, OpenError> {
    let mut statement = Statement::new(AGREED);
    // Completes an insert that is under way, so that all see the same.
    statement.set_consistency(Consistency::Serial);
    let answer = session.query_unpaged(statement, (log,)).await;
    let answer = answer.map_err(|error| OpenError::of(&config.contact_points, &error))?;
    let damaged = |said: String| {
        let text = format!("the table layout holds something else than counts ({said})");
        OpenError::new(OpenErrorKind::Refused, text)
    };
    let rows = answer
        .into_rows_result()
        .map_err(|e| damaged(e.to_string()))?;
    let rows = rows
        .rows::<(String, i32)>()
        .map_err(|e| damaged(e.to_string()))?;
    let counts = rows.map(|row| {
        let (topic, count) = row.map_err(|e| damaged(e.to_string()))?;
        let count = u16::try_from(count).map_err(|e| damaged(e.to_string()))?;
        Ok((topic, count))
    });
    counts.collect()
}
