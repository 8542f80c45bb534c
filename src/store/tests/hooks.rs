//! Finish hooks: one for each end, whatever ended it, in the same transaction.

use super::*;

fn hooked(bed: &mut Bed, array: Option<Array>, dependencies: &[(TaskId, DependencyKind)]) -> TaskId {
    let spec = TaskSpec {
        command: vec!["/bin/echo".into()],
        name: Some("encode".into()),
        on_finish: vec!["tell".into(), "it".into()],
        meta: [("k".to_owned(), "v".to_owned())].into(),
        ..TaskSpec::default()
    };
    let id = bed.store.allocate(T0, 1 + array.as_ref().map_or(0, Array::len));
    let new = NewTask::new(id, T0 * 1_000, Submission { spec, array, ..Submission::default() }, &[]).unwrap();
    let new = NewTask { dependencies: dependencies.to_vec(), ..new };
    assert_eq!(bed.store.apply(&[Op::Submit(Arc::new(new))]).unwrap().rejected, []);
    id
}

/// The only hook of a task.
#[track_caller]
fn hook(bed: &Bed, id: TaskId) -> TaskRecord {
    let hooks = bed.store.hooks_of(id, 9).unwrap();
    assert_eq!(hooks.len(), 1, "{hooks:?}");
    bed.get(hooks[0])
}

#[test]
fn the_end_of_a_task_adds_its_hook_with_the_verdict() {
    let mut bed = Bed::new();
    let id = hooked(&mut bed, None, &[]);
    let mut end = run(id, 1, Next::RetryAt(5));
    bed.store.apply(&end).unwrap();
    assert_eq!(bed.store.hooks_of(id, 9).unwrap(), [], "an attempt that is not the last is no end");
    bed.store.apply(&[Op::Wake { now_us: 9, limit: 9 }]).unwrap();
    end = run(id, 2, Next::Final(TaskState::Failed));
    let applied = bed.store.apply(&end).unwrap();
    let hook = hook(&bed, id);
    assert_eq!(applied.ready.iter().map(|r| (r.id, r.priority)).collect::<Vec<_>>(), [(hook.id, Priority::High)]);
    assert_eq!((hook.hook_of, hook.spec.command), (Some(id), vec!["tell".to_owned(), "it".to_owned()]));
    assert_eq!((hook.spec.name.as_deref(), &hook.spec.meta["k"]), (Some("on-finish:encode"), &"v".to_owned()));
    let env = |name: &str| hook.spec.env[&format!("ACODE_HOOK_{name}")].clone();
    assert_eq!([env("TASK"), env("STATE"), env("VERDICT")], [id.to_string(), "failed".into(), "exited".into()]);
    assert_eq!([env("EXIT_CODE"), env("SIGNAL"), env("ATTEMPTS")], ["3", "", "2"]);
    assert_eq!(bed.store.counts().pending, 1);
    // The same operations again change nothing, and neither does the hook's own end.
    assert_eq!(bed.store.apply(&end).unwrap().ready, []);
    bed.finish(hook.id, TaskState::Failed);
    assert_eq!((bed.store.counts().pending, bed.store.hooks_of(id, 9).unwrap().len()), (0, 1));
}

#[test]
fn each_way_to_an_end_has_its_hook() {
    let mut bed = Bed::new();
    let by_hand = hooked(&mut bed, None, &[]);
    let dependent = hooked(&mut bed, None, &[(by_hand, DependencyKind::Succeeded)]);
    bed.store.apply(&[cancel(by_hand)]).unwrap();
    let doomed = hooked(&mut bed, None, &[(by_hand, DependencyKind::Succeeded)]);
    for (id, reason) in [(by_hand, "no longer wanted"), (dependent, "dependency"), (doomed, "dependency")] {
        let env = hook(&bed, id).spec.env;
        assert_eq!((env["ACODE_HOOK_STATE"].as_str(), env["ACODE_HOOK_ATTEMPTS"].as_str()), ("cancelled", "0"));
        assert!(env["ACODE_HOOK_REASON"].contains(reason), "{env:?}");
    }
}

#[test]
fn an_array_has_one_hook_when_all_of_it_has_ended() {
    let mut bed = Bed::new();
    let array = hooked(&mut bed, Some(Array::Range { first: 0, count: 2 }), &[]);
    bed.store.apply(&[Op::Expand { header: array, to: 2 }]).unwrap();
    bed.finish(member(array, 0), TaskState::Failed);
    assert_eq!(bed.store.hooks_of(array, 9).unwrap(), []);
    bed.finish(member(array, 1), TaskState::Completed);
    assert_eq!(hook(&bed, array).spec.env["ACODE_HOOK_STATE"], "failed");
    assert_eq!(bed.store.counts().pending, 1);
}

#[test]
fn the_pools_hook_runs_for_every_task_but_a_hook_and_beside_its_own() {
    let mut bed = Bed::new();
    bed.store.set_hooks(Hooks { pool: vec!["log".into()], timeout_ms: 700 });
    let (plain, own) = (bed.task(), hooked(&mut bed, None, &[]));
    bed.finish(plain, TaskState::Completed);
    let first = hook(&bed, plain);
    assert_eq!((first.spec.command.as_slice(), first.spec.timeout_ms), (["log".to_owned()].as_slice(), Some(700)));
    assert_eq!(first.spec.env["ACODE_HOOK_NAME"], "echo");
    bed.finish(own, TaskState::Completed);
    let both = bed.store.hooks_of(own, 9).unwrap();
    assert_eq!(both.iter().map(|id| bed.get(*id).spec.command[0].clone()).collect::<Vec<_>>(), ["tell", "log"]);
    bed.finish(first.id, TaskState::Completed);
    assert_eq!(bed.store.hooks_of(first.id, 9).unwrap(), []);
}

#[test]
fn a_batch_that_failed_as_it_seemed_has_added_its_hook_once() {
    let mut bed = Bed::new();
    let id = hooked(&mut bed, None, &[]);
    let end = run(id, 1, Next::Final(TaskState::Completed));
    bed.store.apply(&end).unwrap();
    let mut bed = bed.reopen_file();
    bed.store.apply(&end).unwrap();
    let hook = hook(&bed, id);
    let next = bed.task();
    assert!(next.seq() > hook.id.seq(), "its number is not given out again");
}
