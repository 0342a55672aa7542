//! A task's output, followed until the task ends.

use crate::error::CliError;
use fleetwire_client::{Client, ClientError, LogStream};
use fleetwire_common::{fb, ids::TaskId};
use std::{io::Write, time::Duration};

/// Where one output of one task has been read up to.
pub struct Follower {
    task: TaskId,
    stream: LogStream,
    attempt: u32,
    shown_attempt: u32,
    offset: u64,
}

/// What a look at an output brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Something was written; more may be there.
    More,
    /// Nothing new for now.
    Nothing,
    /// Nothing will follow from this attempt.
    Ended,
}

impl Follower {
    /// From the beginning; `attempt` 0 is the latest, and goes on to later ones.
    pub fn new(task: TaskId, stream: LogStream, attempt: u32) -> Follower {
        Follower { task, stream, attempt, shown_attempt: 0, offset: 0 }
    }

    /// Writes what is new.
    pub async fn look(&mut self, client: &Client, out: &mut dyn Write) -> Result<Looked, CliError> {
        let view = match client.log(self.task, self.attempt, self.stream, self.offset).await {
            Ok(view) => view,
            Err(error) if waits(&error) => return Ok(Looked::Nothing),
            Err(error) => return Err(error.into()),
        };
        if view.attempt != self.shown_attempt {
            // Another try began: its output is read from its own beginning.
            let first = self.shown_attempt == 0;
            self.shown_attempt = view.attempt;
            if !first && self.offset > 0 {
                self.offset = 0;
                return Ok(Looked::More);
            }
        }
        out.write_all(&view.data)?;
        out.flush()?;
        self.offset = view.offset + view.data.len() as u64;
        if view.ended && self.offset >= view.size {
            if view.dropped > 0 {
                eprintln!("({} bytes more were written than are kept)", view.dropped);
            }
            return Ok(Looked::Ended);
        }
        Ok(if view.data.is_empty() { Looked::Nothing } else { Looked::More })
    }

    /// Writes all that is there now, and with `follow` all that comes until the task ends.
    pub async fn run(&mut self, client: &Client, out: &mut dyn Write, follow: bool) -> Result<(), CliError> {
        loop {
            match self.look(client, out).await? {
                Looked::More => {}
                Looked::Nothing if !follow => return Ok(()),
                Looked::Ended if !follow => return Ok(()),
                Looked::Nothing | Looked::Ended => {
                    if ended(client, self.task).await? {
                        // What was written between the last look and the end.
                        while self.look(client, out).await? == Looked::More {}
                        return Ok(());
                    }
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }
}

/// Whether the task will not change any more.
pub async fn ended(client: &Client, task: TaskId) -> Result<bool, ClientError> {
    Ok(!matches!(client.task(task).await?.status, "pending" | "assigned" | "running"))
}

/// There is nothing to read yet, or not at the moment.
fn waits(error: &ClientError) -> bool {
    matches!(error.code(), Some(fb::ErrorCode::UnknownAttempt | fb::ErrorCode::WrongState | fb::ErrorCode::Busy))
}

const POLL: Duration = Duration::from_millis(150);
