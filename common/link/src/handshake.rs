//! What both sides of a young connection share: one frame, bounded in size and time.

use crate::{
    clock::ClusterClock,
    closed::LinkClosed,
    frames::{Arrival, Frame, FrameError, FrameReader},
};
use quinn::{Connection, ReadError, RecvStream};

/// Why the one frame did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FirstFrameError {
    #[error("{0}")]
    Closed(LinkClosed),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the stream ended before a frame came")]
    Ended,
}

/// Reads until one frame is whole. What came behind it stays in the reader.
pub(crate) async fn first_frame(
    connection: &Connection,
    stream: &mut RecvStream,
    reader: &mut FrameReader,
    clock: &ClusterClock,
) -> Result<Frame, FirstFrameError> {
    loop {
        if let Some(frame) = reader.next_frame()? {
            return Ok(frame);
        }
        // A chunk is at most what the transport holds: the stream's window.
        match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => reader.push(chunk.bytes, Arrival { at_ms: clock.now().as_ms(), unread_ms: 0 }),
            Ok(None) => {
                // A peer that refuses finishes its stream and closes with the reason.
                return Err(ended(connection).await);
            }
            Err(ReadError::ConnectionLost(error)) => {
                return Err(FirstFrameError::Closed(LinkClosed::from_transport(error)));
            }
            Err(_) => return Err(FrameError::StreamReset { stream: 0 }.into()),
        }
    }
}

async fn ended(connection: &Connection) -> FirstFrameError {
    match tokio::time::timeout(crate::limits::FINISH_TIMEOUT, connection.closed()).await {
        Ok(error) => FirstFrameError::Closed(LinkClosed::from_transport(error)),
        Err(_) => FirstFrameError::Ended,
    }
}

/// 16 random bytes from the operating system.
pub(crate) fn nonce() -> Result<[u8; 16], getrandom::Error> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}
