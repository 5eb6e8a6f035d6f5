//! Other people's code against ours: the official Standard Webhooks libraries verify what we sign,
//! foreign gRPC clients publish through reflection.

mod publishers;
mod receivers;
