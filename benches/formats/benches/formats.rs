//! Seal, open, and open with every field read, of each message in each format, and the HMAC of the same bytes beside them:
//! no signed format can be faster than that. `benches/formats/run` makes the tables and the chart of it.

use criterion::{Criterion, measurement::WallTime};
use fleetwire_common::envelope::keys::MacKey;
use fleetwire_formats::{
    Format, each_format, framing,
    sample::Kind,
    visit::{Nothing, Sum, Visit},
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

type Group<'c> = criterion::BenchmarkGroup<'c, WallTime>;

fn seal<F: Format>(group: &mut Group<'_>, id: String, kind: Kind) {
    let (mut format, mut frame) = (F::new(kind.sample()), Vec::new());
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            frame.clear();
            format.seal(&mut frame);
            black_box(&frame);
        });
    });
}

/// Seals some frames, which is not measured, and opens them, so that the session goes on. They are as many as the
/// second-level cache holds.
fn open<F: Format, V: Visit + Default>(group: &mut Group<'_>, id: String, kind: Kind) {
    let (mut format, mut visitor) = (F::new(kind.sample()), V::default());
    let (mut frames, mut ends) = (Vec::new(), Vec::new());
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|rounds| {
            let (mut measured, mut left) = (Duration::ZERO, rounds);
            while left > 0 {
                frames.clear();
                ends.clear();
                while (ends.len() as u64) < left && (ends.is_empty() || frames.len() < 256 << 10) {
                    format.seal(&mut frames);
                    ends.push(frames.len());
                }
                let begin = Instant::now();
                let mut from = 0;
                for end in &ends {
                    format.open(black_box(&frames[from..*end]), &mut visitor).unwrap();
                    from = *end;
                }
                measured += begin.elapsed();
                left -= ends.len() as u64;
            }
            measured
        });
    });
    black_box(visitor);
}

fn floor<F: Format>(group: &mut Group<'_>, id: String, kind: Kind, key: &MacKey) {
    let (mut format, mut frame) = (F::new(kind.sample()), Vec::new());
    for _ in 0..2 {
        frame.clear();
        format.seal(&mut frame);
    }
    group.bench_function(id, |bencher| bencher.iter(|| key.tag(black_box(&frame))));
}

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(300))
        .configure_from_args();
    let key = framing::key();
    for kind in Kind::ALL {
        let mut group = criterion.benchmark_group(kind.id());
        // What is compared is measured as near to each other in time as can be.
        for what in ["seal", "open", "read", "hmac"] {
            macro_rules! measure {
                ($format:ty, $id:literal, $name:literal) => {
                    if <$format as Format>::has(kind) {
                        let id = format!("{}/{what}", $id);
                        match what {
                            "seal" => seal::<$format>(&mut group, id, kind),
                            "open" => open::<$format, Nothing>(&mut group, id, kind),
                            "read" => open::<$format, Sum>(&mut group, id, kind),
                            _ => floor::<$format>(&mut group, id, kind, &key),
                        }
                    }
                };
            }
            each_format!(measure);
        }
        group.finish();
    }
    criterion.final_summary();
}
