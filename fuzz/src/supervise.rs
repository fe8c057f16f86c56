//! A campaign in a process of its own, so that what ends the process (a stack that overflows, memory that runs out) is
//! found too.
//!
//! The child keeps what it found and says how far it came. One that dies without a word is started again with the same
//! seed, this time writing down every input before it is tried: the same inputs come in the same order, so that the
//! last one written is the one that kills.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fuzz::campaign::{Campaign, Finding, shortened};
use fuzz::corpus;
use fuzz::target::{Target, named};
use runtime::Clock;

/// The word that makes this program the child.
pub(crate) const CHILD: &str = "in-a-process-of-its-own";
/// An input that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(10);
/// Inputs between two looks at the clock.
const STRIDE: u64 = 256;

/// What is to be tried.
pub(crate) struct Errand {
    /// Everything random.
    pub(crate) seed: u64,
    /// How long, per target.
    pub(crate) time: Duration,
    /// Where inputs that break a target go.
    pub(crate) findings: PathBuf,
}

/// Runs one target; false = something was found.
pub(crate) fn run(target: &Target, errand: &Errand) -> bool {
    let code = start(target, errand, false);
    if let Some(code @ 0..=2) = code {
        return code == 0;
    }
    println!(
        "{}: the process died; once more, input by input",
        target.name
    );
    start(target, errand, true);
    let last = current(&errand.findings, target);
    match fs::read(&last) {
        Ok(input) => keep(target, &errand.findings, &input, "the process died"),
        Err(error) => println!(
            "{}: {} cannot be read: {error}",
            target.name,
            last.display()
        ),
    }
    false
}

/// The child's exit code; `None` = it was killed.
fn start(target: &Target, errand: &Errand, careful: bool) -> Option<i32> {
    let program = std::env::current_exe().ok()?;
    let status = Command::new(program)
        .args([CHILD, target.name])
        .arg(errand.seed.to_string())
        .arg(errand.time.as_secs().to_string())
        .arg(if careful { "careful" } else { "swift" })
        .env("HEADROOM_FUZZ_FINDINGS", &errand.findings)
        .status()
        .ok()?;
    status.code()
}

/// The child's side of [`run`].
pub(crate) fn child(name: &str, seed: &str, seconds: &str, careful: &str) -> ExitCode {
    let (Some(target), Ok(seed), Ok(seconds)) = (named(name), seed.parse(), seconds.parse()) else {
        return ExitCode::from(2);
    };
    let findings = std::env::var_os("HEADROOM_FUZZ_FINDINGS").unwrap_or_default();
    let findings = PathBuf::from(findings);
    let inputs = match corpus::read(&corpus::committed(), target.name) {
        Ok(inputs) => inputs.into_values().collect(),
        Err(error) => {
            println!("{}: the corpus cannot be read: {error}", target.name);
            return ExitCode::from(2);
        }
    };
    // The campaign tells what broke; the panic's own words would drown it.
    std::panic::set_hook(Box::new(|_| {}));
    let campaign = Campaign::new(target, inputs, seed);
    let time = Duration::from_secs(seconds);
    let found = conduct(target, campaign, time, &findings, careful == "careful");
    if let Some(finding) = &found {
        let short = shortened(target, finding);
        keep(target, &findings, &short.input, &short.says);
    }
    ExitCode::from(u8::from(found.is_some()))
}

/// Tries inputs until one breaks the target or the time is up.
fn conduct(
    target: &'static Target,
    mut campaign: Campaign,
    time: Duration,
    findings: &Path,
    careful: bool,
) -> Option<Finding> {
    let clock = Clock::start();
    let trying = Arc::new(Mutex::new(Vec::new()));
    watch(target, Arc::clone(&trying), findings.to_owned());
    let note = current(findings, target);
    loop {
        let input = campaign.next_input();
        if careful {
            // Without the note the input is not known, but the campaign goes on.
            let _ = fs::create_dir_all(findings).and_then(|()| fs::write(&note, input));
        }
        trying
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .splice(.., input.iter().copied());
        let found = campaign.try_input();
        if found.is_some() {
            return found;
        }
        if campaign.tried().is_multiple_of(STRIDE) && clock.now() >= time {
            println!(
                "{}: {} inputs, {} behaviours, nothing found",
                target.name,
                campaign.tried(),
                campaign.behaviours()
            );
            return None;
        }
    }
}

/// Ends the process when one input takes too long.
fn watch(target: &'static Target, trying: Arc<Mutex<Vec<u8>>>, findings: PathBuf) {
    thread::spawn(move || {
        let mut before = None;
        loop {
            thread::sleep(LONGEST);
            let now = trying
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if before.as_ref() == Some(&now) {
                let says = format!("takes longer than {} s", LONGEST.as_secs());
                keep(target, &findings, &now, &says);
                std::process::exit(1);
            }
            before = Some(now);
        }
    });
}

fn keep(target: &Target, findings: &Path, input: &[u8], says: &str) {
    match corpus::keep(findings, target.name, input) {
        Ok(path) => println!(
            "{}: {says}\n  again: cargo run --release -p fuzz -- replay {} {}\n  then: copy the file to fuzz/corpus/{}/ and mend what it shows",
            target.name,
            target.name,
            path.display(),
            target.name
        ),
        Err(error) => println!(
            "{}: {says}, by {input:?}, which cannot be kept: {error}",
            target.name
        ),
    }
}

/// Where a careful child notes the input that it tries.
fn current(findings: &Path, target: &Target) -> PathBuf {
    findings.join(format!("{}.current", target.name))
}
