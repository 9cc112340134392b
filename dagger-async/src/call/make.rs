//! The functions behind `spawn!`, one for each number of arguments and kind of callee.
//!
//! Their `FnOnce` bound is what lets the compiler infer the parameter types of a closure.

use super::{Again, Arg, AsyncCall, AsyncCallee, Borrowing, Call, IntoArg, Once, Turn};

macro_rules! make {
    ($($name:ident)*) => {
        make!(@ $($name)*);
    };
    (@) => { make!(# f0 again0 async0 async_again0;); };
    (@ A) => { make!(# f1 again1 async1 async_again1; A); };
    (@ A B) => { make!(# f2 again2 async2 async_again2; A B); };
    (@ A B C) => { make!(# f3 again3 async3 async_again3; A B C); };
    (@ A B C D) => { make!(# f4 again4 async4 async_again4; A B C D); };
    (@ A B C D E) => { make!(# f5 again5 async5 async_again5; A B C D E); };
    (@ A B C D E G) => { make!(# f6 again6 async6 async_again6; A B C D E G); };
    (@ A B C D E G H) => { make!(# f7 again7 async7 async_again7; A B C D E G H); };
    (@ A B C D E G H I) => { make!(# f8 again8 async8 async_again8; A B C D E G H I); };
    (@ A B C D E G H I J) => { make!(# f9 again9 async9 async_again9; A B C D E G H I J); };
    (@ A B C D E G H I J K) => { make!(# f10 again10 async10 async_again10; A B C D E G H I J K); };
    (@ A B C D E G H I J K L) => { make!(# f11 again11 async11 async_again11; A B C D E G H I J K L); };
    (@ A B C D E G H I J K L M) => { make!(# f12 again12 async12 async_again12; A B C D E G H I J K L M); };

    (# $once:ident $again:ident $async:ident $async_again:ident; $($name:ident)*) => {
        /// A call that runs once.
        #[allow(non_snake_case, clippy::too_many_arguments)]
        pub fn $once<Function, Output, $($name: IntoArg),*>(
            callee: Function $(, $name: $name)*
        ) -> Borrowing<Call<Function, ($($name::Arg,)*), Once>, ($($name,)*)>
        where
            Function: for<'a> FnOnce($(<$name::Arg as Arg>::Ref<'a>),*) -> Output + Send + 'static,
        {
            Borrowing::new(Call::new(callee, ($($name.into_arg(Turn(())),)*)))
        }

        /// A call that may run again: the callee and the by-value arguments are `Clone`.
        #[allow(non_snake_case, clippy::too_many_arguments)]
        pub fn $again<Function, Output, $($name: IntoArg),*>(
            callee: Function $(, $name: $name)*
        ) -> Borrowing<Call<Function, ($($name::Arg,)*), Again>, ($($name,)*)>
        where
            Function: for<'a> FnOnce($(<$name::Arg as Arg>::Ref<'a>),*) -> Output + Clone + Send + 'static,
        {
            Borrowing::new(Call::new(callee, ($($name.into_arg(Turn(())),)*)))
        }

        /// A call of an `async fn`.
        #[allow(non_snake_case, clippy::too_many_arguments)]
        pub fn $async<Function, $($name: IntoArg),*>(
            callee: Function $(, $name: $name)*
        ) -> Borrowing<AsyncCall<Function, ($($name::Arg,)*), Once>, ($($name,)*)>
        where
            Function: AsyncCallee<($($name::Arg,)*)>,
        {
            Borrowing::new(AsyncCall::new(callee, ($($name.into_arg(Turn(())),)*)))
        }

        /// A call of an `async fn` that may run again.
        #[allow(non_snake_case, clippy::too_many_arguments)]
        pub fn $async_again<Function, $($name: IntoArg),*>(
            callee: Function $(, $name: $name)*
        ) -> Borrowing<AsyncCall<Function, ($($name::Arg,)*), Again>, ($($name,)*)>
        where
            Function: AsyncCallee<($($name::Arg,)*)> + Clone,
        {
            Borrowing::new(AsyncCall::new(callee, ($($name.into_arg(Turn(())),)*)))
        }
    };
}

for_each_arity!(make);
