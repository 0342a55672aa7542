//! Who may send what: one table, data in one place. The scheduler looks a message up here after its
//! envelope was opened and before anything acts on it (promise P5).

use crate::fb::{Role, SchedulerMessage as M};

/// One row: a message type and the roles that may send it to the scheduler.
pub struct Rule {
    /// The message type.
    pub message: M,
    /// Who may send it. Empty: nobody; only the scheduler itself sends it.
    pub senders: &'static [Role],
}

const AGENT: &[Role] = &[Role::Agent];
const WRITERS: &[Role] = &[Role::Operator, Role::Service];
const READERS: &[Role] = &[Role::Operator, Role::Viewer, Role::Service];
const OPERATOR: &[Role] = &[Role::Operator];
const ANYONE: &[Role] = &[Role::Agent, Role::Operator, Role::Viewer, Role::Service];
const NOBODY: &[Role] = &[];

/// Every message type, once. A test holds it against the schema's union.
pub const RULES: &[Rule] = &[
    Rule { message: M::TaskAssignment, senders: NOBODY },
    Rule { message: M::StatusUpdate, senders: AGENT },
    Rule { message: M::Heartbeat, senders: AGENT },
    // Sessions are opened before this table is asked; a second Hello is in the wrong state.
    Rule { message: M::Hello, senders: NOBODY },
    Rule { message: M::Welcome, senders: NOBODY },
    Rule { message: M::Register, senders: AGENT },
    Rule { message: M::Registered, senders: NOBODY },
    Rule { message: M::Deregister, senders: AGENT },
    Rule { message: M::TaskAcceptance, senders: AGENT },
    Rule { message: M::TaskRejection, senders: AGENT },
    Rule { message: M::TaskCancellation, senders: NOBODY },
    Rule { message: M::Ack, senders: ANYONE },
    Rule { message: M::Nack, senders: ANYONE },
    Rule { message: M::Chunk, senders: ANYONE },
    Rule { message: M::LogRequest, senders: READERS },
    Rule { message: M::LogChunk, senders: AGENT },
    // On the enrolment protocol only, where there is no principal yet.
    Rule { message: M::Enroll, senders: NOBODY },
    Rule { message: M::Enrolled, senders: NOBODY },
    Rule { message: M::SubmitJob, senders: WRITERS },
    Rule { message: M::JobSubmitted, senders: NOBODY },
    Rule { message: M::CancelWork, senders: WRITERS },
    Rule { message: M::CreateToken, senders: OPERATOR },
    Rule { message: M::TokenCreated, senders: NOBODY },
    Rule { message: M::Query, senders: READERS },
    Rule { message: M::Page, senders: NOBODY },
    Rule { message: M::ChangeAgent, senders: OPERATOR },
    Rule { message: M::SetPolicy, senders: OPERATOR },
    Rule { message: M::PlanJob, senders: WRITERS },
    Rule { message: M::SetSchedule, senders: WRITERS },
    Rule { message: M::ChangeSchedule, senders: WRITERS },
];

/// Whether a principal of this role may send the scheduler a message of this type.
pub fn may_send(role: Role, message: M) -> bool {
    RULES.iter().any(|rule| rule.message == message && rule.senders.contains(&role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_type_has_exactly_one_rule() {
        for message in (0..=M::ENUM_MAX).map(M) {
            let rules = RULES.iter().filter(|rule| rule.message == message).count();
            assert_eq!(rules, usize::from(message != M::NONE), "{message:?}");
        }
    }

    #[test]
    fn agents_never_submit_or_command_and_viewers_only_look() {
        for message in (0..=M::ENUM_MAX).map(M) {
            let agent = may_send(Role::Agent, message);
            let viewer = may_send(Role::Viewer, message);
            let operator = may_send(Role::Operator, message);
            let changes =
                matches!(message, M::SubmitJob | M::CancelWork | M::CreateToken | M::ChangeAgent | M::SetPolicy)
                    || matches!(message, M::SetSchedule | M::ChangeSchedule);
            let commands = changes || matches!(message, M::Query | M::LogRequest | M::PlanJob);
            assert!(!(agent && commands), "{message:?}");
            assert!(!(viewer && changes), "{message:?}");
            assert!(!viewer || operator, "a viewer may do nothing that an operator may not: {message:?}");
        }
    }
}
