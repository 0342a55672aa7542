//! Facts that are rare, as FlatBuffers: starts, tokens, principals, agents, policies, schedules, restored backups.
//!
//! Invariant: as in [`crate::fact`].

use crate::{
    agents::AgentProfile,
    fact::{Builder, Fact, FactError, Union, array},
    restored::Restored,
    schedules::Schedule,
};
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::{AgentId, JobId, Name, Position, Principal, TokenId},
    policy::ClusterPolicy,
    resources::Resources,
    time::Time,
};
use std::{borrow::Cow, sync::Arc};

impl Fact<'_> {
    pub(crate) fn write_rare(&self, builder: &mut Builder) -> (fb::FactBody, Union) {
        let body = match self {
            Fact::IncarnationStarted { incarnation, id, software, position } => {
                fb::FactBodyT::IncarnationStarted(Box::new(fb::IncarnationStartedT {
                    incarnation: *incarnation,
                    id: Some(id.to_vec()),
                    software: Some(software.to_string()),
                    position: position.0,
                }))
            }
            Fact::TokenIssued { token, role, uses, expires_at, issued_by } => {
                fb::FactBodyT::TokenIssued(Box::new(fb::TokenIssuedT {
                    token: token.0,
                    role: *role,
                    uses: *uses,
                    expires_at: expires_at.0,
                    issued_by: Some(issued_by.to_string()),
                }))
            }
            Fact::PrincipalEnrolled { principal, key_sha256, token } => {
                fb::FactBodyT::PrincipalEnrolled(Box::new(fb::PrincipalEnrolledT {
                    role: principal.role,
                    name: Some(principal.name.to_string()),
                    key: Some(key_sha256.to_vec()),
                    token: token.0,
                }))
            }
            Fact::AgentRegistered { agent, name, profile } => {
                let labels = profile.labels.iter();
                fb::FactBodyT::AgentRegistered(Box::new(fb::AgentRegisteredT {
                    agent: agent.0,
                    name: Some(name.to_string()),
                    capacity: Some(Box::new(profile.capacity.to_wire_with(&profile.custom))),
                    labels: Some(
                        labels
                            .map(|(key, value)| fb::KeyValueT { key: Some(key.clone()), value: Some(value.clone()) })
                            .collect(),
                    ),
                    agent_types: Some(profile.agent_types.clone()),
                    executors: Some(profile.executors.clone()),
                    data_id: Some(profile.data_id.to_vec()),
                    software: Some(profile.software.clone()),
                    host: Some(profile.host.clone()),
                    address: (!profile.address.is_empty()).then(|| profile.address.clone()),
                }))
            }
            Fact::BackupRestored(restored) => fb::FactBodyT::BackupRestored(Box::new(restored.to_wire())),
            Fact::RestoreAccepted { incarnation } => {
                fb::FactBodyT::RestoreAccepted(Box::new(fb::RestoreAcceptedT { incarnation: *incarnation }))
            }
            Fact::AgentChanged { agent, action, stop_at, reason, by } => {
                fb::FactBodyT::AgentChanged(Box::new(fb::AgentChangedT {
                    agent: agent.0,
                    action: *action,
                    stop_at: stop_at.0,
                    reason: Some(reason.to_string()),
                    by: Some(by.to_string()),
                }))
            }
            Fact::PolicySet { policy, by } => fb::FactBodyT::PolicySet(Box::new(fb::PolicySetT {
                policy: Some(Box::new(policy.to_wire())),
                by: Some(by.to_string()),
            })),
            Fact::ScheduleSet { schedule, by } => fb::FactBodyT::ScheduleSet(Box::new(fb::ScheduleSetT {
                schedule: Some(Box::new(schedule.to_wire())),
                by: Some(by.to_string()),
            })),
            Fact::ScheduleChanged { name, action } => fb::FactBodyT::ScheduleChanged(Box::new(fb::ScheduleChangedT {
                name: Some(name.to_string()),
                action: *action,
            })),
            Fact::ScheduleHeeded { name, moment, job, why } => {
                fb::FactBodyT::ScheduleHeeded(Box::new(fb::ScheduleHeededT {
                    name: Some(name.to_string()),
                    moment: moment.as_ms(),
                    job: job.0,
                    why: Some(why.to_string()).filter(|why| !why.is_empty()),
                }))
            }
            Fact::AgentForgotten { agent } => {
                fb::FactBodyT::AgentForgotten(Box::new(fb::AgentForgottenT { agent: agent.0 }))
            }
            Fact::AgentUnreachable { .. }
            | Fact::AgentReturned { .. }
            | Fact::AgentDeregistered { .. }
            | Fact::JobAccepted { .. }
            | Fact::AttemptAssigned { .. }
            | Fact::AttemptEnded(_)
            | Fact::TasksEnded { .. }
            | Fact::CancelRequested { .. }
            | Fact::JobForgotten { .. }
            | Fact::Kept(_) => unreachable!("written by its caller"),
        };
        let kind = body.fact_body_type();
        let Some(value) = body.pack(builder) else { unreachable!("a fact is never absent") };
        (kind, value)
    }
}

pub(crate) fn read_incarnation<'a>(table: fb::IncarnationStarted<'a>) -> Result<Fact<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "IncarnationStarted", field };
    Ok(Fact::IncarnationStarted {
        incarnation: table.incarnation(),
        id: array(table.id()).ok_or(wrong("id"))?,
        software: Cow::Borrowed(table.software().unwrap_or_default()),
        position: Position(table.position()),
    })
}

pub(crate) fn read_token<'a>(table: fb::TokenIssued<'a>) -> Result<Fact<'a>, FactError> {
    table.role().variant_name().ok_or(FactError::Field { fact: "TokenIssued", field: "role" })?;
    Ok(Fact::TokenIssued {
        token: TokenId(table.token()),
        role: table.role(),
        uses: table.uses(),
        expires_at: Time(table.expires_at()),
        issued_by: Cow::Borrowed(table.issued_by().unwrap_or_default()),
    })
}

pub(crate) fn read_principal<'a>(table: fb::PrincipalEnrolled<'a>) -> Result<Fact<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "PrincipalEnrolled", field };
    table.role().variant_name().ok_or(wrong("role"))?;
    let name = Name::new(table.name().unwrap_or_default()).map_err(|_| wrong("name"))?;
    Ok(Fact::PrincipalEnrolled {
        principal: Principal { role: table.role(), name },
        key_sha256: array(table.key()).ok_or(wrong("key"))?,
        token: TokenId(table.token()),
    })
}

pub(crate) fn read_agent<'a>(table: fb::AgentRegistered<'a>) -> Result<Fact<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "AgentRegistered", field };
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let labels = table.labels().into_iter().flatten();
    Ok(Fact::AgentRegistered {
        agent: AgentId(table.agent()),
        name: Name::new(table.name().unwrap_or_default()).map_err(|_| wrong("name"))?,
        profile: Arc::new(AgentProfile {
            capacity: Resources::from_wire(table.capacity()),
            custom: Custom::from_wire(table.capacity()).map_err(|_| wrong("capacity"))?,
            labels: labels.map(|label| (text(label.key()), text(label.value()))).collect(),
            agent_types: table.agent_types().into_iter().flatten().collect(),
            executors: table.executors().into_iter().flatten().collect(),
            data_id: array(table.data_id()).ok_or(wrong("data_id"))?,
            software: text(table.software()),
            host: text(table.host()),
            address: text(table.address()),
        }),
    })
}

pub(crate) fn read_change<'a>(table: fb::AgentChanged<'a>) -> Result<Fact<'a>, FactError> {
    table.action().variant_name().ok_or(FactError::Field { fact: "AgentChanged", field: "action" })?;
    Ok(Fact::AgentChanged {
        agent: AgentId(table.agent()),
        action: table.action(),
        stop_at: Time(table.stop_at()),
        reason: Cow::Borrowed(table.reason().unwrap_or_default()),
        by: Cow::Borrowed(table.by().unwrap_or_default()),
    })
}

pub(crate) fn read_policy<'a>(table: fb::PolicySet<'a>) -> Result<Fact<'a>, FactError> {
    let policy = table.policy().ok_or(FactError::Field { fact: "PolicySet", field: "policy" })?;
    let policy = Arc::new(ClusterPolicy::from_wire(policy)?);
    Ok(Fact::PolicySet { policy, by: Cow::Borrowed(table.by().unwrap_or_default()) })
}

pub(crate) fn read_schedule<'a>(table: fb::ScheduleSet<'a>) -> Result<Fact<'a>, FactError> {
    let schedule = table.schedule().ok_or(FactError::Field { fact: "ScheduleSet", field: "schedule" })?;
    let schedule = Arc::new(Schedule::from_wire(schedule)?);
    Ok(Fact::ScheduleSet { schedule, by: Cow::Borrowed(table.by().unwrap_or_default()) })
}

pub(crate) fn read_schedule_change<'a>(table: fb::ScheduleChanged<'a>) -> Result<Fact<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "ScheduleChanged", field };
    table.action().variant_name().ok_or(wrong("action"))?;
    let name = Name::new(table.name().unwrap_or_default()).map_err(|_| wrong("name"))?;
    Ok(Fact::ScheduleChanged { name, action: table.action() })
}

pub(crate) fn read_heeded<'a>(table: fb::ScheduleHeeded<'a>) -> Result<Fact<'a>, FactError> {
    let name = Name::new(table.name().unwrap_or_default());
    let name = name.map_err(|_| FactError::Field { fact: "ScheduleHeeded", field: "name" })?;
    let (moment, job) = (Time::from_ms(table.moment()), JobId(table.job()));
    Ok(Fact::ScheduleHeeded { name, moment, job, why: Cow::Borrowed(table.why().unwrap_or_default()) })
}

impl Restored {
    /// As the journal's owned table.
    pub(crate) fn to_wire(&self) -> fb::BackupRestoredT {
        fb::BackupRestoredT {
            incarnation: self.incarnation,
            id: Some(self.id.to_vec()),
            position: self.position.0,
            agent: Some(self.agent.to_string()),
            last_job: self.last_job.0,
        }
    }

    /// Reads the journal's table.
    pub(crate) fn from_wire(table: fb::BackupRestored<'_>) -> Result<Restored, FactError> {
        let wrong = |field| FactError::Field { fact: "BackupRestored", field };
        Ok(Restored {
            incarnation: table.incarnation(),
            id: array(table.id()).ok_or(wrong("id"))?,
            position: Position(table.position()),
            agent: Name::new(table.agent().unwrap_or_default()).map_err(|_| wrong("agent"))?,
            last_job: JobId(table.last_job()),
        })
    }
}
