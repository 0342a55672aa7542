//! The receiving half of a link: whole frames, in the order of their streams.
//!
//! The control stream is read by whoever calls [`Receiver::recv_many`], without a task in between, so that
//! not calling it is back-pressure all the way to the sender. Each bulk stream is read by a small task of
//! its own through a short channel, at most two at a time.

use crate::{
    clock::ClusterClock,
    closed::LinkClosed,
    frames::{Arrival, Frame, FrameError, FrameReader},
    limits::{BULK_FRAMES_WAITING_MAX, CHUNKS_PER_READ},
    sender::Shared,
    writer::stream_number,
};
use bytes::Bytes;
use fleetwire_common::{fb::ErrorCode, limits::FRAME_BYTES_MAX};
use quinn::{ReadError, RecvStream};
use std::{pin::pin, sync::Arc, task::Poll};
use tokio::{runtime::Handle, sync::mpsc};

/// Receives frames from a link.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    control: RecvStream,
    reader: FrameReader,
    bulk: mpsc::Receiver<Result<Frame, FrameError>>,
    bulk_sender: mpsc::Sender<Result<Frame, FrameError>>,
    clock: ClusterClock,
    runtime: Handle,
    /// Cluster time (ms) at which the control stream was last seen without unread bytes.
    empty_at_ms: u64,
    ended: Option<LinkClosed>,
}

/// What came next.
enum Came {
    Chunks(Option<usize>),
    ControlFailed(ReadError),
    Bulk(Result<Frame, FrameError>),
    BulkStream(RecvStream),
    Ended(quinn::ConnectionError),
}

impl Receiver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        control: RecvStream,
        reader: FrameReader,
        clock: ClusterClock,
        runtime: Handle,
    ) -> Receiver {
        let (bulk_sender, bulk) = mpsc::channel(BULK_FRAMES_WAITING_MAX);
        let empty_at_ms = clock.now().as_ms();
        Receiver { shared, control, reader, bulk, bulk_sender, clock, runtime, empty_at_ms, ended: None }
    }

    /// Waits for frames and appends all that are there; returns how many. Afterwards, and again and again,
    /// why the link ended. Nothing is lost when the future is dropped.
    pub async fn recv_many(&mut self, frames: &mut Vec<Frame>) -> Result<usize, LinkClosed> {
        let before = frames.len();
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        // What came behind the handshake's frame.
        let mut cut = self.cut(frames);
        loop {
            if let Err(error) = cut {
                return Err(self.refuse(error));
            }
            if frames.len() > before {
                return Ok(frames.len() - before);
            }
            let mut chunks: [Bytes; CHUNKS_PER_READ] = Default::default();
            let (came, waited) = self.next(&mut chunks).await;
            cut = match came {
                Came::Chunks(Some(count)) => self.on_chunks(chunks, count, waited, frames),
                Came::Chunks(None) if self.reader.pending() > 0 => {
                    Err(FrameError::Truncated { found: self.reader.pending() })
                }
                // The peer sent all it had and is about to close.
                Came::Chunks(None) => {
                    let ended = self.shared.ended().await;
                    return Err(self.end(ended));
                }
                Came::ControlFailed(ReadError::ConnectionLost(error)) | Came::Ended(error) => {
                    let ended = self.shared.why(error);
                    return Err(self.end(ended));
                }
                Came::ControlFailed(_) => Err(FrameError::StreamReset { stream: 0 }),
                Came::Bulk(Ok(frame)) => {
                    frames.push(frame);
                    Ok(())
                }
                Came::Bulk(Err(error)) => Err(error),
                Came::BulkStream(stream) => {
                    self.begin_bulk(stream);
                    Ok(())
                }
            };
        }
    }

    /// Whatever comes next, and whether the control stream had to be waited for. Control and bulk take
    /// turns: neither can starve the other.
    async fn next(&mut self, chunks: &mut [Bytes]) -> (Came, bool) {
        let mut waited = false;
        let clock = &self.clock;
        let empty_at_ms = &mut self.empty_at_ms;
        let came = {
            let mut read = pin!(self.control.read_chunks(chunks));
            let read = std::future::poll_fn(|context| match read.as_mut().poll(context) {
                Poll::Pending => {
                    waited = true;
                    *empty_at_ms = clock.now().as_ms();
                    Poll::Pending
                }
                ready => ready,
            });
            tokio::select! {
                read = read => match read {
                    Ok(count) => Came::Chunks(count),
                    Err(error) => Came::ControlFailed(error),
                },
                // Never closed: we hold a sender.
                Some(frame) = self.bulk.recv() => Came::Bulk(frame),
                stream = self.shared.connection.accept_uni() => match stream {
                    Ok(stream) => Came::BulkStream(stream),
                    Err(error) => Came::Ended(error),
                },
            }
        };
        (came, waited)
    }

    fn on_chunks(
        &mut self,
        chunks: [Bytes; CHUNKS_PER_READ],
        count: usize,
        waited: bool,
        frames: &mut Vec<Frame>,
    ) -> Result<(), FrameError> {
        let at_ms = self.clock.now().as_ms();
        let unread_ms = if waited { 0 } else { at_ms.saturating_sub(self.empty_at_ms) };
        if count < CHUNKS_PER_READ {
            self.empty_at_ms = at_ms;
        }
        for chunk in chunks.into_iter().take(count) {
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

    fn begin_bulk(&self, stream: RecvStream) {
        let Some(number) = stream_number(stream.id()) else {
            self.shared.abort(ErrorCode::MessageFormat, "no more bulk streams in this session");
            return;
        };
        let reader = FrameReader::new(number, FRAME_BYTES_MAX);
        self.runtime.spawn(read_bulk(stream, reader, self.bulk_sender.clone(), self.clock.clone()));
    }

    fn refuse(&mut self, error: FrameError) -> LinkClosed {
        self.shared.abort(error.code(), &error.to_string());
        self.end(LinkClosed::Frame(error))
    }

    fn end(&mut self, ended: LinkClosed) -> LinkClosed {
        self.ended = Some(ended.clone());
        ended
    }
}

/// Reads one bulk stream to its end, as fast as its frames are taken.
async fn read_bulk(
    mut stream: RecvStream,
    mut reader: FrameReader,
    frames: mpsc::Sender<Result<Frame, FrameError>>,
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
                            if frames.send(Ok(frame)).await.is_err() {
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
            let _ = frames.send(Err(error)).await;
            return;
        }
    }
}
