use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_count_is_written_only_when_it_differs() {
    let mut hand = Hand::default();
    assert!(!hand.looks(SECOND, Some(3), 3));
    assert!(hand.looks(SECOND, Some(2), 3));
    assert_eq!(
        hand.step(SECOND, 3, 3),
        Step::Nothing,
        "the watch was behind"
    );
    assert_eq!(Hand::default().step(SECOND, 2, 3), Step::Write(3));
}

#[test]
fn writes_of_one_target_have_a_pause_between_them() {
    let mut hand = Hand::default();
    assert_eq!(hand.step(SECOND, 2, 3), Step::Write(3));
    hand.wrote(SECOND, 3);
    assert!(!hand.looks(2 * SECOND, Some(3), 4));
    assert!(hand.looks(3 * SECOND, Some(3), 4));
    assert_eq!(hand.step(3 * SECOND, 3, 4), Step::Write(4));
}

#[test]
fn somebodys_edit_is_left_alone_for_ten_minutes() {
    let mut hand = Hand::default();
    hand.wrote(SECOND, 3);
    let edited = 10 * SECOND;
    assert_eq!(hand.step(edited, 7, 3), Step::Nothing);
    assert_eq!(hand.edited(edited), Some((7, BACK_OFF)));
    assert!(!hand.looks(edited + SECOND, Some(7), 4));
    // Edited again meanwhile: the time does not begin anew.
    assert!(hand.looks(edited + SECOND, Some(8), 4));
    assert_eq!(hand.step(edited + SECOND, 8, 4), Step::Nothing);
    assert_eq!(hand.edited(edited + SECOND), Some((8, BACK_OFF - SECOND)));
    let over = edited + BACK_OFF;
    assert!(hand.looks(over, Some(8), 4) && hand.edited(over).is_none());
    assert_eq!(hand.step(over, 8, 4), Step::Write(4));
}

#[test]
fn a_write_whose_answer_was_lost_is_no_edit() {
    let mut hand = Hand::default();
    hand.wrote(SECOND, 3);
    assert_eq!(hand.step(5 * SECOND, 3, 5), Step::Write(5));
    hand.writes(5);
    // It was carried out; by now more is wanted.
    assert_eq!(hand.step(8 * SECOND, 5, 6), Step::Write(6));
    assert_eq!(hand.edited(8 * SECOND), None);
    hand.wrote(8 * SECOND, 6);
    assert_eq!(hand.step(12 * SECOND, 5, 6), Step::Nothing, "this one is");
}

#[test]
fn an_edit_that_agrees_with_the_decision_is_no_edit() {
    let mut hand = Hand::default();
    hand.wrote(SECOND, 3);
    assert_eq!(hand.step(5 * SECOND, 7, 3), Step::Nothing);
    assert!(!hand.looks(6 * SECOND, Some(7), 7));
    assert_eq!(hand.edited(6 * SECOND), None);
    assert_eq!(hand.step(7 * SECOND, 7, 8), Step::Write(8));
}

#[test]
fn the_finding_names_both_counts_and_the_time_left() {
    let order = Order {
        model: ModelKey::default(),
        variant: "h100".into(),
        source: Source::default(),
        target: TargetKey::new(
            "chat",
            &crate::published::ObjectRef::new("apps/v1", "Deployment", "llama"),
        ),
        seen: Some(7),
        wanted: 3,
    };
    let told = edit(&order, (7, 61 * SECOND));
    assert_eq!(told.reason, "ManualEdit");
    assert!(
        told.message.starts_with(
            "Deployment llama was set to 7 replicas by somebody else while 3 are decided"
        ),
        "{}",
        told.message
    );
    assert!(told.message.contains("for 2 min yet"), "{}", told.message);
}

proptest! {
    /// Whatever others write, nothing is written over an edit before its time, and only the count decided ever is.
    #[test]
    fn an_edit_is_never_overwritten_before_its_time(
        moves in proptest::collection::vec((0_u64..400, prop::option::weighted(0.3, 0_u32..5), 0_u32..5), 1..60),
    ) {
        let (mut hand, mut now, mut count) = (Hand::default(), Duration::ZERO, 1_u32);
        let mut edited_at: Option<Duration> = None;
        for (seconds, edit, wanted) in moves {
            now += Duration::from_secs(seconds);
            if let Some(edit) = edit.filter(|edit| *edit != count) {
                count = edit;
            }
            if !hand.looks(now, Some(count), wanted) {
                if count == wanted {
                    edited_at = None;
                }
                continue;
            }
            match hand.step(now, count, wanted) {
                Step::Write(written) => {
                    prop_assert_eq!(written, wanted);
                    prop_assert!(edited_at.is_none_or(|at| now - at >= BACK_OFF));
                    (count, edited_at) = (written, None);
                    hand.wrote(now, written);
                }
                Step::Nothing => {
                    prop_assert!(count == wanted || hand.edited(now).is_some());
                    edited_at = (count != wanted).then(|| edited_at.unwrap_or(now));
                }
            }
        }
    }
}

mod shell {
    use std::collections::BTreeMap;

    use kubernetes::mock;
    use kubernetes::watch::Store;
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::kinds::testing::known;
    use crate::kubernetes::status::testing::{report, variant};

    fn scale(replicas: u32) -> Value {
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "h100", "namespace": "chat", "resourceVersion": "41"},
            "spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": "app=llm"},
        })
    }

    fn direct(wanted: u32) -> Report {
        let mut report = report(vec![variant("h100", 2, wanted)]);
        Arc::make_mut(&mut report.spec).mode = Mode::Direct;
        report
    }

    fn hands() -> (Hands, mock::Server) {
        let (client, server) = mock::server();
        let deployments = ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&());
        let hands = Hands {
            kinds: known(client.clone(), deployments, Store::fixed([])),
            client,
            clock: Clock::start(),
            hands: BTreeMap::new(),
            edits: Arc::default(),
        };
        (hands, server)
    }

    fn told(orders: &[Order]) -> watch::Receiver<Arc<Vec<Order>>> {
        watch::channel(Arc::new(orders.to_vec())).1
    }

    #[tokio::test]
    async fn what_is_taken_back_while_the_count_is_read_is_not_written() {
        let (mut hands, mut server) = hands();
        let (orders, newest) = watch::channel(Arc::new(orders(&[direct(3)])));
        let played = async {
            let read = server.next().await.unwrap();
            orders.send_replace(Arc::default());
            read.reply(&scale(2)).await;
        };
        tokio::join!(hands.carry_out(&newest), played);
        drop(hands);
        assert!(server.next().await.is_none(), "another request came");
    }

    #[tokio::test]
    async fn the_count_is_written_with_the_version_that_was_read() {
        let (mut hands, mut server) = hands();
        let orders = orders(&[direct(3)]);
        let played = async {
            let read = server.next().await.unwrap();
            let path = "/apis/apps/v1/namespaces/chat/deployments/h100/scale";
            assert_eq!(read.target(), format!("GET {path}"));
            read.reply(&scale(2)).await;
            let mut write = server.next().await.unwrap();
            assert_eq!(write.target(), format!("PUT {path}"));
            let body = write.body().await;
            write.reply(&scale(3)).await;
            body
        };
        let newest = told(&orders);
        let (_, body) = tokio::join!(hands.carry_out(&newest), played);
        assert_eq!(body["spec"]["replicas"], 3);
        assert_eq!(body["metadata"]["resourceVersion"], "41");
        // Right as it is: nothing is asked.
        let mut right = orders.clone();
        right[0].seen = Some(3);
        hands.carry_out(&told(&right)).await;
    }

    #[tokio::test]
    async fn somebody_quicker_and_somebody_elses_count_are_left_alone() {
        let (mut hands, mut server) = hands();
        let orders = orders(&[direct(3)]);
        let conflict = async {
            server.next().await.unwrap().reply(&scale(2)).await;
            server.next().await.unwrap().fail(409, "Conflict").await;
        };
        let newest = told(&orders);
        tokio::join!(hands.carry_out(&newest), conflict);
        assert_eq!(hands.hands[&orders[0].target], Hand::default());
        hands
            .hands
            .get_mut(&orders[0].target)
            .unwrap()
            .wrote(Duration::ZERO, 4);
        tokio::time::pause();
        tokio::time::advance(3 * SECOND).await;
        let edited = async { server.next().await.unwrap().reply(&scale(2)).await };
        tokio::join!(hands.carry_out(&newest), edited);
        let model = orders[0].model.clone();
        assert_eq!(hands.edits.lock()[&model][0].reason, "ManualEdit");
    }

    #[test]
    fn only_direct_models_with_fresh_evidence_and_targets_of_their_own_are_ordered() {
        assert_eq!(orders(&[direct(3)]).len(), 1);
        let mut publish = direct(3);
        Arc::make_mut(&mut publish.spec).mode = Mode::Publish;
        let mut contested = direct(3);
        Arc::make_mut(&mut contested.spec).variants[0].contested = true;
        let mut undecided = direct(3);
        undecided.decision = None;
        let mut stale = direct(3);
        if let Some(decision) = &mut stale.decision {
            Arc::make_mut(decision).evidence = controller_core::model::Evidence::Cold {
                reason: "young".into(),
            };
        }
        assert_eq!(orders(&[publish, contested, undecided, stale]), []);
    }
}
