//! `header-based-testing-filter`: a request header names the endpoints, `ip[,ip:port…]`. For conformance tests; a
//! request without it is not restricted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use names::header::TEST_ENDPOINT_SELECTION;
use rand::rngs::StdRng;

use crate::pool::Pool;
use crate::schedule::{Ask, Candidate, Filter, Stage};

/// Keeps the endpoints that the request names.
#[derive(Debug, Default)]
pub(super) struct TestHeaderFilter {
    /// In pool order.
    addresses: Vec<Option<SocketAddr>>,
    wanted: Vec<Wanted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Host(IpAddr),
    Port(SocketAddr),
}

impl Wanted {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(socket) = text.parse() {
            return Some(Self::Port(socket));
        }
        text.trim_matches(['[', ']']).parse().ok().map(Self::Host)
    }

    fn is(self, address: SocketAddr) -> bool {
        match self {
            Self::Host(ip) => address.ip() == ip,
            Self::Port(socket) => address == socket,
        }
    }
}

impl Filter for TestHeaderFilter {
    fn stage(&self) -> Stage {
        Stage::Constraint
    }

    fn selects_by_request(&self) -> bool {
        true
    }

    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.addresses.clear();
        let endpoints = pool.endpoints.iter();
        self.addresses
            .extend(endpoints.map(|endpoint| endpoint.address.parse().ok()));
    }

    fn retain(
        &mut self,
        _: Duration,
        ask: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        _: &mut StdRng,
    ) {
        let Some(text) = ask.request.header(TEST_ENDPOINT_SELECTION) else {
            return;
        };
        self.wanted.clear();
        self.wanted.extend(text.split(',').filter_map(Wanted::read));
        candidates.retain(|candidate| {
            let address = self.addresses.get(candidate.slot as usize);
            address
                .copied()
                .flatten()
                .is_some_and(|address| self.wanted.iter().any(|wanted| wanted.is(address)))
        });
    }
}
