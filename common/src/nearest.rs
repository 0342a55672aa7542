//! The name that somebody may have meant.

/// The most similar of the names, if it is similar at all: at most a third of its letters differ.
pub fn nearest<'n>(found: &str, known: &[&'n str]) -> Option<&'n str> {
    let best = known.iter().min_by_key(|name| strsim::osa_distance(found, name))?;
    let letters = found.chars().count().max(best.len());
    let alike = strsim::osa_distance(found, best) <= 1 + letters / 4;
    let begins = found.len() >= 3 && (best.starts_with(found) || found.starts_with(best));
    (alike || begins).then_some(*best)
}
