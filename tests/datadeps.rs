//! The programs of the guide, section 3.

use dagger_async::prelude::*;

fn fill(x: &mut [i64], v: i64) {
    x.fill(v)
}
fn add(x: &mut [i64], v: i64) {
    x.iter_mut().for_each(|x| *x += v)
}
fn sum(x: &[i64]) -> i64 {
    x.iter().sum()
}

#[tokio::test]
async fn the_first_program() -> dagger_async::Result<()> {
    let a = Chunk::new(vec![0i64; 6]);
    let (before, after) = datadeps(async {
        spawn!(fill(Out(&a.slice(..)), 1));
        let before = spawn!(sum(In(&a.slice(..))));
        spawn!(add(InOut(&a.slice(..)), 2));
        let after = spawn!(sum(In(&a.slice(..))));
        (before, after)
    })
    .await?;
    assert_eq!((before.await?, after.await?), (6, 18));
    assert_eq!(*a.read().await?, [3; 6]);

    datadeps(async {
        spawn!(add(InOut(&a.slice(0..3)), 1));
        spawn!(add(InOut(&a.slice(3..6)), 1));
        spawn!(add(InOut(&a.slice(2..4)), 1));
    })
    .await?;
    assert_eq!(*a.read().await?, [4, 4, 5, 5, 4, 4]);
    Ok(())
}

struct Body {
    mass: f64,
    at: (f64, f64),
}

async fn save(x: &[i64], n: i64) -> i64 {
    tokio::task::yield_now().await;
    x.len() as i64 + n
}

#[tokio::test]
async fn every_form_of_an_access() -> dagger_async::Result<()> {
    let c = Chunk::new((0..10i64).collect::<Vec<_>>());
    assert_eq!(spawn!(sum(&c.slice(2..=3))).await?, 5);
    assert_eq!(spawn!((|x: &Vec<i64>| x.len())(&c)).await?, 10);
    assert_eq!(spawn!(async save(In(&c.slice(..)), 3)).await?, 13);
    assert_eq!(spawn!((|x: VecRef<i64>| x.iter().sum::<i64>())(In(&c.slice(step(0..10, 3))))).await?, 18);
    assert_eq!(spawn!((|x: VecRef<i64>| x[0])(In(&c.slice(index([7, 2]))))).await?, 7);
    spawn!((|mut x: VecMut<i64>| x.for_each_mut(|x| *x = -1))(InOut(&c.slice(index([7, 2])))));
    assert_eq!(c.read().await?[7], -1);
    let b = Chunk::new(Body { mass: 1.0, at: (2.0, 3.0) });
    spawn!((|m: &mut f64, y: &f64| *m += y)(
        InOut(&b.field(field!(Body, mass))),
        In(&b.field(field!(Body, at.1)))
    ));
    assert_eq!(b.read().await?.mass, 4.0);
    let _ = b.read().await?.at.0;
    let t = spawn!((|| vec![1i64, 2, 3])());
    assert_eq!(spawn!(sum(In(&t.slice(1..)))).await?, 5);
    let whole = spawn!((|c: Chunk<Vec<i64>>| c)(c.clone())).await?;
    assert_eq!(whole.read().await?.len(), 10);
    let (x, mut y) = access((In(&c), InOut(&b))).await?;
    y.mass = x.len() as f64;
    drop((x, y));
    assert_eq!(b.into_inner().await?.mass, 10.0);
    let f = Chunk::from_task(spawn!((|| vec![5i64])()));
    assert_eq!(f.read().await?[0], 5);
    Ok(())
}

/// Counts how many of it there are.
struct Counted {
    _one: std::sync::Arc<()>,
    values: Vec<i64>,
}

#[tokio::test]
async fn a_chunk_outlives_its_handles_for_as_long_as_a_task_accesses_it() {
    let alive = std::sync::Arc::new(());
    let counted = || Counted { _one: alive.clone(), values: vec![1, 2, 3] };
    // A temporary, in each place where one can be.
    let one = spawn!((|x: &Counted| x.values.len())(In(&Chunk::new(counted()))));
    let two = spawn!((|x: &Counted| x.values.len())(&Chunk::new(counted())); retries = 1);
    let three = spawn!((|x: &[i64]| x.len())(In(&Chunk::new(vec![1, 2, 3]).slice(1..))); name = "three");
    assert_eq!((one.await.unwrap(), two.await.unwrap(), three.await.unwrap()), (3, 3, 2));
    // Dropped with its last access, which the result of the last task may precede.
    let dropped = || async {
        let patience = std::time::Instant::now();
        while std::sync::Arc::strong_count(&alive) > 1 {
            assert!(patience.elapsed() < std::time::Duration::from_secs(20), "the chunk is never dropped");
            tokio::task::yield_now().await;
        }
    };
    dropped().await;
    // A chain whose head waits; all handles are dropped meanwhile.
    let (open, gate) = tokio::sync::oneshot::channel::<()>();
    let chunk = Chunk::new(counted());
    let head = spawn(async move { gate.await.is_ok() });
    let last = {
        spawn!((|x: &mut Counted, _: bool| x.values.push(4))(InOut(&chunk), head));
        spawn!((|x: &mut Counted| x.values.push(5))(InOut(&chunk)));
        spawn!((|x: &Counted| x.values.clone())(In(&chunk)))
    };
    drop(chunk);
    assert_eq!(std::sync::Arc::strong_count(&alive), 2);
    open.send(()).unwrap();
    assert_eq!(last.await.unwrap(), [1, 2, 3, 4, 5]);
    dropped().await;
}

#[tokio::test]
async fn a_region_without_elements_beside_another_is_over_before_the_chunk_is() {
    use dagger_async::region::slice;
    // Under AddressSanitizer this says more: the access without elements has no place of its own.
    for _ in 0..20 {
        let chunk = Chunk::new(vec![1u64; 4]);
        let both = Deps(&chunk, (InOut(slice(2..2)), InOut(slice(0..1))));
        let task = spawn!((|(a, b): (&mut [u64], &mut [u64])| (a.len(), b.len()))(both));
        drop(chunk);
        assert_eq!(task.await.unwrap(), (0, 1));
        // So too for guards of a chunk that is poisoned.
        let chunk = Chunk::new(vec![1u64; 4]);
        spawn!((|_: &mut Vec<u64>| Err::<(), _>("no"))(InOut(&chunk))?).await.unwrap_err();
        let (empty, first) = access((Out(&chunk.slice(2..2)), Out(&chunk.slice(0..1)))).await.unwrap();
        drop((chunk, first, empty));
    }
}
