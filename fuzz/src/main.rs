//! `fuzz`: tries a parser with hostile input until a time is up or it breaks.
//!
//! Exit codes: 0 nothing was found, 1 a target broke (the input was kept, and the command that repeats it printed), 2
//! asked for wrongly.

#![expect(clippy::print_stdout, reason = "it reports to a person")]

mod supervise;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fuzz::campaign::attempt;
use fuzz::target::{TARGETS, Target, named};
use supervise::Errand;

const USAGE: &str = "\
fuzz run TARGET|all [--seconds N] [--seed N]   tries inputs made from fuzz/corpus and what was learned
fuzz replay TARGET FILE…                       tries inputs from files
fuzz list                                      names the targets
";

/// Seconds per target, when nobody says.
const SECONDS: u64 = 60;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for target in TARGETS {
                println!("{}", target.name);
            }
            ExitCode::SUCCESS
        }
        ["run", name, flags @ ..] => run(name, flags),
        ["replay", name, files @ ..] if !files.is_empty() => replay(name, files),
        [supervise::CHILD, name, seed, seconds, careful] => {
            supervise::child(name, seed, seconds, careful)
        }
        _ => wrong("one of run, replay and list is needed"),
    }
}

fn wrong(what: &str) -> ExitCode {
    println!("fuzz: {what}\n\n{USAGE}");
    ExitCode::from(2)
}

fn run(name: &str, flags: &[&str]) -> ExitCode {
    let mut errand = Errand {
        seed: 1,
        time: Duration::from_secs(SECONDS),
        findings: PathBuf::from("out/fuzz"),
    };
    for pair in flags.chunks(2) {
        let &[flag, value] = pair else {
            return wrong(&format!("{} needs a value", pair.join(" ")));
        };
        let Ok(number) = value.parse() else {
            return wrong(&format!("{flag} is {value:?}, it must be a whole number"));
        };
        match flag {
            "--seconds" => errand.time = Duration::from_secs(number),
            "--seed" => errand.seed = number,
            _ => return wrong(&format!("there is no flag {flag}")),
        }
    }
    let targets: Vec<&Target> = match (name, named(name)) {
        ("all", _) => TARGETS.to_vec(),
        (_, Some(target)) => vec![target],
        (_, None) => return wrong(&format!("there is no target {name:?}; `fuzz list` names them")),
    };
    let mut clean = true;
    for target in targets {
        clean &= supervise::run(target, &errand);
    }
    ExitCode::from(u8::from(!clean))
}

fn replay(name: &str, files: &[&str]) -> ExitCode {
    let Some(target) = named(name) else {
        return wrong(&format!("there is no target {name:?}; `fuzz list` names them"));
    };
    let mut clean = true;
    for file in files {
        let input = match fs::read(file) {
            Ok(input) => input,
            Err(error) => return wrong(&format!("{file} cannot be read: {error}")),
        };
        match attempt(target, &input) {
            Ok(_) => println!("{file}: nothing"),
            Err(says) => {
                clean = false;
                println!("{file}: {says}");
            }
        }
    }
    ExitCode::from(u8::from(!clean))
}
