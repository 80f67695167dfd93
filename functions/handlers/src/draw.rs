//! Names that nobody else has drawn.

/// 64 bits of the operating system's randomness.
///
/// # Panics
/// Where the operating system has none: nothing that must be unlike all others can be made there.
pub fn draw() -> u64 {
    getrandom::u64().expect("the operating system gives random numbers")
}
