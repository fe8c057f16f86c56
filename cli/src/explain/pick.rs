//! `headroom explain pick`: why a request went where it went.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use epp_core::record::{Line, PickRecord, PoolRecord};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::pick_page;
use crate::records;
use crate::story::Trouble;

/// An answer that has not come by then will not.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Page of the last decisions.
const PAGE: &str = "/debug/decisions";

/// Explain picks: what was asked, how every endpoint looked, who was taken out by which filter, how the others scored,
/// which was picked, and what became of it against what was predicted.
///
/// A running picker keeps the last 256 decisions of at most 50 a second; a file has those that --decision-record-sample
/// let in.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the request (x-request-id); without it the latest picks
    #[arg(value_name = "REQUEST-ID")]
    id: Option<String>,
    /// The picker's metrics port
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:9090",
        conflicts_with = "records"
    )]
    picker: Url,
    /// File with the bearer token that the picker asks for
    #[arg(long, value_name = "FILE", conflicts_with = "records")]
    token_file: Option<PathBuf>,
    /// Decision records instead of a running picker
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// Picks to explain, newest first
    #[arg(long, value_name = "N", default_value_t = 1)]
    last: usize,
    /// Show every endpoint, however many there are
    #[arg(long)]
    all: bool,
    /// Print the records as JSON
    #[arg(long)]
    json: bool,
}

/// Picks, newest first, and the pools that they were made in.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Page {
    pools: Vec<PoolRecord>,
    picks: Vec<PickRecord>,
}

/// Runs the command.
///
/// # Errors
/// If no picker answers, or nothing is known of the request.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let page = match &args.records {
        Some(path) => recorded(path, args)?,
        None => asked(args).await?,
    };
    if page.picks.is_empty() {
        return Err(nothing(args).into());
    }
    let mut out = std::io::stdout().lock();
    let told = if args.json {
        serde_json::to_string_pretty(&page)? + "\n"
    } else {
        let pool = |pick: &PickRecord| {
            let number = pick.picked.as_ref().map(|picked| picked.pool);
            page.pools.iter().find(|pool| Some(pool.pool) == number)
        };
        let pages = page
            .picks
            .iter()
            .map(|pick| pick_page::render(pick, pool(pick), args.all));
        pages.collect::<Vec<_>>().join("\n")
    };
    out.write_all(told.as_bytes())
        .context("cannot write to standard output")
}

fn nothing(args: &Args) -> Trouble {
    let whom = match &args.id {
        Some(id) => format!("nothing is known of request {id}"),
        None => "no decision is known".to_owned(),
    };
    let advice = match &args.records {
        Some(_) => {
            "see that the file is the one that the picker writes, and that --decision-record-sample is above 0"
        }
        None => {
            "send a request and ask again soon; to keep more of them, start the picker with --decision-records FILE"
        }
    };
    Trouble::failed(whom).advice(advice)
}

async fn asked(args: &Args) -> anyhow::Result<Page> {
    let mut url = args.picker.clone();
    url.set_path(&format!("{}{PAGE}", url.path().trim_end_matches('/')));
    url.query_pairs_mut()
        .append_pair("limit", &args.last.to_string());
    if let Some(id) = &args.id {
        url.query_pairs_mut().append_pair("id", id);
    }
    let mut request = reqwest::Client::new().get(url.clone()).timeout(TIMEOUT);
    if let Some(path) = &args.token_file {
        let token = std::fs::read_to_string(path);
        let token =
            token.with_context(|| format!("cannot read --token-file {}", path.display()))?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().await.map_err(|error| {
        Trouble::failed(format!("no picker answers at {url}"))
            .because(error)
            .advice(
                "give its metrics port with --picker, and forward the port if it is on a cluster",
            )
    })?;
    let status = answer.status();
    let text = answer.text().await.context("the answer broke off")?;
    if !status.is_success() {
        let what = format!("the picker answers {status}: {}", text.trim());
        let advice = "give a token that may read its pages with --token-file, and see that --picker is its metrics port";
        return Err(Trouble::failed(what).advice(advice).into());
    }
    serde_json::from_str(&text).map_err(|error| {
        Trouble::failed("the picker's answer is not understood")
            .because(error)
            .advice("use the same version of headroom as the picker's")
            .into()
    })
}

/// What a file has, with the file before it where the request is looked for by its id.
fn recorded(path: &Path, args: &Args) -> Result<Page, Trouble> {
    let mut page = Page::default();
    let mut before = path.as_os_str().to_owned();
    before.push(".1");
    let before = PathBuf::from(before);
    let older = before.exists().then_some(before.as_path());
    for path in older.into_iter().chain([path]) {
        records::read(path, |line| match line {
            Line::Pool(pool) => page.pools.push(pool),
            Line::Pick(pick) => {
                if args.id.as_ref().is_none_or(|id| *id == pick.id) {
                    page.picks.push(*pick);
                }
                if page.picks.len() > args.last {
                    page.picks.remove(0);
                }
            }
        })?;
    }
    page.picks.reverse();
    let used: Vec<_> = page
        .picks
        .iter()
        .filter_map(|pick| Some(pick.picked.as_ref()?.pool))
        .collect();
    page.pools.retain(|pool| used.contains(&pool.pool));
    Ok(page)
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

    fn args(line: &[&str]) -> Args {
        Cli::parse_from([&["pick"], line].concat()).args
    }

    fn file() -> (tempfile::TempDir, String) {
        let golden = include_str!("../../../epp/core/tests/golden/decision_records.json");
        let lines: Vec<Line> = serde_json::from_str(golden).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let mut text = String::new();
        for line in &lines {
            text += &(serde_json::to_string(line).unwrap() + "\n");
        }
        let Line::Pick(last) = &lines[1] else {
            panic!("a pick")
        };
        for id in ["third", "fourth"] {
            let pick = PickRecord {
                id: id.into(),
                ..(**last).clone()
            };
            text += &(serde_json::to_string(&Line::Pick(Box::new(pick))).unwrap() + "\n");
        }
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (directory, path)
    }

    #[test]
    fn the_newest_come_first_and_one_is_found_by_its_id() {
        let (_directory, path) = file();
        let ids = |line: &[&str]| {
            let args = args(line);
            let page = recorded(args.records.as_deref().unwrap(), &args).unwrap();
            assert_eq!(page.pools.len(), usize::from(!page.picks.is_empty()));
            page.picks
                .into_iter()
                .map(|pick| pick.id)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&["--records", &path]), ["fourth"]);
        assert_eq!(
            ids(&["--records", &path, "--last", "2"]),
            ["fourth", "third"]
        );
        assert_eq!(ids(&["--records", &path, "second"]), ["second"]);
        assert!(ids(&["--records", &path, "nobody"]).is_empty());
    }
}
