//! What must hold whatever the proxy does.

use super::bench::*;
use super::*;
use crate::extproc::reply::Piece;
use proptest::prelude::*;

fn any_event() -> impl Strategy<Value = (u8, bool)> {
    (0u8..10, any::<bool>())
}

fn event_of(kind: u8, end: bool) -> Option<Event> {
    Some(match kind {
        0 => request_headers(&[], end),
        1 => request_body(STREAMED, end),
        2 => request_body(BODY, end),
        3 => Event::RequestTrailers,
        4 => response_headers("200", SSE, end),
        5 => response_body(if end { USAGE } else { TOKEN }, end),
        6 => Event::ResponseTrailers { grpc_status: None },
        7 => Event::Closed,
        8 => Event::Evicted(dropped_reason::EVICTED_PRIORITY),
        _ => return None,
    })
}

/// Place of a reply in its direction; an immediate answer stands for everything.
fn place(reply: &Reply) -> (bool, u8) {
    match reply {
        Reply::RequestHeaders(_) => (false, 0),
        Reply::RequestBody(_) => (false, 1),
        Reply::RequestTrailers => (false, 2),
        Reply::ResponseHeaders(_) => (true, 0),
        Reply::ResponseBody(_) => (true, 1),
        Reply::ResponseTrailers => (true, 2),
        Reply::Immediate(_) => (true, 3),
        Reply::Telling(reply, _) => place(reply),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn replies_keep_their_order_and_nothing_is_held_afterwards(
        events in proptest::collection::vec(any_event(), 0..14),
        endpoints in 0usize..2,
    ) {
        let mut bench = Bench::new(endpoints);
        for (kind, end) in events {
            match event_of(kind, end) {
                Some(event) => bench.on(event),
                None => bench.advance(Duration::from_secs(30)),
            }
            prop_assert!(bench.in_flight() <= 1);
        }
        bench.on(Event::Closed);
        prop_assert_eq!(bench.in_flight(), 0);
        prop_assert_eq!(bench.director.queued().total().requests, 0);
        let totals = bench.director.demand().totals();
        prop_assert_eq!(totals.offered().requests, totals.ended().requests, "every request ends in one outcome");
        for response in [false, true] {
            let places: Vec<u8> = bench.replies.iter().map(place).filter(|(of, _)| *of == response).map(|(_, at)| at).collect();
            prop_assert!(places.is_sorted(), "{places:?}");
            prop_assert!(places.is_empty() || places[0] != 1, "a body without headers: {places:?}");
            prop_assert!(places.iter().filter(|at| **at != 1).count() <= 2, "headers or trailers twice: {places:?}");
        }
        let ends = |of: fn(&Reply) -> Option<&Piece>| {
            bench.replies.iter().filter_map(of).filter(|piece| piece.end_of_stream).count()
        };
        let request_ends = ends(request_piece);
        let response_ends = ends(response_piece);
        prop_assert!(request_ends <= 1 && response_ends <= 1, "a body ended twice");
    }
}
