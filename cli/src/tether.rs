//! `headroom tether -- PROGRAM ARGS…`: becomes `PROGRAM`, which the kernel kills when the parent dies.
//!
//! The demo starts Envoy and the simulated servers through it, so that nothing outlives the demo, however it ends
//! (even by SIGKILL). The kernel's promise survives `exec`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use crate::story::Trouble;

/// Arguments of `headroom tether`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Process that the program's life is tied to: this process's parent.
    #[arg(long)]
    parent: Option<i32>,
    /// Program and its arguments.
    #[arg(last = true, required = true, num_args = 1..)]
    command: Vec<OsString>,
}

/// Becomes the program; returns only if that fails.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the line above.
    if args
        .parent
        .is_some_and(|parent| getppid().as_raw() != parent)
    {
        return Err(Trouble::failed("the parent is gone").into());
    }
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Trouble::usage("no program is named after --").into());
    };
    let error = Command::new(program).args(rest).exec();
    let what = format!("cannot start {}", program.to_string_lossy());
    Err(Trouble::failed(what)
        .because(error)
        .advice("check that the file exists and is executable")
        .into())
}
