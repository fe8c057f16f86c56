use super::*;
use crate::demand::DemandLedger;

struct Flows {
    turns: Turns,
    ledger: DemandLedger,
    flows: Vec<(std::sync::Arc<FlowAccount>, Standing)>,
}

impl Flows {
    fn new(fairness: Fairness, names: &[&str]) -> Self {
        let turns = Turns::new(fairness);
        let ledger = DemandLedger::default();
        let flow = |&name: &&str| {
            let account = ledger.flow(0, &name.into(), Duration::ZERO);
            (account, turns.newcomer(name))
        };
        Self {
            flows: names.iter().map(flow).collect(),
            turns,
            ledger: DemandLedger::default(),
        }
    }

    fn join(&mut self, which: usize, active: &[usize]) {
        let least = active.iter().map(|&flow| self.flows[flow].1.counter).min();
        let (account, standing) = &mut self.flows[which];
        self.turns.joins(standing, account.unserved(), least);
    }

    /// Whose turn it is among `active`, all of whose heads arrived at `arrived`.
    fn best(&self, now: Duration, active: &[usize], arrived: &[u64]) -> usize {
        let contender = |(&slot, &arrived): (&usize, &u64)| Contender {
            slot: slot as u32,
            head: Place {
                era: 0,
                key: Duration::ZERO,
                number: slot as u64,
            },
            arrived: Duration::from_secs(arrived),
            standing: &self.flows[slot].1,
        };
        let contenders = active.iter().zip(arrived).map(contender);
        self.turns.best(now, contenders).unwrap().slot as usize
    }

    fn serve(&mut self, which: usize, prompt_tokens: u32) -> Charge {
        let request = Request {
            prompt_tokens,
            max_output_tokens: Some(0),
            ..Request::default()
        };
        let (account, standing) = &mut self.flows[which];
        let charge = self.turns.price(standing, account, &request);
        self.turns.served(standing, account.unserved(), charge);
        account.expects(charge.unserved());
        charge
    }
}

fn virtual_tokens(weights: &[(&str, f64)]) -> Fairness {
    let weights = weights
        .iter()
        .map(|(flow, weight)| ((*flow).to_owned(), *weight));
    Fairness::VirtualTokens(VirtualTokenCounter {
        weights: weights.collect(),
        ..VirtualTokenCounter::default()
    })
}

const NOW: Duration = Duration::from_secs(100);

#[test]
fn a_flow_of_twice_the_weight_gets_twice_the_tokens() {
    let mut flows = Flows::new(virtual_tokens(&[("a", 2.0)]), &["a", "b"]);
    let mut served = [0, 0];
    for _ in 0..300 {
        let which = flows.best(NOW, &[0, 1], &[0, 0]);
        flows.serve(which, 100);
        served[which] += 1;
    }
    assert_eq!(served, [200, 100]);
}

#[test]
fn real_tokens_settle_what_was_guessed() {
    let mut flows = Flows::new(virtual_tokens(&[]), &["a", "b"]);
    let charge = flows.serve(0, 100);
    assert_eq!(charge.ended(100, 0).owed, 0);
    assert_eq!(
        charge.ended(100, 50).owed,
        100_000,
        "2 per output token, in thousandths"
    );
    assert_eq!(charge.ended(40, 0).owed, -60_000);
    flows.serve(1, 150);
    assert_eq!(flows.best(NOW, &[0, 1], &[0, 0]), 0);
    let (account, standing) = &mut flows.flows[0];
    account.told(charge.ended(100, 50));
    flows.turns.settle(NOW, standing, account);
    assert_eq!(flows.best(NOW, &[0, 1], &[0, 0]), 1, "200 against 150");
}

#[test]
fn output_beyond_the_guess_is_charged_as_it_comes() {
    let flows = Flows::new(virtual_tokens(&[]), &["a"]);
    let (account, standing) = &flows.flows[0];
    let request = Request {
        prompt_tokens: 10,
        max_output_tokens: Some(100),
        ..Request::default()
    };
    let mut charge = flows.turns.price(standing, account, &request);
    assert_eq!(charge.unserved(), 200_000);
    assert_eq!(charge.emitted(TOLD_AT_A_TIME - 1), None, "not each token");
    let first = charge.emitted(90).unwrap();
    assert_eq!((first.served, first.owed), (180_000, 0));
    let second = charge.emitted(1_100).unwrap();
    assert_eq!((second.served, second.owed), (20_000, 2_000_000));
    let last = charge.ended(10, 1_101);
    assert_eq!((last.served, last.owed), (0, 2_000));
}

#[test]
fn absence_earns_nothing_and_costs_nothing() {
    let mut flows = Flows::new(virtual_tokens(&[]), &["busy", "idle", "late"]);
    flows.join(0, &[]);
    for _ in 0..50 {
        flows.serve(0, 1_000);
    }
    // Returns while another has something queued: begins where that one stands.
    flows.join(1, &[0]);
    assert_eq!(flows.flows[1].1.counter, flows.flows[0].1.counter);
    // Returns to an empty band: begins where the last was served.
    flows.join(2, &[]);
    assert_eq!(flows.flows[2].1.counter, 49_000_000);
    assert_eq!(flows.ledger.flows().len(), 0);
}

#[test]
fn the_least_served_program_goes_first_and_the_past_fades() {
    let fairness = Fairness::ProgramAware(ProgramAwareFairness::default());
    let mut flows = Flows::new(fairness, &["a", "b"]);
    let told = |flows: &mut Flows, which: usize, prompt, output, at| {
        let charge = flows.serve(which, prompt);
        let (account, standing) = &mut flows.flows[which];
        account.told(charge.ended(prompt, output));
        flows.turns.settle(at, standing, account);
    };
    told(&mut flows, 0, 1_000, 500, NOW);
    let service =
        |flows: &Flows, which: usize, at| flows.turns.attained(&flows.flows[which].1, at).unwrap();
    assert_eq!(
        service(&flows, 0, NOW),
        2_000.0,
        "1 per prompt, 2 per output token"
    );
    let half_life = Duration::from_secs(60);
    assert!((service(&flows, 0, NOW + half_life) - 1_000.0).abs() < 1e-9);
    told(&mut flows, 1, 1_500, 0, NOW + half_life);
    // a: 1,000, b: 1,500. Service decides against a small difference in waiting …
    assert_eq!(flows.best(NOW + half_life, &[0, 1], &[90, 80]), 0);
    // … and where all have had the same, waiting decides.
    told(&mut flows, 0, 500, 0, NOW + half_life);
    let now = NOW + half_life;
    assert_eq!(flows.best(now, &[0, 1], &[90, 80]), 1);
    assert_eq!(flows.best(now, &[0, 1], &[80, 90]), 0);
}

#[test]
fn without_a_half_life_the_decay_factor_counts() {
    let parameters = ProgramAwareFairness {
        las_half_life_seconds: 0.0,
        las_decay_factor: 0.5,
        ..ProgramAwareFairness::default()
    };
    let mut flows = Flows::new(Fairness::ProgramAware(parameters), &["a"]);
    let (account, standing) = &mut flows.flows[0];
    account.told(Told {
        served: 0,
        owed: 8_000,
        policy: 0,
    });
    flows.turns.settle(NOW, standing, account);
    let later = flows
        .turns
        .attained(&flows.flows[0].1, NOW + Duration::from_secs(3));
    assert_eq!(later, Some(1.0));
}

#[test]
fn other_policies_know_no_service() {
    let flows = Flows::new(Fairness::RoundRobin, &["a"]);
    assert_eq!(flows.turns.attained(&flows.flows[0].1, NOW), None);
}
