//! The actuator with real processes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::*;
use crate::fake_server::{self, PATIENCE};

/// A running actuator over fake servers.
struct Bench {
    actuator: LocalActuator,
    directory: tempfile::TempDir,
    busy: Arc<Mutex<BTreeSet<SocketAddr>>>,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Bench {
    fn new(initial: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let busy = Arc::new(Mutex::new(BTreeSet::new()));
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let publication =
            Publication::new().document(directory.path().join("list"), Box::new(render));
        let seen = Arc::clone(&busy);
        let actuator = LocalActuator::spawn(
            fake_server::options(directory.path()),
            initial,
            publication,
            Box::new(move |address| u64::from(seen.lock().unwrap().contains(&address))),
            Clock::start(),
            shutdown.clone(),
            &tasks,
        );
        Self {
            actuator: actuator.unwrap(),
            directory,
            busy,
            shutdown,
            tasks,
        }
    }

    async fn until(&self, enough: impl FnMut(&View) -> bool) -> View {
        assert!(
            tokio::time::timeout(PATIENCE, self.actuator.until(enough))
                .await
                .unwrap(),
            "the actuator ended"
        );
        self.actuator.view()
    }

    fn list(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("list")).unwrap()
    }

    async fn stop(&self) {
        self.shutdown.stop();
        tokio::time::timeout(PATIENCE, self.tasks.join())
            .await
            .unwrap();
    }
}

fn render(listed: &[Listed]) -> String {
    listed
        .iter()
        .map(|replica| format!("{} {}\n", replica.name, replica.address))
        .collect()
}

fn lives(directory: &Path, name: &str) -> bool {
    let pid = fake_server::pid(directory, name);
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

fn ready(count: u32) -> impl FnMut(&View) -> bool {
    move |view| {
        view.replicas
            == Replicas {
                ready: count,
                ..Replicas::default()
            }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_listed_while_they_serve_and_end_with_the_actuator() {
    let bench = Bench::new(1);
    assert_eq!(bench.list(), "", "listed before it serves");
    bench.until(ready(1)).await;
    bench.actuator.scale(2);
    let view = bench.until(ready(2)).await;
    assert_eq!(bench.list(), render(&view.listed));
    let names: Vec<&str> = view
        .listed
        .iter()
        .map(|replica| replica.name.as_str())
        .collect();
    assert_eq!(names, ["replica-0", "replica-1"]);
    bench.stop().await;
    assert_eq!(bench.list(), "");
    assert!(!names.iter().any(|name| lives(bench.directory.path(), name)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_drains_until_nothing_is_on_it() {
    let bench = Bench::new(2);
    let both = bench.until(ready(2)).await;
    let newest = both.listed[1].clone();
    bench.busy.lock().unwrap().insert(newest.address);
    bench.actuator.scale(1);
    let view = bench.until(|view| view.replicas.draining == 1).await;
    assert_eq!(
        (view.listed.as_slice(), bench.list()),
        (&both.listed[..1], render(&both.listed[..1]))
    );
    assert!(
        lives(bench.directory.path(), &newest.name),
        "a request is on it"
    );
    bench.busy.lock().unwrap().clear();
    bench.until(ready(1)).await;
    assert!(!lives(bench.directory.path(), &newest.name));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_server_is_unlisted_and_restarted() {
    let bench = Bench::new(1);
    let view = bench.until(ready(1)).await;
    let first = fake_server::pid(bench.directory.path(), &view.listed[0].name);
    kill(Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
    let view = bench.until(|view| view.listed.is_empty()).await;
    assert_eq!((view.replicas.starting, bench.list().as_str()), (1, ""));
    let view = bench.until(ready(1)).await;
    assert_ne!(
        fake_server::pid(bench.directory.path(), &view.listed[0].name),
        first
    );
    bench.stop().await;
}

#[tokio::test]
async fn a_command_that_cannot_work_is_refused() {
    let spawn = |command: &[&str], publication| {
        let options = ServerOptions::new(
            command.iter().map(|word| (*word).to_owned()).collect(),
            1..=2,
        );
        LocalActuator::spawn(
            options,
            1,
            publication,
            Box::new(|_| 0),
            Clock::start(),
            Shutdown::new(),
            &Tasks::new(),
        )
        .unwrap_err()
        .to_string()
    };
    assert!(spawn(&[], Publication::new()).contains("server.command is empty"));
    assert!(spawn(&["server"], Publication::new()).contains("{port}"));
    let nowhere = Publication::new().document("/nowhere/at/all", Box::new(|_| String::new()));
    assert!(spawn(&["server", "{port}"], nowhere).contains("/nowhere/at/all"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_does_not_exist_is_tried_again_and_never_listed() {
    let options = ServerOptions::new(vec!["/no/such/program".into(), "{port}".into()], 1..=2);
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let actuator = LocalActuator::spawn(
        options,
        1,
        Publication::new(),
        Box::new(|_| 0),
        Clock::start(),
        shutdown.clone(),
        &tasks,
    )
    .unwrap();
    assert!(
        tokio::time::timeout(PATIENCE, actuator.until(|view| view.replicas.starting == 1))
            .await
            .unwrap()
    );
    assert!(actuator.view().listed.is_empty());
    shutdown.stop();
    tasks.join().await;
}
