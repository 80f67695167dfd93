//! The smallest executor: a task is polled when the seed says so, and a crash is that it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// What an actor is while it runs.
pub type Task = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// Gives the others a turn.
#[derive(Debug, Default)]
pub struct Yield {
    given: bool,
}

/// Gives the others a turn.
pub fn give_way() -> Yield {
    Yield::default()
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.given {
            return Poll::Ready(());
        }
        self.given = true;
        // What is joined with others inside one task is only polled again when it says so.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Polls a task once.
pub fn poll(task: &mut Task) -> Poll<Result<(), String>> {
    task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs something to its end, alone.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}
