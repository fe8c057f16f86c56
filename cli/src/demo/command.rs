//! The command that finds the same again, wherever it is typed.

use std::path::Path;

/// Flags that change where the demo runs and writes, not what it finds; each is followed by a value.
const ELSEWHERE: [&str; 4] = ["--report", "--json", "--envoy", "--port"];
/// The same without a value.
const SWITCHES: [&str; 1] = ["--keep"];

/// The command of `words` (what followed the program's name) without this machine's paths and ports, and with the
/// seed, should it have been left to its default.
pub(crate) fn reproducing(words: impl IntoIterator<Item = String>, seed: u64) -> String {
    let mut words = words.into_iter();
    let mut kept = vec!["headroom".to_owned()];
    while let Some(word) = words.next() {
        let (flag, attached) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                (flag.to_owned(), Some(value.to_owned()))
            }
            _ => (word, None),
        };
        if SWITCHES.contains(&flag.as_str()) {
            continue;
        }
        let follows =
            attached.is_none() && (flag == "--trace" || ELSEWHERE.contains(&flag.as_str()));
        let value = if follows { words.next() } else { attached };
        if ELSEWHERE.contains(&flag.as_str()) {
            continue;
        }
        let value = value.map(|value| {
            if flag == "--trace" {
                file_name(&value)
            } else {
                value
            }
        });
        kept.push(flag);
        kept.extend(value);
    }
    if !kept.iter().any(|word| word == "--seed") {
        kept.push(format!("--seed {seed}"));
    }
    kept.join(" ")
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(
        || path.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &str) -> String {
        reproducing(words.split(' ').map(str::to_owned), 1)
    }

    #[test]
    fn where_it_ran_is_left_out() {
        assert_eq!(
            command("demo --envoy /x/envoy --json=/tmp/o.json --keep --port 9 --report r"),
            "headroom demo --seed 1"
        );
        assert_eq!(
            command("demo --trace=/data/t.jsonl --seed 7"),
            "headroom demo --trace t.jsonl --seed 7"
        );
        assert_eq!(
            command("demo --trace /data/t.jsonl --seed=7"),
            "headroom demo --trace t.jsonl --seed 7"
        );
    }

    #[test]
    fn what_was_asked_for_is_kept() {
        assert_eq!(
            command("demo --live-only --rates=8:5s --max 4"),
            "headroom demo --live-only --rates 8:5s --max 4 --seed 1"
        );
    }
}
