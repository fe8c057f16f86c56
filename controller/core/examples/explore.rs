use std::time::{Duration, Instant};
use controller_core::fleet::client::{KindMix, offers};
use controller_core::fleet::*;
use epp_core::Config;
use predictor::LearnerConfig;
use simulator_core::Profile;
use simulator_core::trace::{MOONCAKE_BATCH, Trace};
use simulator_core::workload::*;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let workload = args[0].as_str();
    let stages: usize = args[1].parse().unwrap();
    let clients: u32 = args[2].parse().unwrap();
    let seeds: Vec<u64> = args[3].split(',').map(|s| s.parse().unwrap()).collect();
    let policies: Vec<&str> = args[4].split(',').collect();
    let jobs: Vec<(u64, &str)> = seeds.iter().flat_map(|s| policies.iter().map(move |p| (*s, *p))).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = std::sync::Mutex::new(vec![]);
    println!("policy seed | ttft p50 p90 p99 | tpot p50 p90 p99 | out/s | attain | hits | served expired refused | makespan s | wall");
    std::thread::scope(|scope| {
        for _ in 0..std::env::var("THREADS").map_or(2, |t| t.parse().unwrap()) {
            scope.spawn(|| loop {
                let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some((seed, policy)) = jobs.get(i) else { break };
                let trace = match workload {
                    "shared" => SharedPrefix::optimized_baseline().first_stages(stages).generate(*seed),
                    "mooncake" => Trace::read("/work/shared/data/mooncake/conversation_trace.jsonl".as_ref()).unwrap().spread_batches(MOONCAKE_BATCH).slice(Duration::from_secs(60 * stages as u64)),
                    _ => generate(&WorkloadSpec::mooncake_conversation(), *seed).spread_batches(MOONCAKE_BATCH).slice(Duration::from_secs(60 * stages as u64)),
                };
                let offers = offers(&trace, KindMix { interactive: 100, plain: 0 }, *seed);
                let epp = match *policy {
                    "rr" => Config::round_robin(),
                    "llmd" => Config::llmd_default(),
                    "ours" => Config::headroom_default(),
                    file => Config::from_yaml(&std::fs::read_to_string(file).unwrap()).unwrap(),
                };
                let learner = epp.predicted_latency.is_some().then(|| LearnerConfig { seed: *seed, ..LearnerConfig::default() });
                let spec = FleetSpec {
                    name: policy.to_string(), epp, profile: Profile::builtin("qwen3-32b-h100-tp2").unwrap(),
                    startup: Duration::from_secs(100), sizing: Sizing::Fixed(std::env::var("REPLICAS").map_or(8, |t| t.parse().unwrap())), pickers: Pickers::ONE,
                    clients: (clients > 0).then_some(clients), learner,
                    slo: Slo { ttft_ms: 3000.0, tpot_ms: 100.0 },
                    scrape_interval: Duration::from_millis(50), sample_interval: Duration::from_secs(30), seed: *seed,
                };
                let begin = Instant::now();
                let r = replay(&spec, &offers);
                let k = &r.kinds["interactive"];
                let row = [k.ttft_ms.p50, k.ttft_ms.p90, k.ttft_ms.p99, k.tpot_ms.p50, k.tpot_ms.p90, k.tpot_ms.p99, r.output_rate(), k.attainment()*100.0, r.hit_share*100.0, k.served as f64, k.expired as f64, k.refused.values().sum::<u64>() as f64, r.makespan.as_secs_f64()];
                if seeds.len() == 1 || std::env::var("EACH").is_ok() {
                println!("{policy:>8} {seed} | {} | {:.1}s", row.map(|v| format!("{v:.2}")).join(" "), begin.elapsed().as_secs_f64()); 
                if std::env::var("TIMELINE").is_ok() { for s in &r.timeline { println!("  {:6.0} off {:6.1} queued {} in_flight {} p50 {:?} p90 {:?}", s.at, s.offered, s.queued, s.in_flight, s.ttft_p50, s.ttft_p90); } 
                if let Some(p) = &r.predictor { println!("{:#?}", p); } } }
                results.lock().unwrap().push((*policy, *seed, row));
            });
        }
    });
    let results = results.into_inner().unwrap();
    for p in &policies {
        let med = |c: usize| { let mut v: Vec<f64> = results.iter().filter(|r| r.0 == *p).map(|r| r.2[c]).collect(); v.sort_by(f64::total_cmp); (v[(v.len()-1)/2] + v[v.len()/2]) / 2.0 };
        println!("{p:>24} MED | {}", (0..13).map(|c| format!("{:.2}", med(c))).collect::<Vec<_>>().join(" "));
    }
}
