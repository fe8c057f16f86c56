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
fuzz run TARGET|all [--time 10m] [--seed N]   tries inputs made from fuzz/corpus and what was learned
fuzz replay TARGET FILE…                      tries inputs from files
fuzz list                                     names the targets
";

/// Per target, when nobody says.
const TIME: Duration = Duration::from_secs(60);

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
    let errand = match errand(flags) {
        Ok(errand) => errand,
        Err(says) => return wrong(&says),
    };
    let targets: Vec<&Target> = match (name, named(name)) {
        ("all", _) => TARGETS.to_vec(),
        (_, Some(target)) => vec![target],
        (_, None) => {
            return wrong(&format!(
                "there is no target {name:?}; `fuzz list` names them"
            ));
        }
    };
    let mut clean = true;
    for target in targets {
        clean &= supervise::run(target, &errand);
    }
    ExitCode::from(u8::from(!clean))
}

fn errand(flags: &[&str]) -> Result<Errand, String> {
    let mut errand = Errand {
        seed: 1,
        time: TIME,
        findings: PathBuf::from("out/fuzz"),
    };
    for pair in flags.chunks(2) {
        let &[flag, value] = pair else {
            return Err(format!("{} needs a value", pair.join(" ")));
        };
        match flag {
            "--time" => errand.time = time(value)?,
            "--seed" => {
                let no_number = |_| format!("--seed is {value:?}, it must be a whole number");
                errand.seed = value.parse().map_err(no_number)?;
            }
            _ => return Err(format!("there is no flag {flag}")),
        }
    }
    Ok(errand)
}

/// Hours, minutes or seconds, as in `10m`.
fn time(value: &str) -> Result<Duration, String> {
    let units = [("h", 3_600), ("m", 60), ("s", 1)];
    units
        .into_iter()
        .find_map(|(unit, seconds)| {
            let number: u64 = value.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(seconds).map(Duration::from_secs)
        })
        .ok_or_else(|| format!("--time is {value:?}, it must be like 30s, 10m or 1h"))
}

fn replay(name: &str, files: &[&str]) -> ExitCode {
    let Some(target) = named(name) else {
        return wrong(&format!(
            "there is no target {name:?}; `fuzz list` names them"
        ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_how_long_and_from_which_seed() {
        let asked = errand(&["--time", "10m", "--seed", "7"]).unwrap();
        assert_eq!((asked.time, asked.seed), (Duration::from_secs(600), 7));
        assert_eq!(errand(&[]).unwrap().time, TIME);
        assert_eq!(time("1h"), Ok(Duration::from_secs(3_600)));
        for (flags, says) in [
            (&["--time", "10"][..], "30s, 10m or 1h"),
            (&["--time", "18446744073709551615h"], "--time"),
            (&["--seed", "x"], "whole number"),
            (&["--seed"], "needs a value"),
            (&["--seconds", "9"], "no flag --seconds"),
        ] {
            let error = errand(flags).err().unwrap();
            assert!(error.contains(says), "{flags:?}: {error}");
        }
    }
}
