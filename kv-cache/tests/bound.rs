//! A full index stays within its bound, keeps what is new or asked for, and never invents anything.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use kv_cache::events::{Event, Stored};
use kv_cache::keys::KeyHasher;
use kv_cache::{Ingest, Key, Knowledge, Matches, Pod, Settings};

const BLOCK: u32 = 4;
const CHAIN: usize = 100;

fn tokens(chain: u32) -> Vec<u32> {
    (0..BLOCK * CHAIN as u32)
        .map(|at| at ^ chain << 9)
        .collect()
}

fn keys(chain: u32) -> Vec<Key> {
    let mut hasher = KeyHasher::new("m", BLOCK, usize::MAX);
    hasher.update(&tokens(chain));
    hasher.finish()
}

fn stored(chain: u32) -> Event {
    Event::Stored(Stored {
        block_hashes: (0..CHAIN as u64)
            .map(|place| u64::from(chain) << 20 | place)
            .collect(),
        token_ids: tokens(chain),
        block_size: BLOCK,
        ..Stored::default()
    })
}

#[test]
fn a_million_entries_filled_three_times_over() {
    const MOST: usize = 1_000_000;
    const PODS: u32 = 16;
    let mut ingest = Ingest::new(Settings {
        block_tokens: BLOCK,
        entries: MOST,
        pods: PODS as usize,
        ..Settings::default()
    })
    .unwrap();
    let pods: Vec<Pod> = (0..PODS).map(|_| ingest.add_pod().unwrap()).collect();
    for pod in &pods {
        ingest.restart(*pod, true);
    }
    let reader = ingest.reader();
    let mut matches = Matches::default();
    let chains = (3 * MOST / CHAIN) as u32;
    let home = |chain: u32| pods[(chain * 7 % PODS) as usize];
    for chain in 0..chains {
        ingest.apply(home(chain), "m", &stored(chain));
        assert!(ingest.entries() <= MOST);
        // Somebody asks for the first chains again and again.
        if chain % 500 == 0 {
            for hot in 0..20.min(chain) {
                reader.matched(&keys(hot), &mut matches);
            }
        }
    }
    let counts = ingest.counts();
    assert_eq!(counts.stored, u64::from(chains) * CHAIN as u64);
    assert_eq!(counts.evicted, counts.stored - ingest.entries() as u64);
    assert_eq!(counts.refused, 0);
    assert!(ingest.entries() > MOST - 100, "{}", ingest.entries());
    assert_eq!(ingest.blocks(), ingest.entries(), "no block is shared");
    let mut whole = 0;
    for chain in 0..chains {
        reader.matched(&keys(chain), &mut matches);
        for pod in &pods {
            let found = matches.of(*pod).blocks as usize;
            assert!(found == 0 || *pod == home(chain), "chain {chain}");
            whole += usize::from(found == CHAIN);
        }
        let found = matches.of(home(chain)).blocks as usize;
        if chain < 20 || chain >= chains - 5_000 {
            assert_eq!(found, CHAIN, "chain {chain}, asked for or new");
        }
    }
    assert!(whole >= 5_020, "{whole}");
    for pod in &pods {
        assert_eq!(reader.knowledge(*pod), Knowledge::Some);
    }
}

#[test]
fn endpoints_that_come_and_go_leave_nothing() {
    let mut ingest = Ingest::new(Settings {
        block_tokens: BLOCK,
        entries: 50_000,
        pods: 8,
        ..Settings::default()
    })
    .unwrap();
    let mut matches = Matches::default();
    for round in 0..200 {
        let pods: Vec<Pod> = (0..8).map(|_| ingest.add_pod().unwrap()).collect();
        assert!(ingest.add_pod().is_err());
        for pod in &pods {
            ingest.apply(*pod, "m", &stored(round));
            ingest.apply(*pod, "m", &stored(round + 1));
        }
        ingest.reader().matched(&keys(round), &mut matches);
        assert!(
            pods.iter()
                .all(|pod| matches.of(*pod).blocks as usize == CHAIN)
        );
        for pod in pods {
            ingest.remove_pod(pod);
        }
        ingest.reader().matched(&keys(round), &mut matches);
        assert!(matches.all().iter().all(|found| found.blocks == 0));
    }
    while ingest.tidy(1_000) {}
    assert_eq!(
        (ingest.entries(), ingest.blocks(), ingest.sets()),
        (0, 0, 0)
    );
    assert_eq!(ingest.counts().evicted, 0);
}
