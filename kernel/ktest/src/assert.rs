//! Assertions where core's say too little.

/// Asserts that a `Result` is an error that matches a pattern. Core has only equality, which asks for an error and a
/// value that compare; most owners of memory do not.
///
/// ```
/// #[derive(Debug)]
/// enum MapError {
///     Unaligned { address: u32 },
/// }
/// let result: Result<(), _> = Err(MapError::Unaligned { address: 0x1001 });
/// ktest::assert_err!(result, MapError::Unaligned { address } if address == 0x1001);
/// ```
#[macro_export]
macro_rules! assert_err {
    ($result:expr, $pattern:pat $(if $guard:expr)? $(,)?) => {
        match $result {
            ::core::result::Result::Err($pattern) $(if $guard)? => {}
            other => ::core::panic!(
                "assertion failed: `{}`\n  wanted: Err({})\n     got: {:?}",
                ::core::stringify!($result),
                ::core::stringify!($pattern $(if $guard)?),
                other.map(|_| "something"),
            ),
        }
    };
}

#[cfg(test)]
mod tests {
    /// A value that neither compares nor prints, as an owner of memory would be.
    struct Owner;

    #[test]
    fn the_error_that_is_wanted_passes() {
        assert_err!(Err::<Owner, _>(Some(3)), Some(x) if x == 3);
    }

    #[test]
    #[should_panic(expected = "wanted: Err(Some(4))\n     got: Err(Some(3))")]
    fn another_error_fails_and_is_shown() {
        assert_err!(Err::<Owner, _>(Some(3)), Some(4));
    }

    #[test]
    #[should_panic(expected = "got: Err(Some(3))")]
    fn a_guard_that_does_not_hold_fails() {
        assert_err!(Err::<Owner, _>(Some(3)), Some(x) if x > 3);
    }

    #[test]
    #[should_panic(expected = "got: Ok(\"something\")")]
    fn success_fails() {
        assert_err!(Ok::<_, Option<u8>>(Owner), Some(3));
    }
}
