use controller_core::model::{ModelController, ModelPolicy, SloClass, Startup, VariantPolicy};
use controller_core::policy::SloTargets;

use super::*;

const AT: Duration = Duration::from_secs(1_800_000_000);

fn key(number: usize) -> ModelKey {
    ModelKey {
        namespace: "ns".into(),
        model: format!("model-{number:04}"),
    }
}

fn states(count: usize) -> States {
    let class = SloClass {
        name: "default".into(),
        slo: SloTargets {
            percentile: 0.9,
            ttft_ms: 500.0,
            tpot_ms: 50.0,
        },
        priority: None,
        weight: 1.0,
    };
    let startup = Startup::Fixed(Duration::from_secs(60));
    let variant = VariantPolicy::new("v", 1, 4, startup);
    let kept = |number| {
        let policy = ModelPolicy::new(key(number), vec![class.clone()], vec![variant.clone()]);
        Kept {
            decisions: ModelController::new(policy).save(AT),
            counts: None,
        }
    };
    (0..count)
        .map(|number| (key(number), kept(number)))
        .collect()
}

#[test]
fn states_are_read_back_as_they_were() {
    let states = states(3 * MODELS_PER_CHUNK + 1);
    let (chunks, left_out) = chunk(&states).unwrap();
    assert_eq!((chunks.len(), left_out), (4, 0));
    let (found, errors) = read(&chunks);
    assert!(errors.is_empty());
    assert_eq!(found, states);
}

#[test]
fn a_broken_chunk_costs_its_own_models_only() {
    let states = states(2 * MODELS_PER_CHUNK);
    let (mut chunks, _) = chunk(&states).unwrap();
    chunks.get_mut("000.json.gz").unwrap().0.truncate(20);
    chunks.insert("999.json.gz".into(), ByteString(b"no".to_vec()));
    let (found, errors) = read(&chunks);
    assert_eq!(found.len(), MODELS_PER_CHUNK);
    assert!(found.contains_key(&key(MODELS_PER_CHUNK)));
    assert_eq!(errors.len(), 2);
}

#[test]
fn what_does_not_fit_is_told() {
    let states = states(3 * MODELS_PER_CHUNK);
    let (all, _) = chunk(&states).unwrap();
    let one = all["000.json.gz"].0.len();
    let (some, left_out) = chunk_within(&states, one + one / 2).unwrap();
    assert_eq!((some.len(), left_out), (1, 2 * MODELS_PER_CHUNK));
}

#[test]
fn what_unfolds_beyond_bounds_is_refused() {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..=(MAX_UNFOLDED >> 20) {
        packer.write_all(&zeros).unwrap();
    }
    let chunks = BTreeMap::from([("0".to_owned(), ByteString(packer.finish().unwrap()))]);
    let (found, errors) = read(&chunks);
    assert!(found.is_empty());
    assert_eq!(errors.len(), 1);
}
