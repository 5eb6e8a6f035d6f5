//! What all clients of the driver share: logging, errors, tokens.

use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::security::Tokens;

/// Context of every client.
#[derive(Clone, Default)]
pub(crate) struct Common {
    /// Where OAUTHBEARER tokens come from.
    pub(crate) tokens: Option<Arc<dyn Tokens>>,
}

impl Common {
    pub(crate) fn write_log(level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "kafka client: {message}");
            }
            // A broker that is away is written at this level over and over; what it means for us is
            // said by whoever asked.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(facility, "kafka client: {message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, "kafka client: {message}");
            }
        }
    }

    pub(crate) fn write_error(error: &KafkaError, reason: &str) {
        tracing::warn!(%error, "kafka client: {reason}");
    }

    pub(crate) fn token(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let Some(tokens) = &self.tokens else {
            return Err("no source of tokens was given to the log".into());
        };
        // A NUL in the message would be refused by the driver.
        let token = tokens
            .fresh()
            .map_err(|error| error.to_string().replace('\0', ""))?;
        Ok(OAuthToken {
            token: token.value,
            principal_name: token.principal,
            lifetime_ms: token.expire_time_ms,
        })
    }
}

impl ClientContext for Common {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Self::write_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Self::write_error(&error, reason);
    }

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.token()
    }
}
