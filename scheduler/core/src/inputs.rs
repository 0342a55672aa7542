//! The story of results that are handed on: a task that asks for those of what it comes after finds them as files.
//!
//! Invariants: what is handed on is the result that was committed, whichever attempt left it; an ended task's result is
//! kept as long as its job, so it is there whenever an attempt is sent, again too; files and inputs of an attempt together
//! have at most [`FILES_BYTES_MAX`].

use crate::{
    attempts::EndedTask,
    bodies::{FileKept, Lacks},
    core::Core,
    event::Effects,
};
use fleetwire_common::{
    fb,
    ids::{AttemptId, TaskId},
    job::{FileSpec, TaskSpec},
    limits::FILES_BYTES_MAX,
};
use std::sync::Arc;

/// So many bytes of files and inputs are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputsTooLarge(pub usize);

impl Core {
    /// Puts into a task's spec what is its alone, its values of a sweep, its place in a gang and what it is handed, and says what it lacks until
    /// it is sent.
    pub fn with_inputs(&self, task: TaskId, spec: &mut Arc<TaskSpec>) -> Result<Lacks, InputsTooLarge> {
        let files = self.state.jobs.get(&task.job).map_or(&[][..], |job| job.files_of(task.entry));
        let inputs = self.inputs_of(task, spec);
        if inputs.is_empty() && spec.sweep.is_none() && spec.gang == 0 {
            return Ok(Lacks::Files(files.into()));
        }
        let own: usize = spec.files.iter().map(|file| file.data.len()).sum();
        let blobs: usize = files.iter().map(|kept| kept.blob.length as usize).sum();
        let bytes = own + blobs + inputs.iter().map(|(_, left)| left.result_bytes()).sum::<usize>();
        if bytes > FILES_BYTES_MAX {
            return Err(InputsTooLarge(bytes));
        }
        let mut lacks = files.to_vec();
        let spec = Arc::make_mut(spec);
        if let Some(sweep) = spec.sweep.take() {
            sweep.apply(task.index, spec);
        }
        if spec.gang > 0 {
            self.with_gang(task, spec);
        }
        for (path, left) in inputs {
            if let Some(blob) = left.result_blob() {
                lacks.push(FileKept { entry: task.entry, file: spec.files.len() as u16, blob });
            }
            let data = left.result().unwrap_or_default().to_vec();
            spec.files.push(FileSpec { path, data, executable: false });
        }
        Ok(Lacks::Inputs(lacks.into()))
    }

    /// About how many bytes a task is handed.
    pub fn input_bytes(&self, task: TaskId) -> usize {
        let spec = self.state.task_spec(task);
        spec.map_or(0, |spec| self.inputs_of(task, spec).iter().map(|(_, left)| left.result_bytes()).sum())
    }

    /// The results that a task asks for, and where it finds them. Whoever left none hands none on.
    fn inputs_of(&self, task: TaskId, spec: &TaskSpec) -> Vec<(String, &EndedTask)> {
        let mut inputs = Vec::new();
        if spec.after.iter().all(|after| after.input.is_empty()) {
            return inputs;
        }
        let Some(job) = self.state.jobs.get(&task.job) else { return inputs };
        let Some(waits) = self.live.jobs.get(&task.job).and_then(|job| job.waits.as_ref()) else { return inputs };
        for (after, need) in spec.after.iter().zip(waits.graph.needs_of(task.entry)) {
            let Some(entry) = job.entry(need.entry).filter(|_| !after.input.is_empty()) else { continue };
            let is_folder = entry.spec.array && !after.each;
            let indices = if need.each { task.index..=task.index } else { 0..=u32::MAX };
            let left = entry.ended.range(indices).filter(|(_, left)| left.has_result());
            inputs.extend(left.map(|(index, left)| {
                let path = if is_folder { format!("{}/{index}", after.input) } else { after.input.clone() };
                (path, left)
            }));
        }
        inputs
    }

    /// An attempt that was assigned and cannot be sent: its task fails, for no other attempt would be handed less.
    pub fn on_inputs_too_large(&mut self, attempt: AttemptId, bytes: usize, effects: &mut Effects) {
        let why = format!("its files and inputs have {bytes} bytes: expected at most {FILES_BYTES_MAX}");
        self.fail_unsent(attempt, fb::EndReason::InputsTooLarge, &why, effects);
    }
}
