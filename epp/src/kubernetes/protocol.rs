//! Whether the pool's endpoints speak what the configured parsers read.

use super::discover::PoolName;
use super::pool::PoolObject;
use super::problem::{About, Problem, WRONG_VALUE};
use crate::api::paths::Parsers;
use kubernetes::watch::ObjectKey;

/// Whether requests of every parser can be served by `pool`; if not, requests should go to no picker that reads them.
pub(super) fn spoken(
    name: PoolName<'_>,
    pool: &PoolObject,
    parsers: &Parsers,
    problems: &mut Vec<Problem>,
) -> bool {
    let Some(unfit) = parsers.unfit_for(pool.protocol) else {
        return true;
    };
    let key = ObjectKey::new(name.namespace, name.name);
    let about = About::new(name.api_version, super::POOL_KIND, &key, &pool.uid);
    let message = format!(
        "spec.appProtocol: its endpoints speak HTTP/1.1, and {} of this picker's configuration reads gRPC; write `kubernetes.io/h2c`, or take the parser out. This picker is not ready until then",
        unfit.name()
    );
    problems.push(Problem::new(about, WRONG_VALUE, message));
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::config::{AppProtocol, Parser};

    #[test]
    fn grpc_parsers_are_only_ready_for_a_pool_that_speaks_http2() {
        let name = PoolName {
            group: "inference.networking.k8s.io",
            api_version: "inference.networking.k8s.io/v1",
            namespace: "ns",
            name: "pool",
        };
        let spoken = |protocol, parsers: &[Parser]| {
            let pool = PoolObject {
                uid: "u".into(),
                annotations: Default::default(),
                members: Err(String::new()),
                protocol,
            };
            let mut problems = Vec::new();
            let ready = spoken(name, &pool, &Parsers::new(parsers), &mut problems);
            assert_eq!(ready, problems.is_empty());
            problems.pop().map(|problem| problem.message)
        };
        let grpc = [Parser::OpenAi, Parser::VllmGrpc];
        assert_eq!(spoken(AppProtocol::H2c, &grpc), None);
        assert_eq!(spoken(AppProtocol::Http, &Parser::AUTOMATIC), None);
        assert_eq!(spoken(AppProtocol::H2c, &Parser::AUTOMATIC), None);
        let said = spoken(AppProtocol::Http, &grpc).unwrap();
        assert!(
            said.starts_with("spec.appProtocol") && said.contains("vllmgrpc-parser"),
            "{said}"
        );
    }
}
