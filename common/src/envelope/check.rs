//! What holds for every message whatever its meaning, checked after the verifier and before anyone
//! sees it: batches do not nest and are bounded, numbers are numbers, statuses are known, and metric
//! names are defined before they are used.
//!
//! A status update that does not keep to this is refused by itself: in a batch, the other items stand.

use super::{CONTROL_STREAM, OpenError, open::Content};
use crate::{fb, limits::*, message::MetricNames};

/// A batch item that was refused, and why.
pub(super) type Refused = Vec<(u16, OpenError)>;

// §envelope-2 §envelope-3
/// Checks the content of a frame. What ends the session, or refuses the only message, is an error;
/// refused items of a batch are put into `refused`.
pub(super) fn check_content(
    content: Content<'_>,
    stream: u32,
    names: &mut MetricNames,
    refused: &mut Refused,
) -> Result<(), OpenError> {
    let (one, batch) = match content {
        Content::Partial => return Ok(()),
        Content::Envelope(envelope) => (envelope.message_as_status_update(), envelope.batch()),
        Content::Body(body) => {
            if (body.message_type() != fb::SchedulerMessage::NONE) == body.batch().is_some() {
                return Err(OpenError::Content("expected exactly one of message and batch in a body"));
            }
            if body.message_type() == fb::SchedulerMessage::Chunk {
                return Err(OpenError::Content("a chunk inside a body"));
            }
            (body.message_as_status_update(), body.batch())
        }
    };
    if let Some(update) = one {
        define_names(update, stream, names)?;
        check_status(update, names)?;
    }
    let Some(batch) = batch else { return Ok(()) };
    if batch.len() > BATCH_ITEMS_MAX || batch.is_empty() {
        return Err(OpenError::Content("a batch that is empty or too long"));
    }
    for (number, item) in (0..).zip(batch) {
        match item.message_type() {
            fb::SchedulerMessage::NONE => return Err(OpenError::Content("a batch item without a message")),
            fb::SchedulerMessage::Chunk => return Err(OpenError::Content("a chunk inside a batch")),
            fb::SchedulerMessage::StatusUpdate => {
                let Some(update) = item.message_as_status_update() else { continue };
                define_names(update, stream, names)?;
                if let Err(error) = check_status(update, names) {
                    refused.push((number, error));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

// §metric-1
/// Takes the names that a status update defines, also when the rest of it is refused: the messages that
/// follow use them.
fn define_names(update: fb::StatusUpdate<'_>, stream: u32, names: &mut MetricNames) -> Result<(), OpenError> {
    for definition in update.metric_names().into_iter().flatten() {
        if stream != CONTROL_STREAM {
            return Err(OpenError::Content("metric names defined on a bulk stream"));
        }
        names.define(definition.id(), definition.name().unwrap_or_default())?;
    }
    Ok(())
}

// §open-11 §metric-3 §status-1
fn check_status(update: fb::StatusUpdate<'_>, names: &MetricNames) -> Result<(), OpenError> {
    let status = update.status();
    if !(fb::TaskStatus::ENUM_MIN..=fb::TaskStatus::ENUM_MAX).contains(&status.0) {
        return Err(OpenError::Status { found: status.0 });
    }
    let progress = update.progress();
    if !(0.0..=1.0).contains(&progress) {
        return Err(OpenError::Number { what: "progress", found: f64::from(progress), expected: "0.0 to 1.0" });
    }
    let count = update.metric_ids().map_or(0, |ids| ids.len());
    let plain = update.metrics().map_or(0, |plain| plain.len());
    if count != update.metric_values().map_or(0, |values| values.len()) {
        return Err(OpenError::Metrics("as many numbers as values"));
    }
    if count + plain > METRICS_MAX {
        return Err(OpenError::Metrics("more than there may be"));
    }
    // Numbers are given without gaps, so the highest decides. It is found several times faster in the bytes.
    let (ids, _) = update.metric_ids().map(|ids| ids.bytes()).unwrap_or_default().as_chunks::<2>();
    if ids.iter().map(|id| u16::from_le_bytes(*id)).max().is_some_and(|highest| names.name(highest).is_none()) {
        return Err(OpenError::Metrics("a number that no name was given to"));
    }
    let named = |metric: fb::Metric<'_>| {
        metric.name().is_some_and(|name| !name.is_empty() && name.len() <= METRIC_NAME_BYTES_MAX)
    };
    if !update.metrics().into_iter().flatten().all(named) {
        return Err(OpenError::Metrics("a name that is absent or too long"));
    }
    let (values, _) = update.metric_values().map(|values| values.bytes()).unwrap_or_default().as_chunks::<8>();
    let values = values.iter().map(|value| f64::from_le_bytes(*value));
    let plain = update.metrics().into_iter().flatten().map(|metric| metric.value());
    match values.chain(plain).find(|value| !value.is_finite()) {
        Some(found) => Err(OpenError::Number { what: "a metric", found, expected: "a finite number" }),
        None => Ok(()),
    }
}
