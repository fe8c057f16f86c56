//! Free ports on loopback for processes that cannot be handed a socket.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range that operating systems take the ports of outgoing connections from, so that a port that
/// was free when looked at is not taken by a connection before its process listens.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// A TCP port that nobody listens on and that this process gives out only once.
///
/// Test processes that run at the same time start at different places of the range.
pub fn free() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        // Any spread over the range does: consecutive process ids land far from each other.
        let place = std::process::id().wrapping_mul(6_151) % u32::from(COUNT);
        AtomicU16::new(u16::try_from(place).unwrap_or_default())
    });
    (0..COUNT)
        .map(|_| FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT)
        .find(|&port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok())
        .expect("a free port between 10000 and 32000")
}
