//! Reading messages in place, out of verified frames.

use super::MetricNames;
use crate::{fb, ids::AttemptId};

/// A view of a status update whose metric names are resolved.
#[derive(Clone, Copy, Debug)]
pub struct StatusRef<'a> {
    /// The table.
    pub update: fb::StatusUpdate<'a>,
    /// The names that its session defined.
    pub names: &'a MetricNames,
}

impl<'a> StatusRef<'a> {
    /// Its metrics, interned or plain. `open` has proved that every number has a name and a value
    /// and that every value is finite.
    pub fn metrics(self) -> impl Iterator<Item = (&'a str, f64)> {
        // As plain bytes they are read several times faster than through the schema's vectors.
        let (ids, _) = self.update.metric_ids().map(|ids| ids.bytes()).unwrap_or_default().as_chunks();
        let (values, _) = self.update.metric_values().map(|values| values.bytes()).unwrap_or_default().as_chunks();
        let names = self.names;
        // Most are a run of numbers, whose names lie side by side.
        let (run, apart) = if names.all_runs { (names.run(ids), [].as_slice()) } else { ([].as_slice(), ids) };
        let run = run.iter().map(|name| &**name).zip(values.iter().map(|value| f64::from_le_bytes(*value)));
        let apart = apart.iter().zip(values.iter().map(|value| f64::from_le_bytes(*value)));
        let interned = run.chain(apart.filter_map(|(id, value)| Some((names.name(u16::from_le_bytes(*id))?, value))));
        let plain = self.update.metrics().into_iter().flatten();
        interned.chain(plain.map(|metric| (metric.name().unwrap_or_default(), metric.value())))
    }
}

macro_rules! message_ref {
    ($($variant:ident => $method:ident),* $(,)?) => {
        /// A verified message, read in place.
        // Its kind takes a whole word: the copies of what follows it are aligned, which halves what reading a batch costs.
        #[derive(Clone, Copy, Debug)]
        #[repr(u64)]
        #[allow(missing_docs)]
        pub enum MessageRef<'a> {
            StatusUpdate(StatusRef<'a>),
            $($variant(fb::$variant<'a>),)*
            // §version-4
            /// A type that this build does not know: answered by a `Nack`, never fatal.
            Unknown(u8),
        }

        impl<'a> MessageRef<'a> {
            /// Its type on the wire.
            pub fn kind(&self) -> fb::SchedulerMessage {
                match self {
                    MessageRef::StatusUpdate(_) => fb::SchedulerMessage::StatusUpdate,
                    $(MessageRef::$variant(_) => fb::SchedulerMessage::$variant,)*
                    MessageRef::Unknown(kind) => fb::SchedulerMessage(*kind),
                }
            }

            /// The message of an envelope; `None` if it has none.
            #[inline]
            pub(crate) fn of_envelope(table: fb::MessageEnvelope<'a>, names: &'a MetricNames) -> Option<MessageRef<'a>> {
                message_ref!(@of MessageEnvelope, table, names, $($variant => $method),*)
            }

            /// The message of a batch item.
            #[inline]
            pub(crate) fn of_item(table: fb::Item<'a>, names: &'a MetricNames) -> Option<MessageRef<'a>> {
                message_ref!(@of Item, table, names, $($variant => $method),*)
            }

            /// The message of a body.
            #[inline]
            pub(crate) fn of_body(table: fb::Body<'a>, names: &'a MetricNames) -> Option<MessageRef<'a>> {
                message_ref!(@of Body, table, names, $($variant => $method),*)
            }
        }
    };
    (@of $type:ident, $table:ident, $names:ident, $($variant:ident => $method:ident),*) => {{
        #[inline(never)]
        fn other(table: fb::$type<'_>) -> Option<MessageRef<'_>> {
            match table.message_type() {
                fb::SchedulerMessage::NONE | fb::SchedulerMessage::StatusUpdate => None,
                $(fb::SchedulerMessage::$variant => table.$method().map(MessageRef::$variant),)*
                other => Some(MessageRef::Unknown(other.0)),
            }
        }
        // The most frequent one is small enough to be inlined where it is read, without a way through memory.
        match $table.message_as_status_update() {
            Some(update) => Some(MessageRef::StatusUpdate(StatusRef { update, names: $names })),
            None => other($table),
        }
    }};
}

message_ref! {
    TaskAssignment => message_as_task_assignment,
    Heartbeat => message_as_heartbeat,
    Hello => message_as_hello,
    Welcome => message_as_welcome,
    Register => message_as_register,
    Registered => message_as_registered,
    Deregister => message_as_deregister,
    TaskAcceptance => message_as_task_acceptance,
    TaskRejection => message_as_task_rejection,
    TaskCancellation => message_as_task_cancellation,
    Ack => message_as_ack,
    Nack => message_as_nack,
    Chunk => message_as_chunk,
    LogRequest => message_as_log_request,
    LogChunk => message_as_log_chunk,
    Enroll => message_as_enroll,
    Enrolled => message_as_enrolled,
    SubmitJob => message_as_submit_job,
    JobSubmitted => message_as_job_submitted,
    CancelWork => message_as_cancel_work,
    CreateToken => message_as_create_token,
    TokenCreated => message_as_token_created,
    Query => message_as_query,
    Page => message_as_page,
    ChangeAgent => message_as_change_agent,
    SetPolicy => message_as_set_policy,
    PlanJob => message_as_plan_job,
    SetSchedule => message_as_set_schedule,
    ChangeSchedule => message_as_change_schedule,
}

/// Reads an attempt's id as messages carry it.
pub fn attempt_id(task_id: Option<&str>, attempt: u32) -> Result<AttemptId, crate::ids::TaskIdError> {
    Ok(AttemptId { task: task_id.unwrap_or_default().parse()?, attempt })
}
