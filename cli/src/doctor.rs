//! `headroom doctor`: checks the whole chain from endpoint picker to HorizontalPodAutoscaler and says what to do.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | nothing is wrong |
//! | 1 | something is wrong, or could not be looked at |
//! | 2 | there is no cluster to look at, or the command was asked for wrongly |

mod checks;
mod facts;
mod gather;
mod values;

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use runtime::Clock;
use serde::Serialize;

use self::gather::Scope;
use crate::home;
use crate::story::Trouble;

/// Check that decisions reach the HorizontalPodAutoscalers: the APIServices and their certificates, access rights, the
/// controller and its Lease, the endpoint pickers of every pool, the freshness of the values, and how
/// HorizontalPodAutoscalers read them. Uses the kubeconfig and changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Look at the models of this namespace only
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Namespace of the controller; without it, where its Lease is
    #[arg(long, value_name = "NAMESPACE")]
    controller_namespace: Option<String>,
    /// The controller's Service
    #[arg(long, default_value = names::kubernetes::CONTROLLER, value_name = "NAME")]
    service: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    /// As it should be.
    Good,
    /// Good to know.
    Note,
    /// It could not be looked at.
    Unknown,
    /// Wrong.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    /// The link of the chain.
    area: &'static str,
    /// How it came out.
    outcome: Outcome,
    /// What was found, one sentence without its full stop.
    what: String,
    /// What it was found by.
    #[serde(skip_serializing_if = "String::is_empty")]
    evidence: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

impl Check {
    fn new(area: &'static str, outcome: Outcome, what: impl Into<String>) -> Self {
        Self {
            area,
            outcome,
            what: what.into(),
            evidence: String::new(),
            advice: String::new(),
        }
    }

    fn good(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(area, Outcome::Good, what)
    }

    fn wrong(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(area, Outcome::Wrong, what)
    }

    fn note(area: &'static str, what: impl Into<String>) -> Self {
        Self::new(area, Outcome::Note, what)
    }

    /// What could not be looked at, and why.
    fn unknown(area: &'static str, what: impl Into<String>, why: &str) -> Self {
        Self::new(area, Outcome::Unknown, what)
            .by(why)
            .advice("see that the API server answers, and that your account may read this")
    }

    fn by(self, evidence: impl Into<String>) -> Self {
        let evidence = evidence.into();
        Self { evidence, ..self }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        let advice = advice.into();
        Self { advice, ..self }
    }
}

/// The JSON that is printed.
#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    wrong: usize,
    unknown: usize,
    checks: &'a [Check],
}

/// Runs the command.
///
/// # Errors
/// If there is no cluster, or something is wrong with it.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
    let checks = runtime.block_on(async {
        tokio::select! {
            checks = examine(&args) => checks,
            _ = tokio::signal::ctrl_c() => Err(Trouble::interrupted().into()),
        }
    })?;
    let count = |outcome| checks.iter().filter(|one| one.outcome == outcome).count();
    let (wrong, unknown) = (count(Outcome::Wrong), count(Outcome::Unknown));
    let text = if args.json {
        let report = Report {
            schema: 1,
            wrong,
            unknown,
            checks: &checks,
        };
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        page(&checks)
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")?;
    match (wrong, unknown) {
        (0, 0) => Ok(()),
        _ => {
            Err(Trouble::failed(format!("{wrong} wrong, {unknown} could not be looked at")).into())
        }
    }
}

async fn examine(args: &Args) -> anyhow::Result<Vec<Check>> {
    runtime::tls::install_provider();
    let no_cluster = |error: Box<dyn std::error::Error + Send + Sync>| {
        Trouble::usage("there is no cluster to look at")
            .because(error)
            .advice("set KUBECONFIG, or choose a context that works")
    };
    let client = kubernetes::client::connect_impatiently()
        .await
        .map_err(|error| no_cluster(error.into()))?;
    if let Some(namespace) = &args.namespace {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        // Who may not look is told of more than this further on.
        if matches!(namespaces.get_opt(namespace).await, Ok(None)) {
            return Err(
                Trouble::usage(format!("--namespace {namespace}: there is none"))
                    .advice("see `kubectl get namespaces`")
                    .into(),
            );
        }
    }
    let told = args.controller_namespace.as_deref();
    let scope = Scope {
        namespace: args.namespace.clone(),
        controller_namespace: home::namespace(&client, told, args.namespace.as_deref()).await,
        service: args.service.clone(),
    };
    let facts = gather::facts(client, &scope, Clock::start())
        .await
        .map_err(|error| no_cluster(error.into()))?;
    Ok(checks::all(&facts))
}

fn page(checks: &[Check]) -> String {
    let mut page = String::new();
    let mut area = "";
    for check in checks {
        if check.area != area {
            area = check.area;
            let _ = writeln!(page, "{area}");
        }
        let mark = match check.outcome {
            Outcome::Good => "ok",
            Outcome::Note => "i ",
            Outcome::Unknown => "? ",
            Outcome::Wrong => "! ",
        };
        let _ = writeln!(page, "  {mark} {}", check.what);
        if !check.evidence.is_empty() {
            let _ = writeln!(page, "       found: {}", check.evidence);
        }
        if !check.advice.is_empty() {
            let _ = writeln!(page, "       what to do: {}", check.advice);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_groups_by_area_and_says_what_to_do() {
        let checks = [
            Check::good("metrics API", "v1beta1 is served"),
            Check::wrong("metrics API", "v1beta2 is not available")
                .by("FailedDiscoveryCheck")
                .advice("look at the pods"),
            Check::note("models", "a dead band"),
        ];
        assert_eq!(
            page(&checks),
            "\
metrics API
  ok v1beta1 is served
  !  v1beta2 is not available
       found: FailedDiscoveryCheck
       what to do: look at the pods
models
  i  a dead band
"
        );
    }
}
