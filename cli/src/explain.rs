//! `headroom explain`: why a model has the replicas it has, and with `pick` why a request went where it went.

mod page;
mod pick;
mod pick_page;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use runtime::Clock;

use crate::leader::Controller;
use crate::story::Trouble;

/// Time between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

/// Explain a model's replica counts: the decision in force, each variant's arithmetic, what the HorizontalPodAutoscaler
/// will make of it, and the changes before it.
///
/// Without --controller the leading controller is found through the kubeconfig (its Lease) and asked through the API
/// server, which takes the right to get pods/proxy in its namespace.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// The model, as NAMESPACE/MODEL
    #[arg(value_name = "NAMESPACE/MODEL", value_parser = model, required = true)]
    model: Option<(String, String)>,
    /// A controller's admin page, such as http://127.0.0.1:9090
    #[arg(long, value_name = "URL")]
    controller: Option<reqwest::Url>,
    /// Namespace of the controller, where it is found through the kubeconfig; without it, where its Lease is
    #[arg(long, value_name = "NAMESPACE")]
    controller_namespace: Option<String>,
    /// Print the controller's JSON
    #[arg(long)]
    json: bool,
    /// Print again whenever something changed, until interrupted
    #[arg(long)]
    watch: bool,
}

/// What else is explained.
#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Why a request went where it went
    Pick(pick::Args),
}

fn model(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, model)) if !namespace.is_empty() && !model.is_empty() => {
            Ok((namespace.to_owned(), model.to_owned()))
        }
        _ => Err("give the model as NAMESPACE/MODEL, such as chat/meta-llama/Llama-3.1-8B".into()),
    }
}

/// Runs the command.
///
/// # Errors
/// If no controller is found or none decides for the model.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
    runtime.block_on(async {
        tokio::select! {
            told = tell(&args) => told,
            _ = tokio::signal::ctrl_c() => Err(Trouble::interrupted().into()),
        }
    })
}

async fn tell(args: &Args) -> anyhow::Result<()> {
    runtime::tls::install_provider();
    let (namespace, model) = match (&args.other, &args.model) {
        (Some(Other::Pick(args)), _) => return pick::run(args).await,
        (None, Some(model)) => model,
        (None, None) => return Err(Trouble::usage("no model is named").into()),
    };
    let clock = Clock::start();
    let controller = match &args.controller {
        Some(url) => Controller::at(url.clone()),
        None => Controller::leading(args.controller_namespace.as_deref(), namespace).await?,
    };
    let mut last = String::new();
    loop {
        let explanation = controller.explain(namespace, model).await?;
        let (text, outline) = if args.json {
            let text = serde_json::to_string_pretty(&explanation)? + "\n";
            (text.clone(), text)
        } else {
            (
                page::render(&explanation, clock.unix_ms()),
                page::outline(&explanation),
            )
        };
        if outline != last {
            std::io::stdout()
                .write_all(text.as_bytes())
                .context("cannot write to standard output")?;
            last = outline;
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_model_or_a_pick_is_explained_and_never_both() {
        let parse = |line: &[&str]| Cli::try_parse_from([&["explain"], line].concat());
        assert!(
            parse(&["chat/llama", "--json"])
                .unwrap()
                .args
                .other
                .is_none()
        );
        let Ok(Cli { args }) = parse(&["pick", "some-id", "--last", "3"]) else {
            panic!("a pick")
        };
        assert!(matches!(args.other, Some(Other::Pick(_))) && args.model.is_none());
        assert!(parse(&["pick"]).is_ok());
        for wrong in [
            &[][..],
            &["--watch", "pick"],
            &["llama"],
            &["pick", "--records", "f", "--token-file", "t"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_model_may_have_slashes_and_must_have_a_namespace() {
        let pair = |namespace: &str, model: &str| Ok((namespace.to_owned(), model.to_owned()));
        assert_eq!(model("chat/llama"), pair("chat", "llama"));
        assert_eq!(model("chat/meta/llama"), pair("chat", "meta/llama"));
        for wrong in ["llama", "/llama", "chat/"] {
            assert!(model(wrong).unwrap_err().contains("NAMESPACE/MODEL"));
        }
    }
}
