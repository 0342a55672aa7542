//! Single processes on a device.

use super::*;

const CLOCK: DeviceClock = DeviceClock::right();

fn attempt() -> AttemptId {
    AttemptId { attempt: 1, ..AttemptId::default() }
}

/// Runs what was planned, in order, and returns the news.
fn play(device: &mut Device, mut plans: Plans, random: &mut Random) -> Vec<News> {
    let mut news = Vec::new();
    while let Some(next) = (0..plans.len()).min_by_key(|i| plans.get(*i).map(|plan| plan.0)) {
        let (at, attempt, serial, step) = plans.remove(next);
        let (said, more) = device.step(attempt, serial, step, at, random);
        news.extend(said);
        plans.extend(more);
    }
    news
}

#[test]
fn an_attempt_starts_reports_and_ends_once() {
    let (mut device, mut random) = (Device::new("a", (Resources::ZERO, Default::default()), CLOCK), Random::new(1));
    let behaviour = Behaviour { reports_every: Duration::from_millis(100), ..Behaviour::default() };
    let spec = TaskSpec { arguments: behaviour.arguments(), ..TaskSpec::default() };
    assert_eq!(Behaviour::of(&spec), behaviour);
    let plans = device.spawn(attempt(), (&spec, None), Time(0), &mut random).unwrap_or_default();
    assert!(device.spawn(attempt(), (&spec, None), Time(0), &mut random).is_err());
    assert_eq!(device.running(), 1);
    let news = play(&mut device, plans, &mut random);
    assert!(matches!(news.first(), Some(News::Started(..))));
    assert_eq!(news.iter().filter(|news| matches!(news, News::Ended(..))).count(), 1);
    assert_eq!(news.iter().filter(|news| matches!(news, News::Report(..))).count(), 9);
    assert!(matches!(device.truth(attempt()), Some(Some((fb::TaskStatus::Completed, _)))));
}

#[test]
fn a_stubborn_task_ends_by_sigkill_and_a_reboot_leaves_no_verdict() {
    let (mut device, mut random) = (Device::new("a", (Resources::ZERO, Default::default()), CLOCK), Random::new(1));
    let behaviour = Behaviour { stubborn: true, runs_for: Duration::from_secs(900), ..Behaviour::default() };
    let spec = TaskSpec { arguments: behaviour.arguments(), ..TaskSpec::default() };
    let plans = device.spawn(attempt(), (&spec, None), Time(0), &mut random).unwrap_or_default();
    let kill = device.cancel(attempt(), Duration::from_secs(5), Time(50_000), &mut random);
    assert!(kill.first().is_some_and(|plan| plan.0 >= Time(5_050_000)));
    let news = play(&mut device, plans.into_iter().chain(kill).collect(), &mut random);
    assert!(matches!(news.last(), Some(News::Ended(_, fb::TaskStatus::Cancelled, _))));

    let later = AttemptId { attempt: 2, ..attempt() };
    let plans = device.spawn(later, (&spec, None), Time(0), &mut random).unwrap_or_default();
    device.reboot(CLOCK);
    assert!(play(&mut device, plans, &mut random).is_empty());
    assert!(matches!(device.truth(later), Some(None)));
    assert!(matches!(device.survey(Time(0)).last(), Some((_, Some((fb::TaskStatus::Lost, _))))));
}

#[test]
fn a_late_supervisor_finds_the_verdict_and_goes_away() {
    let (mut device, mut random) = (Device::new("a", (Resources::ZERO, Default::default()), CLOCK), Random::new(1));
    device.delay_spawns(Time(1));
    let plans = device.spawn(attempt(), (&TaskSpec::default(), None), Time(0), &mut random).unwrap_or_default();
    assert!(matches!(device.survey(Time(1)).as_slice(), [(_, Some((fb::TaskStatus::Lost, _)))]));
    assert!(play(&mut device, plans, &mut random).is_empty());
    assert_eq!(device.running(), 0);
}

#[test]
fn what_a_killed_supervisor_leaves_takes_its_resources_until_the_agent_has_seen_it() {
    let resources = Resources { cpu: 500, ..Resources::ZERO };
    let (mut device, mut random) = (Device::new("a", (resources, Default::default()), CLOCK), Random::new(1));
    let spec = TaskSpec { resources, ..TaskSpec::default() };
    let plans = device.spawn(attempt(), (&spec, None), Time(0), &mut random).unwrap_or_default();
    let orphaned = device.kill_supervisor(Time(1), &mut random);
    assert!(play(&mut device, plans, &mut random).is_empty(), "nobody is there to tell");
    assert_eq!(device.in_use(), resources);
    let news = play(&mut device, orphaned, &mut random);
    assert!(matches!(news.as_slice(), [News::Ended(_, fb::TaskStatus::Lost, _)]));
    assert_eq!(device.in_use(), Resources::ZERO);
}

#[test]
fn what_stops_unheard_goes_on_while_the_scheduler_is_heard_and_ends_once_it_is_not() {
    let (mut device, mut random) = (Device::new("a", (Resources::ZERO, Default::default()), CLOCK), Random::new(1));
    let behaviour = Behaviour { stubborn: true, runs_for: Duration::from_secs(900), ..Behaviour::default() };
    let spec = TaskSpec { arguments: behaviour.arguments(), kill_grace_ms: 5_000, ..TaskSpec::default() };
    let unheard = Some(Unheard { after: Duration::from_secs(30), heard: Time(0) });
    let plans = device.spawn(attempt(), (&spec, unheard), Time(0), &mut random).unwrap_or_default();
    device.on_heard(Time::from_ms(20_000));
    let news = play(&mut device, plans, &mut random);
    let ended = news.last().map(|news| match news {
        News::Ended(_, status, end) => (*status, end.reason, end.ended_at_ms / 1_000),
        News::Started(..) | News::Report(..) => (fb::TaskStatus::Running, fb::EndReason::Exited, 0),
    });
    assert_eq!(ended, Some((fb::TaskStatus::Lost, fb::EndReason::Disconnected, 55)));

    // Forked too late, it does not start.
    let later = AttemptId { attempt: 2, ..attempt() };
    let plans = device.spawn(later, (&spec, unheard), Time::from_ms(50_000), &mut random).unwrap_or_default();
    let news = play(&mut device, plans, &mut random);
    assert!(matches!(news.as_slice(), [News::Ended(_, fb::TaskStatus::Lost, _)]), "{news:?}");
}
