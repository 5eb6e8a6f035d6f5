//! One event owed to one subscription: its states and why it ended.

use crate::id::{EndpointId, SubscriptionId};

/// Who is owed a delivery: what routing decides and the delivery record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Where to call.
    pub endpoint: EndpointId,
    /// For whom.
    pub subscription: SubscriptionId,
}

/// Where a delivery stands. Delivered and dead letter are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Not tried yet, or in flight.
    Pending,
    /// Tried and failed; will be tried again.
    Retrying,
    /// Waits durably for its endpoint.
    Parked,
    /// The endpoint answered 2xx.
    Delivered,
    /// Given up on; kept, redrivable.
    DeadLetter,
}

macro_rules! stored_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every one.
            pub fn all() -> impl Iterator<Item = Self> {
                [$(Self::$variant),*].into_iter()
            }

            /// The number it is stored as; never reused.
            pub fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// From a stored number.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Name as in JSON and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

stored_enum! {
    /// Why a delivery was given up on.
    DeadLetterReason {
        /// The schedule ran out.
        AttemptsExhausted = 1, "attempts_exhausted";
        /// The endpoint answered 410.
        Gone = 2, "gone";
        /// The endpoint was disabled.
        EndpointDisabled = 3, "endpoint_disabled";
        /// The endpoint was deleted.
        EndpointDeleted = 4, "endpoint_deleted";
        /// The subscription was deleted.
        SubscriptionDeleted = 5, "subscription_deleted";
        /// The egress guard refused every try.
        EgressDenied = 6, "egress_denied";
        /// The event's retention passed before it could be delivered.
        Expired = 7, "expired";
    }
}

stored_enum! {
    /// Why a delivery waits.
    ParkedReason {
        /// Its endpoint is paused.
        Paused = 1, "paused";
        /// Its endpoint is unhealthy.
        Unhealthy = 2, "unhealthy";
        /// Its endpoint is over its rate.
        OverRate = 3, "over_rate";
        /// Its endpoint's lane has no room.
        LaneFull = 4, "lane_full";
    }
}

impl DeliveryState {
    /// Name as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Delivered => "delivered",
            Self::DeadLetter => "dead_letter",
        }
    }
}
