//! Cap'n Proto. A message has no other form than its bytes: sealing builds it, from the sample's fields, in scratch space that
//! is used again. It is read in place, and each pointer is checked when it is followed: what `open` leaves out, reading
//! pays. `Plain` compresses as the others do; `Packed` takes the format's own packing instead.

use crate::{
    Format, Refused,
    framing::{Compression, Framing, Header, Order},
    messages_capnp::{assignment, envelope, log, numbers, status},
    sample::{self, Kind, Sample, metric_name},
    visit::Visit,
};
use capnp::{
    message::{Builder, ReaderOptions, ScratchSpaceHeapAllocator},
    serialize, serialize_packed,
};
use std::hint::black_box;

/// With LZ4.
pub type Plain = With<false>;
/// With the format's own packing.
pub type Packed = With<true>;

/// Packed or not.
pub struct With<const PACKED: bool> {
    sample: &'static Sample,
    scratch: ScratchSpaceHeapAllocator<'static>,
    framing: Framing,
    order: Order,
}

/// Room for the largest sample, so that it is one segment.
const SCRATCH_BYTES: usize = 112 << 10;

impl<const PACKED: bool> Format for With<PACKED> {
    fn new(sample: &'static Sample) -> Self {
        let scratch = ScratchSpaceHeapAllocator::new(vec![0; SCRATCH_BYTES].leak());
        let compression = if PACKED { Compression::Without } else { Compression::Lz4 };
        With { sample, scratch, framing: Framing::new(compression), order: Order::default() }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        let mut message = Builder::new(&mut self.scratch);
        build(black_box(self.sample), self.order.next(), message.init_root());
        self.framing.seal(out, |out| {
            if PACKED {
                serialize_packed::write_message(out, &message).unwrap();
            } else {
                serialize::write_message(out, &message).unwrap();
            }
        });
    }

    fn open<V: Visit>(&mut self, frame: &[u8], visitor: &mut V) -> Result<(), Refused> {
        let mut bytes = self.framing.open(frame)?;
        let options = ReaderOptions::new();
        if PACKED {
            let message = serialize_packed::read_message(bytes, options).map_err(Refused::malformed)?;
            read(message.get_root().map_err(Refused::malformed)?, &mut self.order, visitor)
        } else {
            let message =
                serialize::read_message_from_flat_slice_no_alloc(&mut bytes, options).map_err(Refused::malformed)?;
            read(message.get_root().map_err(Refused::malformed)?, &mut self.order, visitor)
        }
    }
}

fn read<V: Visit>(envelope: envelope::Reader<'_>, order: &mut Order, visitor: &mut V) -> Result<(), Refused> {
    let envelope = black_box(envelope);
    let (version, timestamp) = (envelope.get_version(), envelope.get_timestamp());
    order.check(Header { version, timestamp, stream: envelope.get_stream(), sequence: envelope.get_sequence() })?;
    let message = black_box(envelope.which().map_err(Refused::malformed)?);
    if V::READS { show(message, visitor).map_err(Refused::malformed) } else { Ok(()) }
}

fn build(sample: &Sample, header: Header, mut envelope: envelope::Builder<'_>) {
    envelope.set_version(header.version);
    envelope.set_timestamp(header.timestamp);
    envelope.set_stream(header.stream);
    envelope.set_sequence(header.sequence);
    match sample.kind {
        Kind::Status => {
            let mut status = envelope.init_status();
            status.set_task_id(sample::TASK_ID);
            status.set_attempt(sample::ATTEMPT);
            status.set_status(sample::STATUS);
            status.set_progress(sample::PROGRESS);
            let mut metrics = status.init_metrics(sample.metrics.len() as u32);
            for (at, (name, value)) in (0..).zip(&sample.metrics) {
                let mut metric = metrics.reborrow().get(at);
                metric.set_name(name);
                metric.set_value(*value);
            }
        }
        Kind::Numbers => {
            let mut status = envelope.init_numbers();
            status.set_task_id(sample::TASK_ID);
            status.set_attempt(sample::ATTEMPT);
            status.set_status(sample::STATUS);
            status.set_progress(sample::PROGRESS);
            let count = sample.metrics.len() as u32;
            let mut ids = status.reborrow().init_metric_ids(count);
            (0..count).for_each(|at| ids.set(at, at as u16));
            let mut values = status.init_metric_values(count);
            (0..).zip(&sample.metrics).for_each(|(at, (_, value))| values.set(at, *value));
        }
        Kind::Assignment | Kind::Text => build_assignment(sample, envelope.init_assignment()),
        Kind::Bytes => {
            let mut log = envelope.init_log();
            log.set_request(sample::REQUEST);
            log.set_task_id(sample::TASK_ID);
            log.set_attempt(sample::ATTEMPT);
            log.set_stream(sample::LOG_STREAM);
            log.set_offset(sample::OFFSET);
            log.set_data(&sample.data);
            log.set_size(sample::SIZE);
        }
    }
}

fn build_assignment(sample: &Sample, mut task: assignment::Builder<'_>) {
    task.set_task_id(sample::TASK_ID);
    task.set_attempt(sample::ATTEMPT);
    task.set_agent_type(sample::AGENT_TYPE);
    task.set_cpu(sample::CPU);
    task.set_memory(sample::MEMORY);
    task.set_gpu(sample::GPU);
    task.set_storage(sample::STORAGE);
    task.set_storage_backend(sample::STORAGE_BACKEND);
    task.set_timeout(sample::TIMEOUT_S);
    task.set_incarnation(sample::INCARNATION);
    task.set_command(sample::COMMAND);
    let mut arguments = task.reborrow().init_arguments(sample::ARGUMENTS.len() as u32);
    (0..).zip(sample::ARGUMENTS).for_each(|(at, argument)| arguments.set(at, argument));
    let mut environment = task.reborrow().init_environment(sample::ENVIRONMENT.len() as u32);
    for (at, (key, value)) in (0..).zip(sample::ENVIRONMENT) {
        let mut pair = environment.reborrow().get(at);
        pair.set_key(key);
        pair.set_value(value);
    }
    task.set_parameters(&sample.parameters);
    task.set_priority(sample::PRIORITY);
    task.set_position(sample::POSITION);
    task.set_mac(&sample::MAC);
    task.set_kill_grace_ms(sample::KILL_GRACE_MS);
    task.set_result_path(sample::RESULT_PATH);
    task.set_job_key(sample::JOB_KEY);
}

fn show(message: envelope::WhichReader<'_>, visitor: &mut impl Visit) -> capnp::Result<()> {
    match message {
        envelope::Status(status) => show_status(status?, visitor),
        envelope::Numbers(status) => show_numbers(status?, visitor),
        envelope::Assignment(task) => show_assignment(task?, visitor),
        envelope::Log(log) => show_log(log?, visitor),
    }
}

fn show_status(status: status::Reader<'_>, visitor: &mut impl Visit) -> capnp::Result<()> {
    visitor.text(status.get_task_id()?.to_str()?);
    visitor.number(status.get_attempt().into());
    visitor.number(status.get_status().into());
    visitor.float(status.get_progress().into());
    for metric in status.get_metrics()? {
        visitor.text(metric.get_name()?.to_str()?);
        visitor.float(metric.get_value());
    }
    Ok(())
}

fn show_numbers(status: numbers::Reader<'_>, visitor: &mut impl Visit) -> capnp::Result<()> {
    visitor.text(status.get_task_id()?.to_str()?);
    visitor.number(status.get_attempt().into());
    visitor.number(status.get_status().into());
    visitor.float(status.get_progress().into());
    for (number, value) in status.get_metric_ids()?.iter().zip(status.get_metric_values()?) {
        visitor.text(metric_name(number).unwrap_or_default());
        visitor.float(value);
    }
    Ok(())
}

fn show_assignment(task: assignment::Reader<'_>, visitor: &mut impl Visit) -> capnp::Result<()> {
    visitor.text(task.get_task_id()?.to_str()?);
    visitor.number(task.get_attempt().into());
    visitor.number(task.get_agent_type().into());
    for number in [task.get_cpu(), task.get_memory(), task.get_gpu(), task.get_storage()] {
        visitor.number(number.into());
    }
    visitor.number(task.get_storage_backend().into());
    visitor.number(task.get_timeout());
    visitor.number(task.get_incarnation());
    visitor.text(task.get_command()?.to_str()?);
    for argument in task.get_arguments()? {
        visitor.text(argument?.to_str()?);
    }
    for pair in task.get_environment()? {
        visitor.text(pair.get_key()?.to_str()?);
        visitor.text(pair.get_value()?.to_str()?);
    }
    visitor.text(task.get_parameters()?.to_str()?);
    visitor.number(task.get_priority() as u64);
    visitor.number(task.get_position());
    visitor.bytes(task.get_mac()?);
    visitor.number(task.get_kill_grace_ms().into());
    visitor.text(task.get_result_path()?.to_str()?);
    visitor.number(task.get_job_key());
    Ok(())
}

fn show_log(log: log::Reader<'_>, visitor: &mut impl Visit) -> capnp::Result<()> {
    visitor.number(log.get_request());
    visitor.text(log.get_task_id()?.to_str()?);
    visitor.number(log.get_attempt().into());
    visitor.number(log.get_stream().into());
    visitor.number(log.get_offset());
    visitor.bytes(log.get_data()?);
    visitor.number(log.get_size());
    Ok(())
}
