//! CBOR by minicbor, which encodes structs as arrays and borrows texts and bytes.

use super::types::{Envelope, Message};
use crate::{
    Format, Refused,
    framing::{Compression, Framing, Order},
    sample::Sample,
    visit::Visit,
};
use minicbor::{Decoder, Encoder, encode::Write};
use std::hint::black_box;

/// CBOR with LZ4.
pub struct Cbor {
    message: Message<'static>,
    framing: Framing,
    order: Order,
}

impl Format for Cbor {
    fn new(sample: &'static Sample) -> Self {
        Cbor { message: Message::from(sample), framing: Framing::new(Compression::Lz4), order: Order::default() }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        let envelope = Envelope::new(self.order.next(), black_box(&self.message));
        self.framing.seal(out, |out| write(&envelope, &mut Encoder::new(out)).unwrap());
    }

    fn open<V: Visit>(&mut self, frame: &[u8], visitor: &mut V) -> Result<(), Refused> {
        let envelope = black_box(read(&mut Decoder::new(self.framing.open(frame)?)).map_err(Refused::malformed)?);
        self.order.check(envelope.header())?;
        if V::READS { envelope.message.show(visitor).ok_or(Refused::Order) } else { Ok(()) }
    }
}

/// What minicbor derives for a struct with these fields.
fn write<W: Write>(
    envelope: &Envelope<&Message<'_>>,
    encoder: &mut Encoder<W>,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    encoder.array(5)?.u16(envelope.version)?.u64(envelope.timestamp)?.u32(envelope.stream)?.u64(envelope.sequence)?;
    encoder.encode(envelope.message)?.ok()
}

fn read<'b>(decoder: &mut Decoder<'b>) -> Result<Envelope<Message<'b>>, minicbor::decode::Error> {
    if decoder.array()? != Some(5) {
        return Err(minicbor::decode::Error::message("not five fields"));
    }
    let (version, timestamp, stream, sequence) = (decoder.u16()?, decoder.u64()?, decoder.u32()?, decoder.u64()?);
    Ok(Envelope { version, timestamp, stream, sequence, message: decoder.decode()? })
}
