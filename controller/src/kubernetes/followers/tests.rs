//! Leader and follower over loopback, with real certificates.

use std::sync::Arc;
use std::time::Duration;

use kubernetes::lease::Leadership;
use runtime::serve::{self, ServeOptions};
use runtime::tls::CertificateAuthority;
use runtime::{Clock, Shutdown, Tasks};
use tokio::sync::watch;

use super::*;
use crate::kubernetes::state::States;
use crate::published::{Board, Published};

struct Leading {
    board: Board,
    leadership: watch::Sender<Leadership>,
    states: watch::Sender<Arc<States>>,
    address: String,
    shutdown: Shutdown,
}

fn authority() -> CertificateAuthority {
    runtime::tls::install_provider();
    CertificateAuthority::generate("controllers", Clock::start().unix_ms()).unwrap()
}

async fn lead(authority: &CertificateAuthority) -> Leading {
    let (clock, shutdown) = (Clock::start(), Shutdown::new());
    let leading = Leadership {
        leader: true,
        ..Leadership::default()
    };
    let (leadership, _) = watch::channel(leading);
    let (states, _) = watch::channel(Arc::default());
    let board = Board::new(clock);
    let lead = Lead {
        board: board.clone(),
        states: states.subscribe(),
        leadership: leadership.subscribe(),
        shutdown: shutdown.clone(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_, authority) = watch::channel(authority.clone());
    let tls = server(authority, clock, &Tasks::new()).unwrap();
    let options = ServeOptions::default();
    serve::https(
        listener,
        tls,
        lead.routes(),
        options,
        shutdown.clone(),
        &Tasks::new(),
    );
    Leading {
        board,
        leadership,
        states,
        address,
        shutdown,
    }
}

struct Following {
    board: Board,
    leadership: watch::Sender<Leadership>,
    shutdown: Shutdown,
}

fn follow(authority: &CertificateAuthority, address: &str) -> Following {
    let shutdown = Shutdown::new();
    let led = Leadership {
        leader: false,
        holder: Some("other".into()),
        address: Some(address.to_owned()),
    };
    let (leadership, receiver) = watch::channel(led);
    let board = Board::new(Clock::start());
    let follow = Follow {
        board: board.clone(),
        states: watch::channel(Arc::default()).0,
        leadership: receiver,
        authority: watch::channel(authority.clone()).1,
    };
    tokio::spawn(follow.run(shutdown.clone()));
    Following {
        board,
        leadership,
        shutdown,
    }
}

fn published(sequence: u64) -> Published {
    Published {
        at_ms: 1,
        sequence,
        models: Vec::new(),
    }
}

async fn holds(board: &Board, sequence: u64) {
    let mut changes = board.changes();
    let waiting = async {
        while board.latest().published().sequence != sequence {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_follower_holds_what_the_leader_publishes() {
    let authority = authority();
    let leading = lead(&authority).await;
    leading.board.publish(published(1));
    let following = follow(&authority, &leading.address);
    holds(&following.board, 1).await;
    leading.board.publish(published(2));
    holds(&following.board, 2).await;
    // Another leader: the follower turns to it.
    let next = lead(&authority).await;
    next.board.publish(published(30));
    following.leadership.send_replace(Leadership {
        leader: false,
        holder: Some("next".into()),
        address: Some(next.address.clone()),
    });
    holds(&following.board, 30).await;
    leading.board.publish(published(3));
    next.board.publish(published(31));
    holds(&following.board, 31).await;
    following.shutdown.stop();
    for one in [leading, next] {
        one.shutdown.stop();
    }
}

#[tokio::test]
async fn a_replica_that_does_not_lead_any_more_ends_its_streams() {
    let authority = authority();
    let leading = lead(&authority).await;
    leading.board.publish(published(1));
    let following = follow(&authority, &leading.address);
    holds(&following.board, 1).await;
    leading.leadership.send_replace(Leadership::default());
    leading.board.publish(published(2));
    leading.leadership.send_replace(Leadership {
        leader: true,
        ..Leadership::default()
    });
    // It comes back, and is told what is published then.
    leading.board.publish(published(3));
    holds(&following.board, 3).await;
    assert!(leading.states.receiver_count() >= 1);
}

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_is_not_let_in() {
    let (ours, others) = (authority(), authority());
    let leading = lead(&ours).await;
    leading.board.publish(published(1));
    let tls = client(&others, Clock::start().unix_ms()).unwrap();
    let name = rustls::pki_types::ServerName::try_from(names::kubernetes::CONTROLLER).unwrap();
    let address = leading.address.parse().unwrap();
    let opened =
        crate::kubernetes::pickers::Connection::open(address, Some((tls, name.clone()))).await;
    assert!(
        opened.is_err(),
        "a leader that another authority vouches for is not believed"
    );
    // One who trusts the leader and shows nothing is refused by the leader.
    let mut roots = rustls::RootCertStore::empty();
    let bundle = ours.bundle();
    use rustls::pki_types::pem::PemObject as _;
    let certificates = rustls::pki_types::CertificateDer::pem_slice_iter(bundle.as_bytes());
    roots.add_parsable_certificates(certificates.map(Result::unwrap));
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let ask = crate::kubernetes::pickers::Ask {
        path: names::followers::PUBLISHED,
        token: None,
        unless: None,
        most: 0,
    };
    let refused = async {
        let tls = Some((Arc::new(config), name));
        let mut connection = crate::kubernetes::pickers::Connection::open(address, tls).await?;
        connection.stream(ask).await
    };
    assert!(refused.await.is_err());
}
