//! Errors as a person reads them: what failed, why, what to do; and the exit code that tells a script.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | it worked |
//! | 1 | it failed; standard error says what, why and what to do |
//! | 2 | it was asked for wrongly: an unknown flag, a value out of range |
//! | 130 | it was interrupted (Ctrl-C or SIGTERM) before its work was done; a server that drained in order ends with 0 |

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

/// How a command that did not succeed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It could not do what it was asked for.
    Failed,
    /// It was asked for wrongly.
    Usage,
    /// Somebody stopped it.
    Interrupted,
}

/// A failure that knows what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Trouble {
    what: String,
    advice: Option<String>,
    ending: Ending,
    #[source]
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Trouble {
    /// Something failed; `what` is one sentence without its full stop.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            advice: None,
            ending: Ending::Failed,
            cause: None,
        }
    }

    /// The command line asks for something that cannot be.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self {
            ending: Ending::Usage,
            ..Self::failed(what)
        }
    }

    /// Ctrl-C or SIGTERM.
    pub(crate) fn interrupted() -> Self {
        Self {
            ending: Ending::Interrupted,
            ..Self::failed("interrupted")
        }
    }

    /// What the person can do, as an imperative sentence.
    #[must_use]
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Why it failed.
    #[must_use]
    pub(crate) fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

/// The exit code that `error` ends the process with.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(match ending(error) {
        Ending::Failed => 1,
        Ending::Usage => 2,
        Ending::Interrupted => 130,
    })
}

/// The story of `error`; a cause that only repeats what was already said is left out.
pub(crate) fn tell(error: &anyhow::Error) -> String {
    if ending(error) == Ending::Interrupted {
        return "headroom: interrupted\n".into();
    }
    let mut told = error.to_string();
    let mut story = format!("headroom: {}\n", sentence(&told));
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !told.contains(&cause) {
            let _ = writeln!(story, "  because: {}", sentence(&cause));
        }
        told = cause;
    }
    for advice in troubles(error).filter_map(|trouble| trouble.advice.as_deref()) {
        let _ = writeln!(story, "  what to do: {}", sentence(advice));
    }
    story
}

fn troubles(error: &anyhow::Error) -> impl Iterator<Item = &Trouble> {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<Trouble>())
}

fn ending(error: &anyhow::Error) -> Ending {
    troubles(error)
        .map(|trouble| trouble.ending)
        .next()
        .unwrap_or(Ending::Failed)
}

fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?', ':']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_story_says_what_why_and_what_to_do() {
        let cause = std::io::Error::other("permission denied");
        let trouble = Trouble::failed("cannot write the report out/demo.html")
            .because(cause)
            .advice("choose another file with --report");
        let story = tell(
            &Err::<(), _>(trouble)
                .context("the demo could not start")
                .unwrap_err(),
        );
        let expected = "headroom: the demo could not start.\n  because: cannot write the report out/demo.html.\n  because: permission denied.\n  what to do: choose another file with --report.\n";
        assert_eq!(story, expected);
    }

    #[test]
    fn a_cause_already_told_is_not_told_again() {
        let error = anyhow::Error::msg("no such file").context("cannot read x: no such file");
        assert_eq!(tell(&error), "headroom: cannot read x: no such file.\n");
    }

    #[test]
    fn the_ending_is_found_under_any_context() {
        let error = anyhow::Error::from(Trouble::usage("--max is 1, less than --min 2"))
            .context("wrong arguments");
        assert_eq!(ending(&error), Ending::Usage);
        assert_eq!(ending(&Trouble::interrupted().into()), Ending::Interrupted);
        assert_eq!(ending(&anyhow::anyhow!("other")), Ending::Failed);
    }
}
