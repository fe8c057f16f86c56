//! What passes through Envoy and the picker: every byte, except the one question that the picker adds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use system_tests::answers::{self, MODEL, NullUsage};
use system_tests::client::Call;
use system_tests::script::{Framing, Script};
use system_tests::stack::{Setup, Stack};
use system_tests::upstream::{Received, Upstream};

const PICKER: &str = env!("CARGO_BIN_EXE_picker");
const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const AS_DOCUMENTED: [NullUsage; 2] = [NullUsage::Never, NullUsage::WhenAsked];

/// A streaming request written as no serializer would, so that one that was parsed and written again shows.
const ODD: &str = "{ \"model\" :\"fake-model\",\n\t\"messages\":[{\"role\":\"user\", \"content\":\"h\\u00e9\\/ \u{1f600}\"}],\
                   \"prompt\":\"h\\u00e9\\/\", \"seed\": 1.50e2 ,\"stream\":true, \"logit_bias\":{}, \"seed\":7\r\n}";

#[tokio::test]
async fn json_answers_and_their_requests_pass_unchanged() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    for path in [CHAT, COMPLETIONS] {
        let body = ODD.replace("\"stream\":true", "\"stream\":false");
        let answer = Call::post(path, body.clone())
            .header("x-custom", "kept")
            .send(stack.proxy)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.text(), answers::document(path));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let received = stack.server().received().pop().unwrap();
        assert_eq!(received.path, path);
        assert_eq!(received.body, body.as_bytes());
        assert_eq!(
            received.header("content-length"),
            Some(&*body.len().to_string())
        );
        assert_eq!(received.header("x-custom"), Some("kept"));
    }
    stack.idle().await;
    assert_eq!(stack.outcomes().await, [("Served".to_owned(), 2)].into());
}

#[tokio::test]
async fn a_body_of_unannounced_length_passes_unchanged() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    let body = ODD.replace("\"stream\":true", "\"stream\":false");
    let answer = Call::post(CHAT, body.clone())
        .chunked()
        .send(stack.proxy)
        .await;
    assert_eq!(answer.text(), answers::document(CHAT));
    assert_eq!(stack.server().only_request().body, body.as_bytes());
    let answer = Call::post(CHAT, ODD).chunked().send(stack.proxy).await;
    assert_eq!(
        answer.text(),
        answers::events(CHAT, false, NullUsage::Never).concat()
    );
    only_usage_was_added(ODD, &stack.server().received().pop().unwrap());
}

#[tokio::test]
async fn a_request_without_a_body_goes_to_a_server() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    let answer = Call::get("/v1/models").send(stack.proxy).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["data"][0]["id"], MODEL);
    assert_eq!(stack.server().only_request().path, "/v1/models");
    assert!(stack.fallback.received().is_empty());
}

/// What is asked for in the client's place is not seen by the client, whatever the server's manner of writing.
#[tokio::test]
async fn the_client_gets_the_stream_it_would_have_got() {
    let stack = Stack::start(Setup {
        servers: 4,
        listed: false,
        ..Setup::new(PICKER)
    })
    .await;
    let cases = AS_DOCUMENTED
        .into_iter()
        .flat_map(|null_usage| [CHAT, COMPLETIONS].map(|path| (null_usage, path)));
    for (server, (null_usage, path)) in stack.servers.iter().zip(cases) {
        stack.list(&[server.address()]).await;
        for framing in [
            Framing::Events,
            Framing::LastTwoTogether,
            Framing::CutAt(Vec::new()),
        ] {
            let case = format!("{path}, null usage {null_usage:?}, {framing:?}");
            server.follow(Script {
                null_usage,
                framing,
                ..Script::default()
            });
            let answer = Call::post(path, ODD)
                .header("accept-encoding", "gzip")
                .send(stack.proxy)
                .await;
            assert_eq!(answer.status, 200, "{case}");
            assert_eq!(
                answer.text(),
                answers::events(path, false, null_usage).concat(),
                "{case}"
            );
            assert!(!answer.cut, "{case}");
        }
        let (asked, unasked) = asked_and_unasked(server);
        for received in &asked {
            only_usage_was_added(ODD, received);
            assert_eq!(
                received.header("accept-encoding"),
                None,
                "a compressed answer could not be read"
            );
        }
        // Whether a server that was seen to write nulls does so unasked is found out with one request.
        assert_eq!(
            unasked,
            usize::from(null_usage == NullUsage::WhenAsked),
            "{null_usage:?}"
        );
    }
    stack.idle().await;
    assert_eq!(stack.outcomes().await, [("Served".to_owned(), 12)].into());
}

#[tokio::test]
async fn a_server_that_writes_null_unasked_is_found_out() {
    let null_usage = NullUsage::Always;
    let stack = Stack::start(Setup {
        script: Script {
            null_usage,
            ..Script::default()
        },
        ..Setup::new(PICKER)
    })
    .await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(
            Call::post(CHAT, ODD)
                .send(stack.proxy)
                .await
                .text()
                .to_owned(),
        );
    }
    // Nothing is known at the first: it is taken for a server that writes as OpenAI documents.
    assert_eq!(
        answers[0],
        answers::events(CHAT, false, NullUsage::Never).concat()
    );
    for answer in &answers[1..] {
        assert_eq!(*answer, answers::events(CHAT, false, null_usage).concat());
    }
    let (asked, unasked) = asked_and_unasked(stack.server());
    assert_eq!((asked.len(), unasked), (3, 1));
}

/// Every offset is covered beside the tap's code; here those where it matters most, through the proxy.
#[tokio::test]
async fn the_usage_event_is_found_wherever_the_stream_is_cut() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    for null_usage in AS_DOCUMENTED {
        let events = answers::events(CHAT, true, null_usage);
        let whole = events.concat();
        let usage = events[..events.len() - 2].concat().len();
        let done = events[..events.len() - 1].concat().len();
        let mut cuts: Vec<_> = [usage, done]
            .iter()
            .flat_map(|&at| [at - 1, at, at + 1])
            .map(|at| vec![at])
            .collect();
        cuts.extend([
            vec![1],
            vec![usage + 40],
            vec![done - 2],
            vec![whole.len() - 1],
        ]);
        cuts.push((usage - 3..done + 3).step_by(5).collect());
        for offsets in cuts {
            let framing = Framing::CutAt(offsets.clone());
            stack.server().follow(Script {
                null_usage,
                framing,
                ..Script::default()
            });
            let answer = Call::post(CHAT, ODD).send(stack.proxy).await;
            let plain = answers::events(CHAT, false, null_usage).concat();
            assert_eq!(
                answer.text(),
                plain,
                "cut at {offsets:?}, null usage {null_usage:?}"
            );
        }
    }
}

#[tokio::test]
async fn however_the_client_words_its_options_only_usage_is_added() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    for options in [
        "{}",
        "{ }",
        "null",
        r#"{"include_usage" : false}"#,
        r#"{"include_usage":null, "x":[1]}"#,
        r#"{"x" : {"include_usage":true}}"#,
    ] {
        let body = ODD.replacen(
            "\"stream\":true",
            &format!("\"stream_options\": {options} , \"stream\":true"),
            1,
        );
        let answer = Call::post(CHAT, body.clone()).send(stack.proxy).await;
        assert_eq!(
            answer.text(),
            answers::events(CHAT, false, NullUsage::Never).concat(),
            "{options}"
        );
        only_usage_was_added(&body, &stack.server().received().pop().unwrap());
    }
}

#[tokio::test]
async fn a_client_that_asked_for_usage_gets_it() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    let body = ODD.replacen(
        "\"stream\":true",
        "\"stream\":true,\"stream_options\" : {\"include_usage\": true}",
        1,
    );
    for null_usage in AS_DOCUMENTED {
        for framing in [Framing::Events, Framing::LastTwoTogether] {
            stack.server().follow(Script {
                null_usage,
                framing,
                ..Script::default()
            });
            let answer = Call::post(CHAT, body.clone()).send(stack.proxy).await;
            assert_eq!(
                answer.text(),
                answers::events(CHAT, true, null_usage).concat()
            );
            assert!(
                answer.text().contains(&answers::usage().to_string()),
                "the fake sends usage"
            );
            assert_eq!(
                stack.server().received().pop().unwrap().body,
                body.as_bytes()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_prompts_of_megabytes_arrive_as_they_were_sent() {
    let stack = Stack::start(Setup {
        servers: 2,
        ..Setup::new(PICKER)
    })
    .await;
    let bodies: Vec<String> = (0..20).map(large_body).collect();
    let calls = bodies.iter().map(|body| {
        let (call, proxy) = (Call::post(COMPLETIONS, body.clone()), stack.proxy);
        tokio::spawn(async move { call.send(proxy).await })
    });
    for (index, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = call.await.unwrap();
        assert_eq!(answer.status, 200, "{index}: {}", answer.text());
        let expected = match index % 2 {
            0 => answers::document(COMPLETIONS),
            _ => answers::events(COMPLETIONS, true, NullUsage::Never).concat(),
        };
        assert_eq!(answer.text(), expected, "{index}");
    }
    let received: Vec<_> = stack
        .servers
        .iter()
        .flat_map(|server| server.received())
        .collect();
    assert_eq!(received.len(), bodies.len());
    for body in &bodies {
        let arrived = received
            .iter()
            .filter(|received| received.body == body.as_bytes())
            .count();
        assert_eq!(arrived, 1, "a prompt arrived changed, or not once");
    }
    stack.idle().await;
    assert_eq!(stack.outcomes().await, [("Served".to_owned(), 20)].into());
}

/// A large prompt whose stream asks for usage is edited far from both its ends.
#[tokio::test]
async fn a_prompt_of_megabytes_gets_the_question_too() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    let body = large_body(1).replacen(r#","stream_options":{"include_usage":true}"#, "", 1);
    let answer = Call::post(COMPLETIONS, body.clone())
        .send(stack.proxy)
        .await;
    assert_eq!(
        answer.text(),
        answers::events(COMPLETIONS, false, NullUsage::Never).concat()
    );
    only_usage_was_added(&body, &stack.server().only_request());
}

/// The requests in which usage was asked for, and how many others there were; those are as the client sent them.
fn asked_and_unasked(server: &Upstream) -> (Vec<Received>, usize) {
    let (asked, unasked): (Vec<_>, Vec<_>) = server
        .received()
        .into_iter()
        .partition(|received| received.body != ODD);
    (asked, unasked.len())
}

/// 1.2 MB that differ from piece to piece; those with odd numbers stream and ask for usage themselves.
fn large_body(number: usize) -> String {
    let words = (0..).map(|word| format!("{number}-{word} "));
    let mut prompt = String::with_capacity(1_200_100);
    for word in words {
        prompt.push_str(&word);
        if prompt.len() >= 1_200_000 {
            break;
        }
    }
    let stream = if number.is_multiple_of(2) {
        ""
    } else {
        r#","stream":true,"stream_options":{"include_usage":true}"#
    };
    format!(r#"{{"model":"{MODEL}"{stream},"prompt":"{prompt}"}}"#)
}

/// `received` asks for usage, differs from `sent` in nothing else, and announces its own length.
fn only_usage_was_added(sent: &str, received: &Received) {
    let mut expected: Value = serde_json::from_str(sent).unwrap();
    if !expected["stream_options"].is_object() {
        expected["stream_options"] = json!({});
    }
    expected["stream_options"]["include_usage"] = true.into();
    assert_eq!(received.json(), expected);
    assert_eq!(
        received.header("content-length"),
        Some(&*received.body.len().to_string())
    );

    // One place changed: what is before and behind it is the client's own writing.
    let (sent, arrived) = (sent.as_bytes(), &received.body[..]);
    let before = sent
        .iter()
        .zip(arrived)
        .take_while(|(own, other)| own == other)
        .count();
    let behind = sent[before..]
        .iter()
        .rev()
        .zip(arrived[before..].iter().rev());
    let behind = behind.take_while(|(own, other)| own == other).count();
    let replaced = std::str::from_utf8(&sent[before..sent.len() - behind]).unwrap();
    let values = ["", "null", "nul", "false", "fals"];
    assert!(values.contains(&replaced), "replaced {replaced:?}");
}
