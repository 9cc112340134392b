//! [`spawn!`](crate::spawn!).

/// Spawns a call as a task and gives its [`DTask`](crate::DTask).
///
/// ```text
/// spawn!(f(a, &b))                    f gets the result of `a` by value, of `b` by reference
/// spawn!(f(a)?)                       an `Err` of f fails the task
/// spawn!(async f(a))                  f is an `async fn`
/// spawn!(f(a); name = "x", priority = 1, retries = 3, retry_delay = d)
/// spawn!(f(a); ..options)             a whole `Options` value; `name = "x", ..options` adds to it
/// ```
///
/// The callee is a function, a path (with generics, or `<T as Trait>::f`) or a closure in parentheses. There are 0
/// to 12 arguments: a [`DTask`](crate::DTask) (by value, or `&task` by reference) makes an edge, [`Await`](crate::Await) awaits
/// any future, [`Value`](crate::Value) hands a task itself over, everything else is a plain value. [`In`](crate::In),
/// [`Out`](crate::Out) and [`InOut`](crate::InOut) declare accesses to chunks. The task starts when its inputs are there and
/// its accesses are granted; a failed input fails it.
///
/// Options are the methods of [`Options`](crate::Options), and `retries = n`, `retry_delay = d`: they call the function
/// again after a panic, and with `?` after an `Err`, up to `n` times; it and its by-value arguments must be `Clone`. With an
/// [`InOut`](crate::InOut) argument a retry finds what the failed attempt has left: say that it may, with `retry_mutated = true`.
///
/// `repeatable = true` says that a [`Frozen`](crate::Frozen) graph may call the function again: it and its by-value arguments must
/// be `Clone`, the arguments no tasks and nothing that is awaited.
///
/// ```
/// use dagger_async::prelude::*;
/// fn square(x: i64) -> i64 { x * x }
/// fn inc(x: i64) -> i64 { x + 1 }
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let a = spawn!(square(4));
/// let b = spawn!(inc(a); name = "plus one");
/// assert_eq!(b.await?, 17);
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! spawn {
    (async $($tokens:tt)+) => { $crate::__spawn!(@callee async [] $($tokens)+) };
    ($($tokens:tt)+) => { $crate::__spawn!(@callee sync [] $($tokens)+) };
}

/// The parts of `spawn!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __spawn {
    // The callee ends where a parenthesis is the last thing, or is followed by `?` or `;`.
    (@callee $kind:ident [$($callee:tt)+] ($($args:tt)*)) => {
        $crate::__spawn!(@options $kind plain [$($callee)+] ($($args)*) [] [] [])
    };
    (@callee $kind:ident [$($callee:tt)+] ($($args:tt)*) ?) => {
        $crate::__spawn!(@options $kind fallible [$($callee)+] ($($args)*) [] [] [])
    };
    (@callee $kind:ident [$($callee:tt)+] ($($args:tt)*) ; $($options:tt)*) => {
        $crate::__spawn!(@options $kind plain [$($callee)+] ($($args)*) [] [] [] $($options)*)
    };
    (@callee $kind:ident [$($callee:tt)+] ($($args:tt)*) ? ; $($options:tt)*) => {
        $crate::__spawn!(@options $kind fallible [$($callee)+] ($($args)*) [] [] [] $($options)*)
    };
    (@callee $kind:ident [$($callee:tt)*] $next:tt $($rest:tt)*) => {
        $crate::__spawn!(@callee $kind [$($callee)* $next] $($rest)*)
    };
    (@callee $kind:ident [$($callee:tt)*]) => {
        ::core::compile_error!(
            "spawn! takes a call: `spawn!(f(a, b))`, `spawn!(f(a)?)`, `spawn!((|x| x + 1)(a); name = \"inc\")`; for a \
             future use `spawn(future)`"
        )
    };

    // Options: [retries] [retry_delay] [the others, as method calls].
    (@options $kind:ident $err:ident $callee:tt $args:tt [$($n:tt)*] $d:tt $o:tt retries = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__spawn!(@options $kind $err $callee $args [$value] $d $o $($($rest)*)?)
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt [$($d:tt)*] $o:tt retry_delay = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__spawn!(@options $kind $err $callee $args $n [$value] $o $($($rest)*)?)
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt $d:tt $o:tt retry_mutated = false $(, $($rest:tt)*)?) => {
        $crate::__spawn!(@options $kind $err $callee $args $n $d $o $($($rest)*)?)
    };
    (@options sync $err:ident $callee:tt $args:tt $n:tt $d:tt $o:tt retry_mutated = true $(, $($rest:tt)*)?) => {
        $crate::__spawn!(@options sync_mutated $err $callee $args $n $d $o $($($rest)*)?)
    };
    (@options async $err:ident $callee:tt $args:tt $n:tt $d:tt $o:tt retry_mutated = true $(, $($rest:tt)*)?) => {
        $crate::__spawn!(@options async_mutated $err $callee $args $n $d $o $($($rest)*)?)
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt $d:tt $o:tt repeatable = false $(, $($rest:tt)*)?) => {
        $crate::__spawn!(@options $kind $err $callee $args $n $d $o $($($rest)*)?)
    };
    (@options sync $err:ident $callee:tt $args:tt $n:tt $d:tt $o:tt repeatable = true $(, $($rest:tt)*)?) => {
        $crate::__spawn!(@options sync_repeatable $err $callee $args $n $d $o $($($rest)*)?)
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt $d:tt $o:tt repeatable = true $(, $($rest:tt)*)?) => {
        ::core::compile_error!("spawn!: an `async fn`, or a task with `retries`, cannot be `repeatable`")
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt $d:tt [$($o:tt)*] .. $value:expr) => {
        $crate::__spawn!(@done $kind $err $callee $args $n $d [($value) $($o)*])
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt $d:tt [$($o:tt)*] name = $name:literal $(, $($rest:tt)*)?) => {
        $crate::__spawn!(@options $kind $err $callee $args $n $d
            [$($o)* .named($crate::__private::TaskName::Static($name))] $($($rest)*)?)
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt $d:tt [$($o:tt)*] $name:ident = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__spawn!(@options $kind $err $callee $args $n $d [$($o)* .$name($value)] $($($rest)*)?)
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt $d:tt []) => {
        $crate::__spawn!(@done $kind $err $callee $args $n $d [])
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt $d:tt [$($o:tt)+]) => {
        $crate::__spawn!(@done $kind $err $callee $args $n $d [($crate::Options::new()) $($o)+])
    };
    (@options $kind:ident $err:ident $callee:tt $args:tt $n:tt $d:tt $o:tt $($rest:tt)+) => {
        ::core::compile_error!(::core::concat!(
            "spawn! does not understand the options `", ::core::stringify!($($rest)+),
            "`; write `name = \"x\", priority = 2`, and `..options` last"
        ))
    };

    (@done sync_repeatable $err:ident $callee:tt $args:tt [] [] $o:tt) => {
        $crate::__spawn!(@submit $callee $o $crate::__private::repeatable(
            $crate::__spawn!(@$err $crate::__spawn!(@call sync once $callee $args))
        ))
    };
    (@done sync_repeatable $err:ident $callee:tt $args:tt $n:tt $d:tt $o:tt) => {
        ::core::compile_error!("spawn!: an `async fn`, or a task with `retries`, cannot be `repeatable`")
    };
    (@done sync_mutated $err:ident $callee:tt $args:tt [] $d:tt $o:tt) => {
        ::core::compile_error!("spawn!: `retry_mutated` needs `retries`")
    };
    (@done async_mutated $err:ident $callee:tt $args:tt [] $d:tt $o:tt) => {
        ::core::compile_error!("spawn!: `retry_mutated` needs `retries`")
    };
    (@done $kind:ident $err:ident $callee:tt $args:tt [] [] $o:tt) => {
        $crate::__spawn!(@submit $callee $o $crate::__spawn!(@$err $crate::__spawn!(@call $kind once $callee $args)))
    };
    (@done $kind:ident $err:ident $callee:tt $args:tt [$n:expr] [] $o:tt) => {
        $crate::__spawn!(@done $kind $err $callee $args [$n] [::core::time::Duration::ZERO] $o)
    };
    (@done $kind:ident $err:ident $callee:tt $args:tt [$n:expr] [$d:expr] $o:tt) => {
        $crate::__spawn!(@submit $callee $o $crate::__private::retrying(
            $crate::__spawn!(@$err $crate::__spawn!(@call $kind again $callee $args)), $n, $d
        ))
    };
    (@done $kind:ident $err:ident $callee:tt $args:tt [] [$d:expr] $o:tt) => {
        ::core::compile_error!("spawn!: `retry_delay` needs `retries`")
    };

    (@plain $body:expr) => { $body };
    (@fallible $body:expr) => { $crate::__private::fallible($body) };

    (@submit [$($callee:tt)+] [$($o:tt)*] $body:expr) => {{
        #[allow(unused_imports)]
        use $crate::__private::{ViaPlain as _, ViaTask as _};
        static SITE: $crate::__private::CallSite = $crate::__private::CallSite::new(::core::stringify!($($callee)+));
        // One statement: what the arguments borrow lives until the task is submitted.
        #[allow(unused_parens)]
        let task = $crate::__private::submit_call($body, &SITE, $crate::__spawn!(@some $($o)*));
        {
            #[allow(unused_imports)]
            use $crate::__private::{NoteClone as _, NoteNothing as _};
            (&$crate::__private::CloneProbe(&task)).note();
        }
        task
    }};
    (@some) => { ::core::option::Option::None };
    (@some ($first:expr) $($o:tt)*) => { ::core::option::Option::Some($first $($o)*) };

    (@call sync_mutated $again:ident $callee:tt $args:tt) => {
        $crate::__spawn!(@call sync $again $callee $args).mutated()
    };
    (@call async_mutated $again:ident $callee:tt $args:tt) => {
        $crate::__spawn!(@call async $again $callee $args).mutated()
    };
    (@call $kind:ident $again:ident [$($callee:tt)+] ($($arg:expr),* $(,)?)) => {
        $crate::__spawn!(@arity $kind $again [$($callee)+] [] $($arg,)*)
    };
    (@arity sync once $f:tt []) => { $crate::__spawn!(@make f0 $f []) };
    (@arity sync again $f:tt []) => { $crate::__spawn!(@make again0 $f []) };
    (@arity async once $f:tt []) => { $crate::__spawn!(@make async0 $f []) };
    (@arity async again $f:tt []) => { $crate::__spawn!(@make async_again0 $f []) };
    (@arity sync once $f:tt [] $a:expr,) => { $crate::__spawn!(@make f1 $f [$a,]) };
    (@arity sync again $f:tt [] $a:expr,) => { $crate::__spawn!(@make again1 $f [$a,]) };
    (@arity async once $f:tt [] $a:expr,) => { $crate::__spawn!(@make async1 $f [$a,]) };
    (@arity async again $f:tt [] $a:expr,) => { $crate::__spawn!(@make async_again1 $f [$a,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr,) => { $crate::__spawn!(@make f2 $f [$a, $b,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr,) => { $crate::__spawn!(@make again2 $f [$a, $b,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr,) => { $crate::__spawn!(@make async2 $f [$a, $b,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr,) => { $crate::__spawn!(@make async_again2 $f [$a, $b,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr,) => { $crate::__spawn!(@make f3 $f [$a, $b, $c,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr,) => { $crate::__spawn!(@make again3 $f [$a, $b, $c,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr,) => { $crate::__spawn!(@make async3 $f [$a, $b, $c,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr,) => { $crate::__spawn!(@make async_again3 $f [$a, $b, $c,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr,) => { $crate::__spawn!(@make f4 $f [$a, $b, $c, $d,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr,) => { $crate::__spawn!(@make again4 $f [$a, $b, $c, $d,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr,) => { $crate::__spawn!(@make async4 $f [$a, $b, $c, $d,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr,) => { $crate::__spawn!(@make async_again4 $f [$a, $b, $c, $d,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr,) => { $crate::__spawn!(@make f5 $f [$a, $b, $c, $d, $e,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr,) => { $crate::__spawn!(@make again5 $f [$a, $b, $c, $d, $e,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr,) => { $crate::__spawn!(@make async5 $f [$a, $b, $c, $d, $e,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr,) => { $crate::__spawn!(@make async_again5 $f [$a, $b, $c, $d, $e,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr,) => { $crate::__spawn!(@make f6 $f [$a, $b, $c, $d, $e, $f_,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr,) => { $crate::__spawn!(@make again6 $f [$a, $b, $c, $d, $e, $f_,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr,) => { $crate::__spawn!(@make async6 $f [$a, $b, $c, $d, $e, $f_,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr,) => { $crate::__spawn!(@make async_again6 $f [$a, $b, $c, $d, $e, $f_,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr,) => { $crate::__spawn!(@make f7 $f [$a, $b, $c, $d, $e, $f_, $g,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr,) => { $crate::__spawn!(@make again7 $f [$a, $b, $c, $d, $e, $f_, $g,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr,) => { $crate::__spawn!(@make async7 $f [$a, $b, $c, $d, $e, $f_, $g,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr,) => { $crate::__spawn!(@make async_again7 $f [$a, $b, $c, $d, $e, $f_, $g,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr,) => { $crate::__spawn!(@make f8 $f [$a, $b, $c, $d, $e, $f_, $g, $h,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr,) => { $crate::__spawn!(@make again8 $f [$a, $b, $c, $d, $e, $f_, $g, $h,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr,) => { $crate::__spawn!(@make async8 $f [$a, $b, $c, $d, $e, $f_, $g, $h,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr,) => { $crate::__spawn!(@make async_again8 $f [$a, $b, $c, $d, $e, $f_, $g, $h,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr,) => { $crate::__spawn!(@make f9 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr,) => { $crate::__spawn!(@make again9 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr,) => { $crate::__spawn!(@make async9 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr,) => { $crate::__spawn!(@make async_again9 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr,) => { $crate::__spawn!(@make f10 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr,) => { $crate::__spawn!(@make again10 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr,) => { $crate::__spawn!(@make async10 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr,) => { $crate::__spawn!(@make async_again10 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr, $k:expr,) => { $crate::__spawn!(@make f11 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j, $k,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr, $k:expr,) => { $crate::__spawn!(@make again11 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j, $k,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr, $k:expr,) => { $crate::__spawn!(@make async11 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j, $k,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr, $k:expr,) => { $crate::__spawn!(@make async_again11 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j, $k,]) };
    (@arity sync once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr, $k:expr, $l:expr,) => { $crate::__spawn!(@make f12 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j, $k, $l,]) };
    (@arity sync again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr, $k:expr, $l:expr,) => { $crate::__spawn!(@make again12 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j, $k, $l,]) };
    (@arity async once $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr, $k:expr, $l:expr,) => { $crate::__spawn!(@make async12 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j, $k, $l,]) };
    (@arity async again $f:tt [] $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f_:expr, $g:expr, $h:expr, $i:expr, $j:expr, $k:expr, $l:expr,) => { $crate::__spawn!(@make async_again12 $f [$a, $b, $c, $d, $e, $f_, $g, $h, $i, $j, $k, $l,]) };
    (@arity $kind:ident $again:ident $f:tt [] $($arg:expr,)*) => {
        ::core::compile_error!("spawn! takes at most 12 arguments: put some of them into a tuple")
    };
    (@make $make:ident [$($callee:tt)+] [$($arg:expr,)*]) => {
        $crate::__private::make::$make($($callee)+ $(, (&$crate::__private::Probe::new($arg)).arg())*)
    };
}
