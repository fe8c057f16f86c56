//! The pages and who may read them, without TLS: the router is asked directly.

use super::*;
use crate::admin_port::gate::Open;
use crate::extproc::hub::tests::hub_of;
use axum::body::{Body, to_bytes};
use axum::http::Request as HttpRequest;
use epp_core::Config;
use epp_core::report::PoolName;
use futures::future::BoxFuture;
use tower::ServiceExt as _;

/// Says the same to everybody who shows a token.
#[derive(Debug)]
struct Says(Result<(), Denied>);

impl Gate for Says {
    fn admit<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<(), Denied>> {
        let answer = match asked.token {
            None => Err(Denied::Unauthenticated("no token".into())),
            Some(_) => self.0.clone(),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn pages() -> Arc<Pages> {
    let hub = Arc::new(hub_of(Config::headroom_default()));
    let (_, ready) = watch::channel(true);
    Arc::new(Pages {
        offered: Offered::new(&hub),
        hub,
        picker: Picker {
            name: "epp-0".into(),
            pool: PoolName {
                namespace: "serving".into(),
                name: "llama".into(),
            },
            incarnation: 7,
        },
        ready,
        shutdown: Shutdown::new(),
    })
}

/// Status, the header `which`, and the body of the answer to one request.
async fn ask(gate: impl Gate + 'static, request: HttpRequest<Body>) -> (u16, HeaderMap, Vec<u8>) {
    let answer = router(pages(), Arc::new(gate))
        .oneshot(request)
        .await
        .unwrap();
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 24).await.unwrap();
    (parts.status.as_u16(), parts.headers, body.to_vec())
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> HttpRequest<Body> {
    let mut request = HttpRequest::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

const TOKEN: &[(&str, &str)] = &[("authorization", "Bearer t")];

#[tokio::test]
async fn each_wrong_request_gets_its_own_status() {
    let forbidden = || Says(Err(Denied::Forbidden("not you".into())));
    let away = || Says(Err(Denied::Unavailable("no API server".into())));
    let other = &[("authorization", "Basic dXNlcg==")];
    let (status, headers, _) = ask(Says(Ok(())), request("GET", admin::DEMAND, &[])).await;
    assert_eq!(
        (status, headers[WWW_AUTHENTICATE].to_str().unwrap()),
        (401, "Bearer")
    );
    assert_eq!(
        ask(Says(Ok(())), request("GET", admin::DEMAND, other))
            .await
            .0,
        401
    );
    assert_eq!(
        ask(forbidden(), request("GET", admin::MODEL, TOKEN))
            .await
            .0,
        403
    );
    assert_eq!(
        ask(away(), request("GET", admin::MODEL, TOKEN)).await.0,
        503
    );
    assert_eq!(
        ask(Says(Ok(())), request("GET", "/headroom/v1/nothing", TOKEN))
            .await
            .0,
        404
    );
    assert_eq!(
        ask(forbidden(), request("GET", "/headroom/v1/nothing", TOKEN))
            .await
            .0,
        403
    );
    assert_eq!(
        ask(Says(Ok(())), request("POST", admin::DEMAND, TOKEN))
            .await
            .0,
        405
    );
    let unnumbered = request("GET", "/headroom/v1/demand?mix_after=all", TOKEN);
    assert_eq!(ask(Says(Ok(())), unnumbered).await.0, 400);
    assert_eq!(
        ask(Says(Ok(())), request("GET", admin::DEMAND, TOKEN))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn a_token_file_is_compared_and_can_be_changed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let gate = || TokenFile {
        path: file.path().to_owned(),
    };
    let with = |token: &str| {
        let value = format!("bearer {token}");
        request("GET", admin::DEMAND, &[("authorization", &value)])
    };
    std::fs::write(file.path(), "first\n").unwrap();
    assert_eq!(ask(gate(), with("first")).await.0, 200);
    assert_eq!(ask(gate(), with("firs")).await.0, 401);
    std::fs::write(file.path(), "second").unwrap();
    assert_eq!(ask(gate(), with("first")).await.0, 401);
    assert_eq!(ask(gate(), with("second")).await.0, 200);
    std::fs::write(file.path(), " ").unwrap();
    assert_eq!(
        ask(gate(), with(" ")).await.0,
        401,
        "an empty file lets nobody in"
    );
    let gone = TokenFile {
        path: "/nonexistent".into(),
    };
    assert_eq!(ask(gone, with("first")).await.0, 503);
}

#[tokio::test]
async fn the_model_is_sent_once_to_who_keeps_its_tag() {
    let pages = pages();
    let get = |headers: Vec<(&'static str, String)>| {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let request = request("GET", admin::MODEL, &headers);
        router(Arc::clone(&pages), Arc::new(Open)).oneshot(request)
    };
    let first = get(vec![]).await.unwrap();
    assert_eq!(first.headers()[CONTENT_TYPE], "application/octet-stream");
    let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
    let body = to_bytes(first.into_body(), 1 << 24).await.unwrap();
    let set = predictor::snapshot::decode(&body).unwrap();
    assert_eq!(set.classes.len(), 1);
    assert_eq!(pages.offered.load().checksum(""), set.classes[0].checksum());
    for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".into()] {
        let again = get(vec![("if-none-match", known)]).await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[ETAG].to_str().unwrap(), tag);
        assert!(to_bytes(again.into_body(), 10).await.unwrap().is_empty());
    }
    let other = get(vec![("if-none-match", "\"other\"".into())])
        .await
        .unwrap();
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_report_is_the_golden_one() {
    let (status, headers, body) = ask(Open, request("GET", admin::DEMAND, &[])).await;
    assert_eq!(
        (status, headers[CONTENT_TYPE].to_str().unwrap()),
        (200, "application/json")
    );
    let mut report: serde_json::Value = serde_json::from_slice(&body).unwrap();
    // The two clocks are the only things that differ from run to run.
    report["atMs"] = 0.into();
    report["uptimeMs"] = 0.into();
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("demand.golden.json")).unwrap();
    assert_eq!(
        report,
        expected,
        "{}",
        serde_json::to_string_pretty(&report).unwrap()
    );
    let read: epp_core::DemandReport = serde_json::from_value(expected).unwrap();
    assert_eq!(
        (read.epp.as_str(), read.incarnation, read.ready),
        ("epp-0", 7, true)
    );
}
