//! The answers a sink gives, by how often it has seen the same delivery.

use super::{Answer, Gate, Pace};

/// First answers of each delivery, and the one for every attempt after them.
#[derive(Clone, Debug)]
pub struct Script {
    first: Vec<Answer>,
    then: Answer,
}

impl Script {
    /// 200, always.
    pub fn ok() -> Self {
        Self::always(Answer::ok())
    }

    /// The same answer, always.
    pub fn always(answer: Answer) -> Self {
        Self {
            first: Vec::new(),
            then: answer,
        }
    }

    /// `first` for the first attempts of each delivery, 200 afterwards.
    pub fn then_ok(first: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            first: first.into_iter().collect(),
            then: Answer::ok(),
        }
    }

    /// 200 once the gate opens.
    pub fn gated(gate: &Gate) -> Self {
        Self::always(Answer::ok().pace(Pace::Gated(gate.clone())))
    }

    /// The answer to the `attempt`th POST (from 1) of one delivery.
    pub(super) fn answer(&self, attempt: u32) -> Answer {
        let index = attempt as usize - 1;
        self.first.get(index).unwrap_or(&self.then).clone()
    }
}
