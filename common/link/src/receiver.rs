//! The receiving half of a link: whole frames, in the order of their streams.
//!
//! The control stream is read by whoever calls [`Receiver::recv_many`], without a task in between, so that
//! not calling it is back-pressure all the way to the sender. Each bulk stream is read by a small task of
//! its own through a short channel, at most two at a time. One more task waits for those streams and for the
//! connection's end, so that nobody has to begin and give up that wait for every message.

use crate::{
    clock::ClusterClock,
    closed::LinkClosed,
    frames::{Arrival, Frame, FrameError, FrameReader},
    limits::{BULK_FRAMES_WAITING_MAX, CHUNKS_PER_READ, FINISH_TIMEOUT},
    sender::Shared,
    writer::{at, stream_number},
};
use bytes::Bytes;
use fleetwire_common::{fb::ErrorCode, limits::FRAME_BYTES_MAX};
use quinn::{ReadError, RecvStream};
use std::{pin::pin, sync::Arc, task::Poll};
use tokio::{runtime::Handle, sync::mpsc, time::Instant};

/// Receives frames from a link.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    control: RecvStream,
    reader: FrameReader,
    /// What was read last, until it is cut. Kept here, because most reads fill one of them.
    chunks: [Bytes; CHUNKS_PER_READ],
    /// Ends once the connection has, and the last task that read one of its streams.
    bulk: mpsc::Receiver<BulkFrame>,
    bulk_ended: bool,
    clock: ClusterClock,
    /// Cluster time (ms) at which the control stream was last seen without unread bytes.
    empty_at_ms: u64,
    /// Nothing more comes on the control stream.
    control_ended: bool,
    /// Since when the peer has to close, having finished its control stream.
    close_by: Option<Instant>,
    ended: Option<LinkClosed>,
}

/// In a box, because the channel has room for 32 of them from its beginning, and most links never have one.
type BulkFrame = Box<Result<Frame, FrameError>>;

/// What came next.
enum Came {
    Chunks(Option<usize>),
    ControlFailed(ReadError),
    /// `None`: the connection has ended, and no bulk is left.
    Bulk(Option<BulkFrame>),
    /// The connection has ended and everything was read.
    Drained,
    CloseOverdue,
}

impl Receiver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        control: RecvStream,
        reader: FrameReader,
        clock: ClusterClock,
        runtime: Handle,
    ) -> Receiver {
        let (frames, bulk) = mpsc::channel(BULK_FRAMES_WAITING_MAX);
        runtime.spawn(accept_bulk(Arc::clone(&shared), frames, clock.clone()));
        let empty_at_ms = clock.now().as_ms();
        Receiver {
            shared,
            control,
            reader,
            chunks: Default::default(),
            bulk,
            bulk_ended: false,
            clock,
            empty_at_ms,
            control_ended: false,
            close_by: None,
            ended: None,
        }
    }

    /// Waits for frames and appends all that are there; returns how many. When everything that came before
    /// the link's end was taken: why it ended, again and again. Nothing is lost when the future is dropped.
    pub async fn recv_many(&mut self, frames: &mut Vec<Frame>) -> Result<usize, LinkClosed> {
        let before = frames.len();
        // What came behind the handshake's frame.
        let mut cut = if self.control_ended { Ok(()) } else { self.cut(frames) };
        loop {
            if let Err(error) = cut {
                self.shared.abort(error.code(), &error.to_string());
                self.give_up();
                self.ended = Some(LinkClosed::Frame(error));
            }
            if frames.len() > before {
                return Ok(frames.len() - before);
            }
            let (came, waited) = self.next().await;
            cut = match came {
                Came::Chunks(Some(count)) => self.on_chunks(count, waited, frames),
                Came::Chunks(None) => self.on_control_end(),
                Came::ControlFailed(ReadError::ConnectionLost(_)) => {
                    self.control_ended = true;
                    Ok(())
                }
                Came::ControlFailed(_) => Err(FrameError::StreamReset { stream: 0 }),
                Came::Bulk(Some(frame)) => frame.map(|frame| frames.push(frame)),
                Came::Bulk(None) => {
                    self.bulk_ended = true;
                    Ok(())
                }
                Came::CloseOverdue => {
                    self.close_by = None;
                    self.shared.abort(ErrorCode::MessageTimeout, "the control stream was finished and nothing closed");
                    Ok(())
                }
                Came::Drained => return Err(self.why()),
            };
        }
    }

    /// Why the link has ended.
    fn why(&mut self) -> LinkClosed {
        let unknown = || LinkClosed::Transport { what: "the connection has ended".to_owned() };
        let shared = &self.shared;
        let why = || shared.connection.close_reason().map_or_else(unknown, |error| shared.why(error));
        self.ended.get_or_insert_with(why).clone()
    }

    /// Whatever comes next, and whether the control stream had to be waited for. Control and bulk take
    /// turns: neither can starve the other.
    async fn next(&mut self) -> (Came, bool) {
        if self.control_ended && self.bulk_ended {
            return (Came::Drained, false);
        }
        let mut waited = false;
        let clock = &self.clock;
        let empty_at_ms = &mut self.empty_at_ms;
        let close_by = self.close_by;
        let came = {
            let mut read = pin!(self.control.read_chunks(&mut self.chunks));
            let read = std::future::poll_fn(|context| match read.as_mut().poll(context) {
                Poll::Pending => {
                    waited = true;
                    *empty_at_ms = clock.now().as_ms();
                    Poll::Pending
                }
                ready => ready,
            });
            tokio::select! {
                read = read, if !self.control_ended => match read {
                    Ok(count) => Came::Chunks(count),
                    Err(error) => Came::ControlFailed(error),
                },
                frame = self.bulk.recv(), if !self.bulk_ended => Came::Bulk(frame),
                () = at(close_by), if close_by.is_some() => Came::CloseOverdue,
            }
        };
        (came, waited)
    }

    /// The peer sent all it had and is about to close.
    fn on_control_end(&mut self) -> Result<(), FrameError> {
        self.control_ended = true;
        self.close_by = Some(Instant::now() + FINISH_TIMEOUT);
        match self.reader.pending() {
            0 => Ok(()),
            found => Err(FrameError::Truncated { found }),
        }
    }

    /// Nothing more of this link is read: its bytes are no frames.
    fn give_up(&mut self) {
        self.control_ended = true;
        self.bulk.close();
        while self.bulk.try_recv().is_ok() {}
    }

    fn on_chunks(&mut self, count: usize, waited: bool, frames: &mut Vec<Frame>) -> Result<(), FrameError> {
        let at_ms = self.clock.now().as_ms();
        let unread_ms = if waited { 0 } else { at_ms.saturating_sub(self.empty_at_ms) };
        if count < CHUNKS_PER_READ {
            self.empty_at_ms = at_ms;
        }
        for place in 0..count {
            let Some(chunk) = self.chunks.get_mut(place).map(std::mem::take) else { break };
            self.reader.push(chunk, Arrival { at_ms, unread_ms });
            self.cut(frames)?;
        }
        Ok(())
    }

    fn cut(&mut self, frames: &mut Vec<Frame>) -> Result<(), FrameError> {
        while let Some(frame) = self.reader.next_frame()? {
            frames.push(frame);
        }
        Ok(())
    }
}

/// Waits for bulk streams, and lets each be read, until the connection ends; then the writer is told.
async fn accept_bulk(shared: Arc<Shared>, frames: mpsc::Sender<BulkFrame>, clock: ClusterClock) {
    while let Ok(stream) = shared.connection.accept_uni().await {
        let Some(number) = stream_number(stream.id()) else {
            shared.abort(ErrorCode::MessageFormat, "no more bulk streams in this session");
            break;
        };
        let reader = FrameReader::new(number, FRAME_BYTES_MAX);
        tokio::spawn(read_bulk(stream, reader, frames.clone(), clock.clone()));
    }
    shared.connection.closed().await;
    shared.on_gone();
}

/// Reads one bulk stream to its end, as fast as its frames are taken.
async fn read_bulk(
    mut stream: RecvStream,
    mut reader: FrameReader,
    frames: mpsc::Sender<BulkFrame>,
    clock: ClusterClock,
) {
    loop {
        let came = match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => {
                reader.push(chunk.bytes, Arrival { at_ms: clock.now().as_ms(), unread_ms: 0 });
                loop {
                    match reader.next_frame() {
                        Ok(Some(frame)) => {
                            // Waits here, and so does the sender, until the frames before were taken.
                            if frames.send(Box::new(Ok(frame))).await.is_err() {
                                return;
                            }
                        }
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
            }
            Ok(None) if reader.pending() == 0 => return,
            Ok(None) => Err(FrameError::Truncated { found: reader.pending() }),
            // The control stream tells why.
            Err(ReadError::ConnectionLost(_)) => return,
            Err(_) => Err(FrameError::StreamReset { stream: stream_number(stream.id()).unwrap_or_default() }),
        };
        if let Err(error) = came {
            let _ = frames.send(Box::new(Err(error))).await;
            return;
        }
    }
}
