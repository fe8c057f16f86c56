//! What `lint` finds, where, and how bad it is.

use epp_core::config::{Finding, Level, lint};
use epp_core::{Objective, Objectives};

/// Every kind of finding at least once.
const TROUBLED: &str = include_str!("lint/troubled.yaml");
const REPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lint/troubled.txt");

fn objectives(all: &[(&str, i32, bool)]) -> Objectives {
    let mut objectives = Objectives::default();
    for &(name, priority, shed) in all {
        let objective = Objective {
            priority,
            shed,
            ..Objective::default()
        };
        objectives.insert(name.into(), objective);
    }
    objectives
}

fn report(findings: &[Finding]) -> String {
    let line = |finding: &Finding| format!("{}: {finding}\n", finding.level.as_str());
    findings.iter().map(line).collect()
}

/// `UPDATE_GOLDEN=1` writes the report anew.
#[test]
fn a_troubled_configuration_is_told_everything() {
    let gold = objectives(&[("gold", 10, false)]);
    let found = report(&lint(TROUBLED, Some(&gold)));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(REPORT, &found).unwrap();
    }
    let expected = std::fs::read_to_string(REPORT).unwrap();
    assert!(found == expected, "lint/troubled.txt differs:\n{found}");
}

fn levels(lines: &str, objectives: Option<&Objectives>) -> Vec<(Level, u64, String)> {
    let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
    let quiet = |finding: &Finding| finding.level != Level::Differs;
    lint(&format!("{head}{lines}"), objectives)
        .into_iter()
        .filter(quiet)
        .map(|finding| {
            let line = finding.position.map_or(0, |position| position.line);
            (finding.level, line, finding.message)
        })
        .collect()
}

#[expect(clippy::panic, reason = "a test fails by panicking")]
fn one(lines: &str, objectives: Option<&Objectives>, level: Level, line: u64, part: &str) {
    let found = levels(lines, objectives);
    let [(found_level, found_line, message)] = &found[..] else {
        panic!("{lines}: {found:#?}")
    };
    assert_eq!((*found_level, *found_line), (level, line), "{message}");
    assert!(message.contains(part), "{message}");
}

#[test]
fn the_default_configurations_have_nothing_to_hear() {
    for text in [
        include_str!("configs/plain.yaml"),
        include_str!("configs/headroom.yaml"),
        include_str!("configs/llmd-queued.yaml"),
    ] {
        let grave = |finding: &Finding| finding.level != Level::Differs;
        let found: Vec<_> = lint(text, None).into_iter().filter(grave).collect();
        assert_eq!(found, []);
    }
}

#[test]
fn bands_that_no_objective_asks_for() {
    let bands = "featureGates: [flowControl]\nflowControl:\n  priorityBands:\n  - {priority: 0}\n  - {priority: 10}";
    one(
        bands,
        Some(&objectives(&[("batch", -1, false)])),
        Level::Unused,
        7,
        "no objective has priority 10",
    );
    assert_eq!(levels(bands, Some(&objectives(&[("gold", 10, false)]))), []);
    assert_eq!(levels(bands, None), [], "nobody knows the objectives");
    let template = "featureGates: [flowControl]\nflowControl:\n  defaultNegativePriorityBand: {maxRequests: 1}";
    one(
        template,
        Some(&objectives(&[("gold", 10, true)])),
        Level::Unused,
        5,
        "negative priority",
    );
    assert_eq!(
        levels(template, Some(&objectives(&[("batch", -1, false)]))),
        []
    );
}

#[test]
fn an_admitter_that_can_refuse_nobody() {
    let admitter = "plugins:\n- type: latency-slo-admitter";
    one(
        admitter,
        Some(&objectives(&[("gold", 10, false)])),
        Level::Unused,
        4,
        "no objective is sheddable",
    );
    assert_eq!(
        levels(admitter, Some(&objectives(&[("gold", 10, true)]))),
        []
    );
}

#[test]
fn limits_beyond_the_whole_queue() {
    let gate = "featureGates: [flowControl]\nflowControl:\n";
    let band =
        format!("{gate}  maxRequests: 100\n  priorityBands: [{{priority: 1, maxRequests: 200}}]");
    one(
        &band,
        None,
        Level::Unreachable,
        6,
        "the whole queue holds 100",
    );
    let ttl = format!(
        "{gate}  defaultRequestTTL: 10s\n  defaultPriorityBand: {{defaultRequestTTL: 30s}}"
    );
    one(
        &ttl,
        None,
        Level::Unreachable,
        6,
        "no request waits longer than 10s",
    );
    // Of what nobody wrote nothing is said, although a band's defaults are larger.
    let narrow = format!("{gate}  maxRequests: 1000\n  maxBytes: 256M\n");
    for band in [
        "  priorityBands: [{priority: 10}]",
        "  defaultPriorityBand: {fairnessPolicyRef: global-strict-fairness-policy}",
    ] {
        assert_eq!(levels(&format!("{narrow}{band}"), None), [], "{band}");
    }
    let wide = format!("{gate}  maxRequests: 9000");
    one(&wide, None, Level::Caution, 5, "each holds at most 5000");
    let priority = format!("{gate}  defaultPriorityBand: {{priority: 5}}");
    one(
        &priority,
        None,
        Level::Unused,
        5,
        "bands of any priority are made from a template",
    );
}

#[test]
fn parsers_behind_one_that_takes_all_of_their_paths() {
    let plugins = "plugins: [{type: passthrough-parser}, {name: again, type: passthrough-parser}, {type: openai-parser}]\n";
    let parsers = "requestHandler:\n  parsers:\n  - pluginRef: passthrough-parser\n  - pluginRef: openai-parser\n  - pluginRef: again";
    let found = levels(&format!("{plugins}{parsers}"), None);
    let unreachable = |found: &&(Level, u64, String)| found.0 == Level::Unreachable;
    let lines: Vec<_> = found
        .iter()
        .filter(unreachable)
        .map(|found| found.1)
        .collect();
    assert_eq!(lines, [8], "{found:#?}");
    let explicit =
        "plugins: [{type: openai-parser}]\nrequestHandler: {parsers: [{pluginRef: openai-parser}]}";
    one(explicit, None, Level::Caution, 4, "answered with 400");
}

#[test]
fn profiles_whose_parts_do_nothing() {
    let weight = "plugins: [{type: queue-scorer}, {type: prefix-cache-scorer}]\nschedulingProfiles:\n- name: x\n  plugins:\n  - pluginRef: prefix-cache-scorer\n  - pluginRef: queue-scorer\n    weight: 0";
    one(weight, None, Level::Unused, 9, "weight 0");
    let picker = "plugins: [{type: queue-scorer}, {type: max-score-picker}]\nschedulingProfiles:\n- name: x\n  plugins:\n  - pluginRef: queue-scorer\n  - {pluginRef: max-score-picker, weight: 2}";
    one(picker, None, Level::Unused, 8, "a picker has no weight");
    let random = "plugins: [{type: queue-scorer}, {type: random-picker}]";
    one(random, None, Level::Unreachable, 0, "looks at no score");
    let list = "plugins:\n- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}\n- type: queue-scorer";
    one(list, None, Level::Caution, 4, "ORIGINAL_DST");
    let blind = "plugins: [{type: queue-scorer}]\ndataLayer:\n  injectDefaults: false";
    one(
        blind,
        None,
        Level::Unreachable,
        5,
        "sees every endpoint as unknown",
    );
    let mode = "plugins:\n- type: concurrency-detector\n  parameters:\n    maxTokenConcurrency: 5\nflowControl: {saturationDetector: {pluginRef: concurrency-detector}}\nfeatureGates: [flowControl]";
    one(mode, None, Level::Unused, 6, "counts requests only");
}

#[test]
fn handlers_of_several_profiles() {
    let handler = "plugins: [{type: disagg-profile-handler}, {type: queue-scorer}]\n";
    let missing = levels(
        &format!("{handler}schedulingProfiles: [{{name: main}}]"),
        None,
    );
    assert!(
        missing.iter().any(|found| found.0 == Level::Error
            && found
                .2
                .contains("unknown profile `decode`; nearest known: `main`")),
        "{missing:#?}"
    );
    let decider = "plugins: [{type: disagg-profile-handler, parameters: {deciders: {prefill: queue-scorer}}}, {type: queue-scorer}]\nschedulingProfiles: [{name: decode, plugins: [{pluginRef: queue-scorer}]}]";
    let wrong = levels(decider, None);
    assert!(
        wrong.iter().any(|found| found.0 == Level::Error
            && found.2.contains("is a scorer; a decider is wanted here")),
        "{wrong:#?}"
    );
    let two = "plugins: [{type: disagg-profile-handler}, {type: single-profile-handler}]";
    let twice = levels(two, None);
    assert!(
        twice
            .iter()
            .any(|found| found.0 == Level::Error && found.2.contains("a second profile handler")),
        "{twice:#?}"
    );
    let inner = "plugins: [{type: disagg-profile-handler}]\nschedulingProfiles:\n- {name: decode}\n- name: prefill\n  plugins: [{pluginRef: nobody}]";
    let unknown = levels(inner, None);
    assert!(
        unknown
            .iter()
            .any(|found| found.0 == Level::Error && found.1 == 7),
        "profiles that do not run are checked: {unknown:#?}"
    );
}

/// No text makes it panic, and what cannot be read is an error.
#[test]
fn any_text_gets_an_answer() {
    for text in [
        "",
        "plugins",
        "a: [",
        "{{{",
        "plugins: 3",
        "\u{0}",
        "- 1",
        "*x",
        "&a [*a]",
    ] {
        let findings = lint(text, None);
        assert!(
            findings.iter().any(|finding| finding.level == Level::Error),
            "{text:?}: {findings:?}"
        );
    }
}

proptest::proptest! {
    /// A document with a part cut out or doubled is answered too, with positions inside of it.
    #[test]
    fn mutilated_documents_get_an_answer(from in 0_usize..4_000, length in 0_usize..200, doubled: bool) {
        let chars: Vec<char> = TROUBLED.chars().collect();
        let from = from.min(chars.len());
        let to = (from + length).min(chars.len());
        let middle = if doubled { &chars[from..to] } else { &[] };
        let text: String = chars[..from].iter().chain(middle).chain(middle).chain(&chars[to..]).collect();
        let lines = text.lines().count() as u64;
        for finding in lint(&text, Some(&Objectives::default())) {
            if let Some(position) = finding.position {
                proptest::prop_assert!(position.line <= lines + 1, "{finding}");
            }
        }
    }
}

#[test]
fn paths_that_no_parser_knows_under_either_name_of_the_list() {
    let part = "answered with 400";
    let listed =
        "plugins: [{type: openai-parser}]\nrequestHandler: {parsers: [{pluginRef: openai-parser}]}";
    one(listed, None, Level::Caution, 4, part);
    let twin = "plugins: [{type: openai-parser}]\nparser: {pluginRef: openai-parser}";
    let found = levels(twin, None);
    let cautious = |(level, line, message): &(Level, u64, String)| {
        *level == Level::Caution && *line == 4 && message.contains(part)
    };
    assert!(found.iter().any(cautious), "{found:#?}");
}
