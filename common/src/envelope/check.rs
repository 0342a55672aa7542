//! What holds for every message whatever its meaning, checked after the verifier and before anyone
//! sees it: batches do not nest and are bounded, numbers are numbers, statuses are known, and metric
//! names are defined before they are used.
//!
//! A status update that does not keep to this is refused by itself: in a batch, the other items stand.

use super::{
    CONTROL_STREAM, OpenError,
    open::{Content, Items},
};
use crate::{
    fb,
    limits::*,
    message::{MetricNames, bits_unless_finite},
};

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
    names.all_runs = true;
    let update = match content {
        Content::Partial | Content::Envelope(_) | Content::Body(_) => return Ok(()),
        Content::Update(update) => update,
        Content::Batch(batch) => return check_batch(batch, stream, names, refused),
    };
    if let Some(definitions) = update.metric_names() {
        define_names(definitions, stream, names)?;
    }
    check_status(update, names)
}

/// What a body holds: a message, which is no piece of another, or a batch.
pub(super) fn content_of_body(body: fb::Body<'_>) -> Result<Content<'_>, OpenError> {
    let (kind, batch) = (body.message_type(), body.batch());
    if (kind != fb::SchedulerMessage::NONE) == batch.is_some() {
        return Err(OpenError::Content("expected exactly one of message and batch in a body"));
    }
    if kind == fb::SchedulerMessage::Chunk {
        return Err(OpenError::Content("a chunk inside a body"));
    }
    let one = || body.message_as_status_update().map_or(Content::Body(body), Content::Update);
    Ok(batch.map_or_else(one, Content::Batch))
}

fn check_batch(batch: Items<'_>, stream: u32, names: &mut MetricNames, refused: &mut Refused) -> Result<(), OpenError> {
    if batch.len() > BATCH_ITEMS_MAX || batch.is_empty() {
        return Err(OpenError::Content("a batch that is empty or too long"));
    }
    for (number, item) in (0..).zip(batch) {
        if let Some(update) = item.message_as_status_update() {
            if let Some(definitions) = update.metric_names() {
                define_names(definitions, stream, names)?;
            }
            if let Err(error) = check_status(update, names) {
                refused.push((number, error));
            }
            continue;
        }
        match item.message_type() {
            fb::SchedulerMessage::NONE => return Err(OpenError::Content("a batch item without a message")),
            fb::SchedulerMessage::Chunk => return Err(OpenError::Content("a chunk inside a batch")),
            _ => {}
        }
    }
    Ok(())
}

// §metric-1
/// Takes the names that a status update defines, also when the rest of it is refused: the messages that
/// follow use them.
fn define_names(
    definitions: flatbuffers::Vector<'_, flatbuffers::ForwardsUOffset<fb::MetricName<'_>>>,
    stream: u32,
    names: &mut MetricNames,
) -> Result<(), OpenError> {
    for definition in definitions {
        if stream != CONTROL_STREAM {
            return Err(OpenError::Content("metric names defined on a bulk stream"));
        }
        names.define(definition.id(), definition.name().unwrap_or_default())?;
    }
    Ok(())
}

// §open-11 §metric-3 §status-1
// Inlined, what is looked up of an update is looked up once for all of this: 7 ns less for each.
#[inline(always)]
fn check_status(update: fb::StatusUpdate<'_>, names: &mut MetricNames) -> Result<(), OpenError> {
    let status = update.status();
    if !(fb::TaskStatus::ENUM_MIN..=fb::TaskStatus::ENUM_MAX).contains(&status.0) {
        return Err(OpenError::Status { found: status.0 });
    }
    let progress = update.progress();
    if !(0.0..=1.0).contains(&progress) {
        return Err(OpenError::Number { what: "progress", found: f64::from(progress), expected: "0.0 to 1.0" });
    }
    let (ids, odd) = update.metric_ids().map(|ids| ids.bytes()).unwrap_or_default().as_chunks::<2>();
    let (values, _) = update.metric_values().map(|values| values.bytes()).unwrap_or_default().as_chunks::<8>();
    debug_assert!(odd.is_empty(), "vectors hold whole numbers");
    if ids.len() != values.len() {
        return Err(OpenError::Metrics("as many numbers as values"));
    }
    if ids.len() > METRICS_MAX {
        return Err(TOO_MANY_METRICS);
    }
    if !names.is_run(ids) {
        names.all_runs = false;
        if !all_below(ids, names.count()) {
            return Err(OpenError::Metrics("a number that no name was given to"));
        }
    }
    if let Some(plain) = update.metrics() {
        check_plain(plain, METRICS_MAX - ids.len())?;
    }
    if all_finite(values) {
        return Ok(());
    }
    let found = values.iter().map(|value| f64::from_le_bytes(*value)).find(|value| !value.is_finite());
    Err(not_finite(found.unwrap_or(f64::NAN)))
}

/// Metrics with their names as text.
fn check_plain(
    plain: flatbuffers::Vector<'_, flatbuffers::ForwardsUOffset<fb::Metric<'_>>>,
    room: usize,
) -> Result<(), OpenError> {
    if plain.len() > room {
        return Err(TOO_MANY_METRICS);
    }
    for metric in plain {
        if !metric.name().is_some_and(|name| (1..=METRIC_NAME_BYTES_MAX).contains(&name.len())) {
            return Err(OpenError::Metrics("a name that is absent or too long"));
        }
        if !metric.value().is_finite() {
            return Err(not_finite(metric.value()));
        }
    }
    Ok(())
}

const TOO_MANY_METRICS: OpenError = OpenError::Metrics("more than there may be");

fn not_finite(found: f64) -> OpenError {
    OpenError::Number { what: "a metric", found, expected: "a finite number" }
}

/// Whether all of them are below `end`, at most 2^15, four at a time: what is too large sets its highest bit when the
/// rest to 2^15 is added, or has it set. Then what it carries into its neighbour changes nothing.
fn all_below(numbers: &[[u8; 2]], end: usize) -> bool {
    const HIGHEST: u64 = 0x8000_8000_8000_8000;
    let Some(rest) = (1u64 << 15).checked_sub(end as u64) else { return false };
    let rests = rest * 0x0001_0001_0001_0001;
    let (fours, few) = numbers.as_flattened().as_chunks::<8>();
    let large = fours.iter().fold(0, |all, four| {
        let four = u64::from_le_bytes(*four);
        all | four | four.wrapping_add(rests)
    });
    let (few, _) = few.as_chunks();
    large & HIGHEST == 0 && few.iter().all(|number| usize::from(u16::from_le_bytes(*number)) < end)
}

/// Whether all of them are.
fn all_finite(values: &[[u8; 8]]) -> bool {
    values.iter().fold(0, |all, value| all | bits_unless_finite(f64::from_le_bytes(*value))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_below_an_end_are_told_from_others_at_every_place() {
        for end in [0, 1, 5, METRIC_NAMES_MAX, 1 << 15] {
            for count in 0..20 {
                for place in 0..count {
                    for odd in [0, 1, end.wrapping_sub(1), end, end + 1, 0x7fff, 0x8000, 0xffff] {
                        let Ok(odd) = u16::try_from(odd) else { continue };
                        let mut numbers = [[0; 2]; 20];
                        let numbers = numbers.get_mut(..count).unwrap_or_default();
                        for number in &mut *numbers {
                            *number = (end as u16).saturating_sub(1).to_le_bytes();
                        }
                        if let Some(number) = numbers.get_mut(place) {
                            *number = odd.to_le_bytes();
                        }
                        let expected = numbers.iter().all(|number| usize::from(u16::from_le_bytes(*number)) < end);
                        assert_eq!(all_below(numbers, end), expected, "{odd} at {place} of {count}, end {end}");
                    }
                }
            }
        }
        assert!(!all_below(&[[0; 2]], (1 << 15) + 1), "beyond what it can tell");
    }

    #[test]
    fn what_is_not_finite_is_found_at_every_place() {
        let good = [0.0, -0.0, 1.5, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -1e300];
        assert!(all_finite(&good.map(f64::to_le_bytes)));
        for place in 0..good.len() {
            for bad in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001)] {
                let mut values = good;
                if let Some(value) = values.get_mut(place) {
                    *value = bad;
                }
                assert!(!all_finite(&values.map(f64::to_le_bytes)), "{bad} at {place}");
            }
        }
    }
}
