//! The formats of serde's family: postcard, MessagePack and JSON. They serialise straight into the frame, and borrow from it
//! what lies there as it is; lists are allocated.

use super::types::{Envelope, Message};
use crate::{
    Format, Refused,
    framing::{Compression, Framing, Order},
    sample::Sample,
    visit::Visit,
};
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use std::{hint::black_box, marker::PhantomData};

/// postcard with LZ4.
pub type Postcard = With<PostcardCodec>;
/// MessagePack, structs as arrays, with LZ4.
pub type MessagePack = With<MessagePackCodec>;
/// JSON with LZ4, like the others.
pub type Json = With<JsonCodec<false>>;
/// JSON with gzip, as HTTP has it.
pub type JsonGzip = With<JsonCodec<true>>;

/// What differs between them.
pub trait Codec {
    const COMPRESSION: Compression;
    fn write(value: &impl Serialize, out: &mut Vec<u8>);
    fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refused>;
}

pub struct PostcardCodec;

/// Appends, which postcard's own flavours do only byte by byte or to a vector that they take.
struct Append<'o>(&'o mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl Codec for PostcardCodec {
    const COMPRESSION: Compression = Compression::Lz4;

    fn write(value: &impl Serialize, out: &mut Vec<u8>) {
        postcard::serialize_with_flavor(value, Append(out)).unwrap();
    }

    fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refused> {
        postcard::from_bytes(bytes).map_err(Refused::malformed)
    }
}

pub struct MessagePackCodec;

impl Codec for MessagePackCodec {
    const COMPRESSION: Compression = Compression::Lz4;

    fn write(value: &impl Serialize, out: &mut Vec<u8>) {
        rmp_serde::encode::write(out, value).unwrap();
    }

    fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refused> {
        rmp_serde::from_slice(bytes).map_err(Refused::malformed)
    }
}

pub struct JsonCodec<const GZIP: bool>;

impl<const GZIP: bool> Codec for JsonCodec<GZIP> {
    const COMPRESSION: Compression = if GZIP { Compression::Gzip } else { Compression::Lz4 };

    fn write(value: &impl Serialize, out: &mut Vec<u8>) {
        serde_json::to_writer(out, value).unwrap();
    }

    fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refused> {
        serde_json::from_slice(bytes).map_err(Refused::malformed)
    }
}

/// One of them.
pub struct With<C> {
    message: Message<'static>,
    framing: Framing,
    order: Order,
    codec: PhantomData<C>,
}

impl<C: Codec> Format for With<C> {
    fn new(sample: &'static Sample) -> Self {
        let framing = Framing::new(C::COMPRESSION);
        With { message: Message::from(sample), framing, order: Order::default(), codec: PhantomData }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        let envelope = Envelope::new(self.order.next(), black_box(&self.message));
        self.framing.seal(out, |out| C::write(&envelope, out));
    }

    fn open<V: Visit>(&mut self, frame: &[u8], visitor: &mut V) -> Result<(), Refused> {
        let envelope: Envelope<Message<'_>> = black_box(C::read(self.framing.open(frame)?)?);
        self.order.check(envelope.header())?;
        if V::READS { envelope.message.show(visitor).ok_or(Refused::Order) } else { Ok(()) }
    }
}
