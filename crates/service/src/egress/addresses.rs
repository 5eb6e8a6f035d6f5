//! The tables: which addresses are public, and which are metadata services.
//!
//! `is_global` of a standard library is not this list.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Not public: special-purpose registries, and Azure's virtual host address.
const CLOSED_V4: [Ipv4Net; 20] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 31, 196, 0], 24),
    v4([192, 52, 193, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([192, 175, 48, 0], 24),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
    v4([168, 63, 129, 16], 32),
];

/// The one part of IPv6 that is in use on the Internet...
const OPEN_V6: Ipv6Net = v6([0x2000, 0, 0], 3);

/// ...and what is special within it: protocol assignments and Teredo, documentation, 6to4, AS112,
/// documentation again.
const CLOSED_V6: [Ipv6Net; 5] = [
    v6([0x2001, 0, 0], 23),
    v6([0x2001, 0xdb8, 0], 32),
    v6([0x2002, 0, 0], 16),
    v6([0x2620, 0x4f, 0x8000], 48),
    v6([0x3fff, 0, 0], 20),
];

/// Where clouds hand out credentials. No setting opens them.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// The well-known NAT64 prefix.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0], 16);

const fn v4(octets: [u8; 4], bits: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(head: [u16; 3], bits: u8) -> Ipv6Net {
    let [a, b, c] = head;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), bits)
}

/// The address that counts: the IPv4 address inside a mapped one, or inside the NAT64 prefix that
/// was configured.
pub(super) fn judged(ip: IpAddr, nat64: Option<Ipv6Net>) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) if nat64.is_some_and(|net| net.contains(&v6)) => last_v4(v6).into(),
        canonical => canonical,
    }
}

/// Whether anybody on the Internet may have this address.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !CLOSED_V4.iter().any(|net| net.contains(&v4)),
        IpAddr::V6(v6) => OPEN_V6.contains(&v6) && !CLOSED_V6.iter().any(|net| net.contains(&v6)),
    }
}

/// Whether it is a metadata address, or one of IPv6 that a gateway would turn into one.
pub(super) fn is_metadata(ip: IpAddr, nat64: Option<Ipv6Net>) -> bool {
    match judged(ip, nat64) {
        IpAddr::V4(v4) => METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => {
            METADATA_V6.contains(&v6) || embedded(v6).is_some_and(|v4| METADATA_V4.contains(&v4))
        }
    }
}

/// The IPv4 address in one of NAT64, 6to4 or the old IPv4-compatible form.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, b, c, ..] = ip.segments();
    if NAT64.contains(&ip) || ip.segments()[..6] == [0; 6] {
        return Some(last_v4(ip));
    }
    let [b1, b2] = b.to_be_bytes();
    let [c1, c2] = c.to_be_bytes();
    SIX_TO_FOUR
        .contains(&ip)
        .then(|| Ipv4Addr::new(b1, b2, c1, c2))
}

fn last_v4(ip: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = ip.octets();
    Ipv4Addr::new(a, b, c, d)
}
