//! Fanfare's gRPC surface: the messages and services of `fanfare.v1`, generated from the `.proto`
//! files beside this crate, and (feature `client`) the client that backend services use.
//!
//! The code under `src/gen` is checked in, so nobody needs `protoc`; `tests/generated.rs` fails
//! when it is not what the `.proto` files say, and writes it anew when asked to. Within v1 the
//! surface only grows: `tests/compatible.rs` compares it with the last release.

#[cfg(feature = "client")]
pub mod client;

/// Messages, clients and servers of `fanfare.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!("gen/fanfare.v1.rs");
}

/// The descriptors of everything in [`v1`], encoded: what reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/fanfare.v1.bin");
