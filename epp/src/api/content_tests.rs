use super::super::body::tests::inner;
use super::super::paths::Api;
use std::sync::Arc;

/// What is fed of a conversation's content, however it comes.
fn fed(value: &str) -> (u32, Arc<[u64]>) {
    let body = format!(r#"{{"model":"m","input":{value}}}"#);
    let read = inner(Api::VertexRaw, &body);
    (read.prompt_tokens, read.prefix)
}

#[test]
fn spelling_does_not_count_and_content_does() {
    let plain = fed(r#"[{"role":"user","content":"h\u00e9/"}]"#);
    assert_eq!(
        plain,
        fed("[ {\"role\" : \"user\" , \"content\":\"h\u{e9}\\/\"} ]")
    );
    assert_ne!(plain, fed(r#"[{"role":"user","content":"he/"}]"#));
    assert_ne!(fed("[1,true,null]"), fed("[1,false,null]"));
}

#[test]
fn images_and_recordings_are_told_apart_but_their_length_is_not_text() {
    let data = "A".repeat(100_000);
    for block in [
        r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,DATA"}}"#,
        r#"{"type":"input_image","image_url":"data:image/png;base64,DATA"}"#,
        r#"{"type":"input_audio","input_audio":{"data":"DATA","format":"wav"}}"#,
        r#"{"type":"audio_url","audio_url":{"url":"DATA"}}"#,
        r#"{"type":"video_url","video_url":{"url":"DATA"}}"#,
        r#"{"type":"file","file":{"file_data":"DATA","filename":"x.pdf"}}"#,
        r#"{"type":"image","source":{"data":"DATA","type":"base64","media_type":"image/png"}}"#,
        r#"{"type":"document","source":{"type":"url","url":"DATA"}}"#,
    ] {
        let one = fed(&block.replace("DATA", &data));
        assert!(one.0 < 40, "{block}: {} tokens", one.0);
        let other = format!("{data}B");
        assert_ne!(one.1, fed(&block.replace("DATA", &other)).1, "{block}");
    }
}

#[test]
fn text_under_the_name_of_a_source_is_text() {
    let text = "word ".repeat(1000);
    for block in [
        r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"TEXT"}}"#,
        r#"{"type":"tool_use","input":{"source":"TEXT"}}"#,
        r#"{"type":"text","text":"TEXT"}"#,
    ] {
        assert!(fed(&block.replace("TEXT", &text)).0 > 1200, "{block}");
    }
}

#[test]
fn of_a_document_the_text_is_fed_and_the_images_in_it_are_not() {
    let (text, data) = ("word ".repeat(1000), "A".repeat(100_000));
    let document = |data: &str| {
        let image = format!(r#"{{"type":"image","source":{{"data":"{data}","type":"base64"}}}}"#);
        let content = format!(r#"[{{"type":"text","text":"{text}"}},{image}]"#);
        fed(&format!(
            r#"{{"type":"document","source":{{"type":"content","content":{content}}}}}"#
        ))
    };
    let (one, two) = (document(&data), document("B"));
    assert!((1200..1300).contains(&one.0), "{} tokens", one.0);
    assert_eq!(one.0, two.0);
    assert_ne!(one.1, two.1);
}

/// Each byte is fed to every source that it is in: to so many of them, and no more.
#[test]
fn sources_inside_sources_are_set_aside_to_a_depth() {
    let data = "A".repeat(10_000);
    let image = format!(r#"{{"type":"base64","data":"{data}"}}"#);
    let within = |depth: usize| {
        let (open, close) = (r#"{"source":"#.repeat(depth), "}".repeat(depth));
        fed(&format!("[{open}{image}{close}]")).0
    };
    assert!(within(1) < 60 && within(2) < 60, "a document's images");
    assert!(within(120) > 2_000, "it is text like any other");
}

#[test]
fn what_an_image_says_of_its_type_does_not_make_it_text() {
    let data = "A".repeat(100_000);
    for block in [
        r#"{"type":"image_url","image_url":{"type":"image","url":"DATA"}}"#,
        r#"{"type":"image_url","image_url":{"url":"DATA","type":"image"}}"#,
        r#"{"type":"input_audio","input_audio":{"type":"text","data":"DATA"}}"#,
    ] {
        let one = fed(&block.replace("DATA", &data));
        assert!(one.0 < 40, "{block}: {} tokens", one.0);
        let other = fed(&block.replace("DATA", &format!("{data}B")));
        assert_ne!(one.1, other.1, "{block}");
    }
}
