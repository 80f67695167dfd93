//! Targets: the conformance suite, and what is special to each of them.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

#[path = "targets/bucket.rs"]
mod bucket;
#[path = "targets/copying.rs"]
mod copying;
#[path = "targets/directory.rs"]
mod directory;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Carries a future to its end on this thread. Targets need no runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
