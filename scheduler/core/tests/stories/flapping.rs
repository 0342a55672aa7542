//! Agents whose connections are lost again and again.

use crate::harness::*;
use fleetwire_common::fb;

fn note(t: &mut T) -> Option<String> {
    let query = fb::QueryT { kind: fb::QueryKind::Agent, agent: Some("a".into()), ..Default::default() };
    t.query(query).unwrap().agents.unwrap().remove(0).note
}

/// It comes and goes so often, ten seconds apart, and is there at the end.
fn flaps(t: &mut T, times: u32) {
    for _ in 0..times {
        t.agent("a").register();
        t.pass(secs(5));
        t.agent("a").lose();
        t.pass(secs(5));
    }
    t.agent("a").register();
}

#[test]
fn who_comes_and_goes_is_given_nothing_until_it_has_stayed() {
    let mut t = T::new();
    t.agent("a").register();
    let running = t.submit(vec![task()]);
    t.agent("a").runs(attempt(running, 0, 1));
    t.agent("a").lose();
    flaps(&mut t, 3);
    let before = t.submit(vec![task()]);
    assert_eq!(t.agent("a").holds().len(), 2, "four losses are nothing yet");
    t.agent("a").completes(attempt(before, 0, 1));
    t.agent("a").lose();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    assert_eq!(t.agent("a").holds().len(), 1, "what runs goes on");
    assert!(note(&mut t).unwrap().contains("lost 5 times"));
    let query =
        fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(id(job, 0, 0).to_string()), ..Default::default() };
    let obstacles = t.query(query).unwrap().explanation.unwrap().obstacles.unwrap();
    assert!(obstacles[0].reason.as_ref().unwrap().contains("until it has stayed for"), "{obstacles:?}");
    // Registering once more changes nothing.
    t.pass_beating(secs(20));
    t.agent("a").register();
    t.pass_beating(secs(9));
    assert_eq!(t.agent("a").holds().len(), 1);
    t.pass_beating(secs(2));
    assert_eq!(t.agent("a").holds().len(), 2);
    assert_eq!(note(&mut t), None);
    t.agent("a").register();
    t.submit(vec![task()]);
    assert_eq!(t.agent("a").holds().len(), 3, "and it is not asked to stay again");
}

#[test]
fn each_further_loss_doubles_the_time_and_a_steady_while_forgives() {
    let mut t = T::new();
    flaps(&mut t, 6);
    t.submit(vec![task()]);
    t.pass_beating(secs(59));
    assert!(t.agent("a").holds().is_empty());
    t.pass_beating(secs(2));
    assert_eq!(t.agent("a").holds().len(), 1);
    t.pass_beating(secs(301));
    t.agent("a").lose();
    t.agent("a").register();
    t.submit(vec![task()]);
    assert_eq!(t.agent("a").holds().len(), 2, "five minutes without a loss are long enough");
}

#[test]
fn goodbyes_are_no_losses() {
    let mut t = T::new();
    for _ in 0..9 {
        t.agent("a")
            .register()
            .send(fleetwire_common::message::Message::Rare(fb::SchedulerMessageT::Deregister(Box::default())));
        t.agent("a").lose();
    }
    t.agent("a").register();
    t.submit(vec![task()]);
    assert_eq!(t.agent("a").holds().len(), 1);
}
