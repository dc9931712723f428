//! A run that goes on by itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::run::report::RunReport;

/// A run on the engine's threads, from [`Engine::start`](crate::Engine::start): a future of its report.
///
/// Dropping it stops the run, and so does [`CancellationToken::cancel`]: chunks that are committed stay, and no table is half
/// published.
pub struct Run {
    running: JoinHandle<Result<RunReport>>,
    events: Option<UnboundedReceiver<Event>>,
    token: CancellationToken,
}

impl Run {
    pub(super) fn new(
        running: JoinHandle<Result<RunReport>>,
        events: UnboundedReceiver<Event>,
        token: CancellationToken,
    ) -> Self {
        Self { running, events: Some(events), token }
    }

    /// What happens in this run, from its beginning to its end, as it happens; the stream ends with the run. To be asked for
    /// before the run is awaited, and once: later there is nothing left of it.
    pub fn events(&mut self) -> RunEvents {
        RunEvents(self.events.take().unwrap_or_else(|| unbounded_channel().1))
    }

    /// Stops the run from anywhere, which ends with [`ErrorKind::Cancelled`] then. Clones are of one token.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl Future for Run {
    type Output = Result<RunReport>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Nobody will read them any more.
        self.events = None;
        Pin::new(&mut self.running).poll(context).map(|ended| match ended {
            Ok(report) => report,
            Err(e) if e.is_cancelled() => Err(cancelled()),
            Err(e) => Err(Error::new(ErrorKind::Execute, "the run panicked").with_source(e)),
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("is_finished", &self.running.is_finished()).finish_non_exhaustive()
    }
}

/// Says that a run was stopped.
pub(super) fn cancelled() -> Error {
    Error::new(
        ErrorKind::Cancelled,
        "the run was stopped; finished chunks are kept, and the next run goes on from them",
    )
}

/// What happens in a run: see [`Run::events`].
#[derive(Debug)]
pub struct RunEvents(UnboundedReceiver<Event>);

impl Stream for RunEvents {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.poll_recv(context)
    }
}

/// Both ends of what happens in a run.
pub(super) fn channel() -> (UnboundedSender<Event>, UnboundedReceiver<Event>) {
    unbounded_channel()
}
