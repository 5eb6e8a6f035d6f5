//! What all programs of a log must agree on, and the brokers cannot tell: how many partitions of
//! each topic are in use. Two that disagree would both run, and what one of them appends to the
//! other's unused partitions would stand still.

use std::collections::BTreeMap;

use async_trait::async_trait;

/// Why the programs' agreement is not known.
pub type AgreementError = Box<dyn std::error::Error + Send + Sync>;

/// Partitions in use, by topic.
pub type Partitions = BTreeMap<String, u16>;

/// Where the agreement is recorded. Implemented over the store by whoever opens the log.
#[async_trait]
pub trait Agreement: Send + Sync {
    /// Adds what nobody has recorded of `own` to what is recorded of the log `prefix`, unless that
    /// differs from `own`. Answers what is recorded then.
    async fn agree(&self, prefix: &str, own: &Partitions) -> Result<Partitions, AgreementError>;
}

/// For logs that programs of one configuration use.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAgreement;

#[async_trait]
impl Agreement for NoAgreement {
    async fn agree(&self, _: &str, own: &Partitions) -> Result<Partitions, AgreementError> {
        Ok(own.clone())
    }
}
