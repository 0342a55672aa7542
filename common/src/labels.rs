//! What people write on a job: labels, by which it is found again, and annotations, which are only shown.
//!
//! Invariant: what a [`JobSpec`](crate::job::JobSpec) bears is bounded, in number and in bytes.

use crate::{
    fb,
    ids::Name,
    job::{JobError, bound, key_values, pairs},
    limits::{ANNOTATION_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX},
};
use std::collections::BTreeMap;

/// Names and values.
pub type Texts = BTreeMap<String, String>;

/// What is written on a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// By which it is found.
    pub labels: Texts,
    /// Which are only shown.
    pub annotations: Texts,
}

impl Labels {
    /// Whether the job bears all of these.
    pub fn bear(&self, wanted: &Texts) -> bool {
        wanted.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }

    pub(crate) fn check(&self) -> Result<(), JobError> {
        let all = [
            ("name of a label", "number of labels", "bytes of a label", &self.labels, LABEL_VALUE_BYTES_MAX),
            (
                "name of an annotation",
                "number of annotations",
                "bytes of an annotation",
                &self.annotations,
                ANNOTATION_BYTES_MAX,
            ),
        ];
        for (name, number, bytes, texts, bytes_max) in all {
            bound("the job", number, texts.len(), LABELS_MAX)?;
            for (key, value) in texts {
                Name::new(key).map_err(|error| JobError::Name { what: name.to_owned(), error })?;
                bound("the job", bytes, value.len(), bytes_max)?;
            }
        }
        Ok(())
    }

    pub(crate) fn from_wire(wire: fb::JobSpec<'_>) -> Labels {
        let texts = |wire| pairs(wire).into_iter().collect();
        Labels { labels: texts(wire.labels()), annotations: texts(wire.annotations()) }
    }
}

/// Names and values as the wire's owned list; `None` if there are none.
pub fn to_wire(texts: &Texts) -> Option<Vec<fb::KeyValueT>> {
    let texts: Vec<_> = texts.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    (!texts.is_empty()).then(|| key_values(&texts))
}
