use super::*;
use proptest::prelude::*;

const USAGE: Usage = Usage {
    prompt: Some(7),
    cached: None,
    output: Some(3),
};

fn number(text: &str) -> Option<f64> {
    text.parse::<Expression>().unwrap().number(&USAGE)
}

#[test]
fn numbers_are_computed_from_usage() {
    for (text, expected) in [
        ("usage.total_tokens", Some(10.0)),
        (
            "usage.prompt_tokens + 2 * usage.completion_tokens",
            Some(13.0),
        ),
        ("(usage.input_tokens + 2) * usage.output_tokens", Some(27.0)),
        ("usage.prompt_tokens / 2", Some(3.0)),
        ("double(usage.prompt_tokens) / 2", Some(3.5)),
        ("usage.prompt_tokens * 0.5", Some(3.5)),
        ("int(7.9) % 4", Some(3.0)),
        ("-usage.prompt_tokens - -1", Some(-6.0)),
        ("10 - 4 - 3", Some(3.0)),
        (
            "usage.prompt_tokens > 5 && !(usage.output_tokens >= 4) ? 1 : 2",
            Some(1.0),
        ),
        (
            "has(usage.cached_tokens) ? usage.cached_tokens : 0",
            Some(0.0),
        ),
        ("1e3", Some(1000.0)),
        ("usage.cached_tokens + 1", None),
        ("usage.prompt_tokens / 0", None),
        ("1.0 / 0.0", None),
        ("9223372036854775807 + 1", None),
        ("true", None),
        (
            "true ? 1 : usage.prompt_tokens_details.cached_tokens",
            Some(1.0),
        ),
    ] {
        assert_eq!(number(text), expected, "{text}");
    }
}

#[test]
fn conditions_hold_only_when_known() {
    for (text, expected) in [
        ("usage.prompt_tokens == 7", true),
        ("usage.prompt_tokens != 7.0", false),
        ("usage.cached_tokens >= 0", false),
        ("usage.cached_tokens >= 0 || true", true),
        ("!(usage.cached_tokens >= 0 && false)", true),
        ("true == !false", true),
        ("usage.prompt_tokens", false),
    ] {
        let expression: Expression = text.parse().unwrap();
        assert_eq!(expression.holds(&USAGE), expected, "{text}");
    }
    let embedding = Usage {
        output: None,
        ..USAGE
    };
    let total: Expression = "usage.total_tokens".parse().unwrap();
    assert_eq!(total.number(&embedding), Some(7.0));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, at, expected) in [
        ("", 0, "a number"),
        ("usage.tokens", 0, "usage.total_tokens"),
        ("1 + ", 4, "a number"),
        ("(1", 2, "`)`"),
        ("1 2", 2, "an operator"),
        ("1 ? 2", 5, "`:`"),
        ("has(1)", 5, "a field"),
        ("1.2.3", 0, "a number"),
        ("size(usage)", 0, "one of"),
    ] {
        let error = text.parse::<Expression>().unwrap_err();
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.expected.contains(expected), "{text}: {error}");
    }
    for open in ["(", "!", "-", "int("] {
        assert!(
            open.repeat(100_000).parse::<Expression>().is_err(),
            "{open}"
        );
    }
}

proptest! {
    #[test]
    fn never_panics(text in r"(usage\.(prompt|cached|total)_tokens|[0-9.]{1,3}|[-+*/%<>=!?:()&| ]|has|int|true|é){0,30}") {
        if let Ok(expression) = text.parse::<Expression>() {
            let _ = (expression.number(&USAGE), expression.holds(&USAGE));
        }
    }
}
