//! What a conflict says: to a person, as JSON, as a graph.

use super::*;

use lockkeeper::LockConflict;

/// The texts that a person needs, in the report and as JSON.
fn says(conflict: &LockConflict, parts: &[&str]) {
    let (text, json) = (conflict.to_string(), conflict.to_json());
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(parsed.is_object() && !json.contains('\n'), "{json}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    for party in std::iter::once(&conflict.asker)
        .chain(&conflict.owners)
        .chain(&conflict.waiters)
    {
        let number = party.locker.to_string();
        for part in [
            &number,
            party.mode.name(),
            party.name.as_ref().unwrap().as_str(),
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
            assert!(json.contains(part), "{part:?} is not in {json}");
        }
        for site in [party.site, party.began] {
            assert!(json.contains(&site.to_string()), "{site} is not in {json}");
        }
        assert!(
            text.contains(&party.site.to_string()),
            "{} is not in {text}",
            party.site
        );
    }
}

/// Whom each has an arrow to.
fn arrows(graph: &str) -> Vec<(String, String)> {
    assert!(
        graph.starts_with("digraph") && graph.trim_end().ends_with('}'),
        "{graph}"
    );
    let lines = graph.lines().filter_map(|line| line.split_once("->"));
    lines
        .map(|(from, rest)| {
            let to = rest.split_whitespace().next().unwrap();
            (from.trim().to_owned(), to.to_owned())
        })
        .collect()
}

fn arrow(from: &Locker, to: &Locker) -> (String, String) {
    (format!("l{}", from.id()), format!("l{}", to.id()))
}

#[actix::test]
async fn each_kind_names_who_holds_who_waits_and_for_how_long() {
    let config = LockConfig {
        detect_on_block: false,
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let a = Object::new("accounts", "alice");
        let holder = door.named("payer").await;
        let queued = door.named("auditor").await;
        let _held = door.hold(&holder, &a, Mode::Write).await;
        let _waiting = door.waits(&queued, &a, Mode::Update).await;
        let new = |spec: LockerSpec| door.new_locker(spec.name("reader"), None);

        let asker = new(LockerSpec::new()).await.unwrap();
        let error = door.refused(&asker, &a, Mode::Read).await;
        let conflict = error.conflict().unwrap();
        says(conflict, &["accounts[alice]", "did not want to wait"]);
        assert!(
            error.to_string().starts_with("lock not available"),
            "{error}"
        );
        assert!(conflict.to_json().contains("\"not-available\""));
        assert_eq!(arrows(&conflict.to_graphviz()), [arrow(&asker, &holder)]);
        assert!(conflict.to_graphviz().contains("read accounts[alice]"));

        let wait = Wait::For(Duration::from_millis(10));
        let error = door.ask(&asker, &a, Mode::Read, wait).await.unwrap_err();
        let conflict = error.conflict().unwrap();
        says(conflict, &["accounts[alice]", "10.0ms", "waited"]);
        assert!(error.to_string().starts_with("lock timeout"), "{error}");
        assert!(conflict.to_json().contains("\"lock-timeout\""));
        assert_eq!((conflict.owners.len(), conflict.waiters.len()), (1, 1));
        assert!(arrows(&conflict.to_graphviz()).contains(&arrow(&asker, &holder)));

        let spec = LockerSpec::new().txn_timeout(Duration::from_millis(12));
        let asker = new(spec).await.unwrap();
        let error = door
            .ask(&asker, &a, Mode::Read, Wait::Forever)
            .await
            .unwrap_err();
        let conflict = error.conflict().unwrap();
        says(conflict, &["accounts[alice]", "12.0ms", "transaction"]);
        assert!(
            error.to_string().starts_with("transaction timeout"),
            "{error}"
        );
        assert!(conflict.to_json().contains("\"transaction-timeout\""));
    }
}

#[actix::test]
async fn a_deadlock_shows_the_whole_cycle_with_names_modes_objects_and_lines() {
    for door in Door::both(LockConfig::default()) {
        let names = ["left", "middle", "right"];
        let mut lockers = Vec::new();
        for name in names {
            lockers.push(door.named(name).await);
        }
        let objects = names.map(|name| Object::new("forks", name));
        let mut held = Vec::new();
        for (locker, object) in lockers.iter().zip(&objects) {
            held.push(door.hold(locker, object, Mode::Write).await);
        }
        let _waiting = [
            door.waits(&lockers[0], &objects[1], Mode::Read).await,
            door.waits(&lockers[1], &objects[2], Mode::Update).await,
        ];
        let closing = door.ask(&lockers[2], &objects[0], Mode::Read, Wait::Forever);
        let error = closing.await.unwrap_err();
        let conflict = error.conflict().unwrap();
        says(
            conflict,
            &[
                "forks[left]",
                "forks[middle]",
                "forks[right]",
                "update",
                "cycle of 3",
            ],
        );
        let text = conflict.to_string();
        for (number, step) in conflict.cycle.iter().enumerate() {
            let (waiter, blocker) = (&step.waiter, &step.blocker);
            assert_eq!(
                waiter.name.as_ref().unwrap().as_str(),
                names[(number + 2) % 3]
            );
            assert_eq!(blocker.name.as_ref().unwrap().as_str(), names[number]);
            for site in [waiter.site, blocker.site] {
                assert!(text.contains(&site.to_string()), "{site} is not in {text}");
            }
        }
        assert!(
            text.contains("whose request closed the cycle"),
            "why that victim: {text}"
        );
        let json: serde_json::Value = serde_json::from_str(&conflict.to_json()).unwrap();
        assert_eq!(json["kind"], "deadlock");
        assert_eq!(json["cycle"].as_array().unwrap().len(), 3);
        assert_eq!(json["cycle"][0]["object"], "forks[left]");
        assert_eq!(json["choice"]["policy"], "default");
        assert_eq!(json["choice"]["asked"], true);
        let mut cycle = arrows(&conflict.to_graphviz());
        cycle.sort();
        let mut expected = [
            arrow(&lockers[0], &lockers[1]),
            arrow(&lockers[1], &lockers[2]),
            arrow(&lockers[2], &lockers[0]),
        ];
        expected.sort();
        assert_eq!(cycle, expected);
        assert_eq!(error.older().len(), 2);
    }
}

#[actix::test]
async fn who_waits_before_is_named_where_nobody_holds() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let reader = door.named("reader").await;
        let writer = door.named("writer").await;
        let asker = door.named("asker").await;
        let _held = door.hold(&reader, &a, Mode::Read).await;
        let _waiting = door.waits(&writer, &a, Mode::Write).await;
        let error = door.refused(&asker, &a, Mode::Read).await;
        let conflict = error.conflict().unwrap();
        says(conflict, &["waited for, to write, by writer"]);
        assert_eq!(conflict.owners_total, 0);
        // A picture without an arrow would not say why it waits.
        assert_eq!(arrows(&conflict.to_graphviz()), [arrow(&asker, &writer)]);
    }
}

#[actix::test]
async fn the_lines_that_asked_are_named() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let (holder_line, asker_line);
        let (holder, asker) = (door.locker(), door.locker());
        let error = match &door {
            Door::InPlace(_) => {
                holder_line = line!() + 1;
                holder.lock(&a, Mode::Write, Wait::No).await.unwrap();
                asker_line = line!() + 1;
                asker.lock(&a, Mode::Write, Wait::No).await.unwrap_err()
            }
            Door::Message(_, address) => {
                holder_line = line!() + 1;
                let acquire = Acquire::new(a.clone(), Mode::Write).locker(Arc::clone(&holder));
                std::mem::forget(address.send(acquire).await.unwrap().unwrap());
                asker_line = line!() + 1;
                let acquire = Acquire::new(a.clone(), Mode::Write).locker(asker);
                address
                    .send(acquire.wait(Wait::No))
                    .await
                    .unwrap()
                    .unwrap_err()
            }
        };
        let conflict = error.conflict().unwrap();
        let lines = (conflict.owners[0].site.line(), conflict.asker.site.line());
        assert_eq!(lines, (holder_line, asker_line));
        assert!(
            error.to_string().contains("tests/locks/reports.rs"),
            "{error}"
        );
        holder.release_all();
        // Those of several operations, of an upgrade and of a locker.
        let began = line!() + 1;
        let locker = door.new_locker(LockerSpec::new(), None).await.unwrap();
        holder.lock(&a, Mode::Read, Wait::No).await.unwrap();
        locker.lock(&a, Mode::Read, Wait::No).await.unwrap();
        let upgrade_line = line!() + 1;
        let upgrade = locker.upgrade(&a, Mode::Read, Mode::Write, Wait::No);
        let conflict = Arc::clone(upgrade.await.unwrap_err().conflict().unwrap());
        assert_eq!(conflict.asker.site.line(), upgrade_line);
        assert_eq!(conflict.asker.began.line(), began);
        let ops = LockOps::new().lock_wait(a.clone(), Mode::Write, Wait::No);
        let (failed, line) = match &door {
            Door::InPlace(_) => {
                let line = line!() + 1;
                (locker.run(ops).await.unwrap_err(), line)
            }
            Door::Message(_, address) => {
                let line = line!() + 1;
                let many = LockMany::new(Arc::clone(&locker), ops);
                (address.send(many).await.unwrap().unwrap_err().failed, line)
            }
        };
        assert_eq!(failed.error.conflict().unwrap().asker.site.line(), line);
    }
}

/// By message a guard is upgraded by the actor; the report has to name the line of the sender, not one of
/// the library.
#[actix::test]
async fn an_upgrade_by_message_names_a_line_of_the_application() {
    let [_, door] = Door::both(LockConfig::default());
    let a = object("a");
    let (other, locker) = (door.locker(), door.locker());
    let _theirs = door.hold(&other, &a, Mode::Read).await;
    let held = door.hold(&locker, &a, Mode::Read).await;
    let (_held, error) = *door.upgrade(held, Mode::Write, Wait::No).await.unwrap_err();
    let site = error.conflict().unwrap().asker.site;
    assert!(site.file().contains("tests/locks"), "{site}");
}

#[actix::test]
async fn of_many_sixteen_are_named_and_all_are_counted() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let readers = door.lockers(40);
        let mut held = Vec::new();
        for reader in &readers {
            held.push(door.hold(reader, &a, Mode::Read).await);
        }
        let writers = door.lockers(30);
        let mut waiting = Vec::new();
        for writer in &writers {
            waiting.push(door.waits(writer, &a, Mode::Write).await);
        }
        let error = door.refused(&door.locker(), &a, Mode::Write).await;
        let conflict = error.conflict().unwrap();
        assert_eq!((conflict.owners.len(), conflict.owners_total), (16, 40));
        assert_eq!((conflict.waiters.len(), conflict.waiters_total), (16, 30));
        let text = error.to_string();
        assert!(text.contains("held by 24 more"), "{text}");
        assert!(text.contains("waited for by 14 more"), "{text}");
        waiting.iter().for_each(Task::abort);
    }
}

#[actix::test]
async fn names_that_are_hard_to_quote_make_neither_bad_json_nor_a_bad_graph() {
    for door in Door::both(LockConfig::default()) {
        let a = Object::new("odd \"names\"", [0, 255]);
        let holder = door.named("a \"b\"\\\n c").await;
        let _held = door.hold(&holder, &a, Mode::Write).await;
        let error = door.refused(&door.locker(), &a, Mode::Read).await;
        let conflict = error.conflict().unwrap();
        let json: serde_json::Value = serde_json::from_str(&conflict.to_json()).unwrap();
        assert_eq!(json["owners"][0]["name"], "a \"b\"\\\n c");
        assert!(
            json["object"].as_str().unwrap().contains("0x00ff"),
            "{json}"
        );
        let graph = conflict.to_graphviz();
        assert_eq!(arrows(&graph).len(), 1);
        for line in graph.lines().filter(|line| line.contains("label=")) {
            let unescaped = line.replace("\\\\", "").replace("\\\"", "");
            assert_eq!(unescaped.matches('"').count() % 2, 0, "{line}");
        }
    }
}

#[actix::test]
async fn of_many_reports_in_a_second_the_later_ones_are_short_and_count_right() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let _held = [
            door.hold(&door.locker(), &a, Mode::Read).await,
            door.hold(&door.locker(), &a, Mode::Read).await,
        ];
        let asker = door.locker();
        let begun = Instant::now();
        let mut full = 0;
        for _ in 0..30 {
            let error = door.refused(&asker, &a, Mode::Write).await;
            let conflict = error.conflict().unwrap();
            assert_eq!(conflict.owners_total, 2);
            assert!(!conflict.owners.is_empty(), "{error}");
            full += usize::from(conflict.owners.len() == 2);
        }
        let seconds = begun.elapsed().as_secs() as usize + 2;
        assert!((10..=10 * seconds).contains(&full), "{full} full reports");
    }
}

#[actix::test]
async fn a_lock_held_too_long_points_from_those_who_wait_to_its_holder() {
    let config = LockConfig {
        max_hold: Duration::from_millis(100),
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let a = object("a");
        let mut events = door.locks().subscribe();
        let (holder, waiter) = (door.named("holder").await, door.named("waiter").await);
        let _held = door.hold(&holder, &a, Mode::Read).await;
        let _waiting = door.waits(&waiter, &a, Mode::Write).await;
        let too_long = |event| match event {
            LockEvent::HeldTooLong(conflict) => Some(conflict),
            _ => None,
        };
        let conflict = event(&mut events, too_long).await;
        says(&conflict, &["test[a]", "100.0ms"]);
        assert!(!conflict.waiters[0].in_the_way, "of who has it nobody is");
        let json: serde_json::Value = serde_json::from_str(&conflict.to_json()).unwrap();
        assert_eq!(json["kind"], "held-too-long");
        assert_eq!(arrows(&conflict.to_graphviz()), [arrow(&waiter, &holder)]);
    }
}

/// Who holds the object comes before all who only wait for it, so they are not in its way.
#[actix::test]
async fn whom_an_upgrade_would_pass_is_not_in_its_way() {
    for door in Door::both(without_detection()) {
        let a = object("a");
        let [one, two] = [door.named("one").await, door.named("two").await];
        let behind = door.named("behind").await;
        let _theirs = door.hold(&two, &a, Mode::Read).await;
        let held = door.hold(&one, &a, Mode::Read).await;
        let _waiting = door.waits(&behind, &a, Mode::Write).await;
        let mut held = held;
        for wait in [Wait::No, Wait::For(Duration::from_millis(5))] {
            let (kept, error) = *door.upgrade(held, Mode::Write, wait).await.unwrap_err();
            held = kept;
            let conflict = error.conflict().unwrap();
            assert_eq!(conflict.owners[0].locker, two.id(), "{error}");
            assert_eq!(conflict.waiters[0].locker, behind.id(), "{error}");
            assert!(!conflict.waiters[0].in_the_way, "{wait:?}: {error}");
            assert_eq!(arrows(&conflict.to_graphviz()), [arrow(&one, &two)]);
        }
        // One who does not hold it has to let the other go first.
        let late = door.named("late").await;
        let error = door.refused(&late, &a, Mode::Read).await;
        let conflict = error.conflict().unwrap();
        assert!(conflict.waiters[0].in_the_way, "{error}");
        assert_eq!(arrows(&conflict.to_graphviz()), [arrow(&late, &behind)]);
        drop(held);
    }
}

/// The same for a range that nobody has asked for before, and for who holds something in it.
#[actix::test]
async fn whom_a_range_would_pass_is_not_in_its_way() {
    for door in Door::both(without_detection()) {
        let key = |name: &str| Object::new("keys", name);
        let range = Object::range("keys", "a".."m").unwrap();
        let [one, two] = [door.named("one").await, door.named("two").await];
        let behind = door.named("behind").await;
        let _theirs = door.hold(&two, &key("b"), Mode::Read).await;
        let _own = door.hold(&one, &key("c"), Mode::Read).await;
        let _waiting = door.waits(&behind, &key("b"), Mode::Write).await;
        let error = door.refused(&one, &range, Mode::Write).await;
        let conflict = error.conflict().unwrap();
        assert_eq!(conflict.owners[0].locker, two.id(), "{error}");
        assert!(!conflict.waiters[0].in_the_way, "{error}");
        assert_eq!(arrows(&conflict.to_graphviz()), [arrow(&one, &two)]);
    }
}
