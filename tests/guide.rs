//! The programs of the guide, as a user writes them.

use dagger_async::prelude::*;

fn square(x: i64) -> i64 {
    x * x
}
fn inc(x: i64) -> i64 {
    x + 1
}
fn add(x: i64, y: i64) -> i64 {
    x + y
}
fn parse(text: &str) -> Result<i64, std::num::ParseIntError> {
    text.parse()
}
async fn fetch_page() -> String {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    "page".to_owned()
}

#[tokio::test]
async fn tasks_and_edges() -> dagger_async::Result<()> {
    let a = spawn!(square(4));
    let b = spawn!(inc(a));
    assert_eq!(b.await?, 17);

    let v = spawn!((|| vec![1.0, 2.0, 3.0])());
    let n = spawn!((|v: &Vec<f64>| v.len())(&v));
    let s = spawn!((|v: Vec<f64>| v.iter().sum::<f64>())(v));
    assert_eq!((n.await?, s.await?), (3, 6.0));

    let t = spawn!(parse("17")?);
    let c = spawn(async move { fetch_page().await });
    let d = spawn(async { inc(spawn!(square(2)).await.unwrap()) });
    assert_eq!((t.await?, d.await?, c.await?.as_str()), (17, 5, "page"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn options_and_scopes() -> dagger_async::Result<()> {
    let t = spawn!(add(40, 2); name = "task-add", scope = Scope::worker(0), retries = 3);
    assert_eq!(t.name(), "task-add");
    assert_eq!(t.await?, 42);
    let opts = Options::new().name("sum-task").scope(Scope::thread(1)).priority(5);
    let t = spawn!(add(10, 32); ..opts);
    assert_eq!(t.await?, 42);
    let y = with_options(Options::new().scope(Scope::worker(0)).name("scoped-task"), async {
        spawn!(f64::sqrt(81.0)).await
    })
    .await?;
    assert_eq!(y, 9.0);
    Ok(())
}

trait Named {
    fn name(x: i32) -> String;
}
struct A;
impl Named for A {
    fn name(x: i32) -> String {
        format!("A{x}")
    }
}

#[expect(clippy::ptr_arg, reason = "the callee sees the task's own type")]
async fn save(text: &Vec<u8>, n: usize) -> usize {
    tokio::task::yield_now().await;
    text.len() + n
}

#[tokio::test]
async fn callees_of_every_kind() -> dagger_async::Result<()> {
    assert_eq!(spawn!(<A as Named>::name(3)).await?, "A3");
    assert_eq!(spawn!(std::convert::identity::<u8>(3)).await?, 3);
    assert_eq!(
        spawn!((|a: u8, b, c, d, e, f, g, h, i, j, k, l| a + b + c + d + e + f + g + h + i + j + k + l)(
            1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
        ))
        .await?,
        12
    );
    let text = spawn!((|| b"four".to_vec())());
    let saved = spawn!(async save(&text, 3));
    assert_eq!(saved.await?, 7);
    let lengths = spawn!((|a: String, n: usize| a.len() + n)(Await(fetch_page()), 1));
    assert_eq!(lengths.await?, 5);
    let task = spawn!(square(3));
    let handle = spawn!((|t: DTask<i64>| t.name().to_owned())(Value(task)));
    assert_eq!(handle.await?, "square");
    let x: u8 = 7;
    assert_eq!(spawn!((|x: u64| x + 1)(Value(x.into()))).await?, 8);
    let shared = spawn!((|| vec![1, 2])());
    let by_ref = (&shared).await?;
    assert_eq!(shared.await?, *by_ref);
    Ok(())
}

#[tokio::test]
async fn failures_keep_their_root() {
    let bad = spawn!(parse("x")?; name = "bad");
    let next = spawn!(inc(bad); name = "next");
    let last = spawn!(inc(next));
    let error = last.await.unwrap_err();
    assert!(matches!(error, Error::Dependency { .. }), "{error}");
    assert_eq!(error.root().unwrap().name(), "bad");
    assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
    let panicked = spawn!((|| -> i32 { panic!("no {}", 1) })());
    let error = panicked.await.unwrap_err();
    assert!(matches!(error, Error::Panicked { .. }));
    assert!(error.to_string().contains("no 1"));
}

#[test]
fn without_tokio() {
    let rt = Runtime::builder().threads(2).name("solver").build().unwrap();
    let x = rt.block_on(async { spawn!(square(5)).await }).unwrap();
    assert_eq!(x, 25);
    assert_eq!(spawn!(square(6)).blocking_wait().unwrap(), 36);
    futures::executor::block_on(rt.shutdown());
}
