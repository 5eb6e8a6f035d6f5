//! Flags that the servers share, laid over the file and the environment: a flag that is given wins.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use fanfare_service::telemetry::LogFormat;

use crate::config::Config;

/// Of every server.
#[derive(Args, Debug)]
pub struct CommonFlags {
    /// Settings; 'fanfare config default' prints them all
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Probes and metrics; port 0 takes a free one [default: 127.0.0.1:7401]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,

    /// Where to write down, once ready, which addresses it listens on
    #[arg(long, value_name = "FILE")]
    addresses_file: Option<PathBuf>,

    /// On a laptop: loopback endpoints, localhost and plain http are allowed
    #[arg(long)]
    dev: bool,

    /// A network that may be called although it is not public; repeatable
    #[arg(long, value_name = "CIDR")]
    allow_egress: Vec<String>,

    /// A name that may be called whatever it resolves to; repeatable
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,

    /// Plain http endpoints are allowed
    #[arg(long)]
    allow_http: bool,

    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Of servers that are called.
#[derive(Args, Debug)]
pub struct FrontFlags {
    /// gRPC, HTTP and the web page; port 0 takes a free one [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// Listen off loopback without keys
    #[arg(long)]
    insecure_no_auth: bool,
}

impl CommonFlags {
    /// Lays them over `config`; answers where to write the addresses.
    pub(super) fn apply(self, config: &mut Config) -> Option<PathBuf> {
        set(&mut config.server.admin_listen, self.admin_listen);
        set(&mut config.server.log_format, self.log_format);
        config.egress.dev |= self.dev;
        config.egress.allow_http |= self.allow_http;
        config.egress.allow_egress.extend(self.allow_egress);
        config.egress.allow_hosts.extend(self.allow_host);
        self.addresses_file
    }
}

impl FrontFlags {
    /// Lays them over `config`.
    pub(super) fn apply(self, config: &mut Config) {
        set(&mut config.server.listen, self.listen);
        config.server.insecure_no_auth |= self.insecure_no_auth;
    }
}

/// A flag that is given wins.
pub(super) fn set<T>(setting: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *setting = value;
    }
}
