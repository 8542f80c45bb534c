//! Many submissions in one batch are as many submissions in batches of their own.

use super::*;

/// A batch of plain tasks with some others between them.
fn mixed(bed: &mut Bed, count: usize) -> Vec<Op> {
    let mut ops = Vec::new();
    for n in 0..count {
        let array = (n % 23 == 22).then_some(Array::Range { first: 0, count: 3 });
        let mut new = bed.new_task(array, &[]);
        new.name = (n % 5 == 0).then(|| format!("name{n}"));
        new.held = n % 31 == 30;
        new.hooked = n % 7 == 0;
        new.not_before_us = if n % 11 == 0 { (T0 + 60_000) * 1_000 } else { 0 };
        ops.push(Op::Submit(Arc::new(new)));
    }
    ops
}

fn what_is_there(bed: &Bed) -> Vec<String> {
    let filter = ListFilter { members: true, ..ListFilter::default() };
    let tasks = bed.store.list(&filter, 1_000).unwrap().tasks;
    tasks.into_iter().map(|task| format!("{task:?}")).collect()
}

#[test]
fn a_large_batch_does_what_small_ones_do() {
    let (mut large, mut small) = (Bed::new(), Bed::new());
    let ops = mixed(&mut large, 200);
    large.store.apply(&ops).unwrap();
    // The other queue has another tag: what is compared begins with its own ids.
    let ops = mixed(&mut small, 200);
    ops.iter().for_each(|op| drop(small.store.apply(std::slice::from_ref(op)).unwrap()));
    assert_eq!(large.store.counts(), small.store.counts());
    let facts = |bed: &Bed| -> Vec<_> {
        let filter = ListFilter { members: true, ..ListFilter::default() };
        let tasks = bed.store.list(&filter, 1_000).unwrap().tasks;
        let fact = |task: TaskRecord| {
            (task.id.seq(), task.state, task.priority, task.class, task.not_before_us, task.held, task.spec)
        };
        tasks.into_iter().map(fact).collect()
    };
    assert_eq!(facts(&large), facts(&small));
    let seqs = |bed: &Bed| bed.store.ready(LANE, 0, 1_000).unwrap().iter().map(|r| r.id.seq()).collect::<Vec<_>>();
    assert_eq!(seqs(&large), seqs(&small));
    assert_eq!(large.store.find_by_name("name5").unwrap().seq(), small.store.find_by_name("name5").unwrap().seq());
    let events = |bed: &Bed| bed.store.events(0, 1_000).unwrap().iter().map(|e| (e.seq, e.kind)).collect::<Vec<_>>();
    assert_eq!(events(&large), events(&small));
}

#[test]
fn a_large_batch_that_comes_again_whole_or_in_part_adds_only_what_is_not_there() {
    let mut bed = Bed::new();
    let ops = mixed(&mut bed, 100);
    bed.store.apply(&ops[..50]).unwrap();
    bed.store.apply(&ops).unwrap();
    let (before, counts) = (what_is_there(&bed), bed.store.counts());
    bed.store.apply(&ops).unwrap();
    bed.store.apply(&ops[20..]).unwrap();
    assert_eq!((what_is_there(&bed), bed.store.counts()), (before, counts));
    let submitted = |kind: &Event| matches!(kind.kind, EventKind::TaskSubmitted | EventKind::ArraySubmitted);
    assert_eq!(bed.store.events(0, 1_000).unwrap().iter().filter(|event| submitted(event)).count(), 100);
}
