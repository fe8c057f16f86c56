//! Lookups against a naive reference, and while the index changes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kv_cache::events::{Event, Removed, Stored};
use kv_cache::keys::KeyHasher;
use kv_cache::{Ingest, Key, Matches, Pod, Settings, Tier, TierWeights};
use proptest::prelude::*;

const BLOCK: u32 = 2;
const MEDIA: [Option<&str>; 4] = [None, Some("CPU"), Some("disk"), Some("remote")];

fn tokens(prompt: u32, blocks: usize) -> Vec<u32> {
    (0..BLOCK * blocks as u32)
        .map(|at| prompt << 16 | at)
        .collect()
}

fn keys(prompt: u32, blocks: usize) -> Vec<Key> {
    let mut hasher = KeyHasher::new("m", BLOCK, usize::MAX);
    hasher.update(&tokens(prompt, blocks));
    hasher.finish()
}

fn stored(prompt: u32, blocks: usize, medium: Option<&str>) -> Event {
    Event::Stored(Stored {
        block_hashes: (0..blocks as u64)
            .map(|place| u64::from(prompt) << 32 | place)
            .collect(),
        token_ids: tokens(prompt, blocks),
        block_size: BLOCK,
        medium: medium.map(str::to_owned),
        ..Stored::default()
    })
}

fn removed(prompt: u32, places: &[usize], medium: Option<&str>) -> Event {
    Event::Removed(Removed {
        block_hashes: places
            .iter()
            .map(|place| u64::from(prompt) << 32 | *place as u64)
            .collect(),
        medium: medium.map(str::to_owned),
        ..Removed::default()
    })
}

fn ingest(weights: TierWeights) -> Ingest {
    Ingest::new(Settings {
        block_tokens: BLOCK,
        entries: 1_000_000,
        pods: 300,
        weights,
        ..Settings::default()
    })
    .unwrap()
}

/// What one endpoint takes in: how many blocks, in which tier, and which of them it lets go again.
type Load = (usize, usize, usize, Vec<usize>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn equals_a_naive_reference(
        loads in prop::collection::vec((0_usize..200, 0_usize..4, 0_usize..60, prop::collection::vec(0_usize..60, 0..4)), 1..120),
        expected in prop::collection::vec((0_usize..200, 0_usize..70), 0..6),
        asked in 0_usize..70,
    ) {
        let weights = TierWeights([1.0, 0.8, 0.5, 0.9, 0.7]);
        let mut ingest = ingest(weights);
        let pods: Vec<Pod> = (0..200).map(|_| ingest.add_pod().unwrap()).collect();
        let all = keys(7, 70);
        let mut truth: BTreeMap<(usize, usize), Vec<bool>> = BTreeMap::new();
        let loads: Vec<Load> = loads;
        for (pod, tier, blocks, gone) in loads {
            let held = truth.entry((pod, tier)).or_insert_with(|| vec![false; 70]);
            if held.iter().any(|held| *held) || blocks == 0 {
                continue;
            }
            held[..blocks].fill(true);
            ingest.apply(pods[pod], "m", &stored(7, blocks, MEDIA[tier]));
            for place in gone {
                held[place] = false;
                ingest.apply(pods[pod], "m", &removed(7, &[place], MEDIA[tier]));
            }
        }
        for (pod, blocks) in expected {
            truth.entry((pod, 4)).or_insert_with(|| vec![false; 70])[..blocks].fill(true);
            ingest.expect(pods[pod], &all[..blocks], Duration::from_secs(2));
        }
        let mut matches = Matches::default();
        let reader = ingest.reader();
        for _ in 0..2 {
            reader.matched(&all[..asked], &mut matches);
            for (number, pod) in pods.iter().enumerate() {
                let best = |place: usize| {
                    (0..5)
                        .filter(|tier| truth.get(&(number, *tier)).is_some_and(|held| held[place]))
                        .map(|tier| weights.of(Tier::ALL[tier]))
                        .max_by(f32::total_cmp)
                };
                let worths: Vec<f32> = (0..asked).map_while(best).collect();
                let found = matches.of(*pod);
                prop_assert_eq!(found.blocks as usize, worths.len());
                prop_assert!((found.worth - worths.iter().sum::<f32>()).abs() < 1e-3);
            }
            // What was expected and did not come is gone.
            ingest.expire(Duration::from_secs(2));
            truth.retain(|(_, tier), _| *tier != 4);
        }
        prop_assert_eq!(ingest.expected(), 0);
    }
}

#[test]
fn what_stays_is_found_whatever_else_changes() {
    const STAYS: usize = 300;
    let mut ingest = ingest(TierWeights::default());
    let pods: Vec<Pod> = (0..40).map(|_| ingest.add_pod().unwrap()).collect();
    ingest.apply(pods[0], "m", &stored(1, STAYS, None));
    /// Ends the readers when the writer is done, however that is.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let all = keys(1, STAYS);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let reader = ingest.reader();
            let (stop, all, pods) = (&stop, &all, &pods);
            scope.spawn(move || {
                let mut matches = Matches::default();
                let mut looked = 0;
                while !stop.load(Ordering::Relaxed) || looked < 200 {
                    reader.matched(all, &mut matches);
                    assert_eq!(matches.of(pods[0]).blocks as usize, STAYS);
                    assert_eq!(matches.of(pods[0]).worth, STAYS as f32);
                    looked += 1;
                }
            });
        }
        let _done = Done(&stop);
        for round in 0..400_u32 {
            let pod = pods[1 + round as usize % 39];
            ingest.apply(
                pod,
                "m",
                &stored(1, 40 + round as usize % 250, MEDIA[round as usize % 2]),
            );
            ingest.apply(pod, "m", &stored(2 + round, 200, None));
            let places: Vec<usize> = (0..40)
                .map(|place| (place * 7 + round as usize) % 290)
                .collect();
            ingest.apply(pod, "m", &removed(1, &places, MEDIA[round as usize % 2]));
            if round % 5 == 0 {
                ingest.apply(pods[1 + round as usize % 17], "m", &Event::Cleared);
            }
            ingest.expect(pod, &all, Duration::from_millis(u64::from(round)));
            ingest.expire(Duration::from_millis(u64::from(round)));
        }
    });
}
