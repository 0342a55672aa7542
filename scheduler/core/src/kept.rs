//! What a snapshot holds instead of the facts that it replaces (`schemas/journal.fbs`): records of the state,
//! written down one by one.
//!
//! Invariant: `read(write(kept)) == kept`, except that a job comes without its ended tasks and its count
//! of active ones, which have records of their own. What is read is consistent within itself.

use crate::{
    attempts::{Assigned, Counts, EndedTask, Entry, Fares, Job, Open, Submit, TaskRecord, is_end},
    bodies::{Stream, read_files},
    fact::{FactError, array},
    ranges::Ranges,
    restored::{Chain, Restored},
    schedules::Progress,
    tokens::TokenRecord,
};
use fixedbitset::FixedBitSet;
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};
use fleetwire_common::{
    blob::BlobRef,
    fb,
    ids::{AgentId, JobId, JobKey, Name, Position, Principal, SubmitId, TaskId, TokenId},
    job::JobSpec,
    message::End,
    time::Time,
};
use std::{borrow::Cow, sync::Arc};

/// A part of what earlier facts add up to.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept<'a> {
    /// The first: what stands alone.
    Begun {
        /// The latest start's number.
        incarnation: u64,
        /// Its random id.
        id: [u8; 16],
        /// The number of the latest token.
        last_token: TokenId,
        /// The number of the latest job.
        last_job: JobId,
        /// Names of metrics that tasks share.
        metric_names: Vec<Arc<str>>,
        /// Where the blobs end.
        stream: Stream,
        /// The starts, and what is known of others.
        chain: Chain,
    },
    /// A join token.
    Token(TokenId, Cow<'a, TokenRecord>),
    /// The id of a submit.
    Submit(SubmitId, Submit),
    /// A job. Its tasks come after it.
    Job(JobId, Cow<'a, Job>),
    /// How far a schedule has come.
    Schedule(Name, Cow<'a, Progress>),
    /// A task that had an attempt and has not ended.
    Task(TaskId, Cow<'a, TaskRecord>),
    /// A task that had an attempt and has ended.
    Ended(TaskId, Cow<'a, EndedTask>),
}

type Builder = FlatBufferBuilder<'static>;
type Union = WIPOffset<UnionWIPOffset>;

impl<'a> Kept<'a> {
    /// Writes it as the body of a fact.
    pub(crate) fn write(&self, builder: &mut Builder) -> (fb::FactBody, Union) {
        match self {
            Kept::Begun { incarnation, id, last_token, last_job, metric_names, stream, chain } => {
                let names = metric_names.iter().map(|name| name.to_string()).collect();
                let table = fb::SnapshotBegunT {
                    incarnation: *incarnation,
                    id: Some(id.to_vec()),
                    last_token: last_token.0,
                    last_job: last_job.0,
                    metric_names: Some(names),
                    incarnations: Some(chain.starts.iter().map(write_start).collect()),
                    restored: chain.restored.as_ref().map(|restored| Box::new(restored.to_wire())),
                    accepted: chain.accepted,
                    accepted_at: chain.accepted_at.0,
                    base_job: chain.base_job.0,
                    told_job: chain.told_job.0,
                    blob_segment: stream.segment,
                    blob_end: stream.end,
                };
                (fb::FactBody::SnapshotBegun, table.pack(builder).as_union_value())
            }
            Kept::Token(token, record) => (fb::FactBody::TokenKept, write_token(*token, record, builder)),
            Kept::Submit(id, submit) => (fb::FactBody::SubmitKept, {
                let submit_id = Some(builder.create_vector(&id.0));
                let digest = Some(builder.create_vector(&submit.digest));
                let args = fb::SubmitKeptArgs { submit_id, digest, job: submit.job.0 };
                fb::SubmitKept::create(builder, &args).as_union_value()
            }),
            Kept::Job(id, job) => (fb::FactBody::JobKept, write_job(*id, job, builder)),
            Kept::Schedule(name, progress) => (fb::FactBody::ScheduleKept, write_progress(name, progress, builder)),
            Kept::Task(task, record) => (fb::FactBody::TaskKept, write_task(*task, record, builder)),
            Kept::Ended(task, end) => (fb::FactBody::TaskKept, {
                let last = Some(write_end(end, builder));
                let TaskId { job, entry, index } = *task;
                let args = fb::TaskKeptArgs { job: job.0, entry, index, ended: true, last, ..Default::default() };
                fb::TaskKept::create(builder, &args).as_union_value()
            }),
        }
    }

    /// Reads it; `None` if the table of that type is absent.
    pub(crate) fn read(record: fb::FactRecord<'a>) -> Option<Result<Kept<'a>, FactError>> {
        match record.fact_type() {
            fb::FactBody::SnapshotBegun => record.fact_as_snapshot_begun().map(read_begun),
            fb::FactBody::TokenKept => record.fact_as_token_kept().map(read_token),
            fb::FactBody::SubmitKept => record.fact_as_submit_kept().map(read_submit),
            fb::FactBody::JobKept => record.fact_as_job_kept().map(read_job),
            fb::FactBody::ScheduleKept => record.fact_as_schedule_kept().map(read_progress),
            fb::FactBody::TaskKept => record.fact_as_task_kept().map(read_task),
            other => Some(Err(FactError::Kind(other.0))),
        }
    }
}

fn write_token(token: TokenId, record: &TokenRecord, builder: &mut Builder) -> Union {
    let TokenRecord { role, uses, issued_at, expires_at, redeemed } = record;
    let redeemed = redeemed.iter().map(|(key, principal)| fb::TokenUseT {
        role: principal.role,
        name: Some(principal.name.to_string()),
        key: Some(key.to_vec()),
    });
    let table = fb::TokenKeptT {
        token: token.0,
        role: *role,
        uses: *uses,
        issued_at: issued_at.0,
        expires_at: expires_at.0,
        redeemed: Some(redeemed.collect()),
    };
    table.pack(builder).as_union_value()
}

fn write_progress(name: &Name, progress: &Progress, builder: &mut Builder) -> Union {
    let Progress { paused, since, last_at, last_job, why, runs, left_out } = progress;
    let table = fb::ScheduleKeptT {
        name: Some(name.to_string()),
        paused: *paused,
        since: since.0,
        last_at: last_at.as_ms(),
        last_job: last_job.0,
        why: Some(why.to_string()).filter(|why| !why.is_empty()),
        runs: *runs,
        left_out: *left_out,
    };
    table.pack(builder).as_union_value()
}

fn read_progress<'a>(table: fb::ScheduleKept<'a>) -> Result<Kept<'a>, FactError> {
    let name = Name::new(table.name().unwrap_or_default());
    let name = name.map_err(|_| FactError::Field { fact: "ScheduleKept", field: "name" })?;
    let progress = Progress {
        paused: table.paused(),
        since: Time(table.since()),
        last_at: Time::from_ms(table.last_at()),
        last_job: JobId(table.last_job()),
        why: table.why().unwrap_or_default().into(),
        runs: table.runs(),
        left_out: table.left_out(),
    };
    Ok(Kept::Schedule(name, Cow::Owned(progress)))
}

fn write_job(id: JobId, job: &Job, builder: &mut Builder) -> Union {
    let Job { key, spec, files, kept_bytes, owner, submitted_at, ended_at, stopped, entries, counts: _ } = job;
    let entries = entries.iter().map(|entry| {
        let Entry {
            spec: _,
            unstarted,
            completed,
            failed,
            cancelled,
            skipped,
            fares: _,
            is_awaited: _,
            ended_at,
            ended: _,
        } = entry;
        fb::EntryKeptT {
            unstarted: Some(unstarted.ranges(()).flat_map(|range| [range.start, range.end]).collect()),
            completed: Some(Box::new(indices(completed))),
            failed: Some(Box::new(indices(failed))),
            cancelled: Some(Box::new(indices(cancelled))),
            skipped: (!skipped.is_empty()).then(|| Box::new(indices(skipped))),
            ended_at: ended_at.map_or(0, |at| at.0),
        }
    });
    let table = fb::JobKeptT {
        job: id.0,
        owner: Some(owner.to_string()),
        submitted_at: submitted_at.0,
        ended_at: ended_at.map_or(0, |at| at.0),
        cancelled: stopped.is_some(),
        stopped: stopped.unwrap_or(fb::EndReason::Cancelled),
        kept_bytes: *kept_bytes,
        spec: Some(spec.to_wire()),
        entries: Some(entries.collect()),
        files: (!files.is_empty()).then(|| files.iter().map(|kept| kept.to_wire().unpack()).collect()),
        key: key.0,
    };
    table.pack(builder).as_union_value()
}

fn write_task(task: TaskId, record: &TaskRecord, builder: &mut Builder) -> Union {
    let TaskRecord { attempts, open, failures, losses, preemptions, cancelled, pending_since, last } = record;
    let last = last.as_deref().map(|end| write_end(end, builder));
    let mut open = open.iter();
    let none = Assigned { attempt: 0, agent: AgentId(0) };
    let (older, newer) = (open.next().unwrap_or(none), open.next().unwrap_or(none));
    let TaskId { job, entry, index } = task;
    let args = fb::TaskKeptArgs {
        job: job.0,
        entry,
        index,
        ended: false,
        attempts: *attempts,
        older: older.attempt,
        older_agent: older.agent.0,
        newer: newer.attempt,
        newer_agent: newer.agent.0,
        failures: *failures,
        losses: *losses,
        preemptions: u32::from(*preemptions),
        cancelled: *cancelled,
        pending_since: pending_since.0,
        last,
    };
    fb::TaskKept::create(builder, &args).as_union_value()
}

fn write_end<'b>(ended: &EndedTask, builder: &mut FlatBufferBuilder<'b>) -> WIPOffset<fb::EndKept<'b>> {
    let end = Some(ended.to_wire(true).pack(builder));
    let metrics = (!ended.metrics().is_empty()).then(|| {
        let metrics = ended.metrics().iter().map(|(name, value)| {
            let name = Some(builder.create_shared_string(name));
            fb::Metric::create(builder, &fb::MetricArgs { name, value: *value })
        });
        let metrics: Vec<_> = metrics.collect();
        builder.create_vector(&metrics)
    });
    let result = ended.result_blob().map(|blob| blob.to_wire());
    let args = fb::EndKeptArgs {
        result: result.as_ref(),
        attempt: ended.attempt,
        latest: ended.latest,
        agent: ended.agent.0,
        failures: ended.failures,
        losses: ended.losses,
        status: ended.status,
        task_status: ended.task_status,
        end,
        metrics,
    };
    fb::EndKept::create(builder, &args)
}

/// A set of bits, the same on every machine.
fn indices(bits: &FixedBitSet) -> fb::IndicesT {
    let mut words = vec![0_u64; bits.len().div_ceil(64)];
    for bit in bits.ones() {
        if let Some(word) = words.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }
    fb::IndicesT { length: bits.len() as u32, words: Some(words) }
}

fn write_start((incarnation, (id, position)): (&u64, &([u8; 16], Position))) -> fb::IncarnationKeptT {
    fb::IncarnationKeptT { incarnation: *incarnation, id: Some(id.to_vec()), position: position.0 }
}

fn read_begun<'a>(table: fb::SnapshotBegun<'a>) -> Result<Kept<'a>, FactError> {
    let start =
        |start: fb::IncarnationKept<'_>| Some((start.incarnation(), (array(start.id())?, Position(start.position()))));
    let starts: Option<_> = table.incarnations().into_iter().flatten().map(start).collect();
    let chain = Chain {
        starts: starts.ok_or(FactError::Field { fact: "SnapshotBegun", field: "incarnations" })?,
        restored: table.restored().map(Restored::from_wire).transpose()?,
        accepted: table.accepted(),
        accepted_at: Time(table.accepted_at()),
        base_job: JobId(table.base_job()),
        told_job: JobId(table.told_job()),
    };
    let stream = Stream { segment: table.blob_segment(), end: table.blob_end() };
    if stream.segment > stream.end {
        return Err(FactError::Field { fact: "SnapshotBegun", field: "blob_segment" });
    }
    Ok(Kept::Begun {
        incarnation: table.incarnation(),
        id: array(table.id()).ok_or(FactError::Field { fact: "SnapshotBegun", field: "id" })?,
        last_token: TokenId(table.last_token()),
        last_job: JobId(table.last_job()),
        metric_names: table.metric_names().into_iter().flatten().map(Arc::from).collect(),
        stream,
        chain,
    })
}

fn read_token<'a>(table: fb::TokenKept<'a>) -> Result<Kept<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "TokenKept", field };
    table.role().variant_name().ok_or(wrong("role"))?;
    let used = |entry: fb::TokenUse<'_>| {
        entry.role().variant_name()?;
        let name = Name::new(entry.name().unwrap_or_default()).ok()?;
        Some((array(entry.key())?, Principal { role: entry.role(), name }))
    };
    let redeemed: Option<_> = table.redeemed().into_iter().flatten().map(used).collect();
    let record = TokenRecord {
        role: table.role(),
        uses: table.uses(),
        issued_at: Time(table.issued_at()),
        expires_at: Time(table.expires_at()),
        redeemed: redeemed.ok_or(wrong("redeemed"))?,
    };
    Ok(Kept::Token(TokenId(table.token()), Cow::Owned(record)))
}

fn read_submit<'a>(table: fb::SubmitKept<'a>) -> Result<Kept<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "SubmitKept", field };
    let id = SubmitId(array(table.submit_id()).ok_or(wrong("submit_id"))?);
    let digest = array(table.digest()).ok_or(wrong("digest"))?;
    Ok(Kept::Submit(id, Submit { digest, job: JobId(table.job()) }))
}

fn read_job<'a>(table: fb::JobKept<'a>) -> Result<Kept<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "JobKept", field };
    let spec = Arc::new(JobSpec::from_own_wire(table.spec().ok_or(wrong("spec"))?.bytes())?);
    let owner = table.owner().ok_or(wrong("owner"))?;
    let files = read_files(table.files(), &spec).ok_or(wrong("files"))?;
    let (key, submitted_at) = (JobKey(table.key()), Time(table.submitted_at()));
    let mut job = Job::new(key, &spec, (&files, table.kept_bytes()), owner, submitted_at);
    let entries = table.entries().ok_or(wrong("entries"))?;
    if entries.len() != job.entries.len() {
        return Err(wrong("entries"));
    }
    let mut counts = Counts { total: job.counts.total, ..Counts::default() };
    for (entry, kept) in job.entries.iter_mut().zip(entries) {
        read_entry(entry, kept).ok_or(wrong("entries"))?;
        counts.completed += u64::from(entry.fares.completed);
        counts.failed += u64::from(entry.fares.failed);
        counts.cancelled += u64::from(entry.fares.cancelled);
        counts.skipped += u64::from(entry.fares.skipped);
    }
    job.counts = counts;
    job.stopped = table.cancelled().then_some(table.stopped());
    job.ended_at = (table.ended_at() > 0).then_some(Time(table.ended_at()));
    if job.ended_at.is_some() != (counts.ended() == counts.total) {
        return Err(wrong("ended_at"));
    }
    Ok(Kept::Job(JobId(table.job()), Cow::Owned(job)))
}

/// Fills an entry in which nothing has happened yet; `None` if an index is in two places, or in none that
/// there is.
fn read_entry(entry: &mut Entry, kept: fb::EntryKept<'_>) -> Option<()> {
    let count = entry.spec.count;
    entry.completed = read_indices(kept.completed()?, count)?;
    entry.failed = read_indices(kept.failed()?, count)?;
    entry.cancelled = read_indices(kept.cancelled()?, count)?;
    // Earlier versions have none.
    entry.skipped = kept.skipped().map_or(Some(FixedBitSet::new()), |skipped| read_indices(skipped, count))?;
    entry.ended_at = (kept.ended_at() > 0).then_some(Time(kept.ended_at()));
    let sets = [&entry.completed, &entry.failed, &entry.cancelled, &entry.skipped];
    let apart = (1..).zip(sets).all(|(next, set)| sets.iter().skip(next).all(|other| set.is_disjoint(other)));
    let [completed, failed, cancelled, skipped] = sets.map(|set| set.count_ones(..) as u32);
    entry.fares = Fares { completed, failed, cancelled, skipped };
    let mut unstarted = Ranges::default();
    let mut ends = kept.unstarted()?.iter();
    let mut end = 0;
    while let Some(from) = ends.next() {
        let to = ends.next()?;
        let ended = sets.iter().any(|set| {
            let length = set.len();
            set.contains_any_in_range((from as usize).min(length)..(to as usize).min(length))
        });
        if from < end || to <= from || to > count || ended {
            return None;
        }
        unstarted.insert((), from, to);
        end = to;
    }
    entry.unstarted = unstarted;
    apart.then_some(())
}

fn read_indices(kept: fb::Indices<'_>, count: u32) -> Option<FixedBitSet> {
    let (length, words) = (kept.length(), kept.words()?);
    if length > count || words.len() != (length as usize).div_ceil(64) {
        return None;
    }
    let mut bits = FixedBitSet::with_capacity(length as usize);
    for (at, word) in words.iter().enumerate() {
        let mut rest = word;
        while rest != 0 {
            let bit = at * 64 + rest.trailing_zeros() as usize;
            if bit >= length as usize {
                return None;
            }
            bits.insert(bit);
            rest &= rest - 1;
        }
    }
    Some(bits)
}

fn read_task<'a>(table: fb::TaskKept<'a>) -> Result<Kept<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "TaskKept", field };
    let task = TaskId { job: JobId(table.job()), entry: table.entry(), index: table.index() };
    let last = table.last().map(|end| read_end(end).ok_or(wrong("last"))).transpose()?;
    if table.ended() {
        let end = last.filter(|end| is_end(end.task_status)).ok_or(wrong("last"))?;
        return Ok(Kept::Ended(task, Cow::Owned(end)));
    }
    let mut open = Open::default();
    for (attempt, agent) in [(table.older(), table.older_agent()), (table.newer(), table.newer_agent())] {
        let follows = open.latest().is_none_or(|older| older.attempt < attempt) && attempt <= table.attempts();
        match (attempt > 0, follows) {
            (true, true) => drop(open.push(Assigned { attempt, agent: AgentId(agent) })),
            (true, false) => return Err(wrong("older, newer")),
            (false, _) => {}
        }
    }
    if table.failures() > table.attempts() || table.losses() > table.attempts() {
        return Err(wrong("failures, losses"));
    }
    let record = TaskRecord {
        attempts: table.attempts(),
        open,
        failures: table.failures(),
        losses: table.losses(),
        preemptions: u16::try_from(table.preemptions()).unwrap_or(u16::MAX),
        cancelled: table.cancelled(),
        pending_since: Time(table.pending_since()),
        last: last.map(Box::new),
    };
    Ok(Kept::Task(task, Cow::Owned(record)))
}

fn read_end(table: fb::EndKept<'_>) -> Option<EndedTask> {
    table.status().variant_name()?;
    table.task_status().variant_name()?;
    let metrics = table.metrics().into_iter().flatten();
    let metrics = metrics.map(|metric| (Arc::from(metric.name().unwrap_or_default()), metric.value())).collect();
    let (end, blob) = (End::from_wire(table.end()?), table.result().map(BlobRef::from_wire));
    let mut ended = EndedTask::new((table.attempt(), AgentId(table.agent())), table.status(), (&end, blob), metrics);
    (ended.latest, ended.failures, ended.losses) = (table.latest(), table.failures(), table.losses());
    ended.task_status = table.task_status();
    Some(ended)
}
