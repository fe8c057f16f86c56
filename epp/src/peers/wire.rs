//! Deltas as gRPC messages. Fields that a peer of another version adds are skipped.

use epp_core::peers::{BandUse, Chain, Delta, EndpointKey, Flight, HASH_VERSION};
use prost::Message;
use std::sync::Arc;

/// gRPC service name.
pub(super) const SERVICE: &str = "headroom.peers.v1.Peers";
/// Path of its only method: a peer tells, for as long as the connection lasts.
pub(super) const TELL: &str = "/headroom.peers.v1.Peers/Tell";

/// What a peer says.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Said {
    #[prost(string, tag = "1")]
    pub(super) from: String,
    #[prost(fixed64, tag = "2")]
    pub(super) incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub(super) sequence: u64,
    #[prost(message, optional, tag = "4")]
    pub(super) whole: Option<Whole>,
    #[prost(message, repeated, tag = "5")]
    pub(super) loads: Vec<Load>,
    #[prost(message, repeated, tag = "6")]
    pub(super) chains: Vec<Blocks>,
    #[prost(message, repeated, tag = "7")]
    pub(super) bands: Vec<Band>,
    #[prost(message, repeated, tag = "8")]
    pub(super) heard: Vec<Heard>,
    /// How the sender hashes prompts.
    #[prost(uint32, tag = "9")]
    pub(super) hash_version: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Whole {
    #[prost(message, repeated, tag = "1")]
    pub(super) endpoints: Vec<Key>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Key {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) address: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Load {
    #[prost(uint32, tag = "1")]
    pub(super) endpoint: u32,
    #[prost(uint32, tag = "2")]
    pub(super) in_flight: u32,
    #[prost(uint32, tag = "3")]
    pub(super) waiting: u32,
    #[prost(uint64, tag = "4")]
    pub(super) waiting_tokens: u64,
    #[prost(uint64, tag = "5")]
    pub(super) resident_tokens: u64,
    #[prost(uint64, tag = "6")]
    pub(super) estimated_tokens: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Blocks {
    #[prost(uint32, tag = "1")]
    pub(super) endpoint: u32,
    #[prost(uint32, tag = "2")]
    pub(super) block_tokens: u32,
    #[prost(fixed64, repeated, tag = "3")]
    pub(super) hashes: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Band {
    #[prost(sint32, tag = "1")]
    pub(super) priority: i32,
    #[prost(uint64, tag = "2")]
    pub(super) requests: u64,
    #[prost(uint64, tag = "3")]
    pub(super) bytes: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Heard {
    #[prost(fixed64, tag = "1")]
    pub(super) incarnation: u64,
    #[prost(uint64, tag = "2")]
    pub(super) sequence: u64,
}

/// The end of a connection.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Told {}

impl From<&Delta> for Said {
    fn from(delta: &Delta) -> Self {
        let key = |key: &EndpointKey| Key {
            name: key.name.to_string(),
            address: key.address.to_string(),
        };
        let load = |&(endpoint, flight): &(u32, Flight)| Load {
            endpoint,
            in_flight: flight.in_flight,
            waiting: flight.waiting,
            waiting_tokens: flight.waiting_tokens,
            resident_tokens: flight.resident_tokens,
            estimated_tokens: flight.estimated_tokens,
        };
        let chain = |chain: &Chain| Blocks {
            endpoint: chain.endpoint,
            block_tokens: chain.block_tokens,
            hashes: chain.blocks.to_vec(),
        };
        let band = |band: &BandUse| Band {
            priority: band.priority,
            requests: band.requests,
            bytes: band.bytes,
        };
        let heard = |&(incarnation, sequence): &(u64, u64)| Heard {
            incarnation,
            sequence,
        };
        Self {
            from: delta.from.to_string(),
            incarnation: delta.incarnation,
            sequence: delta.sequence,
            whole: delta.whole.as_ref().map(|keys| Whole {
                endpoints: keys.iter().map(key).collect(),
            }),
            loads: delta.loads.iter().map(load).collect(),
            chains: delta.chains.iter().map(chain).collect(),
            bands: delta.bands.iter().map(band).collect(),
            heard: delta.heard.iter().map(heard).collect(),
            hash_version: HASH_VERSION,
        }
    }
}

impl From<Said> for Delta {
    /// Prefixes that are hashed in another way are left out: they would match nothing.
    fn from(said: Said) -> Self {
        let key = |key: Key| EndpointKey {
            name: key.name.into(),
            address: key.address.into(),
        };
        let load = |load: Load| {
            let flight = Flight {
                in_flight: load.in_flight,
                waiting: load.waiting,
                waiting_tokens: load.waiting_tokens,
                resident_tokens: load.resident_tokens,
                estimated_tokens: load.estimated_tokens,
            };
            (load.endpoint, flight)
        };
        let chain = |blocks: Blocks| Chain {
            endpoint: blocks.endpoint,
            block_tokens: blocks.block_tokens,
            blocks: Arc::from(blocks.hashes),
        };
        let band = |band: Band| BandUse {
            priority: band.priority,
            requests: band.requests,
            bytes: band.bytes,
        };
        let alike = said.hash_version == HASH_VERSION;
        let chains = said.chains.into_iter().filter(|_| alike).map(chain);
        Self {
            from: said.from.into(),
            incarnation: said.incarnation,
            sequence: said.sequence,
            whole: said
                .whole
                .map(|whole| whole.endpoints.into_iter().map(key).collect()),
            loads: said.loads.into_iter().map(load).collect(),
            chains: chains.collect(),
            bands: said.bands.into_iter().map(band).collect(),
            heard: said
                .heard
                .into_iter()
                .map(|heard| (heard.incarnation, heard.sequence))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta() -> Delta {
        Delta {
            from: "epp-0".into(),
            incarnation: 7,
            sequence: 9,
            whole: Some(vec![EndpointKey {
                name: "ns/pod-rank-0".into(),
                address: "10.0.0.1:8000".into(),
            }]),
            loads: vec![(
                0,
                Flight {
                    in_flight: 3,
                    waiting: 1,
                    waiting_tokens: 1_000,
                    resident_tokens: 5_000,
                    estimated_tokens: 0,
                },
            )],
            chains: vec![Chain {
                endpoint: 0,
                block_tokens: 64,
                blocks: [1, u64::MAX].into(),
            }],
            bands: vec![BandUse {
                priority: -1,
                requests: 2,
                bytes: 300,
            }],
            heard: vec![(8, 4)],
        }
    }

    #[test]
    fn a_delta_survives_the_wire() {
        let mut delta = delta();
        delta.loads[0].1.estimated_tokens = 700;
        let bytes = Said::from(&delta).encode_to_vec();
        let said = Said::decode(bytes.as_slice()).unwrap();
        assert_eq!(Delta::from(said), delta);
    }

    /// Peers of other versions read these bytes.
    #[test]
    fn the_bytes_on_the_wire_stay() {
        let hex: String = Said::from(&delta())
            .encode_to_vec()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "0a056570702d30110700000000000000180922200a1e0a0d6e732f706f642d72616e6b2d30120d31302e302e302e313a383030302a0a1003180120e80728882732141040\
             1a100100000000000000ffffffffffffffff3a0708011002\
             18ac02420b09080000000000000010044801"
        );
    }

    #[test]
    fn prefixes_hashed_in_another_way_are_left_out() {
        let said = Said {
            hash_version: HASH_VERSION + 1,
            ..Said::from(&delta())
        };
        assert!(Delta::from(said).chains.is_empty());
    }
}
