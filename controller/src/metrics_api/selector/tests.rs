use super::*;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn every_form_of_the_grammar_selects_what_kubernetes_selects() {
    let here = labels(&[
        ("variant", "h100"),
        ("role", "decode"),
        ("n", "5"),
        ("in", "x"),
        ("e", ""),
    ]);
    for (selector, selected) in [
        ("", true),
        ("  ", true),
        ("variant=h100", true),
        ("variant==h100,role=decode", true),
        (" variant = h100 , role in ( decode , both ) ", true),
        ("variant=a100", false),
        ("variant!=a100", true),
        ("variant!=h100", false),
        ("gone!=anything", true),
        ("role in (prefill,both)", false),
        ("role notin (prefill,both)", true),
        ("gone notin (a)", true),
        ("gone in (a)", false),
        ("variant", true),
        ("gone", false),
        ("!gone", true),
        ("! variant", false),
        ("n>4,n<6", true),
        ("n>5", false),
        ("variant>1", false),
        ("gone<1", false),
        ("in=x,in in (x),in", true),
        ("e=,e in ()", true),
        ("e in (a,)", true),
        ("role in (,decode)", true),
        ("variant=,role=decode", false),
        ("variant=a100,variant=h100", false),
    ] {
        let parsed = Selector::parse(selector).unwrap();
        assert_eq!(parsed.matches(&here), selected, "{selector:?}");
    }
}

#[test]
fn what_is_no_selector_says_what_would_be_right() {
    for (selector, message) in [
        ("variant h100", "operator"),
        ("=h100", "label key"),
        ("a,,b", "label key"),
        ("a,", "label key"),
        ("a in b", "'('"),
        ("a in (b", "',' or ')'"),
        ("a in (b c)", "',' or ')'"),
        ("a=b c", "',' or the end"),
        ("a=(b)", "label value"),
        ("!a=b", "',' or the end"),
        ("!!a", "label key"),
        ("a===b", "label value"),
        ("model=meta-llama/Llama-3.1-8B", "'/' is '-'"),
        ("-a=b", "label key"),
        ("a/b/c", "label key"),
        ("Prefix/a", "label key"),
        ("a>b", "integer"),
        ("a>", "integer"),
        ("a=-b", "label value"),
        ("ä=b", "label key"),
    ] {
        let error = Selector::parse(selector).unwrap_err().to_string();
        assert!(error.contains(message), "{selector:?}: {error}");
    }
    let long = format!("a in ({})", "b,".repeat(LONGEST));
    assert!(matches!(
        Selector::parse(&long),
        Err(SelectorError::Long(_))
    ));
}

#[test]
fn a_selector_is_told_as_an_object() {
    let object = |text| Selector::parse(text).unwrap().to_object();
    assert_eq!(object(""), Value::Null);
    assert_eq!(object("n>4"), Value::Null);
    assert_eq!(
        object("variant=h100,role in (a,b),x!=1,!y,z,variant=i"),
        json!({
            "matchLabels": {"variant": "h100"},
            "matchExpressions": [
                {"key": "role", "operator": "In", "values": ["a", "b"]},
                {"key": "x", "operator": "NotIn", "values": ["1"]},
                {"key": "y", "operator": "DoesNotExist"},
                {"key": "z", "operator": "Exists"},
                {"key": "variant", "operator": "In", "values": ["i"]},
            ],
        })
    );
}

fn value() -> impl Strategy<Value = String> {
    "([a-zA-Z0-9]([-a-zA-Z0-9_.]{0,8}[a-zA-Z0-9])?)?"
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let test = prop_oneof![
        value().prop_map(Test::Is),
        value().prop_map(Test::IsNot),
        btree_set(value(), 1..4).prop_map(Test::In),
        btree_set(value(), 1..4).prop_map(Test::NotIn),
        Just(Test::Exists),
        Just(Test::Absent),
        // A label's value cannot begin with '-', so neither can a bound.
        (0..i64::MAX).prop_map(Test::Greater),
        (0..i64::MAX).prop_map(Test::Less),
    ];
    let key = "([a-z0-9]([-a-z0-9]{0,6}[a-z0-9])?(\\.[a-z]{1,4})?/)?[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,8}[a-zA-Z0-9])?";
    (key, test).prop_map(|(key, test)| Requirement { key, test })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(requirements in vec(requirement(), 0..6)) {
        let selector = Selector { requirements };
        prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector.clone()));
        let spaced = selector.to_string().replace(',', " ,\t").replace('(', " ( ");
        prop_assert_eq!(Selector::parse(&spaced), Ok(selector));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn what_is_read_can_be_written_and_read(text in "[a-c!=<>(), in]{0,16}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    }

    #[test]
    fn each_requirement_has_its_opposite(key in "[ab]", values in btree_set("[xyz]?", 1..3), here in prop::collection::btree_map("[abc]", "[xyz]?", 0..3)) {
        let one = |test| Requirement { key: key.clone(), test }.holds(&here);
        prop_assert_ne!(one(Test::Exists), one(Test::Absent));
        prop_assert_ne!(one(Test::In(values.clone())), one(Test::NotIn(values.clone())));
        for value in values {
            prop_assert_ne!(one(Test::Is(value.clone())), one(Test::IsNot(value)));
        }
    }
}
