//! Pickers that talk to each other over real connections.

use super::*;
use epp_core::EndpointSpec;
use epp_core::peers::Flight;
use runtime::tls::{CertificateAuthority, Credentials, install_provider};
use std::net::Ipv4Addr;
use std::path::Path;
use tempfile::TempDir;
use tokio::sync::mpsc;

const NAME: &str = names::peer::SERVER_NAME;

/// A picker's side that remembers what it was told.
#[derive(Default)]
struct FakeDesk {
    chains: Mutex<Vec<Chain>>,
    learned: Mutex<Vec<(usize, Chain)>>,
    queued: Mutex<BTreeMap<i32, BandUse>>,
    bands: Vec<BandUse>,
    told: Option<mpsc::UnboundedSender<()>>,
}

impl Desk for FakeDesk {
    fn gather(&self) -> (Vec<BandUse>, Vec<Chain>) {
        (self.bands.clone(), std::mem::take(&mut self.chains.lock()))
    }

    fn learned(&self, applied: Applied) {
        self.learned.lock().extend(applied.learned);
        if let Some(told) = &self.told {
            let _ = told.send(());
        }
    }

    fn queued_elsewhere(&self, bands: BTreeMap<i32, BandUse>) {
        *self.queued.lock() = bands;
    }
}

fn write(directory: &Path, credentials: &Credentials, authority: &CertificateAuthority) {
    for (file, text) in [
        ("tls.crt", &credentials.certificate),
        ("tls.key", &credentials.key),
        ("ca.crt", &authority.bundle()),
    ] {
        std::fs::write(directory.join(file), text).unwrap();
    }
}

/// A directory with what a picker proves who it is with.
fn identity(authority: &CertificateAuthority, clock: Clock) -> TempDir {
    install_provider();
    let directory = tempfile::tempdir().unwrap();
    let credentials = authority.issue_peer(&[NAME.to_owned()], clock.unix_ms());
    write(directory.path(), &credentials.unwrap(), authority);
    directory
}

struct Bench {
    clock: Clock,
    shutdown: Shutdown,
    tasks: Tasks,
    authority: CertificateAuthority,
}

struct Running {
    listening: Listening,
    desk: Arc<FakeDesk>,
    told: mpsc::UnboundedReceiver<()>,
    pool: Arc<Pool>,
    shutdown: Shutdown,
    _pools: watch::Sender<Arc<Pool>>,
    _identity: TempDir,
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::start();
        Self {
            clock,
            shutdown: Shutdown::new(),
            tasks: Tasks::new(),
            authority: CertificateAuthority::generate("peers", clock.unix_ms()).unwrap(),
        }
    }

    async fn picker(&self, name: &str, members: &[SocketAddr], bands: Vec<BandUse>) -> Running {
        let identity = identity(&self.authority, self.clock);
        let spec = |name: &str| EndpointSpec {
            name: name.to_owned(),
            address: format!("10.0.0.{}:8000", name.as_bytes()[0]),
            labels: BTreeMap::new(),
        };
        let pool = Arc::new(Pool::default().updated(vec![spec("x"), spec("y")]));
        let (pools, followed) = watch::channel(Arc::clone(&pool));
        let (tell, told) = mpsc::unbounded_channel();
        let desk = Arc::new(FakeDesk {
            told: Some(tell),
            bands,
            ..FakeDesk::default()
        });
        let options = PeerOptions {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            members: Members::Listed(members.iter().map(SocketAddr::to_string).collect()),
            tls: PeerTls {
                directory: identity.path().to_owned(),
            },
        };
        let shutdown = self.shutdown.child();
        let listening = start(
            options,
            name,
            Arc::clone(&desk) as Arc<dyn Desk>,
            followed,
            self.clock,
            &shutdown,
            &self.tasks,
        )
        .await
        .unwrap();
        Running {
            listening,
            desk,
            told,
            pool,
            shutdown,
            _pools: pools,
            _identity: identity,
        }
    }
}

impl Running {
    /// Waits until something it was told makes `what` true.
    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        while !what(self) {
            self.told.recv().await.unwrap();
        }
    }

    fn in_flight(&self) -> u32 {
        self.pool.endpoints[0].load.snapshot().in_flight
    }
}

#[tokio::test]
async fn peers_see_each_others_load_prefixes_and_queues() {
    let bench = Bench::new();
    let queued = BandUse {
        priority: 5,
        requests: 2,
        bytes: 100,
    };
    let a = bench.picker("a", &[], vec![queued]).await;
    let chain = Chain {
        endpoint: 1,
        block_tokens: 64,
        blocks: [1, 2, 3].into(),
    };
    // B tells A and hears nothing back: A does not know where B is.
    let mut a = a;
    let b = bench.picker("b", &[a.listening.address], Vec::new()).await;
    a.until(|a| !a.listening.peers.states().is_empty()).await;
    b.desk.chains.lock().push(chain.clone());
    a.until(|a| !a.desk.learned.lock().is_empty()).await;
    assert_eq!(*a.desk.learned.lock(), [(1, chain)]);
    let states = a.listening.peers.states();
    assert_eq!((&*states[0].name, states[0].hears_us), ("b", false));
    // C knows both.
    let members = [a.listening.address, b.listening.address];
    let mut c = bench.picker("c", &members, Vec::new()).await;
    c.shutdown.stop();
    let mut d = bench.picker("d", &members, Vec::new()).await;
    a.until(|a| a.listening.peers.states().len() >= 2).await;
    d.told.close();
    c.told.close();
    bench.shutdown.stop();
}

/// Nothing is said any more, and yet there may be room for who waits.
#[tokio::test]
async fn the_director_looks_when_a_peer_falls_silent() {
    let bench = Bench::new();
    let mut a = bench.picker("a", &[], Vec::new()).await;
    let b = bench.picker("b", &[a.listening.address], Vec::new()).await;
    a.until(|a| !a.listening.peers.states().is_empty()).await;
    b.shutdown.stop();
    a.until(|a| a.listening.peers.states().is_empty()).await;
    bench.shutdown.stop();
}

#[tokio::test]
async fn a_picker_that_lists_itself_does_not_listen_to_itself() {
    let bench = Bench::new();
    let mut a = bench.picker("a", &[], Vec::new()).await;
    let own = a.listening.address;
    let (whole, _) = a.listening.peers.opening();
    let refused = a.listening.peers.hear(&whole).unwrap_err();
    assert!(matches!(refused, Refused::Oneself { .. }));
    // Over a connection to itself, found under another of its addresses, it is told so and gives up.
    let tls = PeerTls {
        directory: a._identity.path().to_owned(),
    };
    link::tell(Arc::clone(&a.listening.peers), tls, own).await;
    assert!(a.told.try_recv().is_err());
    assert_eq!(a.in_flight(), 0);
    bench.shutdown.stop();
}

#[tokio::test]
async fn whoever_has_no_certificate_for_the_peers_name_is_not_heard() {
    let bench = Bench::new();
    let mut a = bench.picker("a", &[], Vec::new()).await;
    let cases = [
        ("another authority", {
            let other = CertificateAuthority::generate("other", bench.clock.unix_ms()).unwrap();
            let own = other
                .issue_peer(&[NAME.to_owned()], bench.clock.unix_ms())
                .unwrap();
            (own, bench.authority.clone())
        }),
        ("another name", {
            let now = bench.clock.unix_ms();
            let own = bench
                .authority
                .issue_peer(&["engine".to_owned()], now)
                .unwrap();
            (own, bench.authority.clone())
        }),
        ("a server elsewhere", {
            let other = CertificateAuthority::generate("other", bench.clock.unix_ms()).unwrap();
            let now = bench.clock.unix_ms();
            let own = bench.authority.issue_peer(&[NAME.to_owned()], now).unwrap();
            (own, other)
        }),
    ];
    for (case, (own, authority)) in cases {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &own, &authority);
        let tls = PeerTls {
            directory: directory.path().to_owned(),
        };
        let ended = link::connection(&a.listening.peers, &tls, a.listening.address).await;
        assert!(
            matches!(&ended, link::Ended::Failed(why) if !why.is_empty()),
            "{case}: {ended:?}"
        );
    }
    assert!(a.told.try_recv().is_err(), "nothing of it was heard");
    assert_eq!(a.pool.endpoints[0].load.own(), Flight::default());
    bench.shutdown.stop();
}
