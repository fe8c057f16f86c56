use super::*;
use proptest::prelude::*;

const MOONCAKE: &str = r#"{"timestamp": 500, "input_length": 1030, "output_length": 5, "hash_ids": [0, 7, 8]}
{"timestamp": 3500, "input_length": 600, "output_length": 1, "hash_ids": [0, 9]}
"#;

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109";

fn parse(text: &str) -> Result<Trace, TraceError> {
    Trace::parse("t", text.as_bytes())
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn mooncake_rows() {
    let trace = parse(MOONCAKE).unwrap();
    assert_eq!(trace.block_tokens, 512);
    let first = TraceRequest {
        row: 0,
        arrival: Duration::ZERO,
        input_tokens: 1030,
        output_tokens: 5,
        blocks: vec![0, 7, 8],
    };
    let second = TraceRequest {
        row: 1,
        arrival: Duration::from_secs(3),
        input_tokens: 600,
        output_tokens: 1,
        blocks: vec![0, 9],
    };
    assert_eq!(trace.requests, [first, second]);
}

#[test]
fn azure_rows_in_any_column_order_after_a_byte_order_mark() {
    let trace = parse(AZURE).unwrap();
    let swapped =
        parse("\u{feff}generatedtokens, timestamp ,ContextTokens\n\n44,2023-11-16 18:15:46.6805900,374\n109,2023-11-16 18:15:50.9951690,396").unwrap();
    assert_eq!(trace, swapped);
    let last = &trace.requests[1];
    assert_eq!(last.arrival, Duration::from_nanos(4_314_579_000));
    assert_eq!(
        (last.row, last.input_tokens, last.output_tokens),
        (1, 396, 109)
    );
    assert!(last.blocks.is_empty());
}

#[test]
fn rows_are_put_in_order_of_arrival() {
    let trace = parse(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 00:00:09,1,1\n2023-11-16 00:00:02,2,2",
    )
    .unwrap();
    let rows: Vec<_> = trace
        .requests
        .iter()
        .map(|r| (r.row, r.arrival.as_secs()))
        .collect();
    assert_eq!(rows, [(1, 0), (0, 7)]);
}

#[test]
fn errors_name_the_line_the_field_the_value_and_what_is_right() {
    for (from, to, parts) in [
        ("1030", "0", ["t:1: input_length", "\"0\"", "from 1 to"]),
        (
            "\"output_length\": 1,",
            "\"output_length\": \"x\",",
            ["t:2: output_length", "x", "whole number"],
        ),
        (
            "\"output_length\": 1,",
            "",
            ["t:2: output_length", "missing", "whole number"],
        ),
        ("3500", "-1", ["t:2: timestamp", "-1", "milliseconds"]),
        ("3500", "1e300", ["t:2: timestamp", "1e300", "milliseconds"]),
        (
            "[0, 9]",
            "[0, -9]",
            ["t:2: hash_ids", "[0, -9]", "array of whole numbers"],
        ),
        (
            "[0, 9]",
            "[0, 9, 10]",
            ["t:2: hash_ids", "3 ids", "at most 2 ids"],
        ),
        ("\n{", "\n[", ["t:2: the row", "[", "one JSON object"]),
    ] {
        let message = error(&MOONCAKE.replacen(from, to, 1));
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    for (from, to, parts) in [
        (
            "18:15:50",
            "18:75:50",
            ["t:3: TIMESTAMP", "18:75:50", "2023-11-16"],
        ),
        (
            ",374",
            "",
            ["t:2: GeneratedTokens", "missing", "whole number"],
        ),
        ("374", "4e9", ["t:2: ContextTokens", "4e9", "whole number"]),
    ] {
        let message = error(&AZURE.replacen(from, to, 1));
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn what_is_no_trace_is_said_to_be_none() {
    assert!(error("").contains("no requests"));
    assert!(error("TIMESTAMP,ContextTokens,GeneratedTokens\n").contains("no requests"));
    let message = error("num_prompts,total\n1,2");
    assert!(
        message.contains("num_prompts")
            && message.contains("Mooncake")
            && message.contains("Azure")
    );
}

#[test]
fn a_missing_file_is_named() {
    let message = Trace::read(Path::new("nowhere/trace.jsonl"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("nowhere/trace.jsonl"), "{message}");
}

#[test]
fn an_endless_line_ends_the_reading() {
    let text = format!("{{{}", " ".repeat(MAX_LINE_BYTES));
    assert!(error(&text).contains("limit of 1048576"));
}

#[test]
fn long_values_are_shortened_in_errors() {
    let message = error(&format!("{{{}", "é".repeat(5000)));
    assert!(message.len() < 600 && message.contains('…'), "{message}");
}

proptest! {
    /// Whatever bytes come in, the reader answers; what it accepts keeps the trace's promises.
    #[test]
    fn no_input_breaks_the_reader(noise in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..400, azure: bool) {
        let mut text = if azure { AZURE } else { MOONCAKE }.as_bytes().to_vec();
        let at = at.min(text.len());
        text.splice(at..at, noise);
        if let Ok(trace) = Trace::parse("t", &text[..]) {
            prop_assert!(trace.requests.is_sorted_by_key(|r| r.arrival));
            for request in &trace.requests {
                prop_assert!(request.input_tokens >= 1 && request.output_tokens >= 1);
                prop_assert!(request.blocks.len() <= request.input_tokens.div_ceil(512) as usize);
            }
        }
    }

    /// One bad value anywhere is reported at its own line and field.
    #[test]
    fn a_bad_value_is_reported_where_it_stands(rows in 1usize..20, pick in 0usize..20, field in 0usize..4) {
        let bad = pick % rows;
        let names = ["timestamp", "input_length", "output_length", "hash_ids"];
        let text: String = (0..rows).map(|row| {
            let mut values = [format!("{}", row * 10), "600".into(), "5".into(), "[1, 2]".to_owned()];
            if row == bad {
                values[field] = "\"bad\"".into();
            }
            let fields: Vec<_> = names.iter().zip(&values).map(|(name, value)| format!("\"{name}\": {value}")).collect();
            format!("{{{}}}\n", fields.join(", "))
        }).collect();
        let message = error(&text);
        let place = format!("t:{}: {} is", bad + 1, names[field]);
        prop_assert!(message.contains(&place), "{message}");
    }
}
