//! Every format carries every message whole, and refuses it when a bit has changed.

use fleetwire_formats::{
    Format, each_format,
    sample::{Kind, Sample},
    visit::{Keep, Nothing},
};

fn expected(sample: &Sample) -> Keep {
    let mut keep = Keep::default();
    sample.show(&mut keep);
    keep
}

fn carries<F: Format>(name: &str) {
    for kind in Kind::ALL {
        let sample = kind.sample();
        let mut format = F::new(sample);
        // The first frame of a session may define what the next ones use.
        for round in 0..3 {
            let (mut frame, mut found) = (Vec::new(), Keep::default());
            format.seal(&mut frame);
            assert_eq!(format.open(&frame, &mut found), Ok(()), "{name}, {kind:?}, {round}");
            assert_eq!(found, expected(sample), "{name}, {kind:?}, {round}");
            assert!(format.open(&frame, &mut Nothing).is_err(), "{name}, {kind:?}: a frame that was taken before");
        }
    }
}

fn refuses<F: Format>(name: &str) {
    for kind in Kind::ALL {
        let mut format = F::new(kind.sample());
        let mut frame = Vec::new();
        format.seal(&mut frame);
        // Each bit of the small ones; of the large ones some, and more at both ends.
        let bits = frame.len() * 8;
        let step = if bits > 32_000 { bits / 50 } else { 1 };
        let at_the_ends = (0..64).chain(bits - 64..bits);
        for bit in at_the_ends.chain((0..bits).step_by(step)) {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(format.open(&frame, &mut Keep::default()).is_err(), "{name}, {kind:?}: bit {bit} was flipped");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        for length in (0..frame.len()).step_by(step) {
            assert!(format.open(&frame[..length], &mut Keep::default()).is_err(), "{name}, {kind:?}: cut at {length}");
        }
        frame.push(0);
        assert!(format.open(&frame, &mut Keep::default()).is_err(), "{name}, {kind:?}: a byte too many");
        frame.pop();
        assert_eq!(format.open(&frame, &mut Keep::default()), Ok(()), "{name}, {kind:?}: as it was");
    }
}

#[test]
fn what_is_sealed_opens_with_every_field() {
    macro_rules! check {
        ($format:ty, $id:literal, $name:literal) => {
            carries::<$format>($name)
        };
    }
    each_format!(check);
}

#[test]
fn a_flipped_bit_is_refused() {
    macro_rules! check {
        ($format:ty, $id:literal, $name:literal) => {
            refuses::<$format>($name)
        };
    }
    each_format!(check);
}
