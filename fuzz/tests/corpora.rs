//! Every input of the corpora, and some thousand made from them, on every change.

use fuzz::campaign::{Campaign, attempt};
use fuzz::corpus;
use fuzz::target::TARGETS;

/// Inputs made per target; `make fuzz` makes more.
const INPUTS: u64 = 3_000;

#[test]
fn every_kept_input_holds() {
    for target in TARGETS {
        let inputs = corpus::read(&corpus::committed(), target.name).unwrap();
        assert!(inputs.len() >= 3, "{target:?} has {} inputs", inputs.len());
        for (path, input) in inputs {
            if let Err(says) = attempt(target, &input) {
                panic!("{}: {says}", path.display());
            }
        }
    }
}

#[test]
fn a_short_campaign_finds_nothing() {
    for target in TARGETS {
        let inputs = corpus::read(&corpus::committed(), target.name).unwrap();
        let mut campaign = Campaign::new(target, inputs.into_values().collect(), 1);
        for _ in 0..INPUTS {
            campaign.next_input();
            if let Some(finding) = campaign.try_input() {
                let text = String::from_utf8_lossy(&finding.input);
                panic!("{target:?} breaks: {}, by {text:?}", finding.says);
            }
        }
        assert!(
            campaign.behaviours() > 10,
            "{target:?} always does the same"
        );
    }
}
