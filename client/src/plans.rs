//! What a client sees of what has not happened yet: when something could start, and what would become of a job. Owned, plain, and what `--json` prints, as
//! all [views](crate::views) are.

use crate::views::{ObstacleView, QueueView};
use fleetwire_common::fb;
use serde::Serialize;
use std::collections::BTreeMap;

/// When something could start at the earliest, if whatever runs ends by its timeouts and nothing else is placed before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EarliestView {
    /// When; none if that is not known.
    pub at_ms: Option<u64>,
    /// The same, from the answer on.
    pub in_ms: Option<u64>,
    /// Where.
    pub agent: Option<String>,
    /// The task whose attempt has to end there, if there is no room …
    pub task: Option<String>,
    /// … and which attempt of it.
    pub attempt: Option<u32>,
    /// How many attempts are to end there by then, that one included.
    pub ends: u32,
    /// What else it waits for until then, or why it is not known.
    pub why: String,
    /// How many agents were looked at one by one …
    pub looked_at: u32,
    /// … of so many that may take it.
    pub suitable: u32,
}

impl From<fb::EarliestStartT> for EarliestView {
    fn from(wire: fb::EarliestStartT) -> EarliestView {
        let at_ms = Some(wire.at).filter(|at| *at > 0);
        EarliestView {
            at_ms,
            in_ms: at_ms.map(|_| wire.in_ms),
            agent: wire.agent,
            task: wire.task_id,
            attempt: Some(wire.attempt).filter(|attempt| *attempt > 0),
            ends: wire.ends,
            why: wire.why.unwrap_or_default(),
            looked_at: wire.looked_at,
            suitable: wire.suitable,
        }
    }
}

/// What would become of a job, were it submitted now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PlanView {
    /// What its owner calls it.
    pub name: String,
    /// Whether it would be accepted.
    pub accepted: bool,
    /// What a submit would be refused with.
    pub refused: Option<RefusalView>,
    /// How many tasks it has.
    pub tasks: u64,
    /// Its entries, in the order in which they would start.
    pub entries: Vec<PlannedView>,
    /// What all of its tasks need together.
    pub asked: TotalView,
    /// What all agents have.
    pub capacity: TotalView,
    /// How many agents are known.
    pub agents: u32,
    /// Its queue; none if there is none of that name.
    pub queue: Option<QueueView>,
    /// The semaphores that it names.
    pub semaphores: Vec<SemaphoreView>,
}

/// What a submit would be refused with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusalView {
    /// Why, for programs.
    pub code: &'static str,
    /// Why, for people.
    pub message: String,
    /// Whether the same may be accepted later.
    pub retriable: bool,
    /// The code itself.
    #[serde(skip)]
    pub error: fb::ErrorCode,
}

/// Amounts of many tasks or agents together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TotalView {
    /// A thousand are a core.
    pub cpu_millicores: u64,
    /// Memory.
    pub memory_mb: u64,
    /// GPUs.
    pub gpu: u64,
    /// Storage.
    pub storage_gb: u64,
}

/// One entry of a planned job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlannedView {
    /// Its name.
    pub name: String,
    /// How many tasks.
    pub count: u32,
    /// How many entries, one after the other, have to end before it.
    pub step: u32,
    /// The entries that it comes after.
    pub after: Vec<String>,
    /// Agents that suit it and are large enough, whatever runs there …
    pub suitable: u32,
    /// … of so many that were looked at.
    pub looked_at: u32,
    /// How many of its tasks would be placed at once …
    pub now: u32,
    /// … on how many agents.
    pub agents: u32,
    /// Some of those, with how many tasks.
    pub places: BTreeMap<String, u32>,
    /// What leaves room for no more of them, if that is not for want of agents.
    pub held_back: Option<String>,
    /// Why the other agents take none.
    pub obstacles: Vec<ObstacleView>,
    /// When the first of its tasks could start.
    pub earliest: EarliestView,
}

/// A semaphore, and what is taken of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SemaphoreView {
    /// Its name.
    pub name: String,
    /// How many units there are …
    pub max: u32,
    /// … and how many are taken.
    pub taken: u64,
}

impl From<fb::PlanT> for PlanView {
    fn from(wire: fb::PlanT) -> PlanView {
        let refusal = |nack: fb::NackT| RefusalView {
            code: nack.code.variant_name().unwrap_or("Unknown"),
            message: nack.message.unwrap_or_default(),
            retriable: nack.retriable,
            error: nack.code,
        };
        let semaphore = |one: fb::PlanSemaphoreT| SemaphoreView {
            name: one.name.unwrap_or_default(),
            max: one.max,
            taken: one.taken,
        };
        PlanView {
            name: wire.name.unwrap_or_default(),
            accepted: wire.refused.is_none(),
            refused: wire.refused.map(|nack| refusal(*nack)),
            tasks: wire.tasks,
            entries: wire.entries.unwrap_or_default().into_iter().map(PlannedView::from).collect(),
            asked: total(wire.asked),
            capacity: total(wire.capacity),
            agents: wire.agents,
            queue: wire.queue.map(|queue| QueueView::from(*queue)),
            semaphores: wire.semaphores.unwrap_or_default().into_iter().map(semaphore).collect(),
        }
    }
}

impl From<fb::PlanEntryT> for PlannedView {
    fn from(wire: fb::PlanEntryT) -> PlannedView {
        let places = wire.places.unwrap_or_default().into_iter();
        PlannedView {
            name: wire.name.unwrap_or_default(),
            count: wire.count,
            step: wire.step,
            after: wire.after.unwrap_or_default(),
            suitable: wire.suitable,
            looked_at: wire.looked_at,
            now: wire.now,
            agents: wire.agents,
            places: places.map(|place| (place.agent.unwrap_or_default(), place.tasks)).collect(),
            held_back: wire.held_back,
            obstacles: wire.obstacles.unwrap_or_default().into_iter().map(ObstacleView::from).collect(),
            earliest: wire.earliest.map(|earliest| EarliestView::from(*earliest)).unwrap_or_default(),
        }
    }
}

fn total(wire: Option<Box<fb::ResourceTotalT>>) -> TotalView {
    let it = wire.map(|it| *it).unwrap_or_default();
    TotalView { cpu_millicores: it.cpu, memory_mb: it.memory, gpu: it.gpu, storage_gb: it.storage }
}
