// @generated stamp 04808b4175bd8cac9a114fb62c844167e8d35c68ce25b36ca08a04cf3e81e848 flatc 25.12.19
use super::{Verifier, fb};

/// How deep tables can lie in each other: no schema here holds itself.
pub const DEPTH: usize = 7;

fn packed(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 9)?;
    table.inline(4, 1, 1);
    table.inline(6, 4, 4);
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn custom_resource(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 8)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.finish(v)
}

fn resource_spec(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 20)?;
    table.inline(4, 4, 4);
    table.inline(6, 4, 4);
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    if let Some(at) = table.offset(v, 12)? {
        v.each(at, custom_resource)?;
    }
    table.finish(v)
}

fn key_value(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let table = v.table(at, 8)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn file(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 9)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(8, 1, 1);
    table.finish(v)
}

fn task_assignment(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 117)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 1, 1);
    if let Some(at) = table.offset(v, 8)? {
        resource_spec(v, at)?;
    }
    table.inline(10, 1, 1);
    table.inline(12, 8, 8);
    table.inline(14, 4, 4);
    table.inline(16, 8, 8);
    table.inline(18, 1, 1);
    if let Some(at) = table.offset(v, 20)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 22)? {
        v.each(at, Verifier::text)?;
    }
    if let Some(at) = table.offset(v, 24)? {
        v.each(at, key_value)?;
    }
    if let Some(at) = table.offset(v, 26)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 28)? {
        v.each(at, file)?;
    }
    table.inline(30, 1, 1);
    table.inline(32, 8, 8);
    table.inline(34, 1, 1);
    table.inline(36, 32, 1);
    table.inline(38, 4, 4);
    if let Some(at) = table.offset(v, 40)? {
        v.text(at)?;
    }
    table.inline(42, 8, 8);
    table.inline(44, 8, 8);
    table.finish(v)
}

fn metric(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 12)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 8, 8);
    table.finish(v)
}

fn metric_name(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 6)?;
    table.inline(4, 2, 2);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn resource_usage(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 32)?;
    table.inline(4, 8, 8);
    table.inline(6, 8, 8);
    table.inline(8, 8, 8);
    table.inline(10, 8, 8);
    table.finish(v)
}

fn attempt_end(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 50)?;
    table.inline(4, 1, 1);
    table.inline(6, 4, 4);
    table.inline(8, 1, 1);
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 14)? {
        resource_usage(v, at)?;
    }
    table.inline(16, 8, 8);
    table.inline(18, 8, 8);
    table.inline(20, 8, 8);
    table.inline(22, 8, 8);
    table.finish(v)
}

fn status_update(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 45)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 1, 1);
    table.inline(8, 4, 4);
    if let Some(at) = table.offset(v, 10)? {
        v.each(at, metric)?;
    }
    table.inline(12, 4, 4);
    if let Some(at) = table.offset(v, 14)? {
        v.vector(at, 2, 2)?;
    }
    if let Some(at) = table.offset(v, 16)? {
        v.vector(at, 8, 8)?;
    }
    if let Some(at) = table.offset(v, 18)? {
        v.each(at, metric_name)?;
    }
    if let Some(at) = table.offset(v, 20)? {
        attempt_end(v, at)?;
    }
    if let Some(at) = table.offset(v, 22)? {
        v.text(at)?;
    }
    table.inline(24, 8, 8);
    table.finish(v)
}

fn heartbeat(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 21)?;
    table.inline(4, 4, 4);
    table.inline(6, 4, 4);
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    table.inline(12, 4, 4);
    table.inline(14, 1, 1);
    table.finish(v)
}

fn hello(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 62)?;
    if let Some(at) = table.offset(v, 4)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(6, 2, 2);
    table.inline(8, 8, 8);
    if let Some(at) = table.offset(v, 10)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(14, 32, 1);
    if let Some(at) = table.offset(v, 16)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 18)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn welcome(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 86)?;
    if let Some(at) = table.offset(v, 4)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(8, 2, 2);
    table.inline(10, 8, 8);
    table.inline(12, 8, 8);
    table.inline(14, 4, 4);
    if let Some(at) = table.offset(v, 16)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(18, 8, 8);
    table.inline(20, 32, 1);
    if let Some(at) = table.offset(v, 22)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 24)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 26)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn attempt_report(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 26)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 1, 1);
    if let Some(at) = table.offset(v, 10)? {
        resource_spec(v, at)?;
    }
    table.inline(12, 1, 1);
    table.inline(14, 4, 4);
    table.inline(16, 8, 8);
    table.finish(v)
}

fn register(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 40)?;
    if let Some(at) = table.offset(v, 4)? {
        resource_spec(v, at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.each(at, key_value)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 14)? {
        v.each(at, attempt_report)?;
    }
    if let Some(at) = table.offset(v, 16)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 18)? {
        v.text(at)?;
    }
    table.inline(20, 4, 4);
    if let Some(at) = table.offset(v, 22)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn attempt_answer(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 9)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 1, 1);
    table.finish(v)
}

fn registered(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 10)?;
    if let Some(at) = table.offset(v, 4)? {
        v.each(at, attempt_answer)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 2, 2);
    table.finish(v)
}

fn deregister(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let table = v.table(at, 4)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn task_acceptance(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 8)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.finish(v)
}

fn task_rejection(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 14)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 2, 2);
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn task_cancellation(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 10)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 1, 1);
    table.inline(10, 1, 1);
    table.finish(v)
}

fn ack(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 24)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.inline(8, 4, 4);
    table.inline(10, 8, 8);
    table.finish(v)
}

fn nack(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 41)?;
    table.inline(4, 2, 2);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    table.inline(10, 8, 8);
    if let Some(at) = table.offset(v, 12)? {
        v.text(at)?;
    }
    table.inline(14, 4, 4);
    table.inline(16, 4, 4);
    table.inline(18, 8, 8);
    table.inline(20, 2, 2);
    table.inline(22, 1, 1);
    table.finish(v)
}

fn chunk(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 25)?;
    table.inline(4, 8, 8);
    table.inline(6, 8, 8);
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(10, 1, 1);
    table.inline(12, 4, 4);
    table.finish(v)
}

fn log_request(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 37)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.inline(8, 4, 4);
    table.inline(10, 1, 1);
    table.inline(12, 8, 8);
    table.inline(14, 4, 4);
    table.inline(16, 8, 8);
    table.finish(v)
}

fn log_chunk(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 46)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.inline(8, 4, 4);
    table.inline(10, 1, 1);
    table.inline(12, 8, 8);
    if let Some(at) = table.offset(v, 14)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(16, 1, 1);
    table.inline(18, 8, 8);
    table.inline(20, 8, 8);
    table.finish(v)
}

fn enroll(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 9)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 1, 1);
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn enrolled(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let table = v.table(at, 16)?;
    if let Some(at) = table.offset(v, 4)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn submit_job(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 16)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn job_submitted(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 17)?;
    table.inline(4, 8, 8);
    table.inline(6, 8, 8);
    table.inline(8, 1, 1);
    table.finish(v)
}

fn cancel_work(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 24)?;
    table.inline(4, 8, 8);
    table.inline(6, 8, 8);
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn create_token(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 21)?;
    table.inline(4, 8, 8);
    table.inline(6, 1, 1);
    table.inline(8, 4, 4);
    table.inline(10, 8, 8);
    table.finish(v)
}

fn token_created(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 12)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn query(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 57)?;
    table.inline(4, 8, 8);
    table.inline(6, 1, 1);
    table.inline(8, 8, 8);
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.text(at)?;
    }
    table.inline(14, 8, 8);
    table.inline(16, 4, 4);
    table.inline(18, 8, 8);
    table.inline(20, 4, 4);
    if let Some(at) = table.offset(v, 22)? {
        v.each(at, key_value)?;
    }
    if let Some(at) = table.offset(v, 24)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn task_counts(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 28)?;
    table.inline(4, 4, 4);
    table.inline(6, 4, 4);
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    table.inline(12, 4, 4);
    table.inline(14, 4, 4);
    table.inline(16, 4, 4);
    table.finish(v)
}

fn task_spec_summary(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 9)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 1, 1);
    table.finish(v)
}

fn job_summary(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 68)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        task_counts(v, at)?;
    }
    table.inline(10, 8, 8);
    table.inline(12, 8, 8);
    if let Some(at) = table.offset(v, 14)? {
        v.text(at)?;
    }
    table.inline(16, 8, 8);
    if let Some(at) = table.offset(v, 18)? {
        v.each(at, task_spec_summary)?;
    }
    table.inline(20, 4, 4);
    if let Some(at) = table.offset(v, 22)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 24)? {
        v.each(at, key_value)?;
    }
    if let Some(at) = table.offset(v, 26)? {
        v.each(at, key_value)?;
    }
    if let Some(at) = table.offset(v, 28)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn task_summary(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 50)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.inline(8, 1, 1);
    table.inline(10, 4, 4);
    if let Some(at) = table.offset(v, 12)? {
        v.text(at)?;
    }
    table.inline(14, 4, 4);
    if let Some(at) = table.offset(v, 16)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 18)? {
        v.each(at, metric)?;
    }
    if let Some(at) = table.offset(v, 20)? {
        attempt_end(v, at)?;
    }
    table.inline(22, 4, 4);
    table.inline(24, 4, 4);
    table.inline(26, 8, 8);
    table.inline(28, 1, 1);
    table.finish(v)
}

fn agent_summary(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 54)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 1, 1);
    if let Some(at) = table.offset(v, 8)? {
        resource_spec(v, at)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        resource_spec(v, at)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.each(at, key_value)?;
    }
    if let Some(at) = table.offset(v, 14)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(16, 4, 4);
    table.inline(18, 8, 8);
    if let Some(at) = table.offset(v, 20)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 22)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 24)? {
        resource_spec(v, at)?;
    }
    if let Some(at) = table.offset(v, 26)? {
        v.each(at, attempt_report)?;
    }
    if let Some(at) = table.offset(v, 28)? {
        v.text(at)?;
    }
    table.inline(30, 1, 1);
    table.finish(v)
}

fn obstacle(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 12)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn earliest_start(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 44)?;
    table.inline(4, 8, 8);
    table.inline(6, 8, 8);
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    table.inline(12, 4, 4);
    table.inline(14, 4, 4);
    if let Some(at) = table.offset(v, 16)? {
        v.text(at)?;
    }
    table.inline(18, 4, 4);
    table.inline(20, 4, 4);
    table.finish(v)
}

fn explanation(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 17)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 1, 1);
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        v.each(at, obstacle)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        earliest_start(v, at)?;
    }
    table.finish(v)
}

fn cluster_summary(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 36)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 8, 8);
    table.inline(8, 8, 8);
    table.inline(10, 4, 4);
    table.inline(12, 4, 4);
    table.inline(14, 4, 4);
    if let Some(at) = table.offset(v, 16)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn quota(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 16)?;
    table.inline(4, 4, 4);
    table.inline(6, 4, 4);
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    table.finish(v)
}

fn queue_rule(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 13)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    if let Some(at) = table.offset(v, 8)? {
        quota(v, at)?;
    }
    table.inline(10, 1, 1);
    table.finish(v)
}

fn placing_rule(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 4)?;
    table.inline(4, 2, 2);
    table.inline(6, 2, 2);
    table.finish(v)
}

fn reserve_rule(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 10)?;
    table.inline(4, 8, 8);
    table.inline(6, 2, 2);
    table.finish(v)
}

fn preempt_rule(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 17)?;
    table.inline(4, 1, 1);
    table.inline(6, 8, 8);
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    table.finish(v)
}

fn cluster_policy(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 25)?;
    if let Some(at) = table.offset(v, 4)? {
        v.each(at, queue_rule)?;
    }
    table.inline(6, 8, 8);
    table.inline(8, 1, 1);
    if let Some(at) = table.offset(v, 10)? {
        placing_rule(v, at)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        reserve_rule(v, at)?;
    }
    if let Some(at) = table.offset(v, 14)? {
        preempt_rule(v, at)?;
    }
    table.finish(v)
}

fn queue_summary(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 28)?;
    if let Some(at) = table.offset(v, 4)? {
        queue_rule(v, at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        resource_spec(v, at)?;
    }
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    table.inline(12, 8, 8);
    table.inline(14, 4, 4);
    table.finish(v)
}

fn policy_summary(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 20)?;
    if let Some(at) = table.offset(v, 4)? {
        cluster_policy(v, at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.inline(8, 8, 8);
    if let Some(at) = table.offset(v, 10)? {
        v.each(at, queue_summary)?;
    }
    table.finish(v)
}

fn plan_place(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 8)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.finish(v)
}

fn plan_entry(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 48)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 4, 4);
    if let Some(at) = table.offset(v, 10)? {
        v.each(at, Verifier::text)?;
    }
    table.inline(12, 4, 4);
    table.inline(14, 4, 4);
    table.inline(16, 4, 4);
    table.inline(18, 4, 4);
    if let Some(at) = table.offset(v, 20)? {
        v.each(at, plan_place)?;
    }
    if let Some(at) = table.offset(v, 22)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 24)? {
        v.each(at, obstacle)?;
    }
    if let Some(at) = table.offset(v, 26)? {
        earliest_start(v, at)?;
    }
    table.finish(v)
}

fn resource_total(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 32)?;
    table.inline(4, 8, 8);
    table.inline(6, 8, 8);
    table.inline(8, 8, 8);
    table.inline(10, 8, 8);
    table.finish(v)
}

fn plan_semaphore(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 16)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 8, 8);
    table.finish(v)
}

fn plan(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 40)?;
    if let Some(at) = table.offset(v, 4)? {
        nack(v, at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.inline(8, 8, 8);
    if let Some(at) = table.offset(v, 10)? {
        v.each(at, plan_entry)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        resource_total(v, at)?;
    }
    if let Some(at) = table.offset(v, 14)? {
        resource_total(v, at)?;
    }
    table.inline(16, 4, 4);
    if let Some(at) = table.offset(v, 18)? {
        queue_summary(v, at)?;
    }
    if let Some(at) = table.offset(v, 20)? {
        v.each(at, plan_semaphore)?;
    }
    table.finish(v)
}

fn schedule_summary(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 78)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    table.inline(10, 1, 1);
    table.inline(12, 8, 8);
    if let Some(at) = table.offset(v, 14)? {
        v.text(at)?;
    }
    table.inline(16, 8, 8);
    table.inline(18, 8, 8);
    table.inline(20, 8, 8);
    table.inline(22, 8, 8);
    if let Some(at) = table.offset(v, 24)? {
        v.text(at)?;
    }
    table.inline(26, 8, 8);
    table.inline(28, 8, 8);
    table.inline(30, 1, 1);
    table.finish(v)
}

fn page(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 52)?;
    table.inline(4, 8, 8);
    table.inline(6, 8, 8);
    if let Some(at) = table.offset(v, 8)? {
        v.each(at, job_summary)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        v.each(at, task_summary)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.each(at, agent_summary)?;
    }
    if let Some(at) = table.offset(v, 14)? {
        explanation(v, at)?;
    }
    if let Some(at) = table.offset(v, 16)? {
        cluster_summary(v, at)?;
    }
    if let Some(at) = table.offset(v, 18)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 20)? {
        policy_summary(v, at)?;
    }
    if let Some(at) = table.offset(v, 22)? {
        plan(v, at)?;
    }
    if let Some(at) = table.offset(v, 24)? {
        v.each(at, schedule_summary)?;
    }
    table.finish(v)
}

fn change_agent(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 25)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.inline(8, 1, 1);
    table.inline(10, 8, 8);
    if let Some(at) = table.offset(v, 12)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn set_policy(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 12)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        cluster_policy(v, at)?;
    }
    table.finish(v)
}

fn plan_job(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 12)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn schedule(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 25)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    table.inline(10, 1, 1);
    table.inline(12, 8, 8);
    if let Some(at) = table.offset(v, 14)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn set_schedule(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 12)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        schedule(v, at)?;
    }
    table.finish(v)
}

fn change_schedule(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 13)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.inline(8, 1, 1);
    table.finish(v)
}

fn scheduler_message(v: &mut Verifier<'_>, kind: fb::SchedulerMessage, place: usize) -> Option<()> {
    match kind {
        fb::SchedulerMessage::TaskAssignment => {
            let at = v.follow(place)?;
            task_assignment(v, at)
        }
        fb::SchedulerMessage::StatusUpdate => {
            let at = v.follow(place)?;
            status_update(v, at)
        }
        fb::SchedulerMessage::Heartbeat => {
            let at = v.follow(place)?;
            heartbeat(v, at)
        }
        fb::SchedulerMessage::Hello => {
            let at = v.follow(place)?;
            hello(v, at)
        }
        fb::SchedulerMessage::Welcome => {
            let at = v.follow(place)?;
            welcome(v, at)
        }
        fb::SchedulerMessage::Register => {
            let at = v.follow(place)?;
            register(v, at)
        }
        fb::SchedulerMessage::Registered => {
            let at = v.follow(place)?;
            registered(v, at)
        }
        fb::SchedulerMessage::Deregister => {
            let at = v.follow(place)?;
            deregister(v, at)
        }
        fb::SchedulerMessage::TaskAcceptance => {
            let at = v.follow(place)?;
            task_acceptance(v, at)
        }
        fb::SchedulerMessage::TaskRejection => {
            let at = v.follow(place)?;
            task_rejection(v, at)
        }
        fb::SchedulerMessage::TaskCancellation => {
            let at = v.follow(place)?;
            task_cancellation(v, at)
        }
        fb::SchedulerMessage::Ack => {
            let at = v.follow(place)?;
            ack(v, at)
        }
        fb::SchedulerMessage::Nack => {
            let at = v.follow(place)?;
            nack(v, at)
        }
        fb::SchedulerMessage::Chunk => {
            let at = v.follow(place)?;
            chunk(v, at)
        }
        fb::SchedulerMessage::LogRequest => {
            let at = v.follow(place)?;
            log_request(v, at)
        }
        fb::SchedulerMessage::LogChunk => {
            let at = v.follow(place)?;
            log_chunk(v, at)
        }
        fb::SchedulerMessage::Enroll => {
            let at = v.follow(place)?;
            enroll(v, at)
        }
        fb::SchedulerMessage::Enrolled => {
            let at = v.follow(place)?;
            enrolled(v, at)
        }
        fb::SchedulerMessage::SubmitJob => {
            let at = v.follow(place)?;
            submit_job(v, at)
        }
        fb::SchedulerMessage::JobSubmitted => {
            let at = v.follow(place)?;
            job_submitted(v, at)
        }
        fb::SchedulerMessage::CancelWork => {
            let at = v.follow(place)?;
            cancel_work(v, at)
        }
        fb::SchedulerMessage::CreateToken => {
            let at = v.follow(place)?;
            create_token(v, at)
        }
        fb::SchedulerMessage::TokenCreated => {
            let at = v.follow(place)?;
            token_created(v, at)
        }
        fb::SchedulerMessage::Query => {
            let at = v.follow(place)?;
            query(v, at)
        }
        fb::SchedulerMessage::Page => {
            let at = v.follow(place)?;
            page(v, at)
        }
        fb::SchedulerMessage::ChangeAgent => {
            let at = v.follow(place)?;
            change_agent(v, at)
        }
        fb::SchedulerMessage::SetPolicy => {
            let at = v.follow(place)?;
            set_policy(v, at)
        }
        fb::SchedulerMessage::PlanJob => {
            let at = v.follow(place)?;
            plan_job(v, at)
        }
        fb::SchedulerMessage::SetSchedule => {
            let at = v.follow(place)?;
            set_schedule(v, at)
        }
        fb::SchedulerMessage::ChangeSchedule => {
            let at = v.follow(place)?;
            change_schedule(v, at)
        }
        // Nobody reads what is not known.
        _ => Some(()),
    }
}

fn item(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let table = v.table(at, 5)?;
    if let Some((kind, place)) = table.union(v, 4, 6)? {
        scheduler_message(v, fb::SchedulerMessage(kind), place)?;
    }
    table.finish(v)
}

pub(super) fn message_envelope(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 76)?;
    table.inline(4, 2, 2);
    table.inline(6, 8, 8);
    if let Some((kind, place)) = table.union(v, 8, 10)? {
        scheduler_message(v, fb::SchedulerMessage(kind), place)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(14, 4, 4);
    table.inline(16, 8, 8);
    if let Some(at) = table.offset(v, 18)? {
        packed(v, at)?;
    }
    if let Some(at) = table.offset(v, 20)? {
        v.each(at, item)?;
    }
    table.inline(22, 8, 8);
    if let Some(at) = table.offset(v, 24)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 26)? {
        v.text(at)?;
    }
    table.inline(28, 8, 8);
    table.inline(30, 1, 1);
    table.inline(32, 4, 4);
    table.inline(34, 4, 4);
    if let Some(at) = table.offset(v, 36)? {
        v.text(at)?;
    }
    table.finish(v)
}

pub(super) fn body(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let table = v.table(at, 9)?;
    if let Some((kind, place)) = table.union(v, 4, 6)? {
        scheduler_message(v, fb::SchedulerMessage(kind), place)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.each(at, item)?;
    }
    table.finish(v)
}

fn constraint(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 13)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 1, 1);
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        v.each(at, Verifier::text)?;
    }
    table.finish(v)
}

fn dependency(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 10)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 1, 1);
    table.inline(8, 1, 1);
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn preference(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 6)?;
    if let Some(at) = table.offset(v, 4)? {
        constraint(v, at)?;
    }
    table.inline(6, 2, 2);
    table.finish(v)
}

fn sweep_axis(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let table = v.table(at, 12)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.each(at, Verifier::text)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn sweep(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 5)?;
    if let Some(at) = table.offset(v, 4)? {
        v.each(at, sweep_axis)?;
    }
    table.inline(6, 1, 1);
    table.finish(v)
}

fn semaphore(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 12)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 4, 4);
    table.finish(v)
}

fn task_spec(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 105)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.inline(8, 1, 1);
    table.inline(10, 1, 1);
    table.inline(12, 1, 1);
    if let Some(at) = table.offset(v, 14)? {
        resource_spec(v, at)?;
    }
    table.inline(16, 1, 1);
    table.inline(18, 1, 1);
    if let Some(at) = table.offset(v, 20)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 22)? {
        v.each(at, Verifier::text)?;
    }
    if let Some(at) = table.offset(v, 24)? {
        v.each(at, key_value)?;
    }
    if let Some(at) = table.offset(v, 26)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 28)? {
        v.each(at, file)?;
    }
    table.inline(30, 1, 1);
    if let Some(at) = table.offset(v, 32)? {
        v.each(at, constraint)?;
    }
    table.inline(34, 8, 8);
    table.inline(36, 8, 8);
    table.inline(38, 4, 4);
    table.inline(40, 4, 4);
    table.inline(42, 4, 4);
    table.inline(44, 4, 4);
    if let Some(at) = table.offset(v, 46)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 48)? {
        v.each(at, dependency)?;
    }
    table.inline(50, 4, 4);
    table.inline(52, 1, 1);
    table.inline(54, 1, 1);
    if let Some(at) = table.offset(v, 56)? {
        v.each(at, preference)?;
    }
    if let Some(at) = table.offset(v, 58)? {
        sweep(v, at)?;
    }
    if let Some(at) = table.offset(v, 60)? {
        v.each(at, semaphore)?;
    }
    table.inline(62, 4, 4);
    table.inline(64, 1, 1);
    table.finish(v)
}

pub(super) fn job_spec(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 72)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.each(at, task_spec)?;
    }
    table.inline(8, 8, 8);
    table.inline(10, 8, 8);
    table.inline(12, 1, 1);
    table.inline(14, 1, 1);
    table.inline(16, 1, 1);
    table.inline(18, 4, 4);
    table.inline(20, 8, 8);
    table.inline(22, 8, 8);
    table.inline(24, 4, 4);
    if let Some(at) = table.offset(v, 26)? {
        v.each(at, key_value)?;
    }
    if let Some(at) = table.offset(v, 28)? {
        v.each(at, key_value)?;
    }
    table.inline(30, 8, 8);
    table.inline(32, 1, 1);
    if let Some(at) = table.offset(v, 34)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn incarnation_started(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 24)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.text(at)?;
    }
    table.inline(10, 8, 8);
    table.finish(v)
}

fn token_issued(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 21)?;
    table.inline(4, 4, 4);
    table.inline(6, 1, 1);
    table.inline(8, 4, 4);
    table.inline(10, 8, 8);
    if let Some(at) = table.offset(v, 12)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn principal_enrolled(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 13)?;
    table.inline(4, 1, 1);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(10, 4, 4);
    table.finish(v)
}

fn agent_registered(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 40)?;
    table.inline(4, 4, 4);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        resource_spec(v, at)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        v.each(at, key_value)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 14)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 16)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 18)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 20)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 22)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn agent_unreachable(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 4)?;
    table.inline(4, 4, 4);
    table.finish(v)
}

fn agent_returned(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 4)?;
    table.inline(4, 4, 4);
    table.finish(v)
}

fn agent_deregistered(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 4)?;
    table.inline(4, 4, 4);
    table.finish(v)
}

fn job_accepted(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 28)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 14)? {
        v.vector(at, 40, 1)?;
    }
    table.finish(v)
}

fn attempt_assigned(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 22)?;
    table.inline(4, 8, 8);
    table.inline(6, 2, 2);
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    table.inline(12, 4, 4);
    table.finish(v)
}

fn attempt_ended(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 71)?;
    table.inline(4, 8, 8);
    table.inline(6, 2, 2);
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    table.inline(12, 1, 1);
    table.inline(14, 1, 1);
    table.inline(16, 8, 8);
    table.inline(18, 1, 1);
    table.inline(20, 1, 1);
    if let Some(at) = table.offset(v, 22)? {
        attempt_end(v, at)?;
    }
    if let Some(at) = table.offset(v, 24)? {
        v.each(at, metric)?;
    }
    table.inline(26, 1, 1);
    table.inline(28, 32, 1);
    table.finish(v)
}

fn tasks_ended(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 20)?;
    table.inline(4, 8, 8);
    table.inline(6, 2, 2);
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    table.inline(12, 1, 1);
    table.inline(14, 1, 1);
    table.finish(v)
}

fn cancel_requested(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 16)?;
    table.inline(4, 8, 8);
    table.inline(6, 1, 1);
    table.inline(8, 2, 2);
    table.inline(10, 4, 4);
    table.inline(12, 1, 1);
    table.finish(v)
}

fn data_created(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 40)?;
    if let Some(at) = table.offset(v, 4)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(6, 32, 1);
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn assignment_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 9)?;
    if let Some(at) = table.offset(v, 4)? {
        task_assignment(v, at)?;
    }
    table.inline(6, 1, 1);
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn result_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let table = v.table(at, 4)?;
    if let Some(at) = table.offset(v, 4)? {
        status_update(v, at)?;
    }
    table.finish(v)
}

fn attempt_settled(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 8)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.finish(v)
}

fn job_forgotten(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 8)?;
    table.inline(4, 8, 8);
    table.finish(v)
}

fn incarnation_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 20)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(8, 8, 8);
    table.finish(v)
}

fn backup_restored(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 32)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(8, 8, 8);
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    table.inline(12, 8, 8);
    table.finish(v)
}

fn snapshot_begun(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 84)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(8, 4, 4);
    table.inline(10, 8, 8);
    if let Some(at) = table.offset(v, 12)? {
        v.each(at, Verifier::text)?;
    }
    if let Some(at) = table.offset(v, 14)? {
        v.each(at, incarnation_kept)?;
    }
    if let Some(at) = table.offset(v, 16)? {
        backup_restored(v, at)?;
    }
    table.inline(18, 8, 8);
    table.inline(20, 8, 8);
    table.inline(22, 8, 8);
    table.inline(24, 8, 8);
    table.inline(26, 8, 8);
    table.inline(28, 8, 8);
    table.finish(v)
}

fn token_use(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 9)?;
    table.inline(4, 1, 1);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        v.vector(at, 1, 1)?;
    }
    table.finish(v)
}

fn token_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 29)?;
    table.inline(4, 4, 4);
    table.inline(6, 1, 1);
    table.inline(8, 4, 4);
    table.inline(10, 8, 8);
    table.inline(12, 8, 8);
    if let Some(at) = table.offset(v, 14)? {
        v.each(at, token_use)?;
    }
    table.finish(v)
}

fn submit_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 16)?;
    if let Some(at) = table.offset(v, 4)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 1, 1)?;
    }
    table.inline(8, 8, 8);
    table.finish(v)
}

fn indices(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 8)?;
    table.inline(4, 4, 4);
    if let Some(at) = table.offset(v, 6)? {
        v.vector(at, 8, 8)?;
    }
    table.finish(v)
}

fn entry_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 28)?;
    if let Some(at) = table.offset(v, 4)? {
        v.vector(at, 4, 4)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        indices(v, at)?;
    }
    if let Some(at) = table.offset(v, 8)? {
        indices(v, at)?;
    }
    if let Some(at) = table.offset(v, 10)? {
        indices(v, at)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        indices(v, at)?;
    }
    table.inline(14, 8, 8);
    table.finish(v)
}

fn job_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 58)?;
    table.inline(4, 8, 8);
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.inline(8, 8, 8);
    table.inline(10, 8, 8);
    table.inline(12, 1, 1);
    table.inline(14, 8, 8);
    if let Some(at) = table.offset(v, 16)? {
        v.vector(at, 1, 1)?;
    }
    if let Some(at) = table.offset(v, 18)? {
        v.each(at, entry_kept)?;
    }
    if let Some(at) = table.offset(v, 20)? {
        v.vector(at, 40, 1)?;
    }
    table.inline(22, 8, 8);
    table.inline(24, 1, 1);
    table.finish(v)
}

fn end_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 62)?;
    table.inline(4, 4, 4);
    table.inline(6, 4, 4);
    table.inline(8, 4, 4);
    table.inline(10, 4, 4);
    table.inline(12, 4, 4);
    table.inline(14, 1, 1);
    table.inline(16, 1, 1);
    if let Some(at) = table.offset(v, 18)? {
        attempt_end(v, at)?;
    }
    if let Some(at) = table.offset(v, 20)? {
        v.each(at, metric)?;
    }
    table.inline(22, 32, 1);
    table.finish(v)
}

fn task_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 60)?;
    table.inline(4, 8, 8);
    table.inline(6, 2, 2);
    table.inline(8, 4, 4);
    table.inline(10, 1, 1);
    table.inline(12, 4, 4);
    table.inline(14, 4, 4);
    table.inline(16, 4, 4);
    table.inline(18, 4, 4);
    table.inline(20, 4, 4);
    table.inline(22, 4, 4);
    table.inline(24, 4, 4);
    table.inline(26, 1, 1);
    table.inline(28, 8, 8);
    if let Some(at) = table.offset(v, 30)? {
        end_kept(v, at)?;
    }
    table.inline(32, 4, 4);
    table.finish(v)
}

fn attempt_started(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 8)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 4, 4);
    table.finish(v)
}

fn restore_accepted(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 8)?;
    table.inline(4, 8, 8);
    table.finish(v)
}

fn agent_forgotten(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 4)?;
    table.inline(4, 4, 4);
    table.finish(v)
}

fn agent_changed(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 21)?;
    table.inline(4, 4, 4);
    table.inline(6, 1, 1);
    table.inline(8, 8, 8);
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    if let Some(at) = table.offset(v, 12)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn policy_set(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let table = v.table(at, 8)?;
    if let Some(at) = table.offset(v, 4)? {
        cluster_policy(v, at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn schedule_set(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let table = v.table(at, 8)?;
    if let Some(at) = table.offset(v, 4)? {
        schedule(v, at)?;
    }
    if let Some(at) = table.offset(v, 6)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn schedule_changed(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 5)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 1, 1);
    table.finish(v)
}

fn schedule_heeded(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 24)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 8, 8);
    table.inline(8, 8, 8);
    if let Some(at) = table.offset(v, 10)? {
        v.text(at)?;
    }
    table.finish(v)
}

fn schedule_kept(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 49)?;
    if let Some(at) = table.offset(v, 4)? {
        v.text(at)?;
    }
    table.inline(6, 1, 1);
    table.inline(8, 8, 8);
    table.inline(10, 8, 8);
    table.inline(12, 8, 8);
    if let Some(at) = table.offset(v, 14)? {
        v.text(at)?;
    }
    table.inline(16, 8, 8);
    table.inline(18, 8, 8);
    table.finish(v)
}

fn fact_body(v: &mut Verifier<'_>, kind: fb::FactBody, place: usize) -> Option<()> {
    match kind {
        fb::FactBody::IncarnationStarted => {
            let at = v.follow(place)?;
            incarnation_started(v, at)
        }
        fb::FactBody::TokenIssued => {
            let at = v.follow(place)?;
            token_issued(v, at)
        }
        fb::FactBody::PrincipalEnrolled => {
            let at = v.follow(place)?;
            principal_enrolled(v, at)
        }
        fb::FactBody::AgentRegistered => {
            let at = v.follow(place)?;
            agent_registered(v, at)
        }
        fb::FactBody::AgentUnreachable => {
            let at = v.follow(place)?;
            agent_unreachable(v, at)
        }
        fb::FactBody::AgentReturned => {
            let at = v.follow(place)?;
            agent_returned(v, at)
        }
        fb::FactBody::AgentDeregistered => {
            let at = v.follow(place)?;
            agent_deregistered(v, at)
        }
        fb::FactBody::JobAccepted => {
            let at = v.follow(place)?;
            job_accepted(v, at)
        }
        fb::FactBody::AttemptAssigned => {
            let at = v.follow(place)?;
            attempt_assigned(v, at)
        }
        fb::FactBody::AttemptEnded => {
            let at = v.follow(place)?;
            attempt_ended(v, at)
        }
        fb::FactBody::TasksEnded => {
            let at = v.follow(place)?;
            tasks_ended(v, at)
        }
        fb::FactBody::CancelRequested => {
            let at = v.follow(place)?;
            cancel_requested(v, at)
        }
        fb::FactBody::DataCreated => {
            let at = v.follow(place)?;
            data_created(v, at)
        }
        fb::FactBody::AssignmentKept => {
            let at = v.follow(place)?;
            assignment_kept(v, at)
        }
        fb::FactBody::ResultKept => {
            let at = v.follow(place)?;
            result_kept(v, at)
        }
        fb::FactBody::AttemptSettled => {
            let at = v.follow(place)?;
            attempt_settled(v, at)
        }
        fb::FactBody::JobForgotten => {
            let at = v.follow(place)?;
            job_forgotten(v, at)
        }
        fb::FactBody::SnapshotBegun => {
            let at = v.follow(place)?;
            snapshot_begun(v, at)
        }
        fb::FactBody::TokenKept => {
            let at = v.follow(place)?;
            token_kept(v, at)
        }
        fb::FactBody::SubmitKept => {
            let at = v.follow(place)?;
            submit_kept(v, at)
        }
        fb::FactBody::JobKept => {
            let at = v.follow(place)?;
            job_kept(v, at)
        }
        fb::FactBody::TaskKept => {
            let at = v.follow(place)?;
            task_kept(v, at)
        }
        fb::FactBody::AttemptStarted => {
            let at = v.follow(place)?;
            attempt_started(v, at)
        }
        fb::FactBody::BackupRestored => {
            let at = v.follow(place)?;
            backup_restored(v, at)
        }
        fb::FactBody::RestoreAccepted => {
            let at = v.follow(place)?;
            restore_accepted(v, at)
        }
        fb::FactBody::AgentForgotten => {
            let at = v.follow(place)?;
            agent_forgotten(v, at)
        }
        fb::FactBody::AgentChanged => {
            let at = v.follow(place)?;
            agent_changed(v, at)
        }
        fb::FactBody::PolicySet => {
            let at = v.follow(place)?;
            policy_set(v, at)
        }
        fb::FactBody::ScheduleSet => {
            let at = v.follow(place)?;
            schedule_set(v, at)
        }
        fb::FactBody::ScheduleChanged => {
            let at = v.follow(place)?;
            schedule_changed(v, at)
        }
        fb::FactBody::ScheduleHeeded => {
            let at = v.follow(place)?;
            schedule_heeded(v, at)
        }
        fb::FactBody::ScheduleKept => {
            let at = v.follow(place)?;
            schedule_kept(v, at)
        }
        // Nobody reads what is not known.
        _ => Some(()),
    }
}

pub(super) fn fact_record(v: &mut Verifier<'_>, at: usize) -> Option<()> {
    let mut table = v.table(at, 13)?;
    table.inline(4, 8, 8);
    if let Some((kind, place)) = table.union(v, 6, 8)? {
        fact_body(v, fb::FactBody(kind), place)?;
    }
    table.finish(v)
}
