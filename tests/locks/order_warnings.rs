//! Classes of objects that are locked in contradicting orders.

use super::*;

use lockkeeper::OrderWarning;

fn config(order_warnings: bool) -> LockConfig {
    LockConfig {
        order_warnings,
        ..LockConfig::default()
    }
}

/// Takes these, one after the other, and releases them.
async fn path(door: &Door, classes: &[&'static str]) {
    let locker = door.locker();
    let mut held = Vec::new();
    for class in classes {
        held.push(
            door.hold(&locker, &Object::new(*class, "one"), Mode::Read)
                .await,
        );
    }
}

fn contradicted(event: LockEvent) -> Option<Arc<OrderWarning>> {
    match event {
        LockEvent::OrderContradicted(warning) => Some(warning),
        _ => None,
    }
}

#[actix::test]
async fn nothing_is_told_by_default() {
    assert!(!LockConfig::default().order_warnings);
    for door in Door::both(config(false)) {
        let mut events = door.locks().subscribe();
        path(&door, &["accounts", "orders"]).await;
        path(&door, &["orders", "accounts"]).await;
        assert!(events.try_recv().is_err());
    }
}

#[actix::test]
async fn a_contradicting_order_is_told_once_before_it_ever_deadlocks() {
    for door in Door::both(config(true)) {
        let mut events = door.locks().subscribe();
        path(&door, &["accounts", "orders"]).await;
        path(&door, &["accounts", "items"]).await;
        path(&door, &["orders", "items"]).await;
        // Within a class any order is fine, and so is one class alone.
        path(&door, &["accounts", "accounts"]).await;
        path(&door, &["orders"]).await;
        assert!(events.try_recv().is_err(), "all this agrees");
        path(&door, &["orders", "accounts"]).await;
        let warning = event(&mut events, contradicted).await;
        let (seen, before) = (&warning.seen, &warning.before);
        assert_eq!(
            (seen.held.as_str(), seen.asked.as_str()),
            ("orders", "accounts")
        );
        assert_eq!(before.len(), 1);
        assert_eq!(
            (before[0].held.as_str(), before[0].asked.as_str()),
            ("accounts", "orders")
        );
        path(&door, &["orders", "accounts"]).await;
        assert!(events.try_recv().is_err(), "once");
        assert_eq!(door.stats().await.deadlocks, 0);
        // A longer circle is one too.
        path(&door, &["items", "users"]).await;
        assert!(events.try_recv().is_err());
        path(&door, &["users", "accounts"]).await;
        let warning = event(&mut events, contradicted).await;
        assert_eq!(warning.before.first().unwrap().held.as_str(), "accounts");
        assert_eq!(warning.before.last().unwrap().asked.as_str(), "users");
        for pair in warning.before.windows(2) {
            assert_eq!(pair[0].asked, pair[1].held);
        }
    }
}

#[actix::test]
async fn the_warning_has_the_lines_of_both_orders() {
    for door in Door::both(config(true)) {
        let mut events = door.locks().subscribe();
        let [a, b] = [Object::new("accounts", "one"), Object::new("orders", "one")];
        let lines = match &door {
            Door::InPlace(_) => {
                let line = line!();
                let one = door.locker();
                one.lock(&a, Mode::Read, Wait::No).await.unwrap();
                one.lock(&b, Mode::Read, Wait::No).await.unwrap();
                let two = door.locker();
                two.lock(&b, Mode::Read, Wait::No).await.unwrap();
                two.lock(&a, Mode::Read, Wait::No).await.unwrap();
                [line + 2, line + 3, line + 5, line + 6]
            }
            Door::Message(_, address) => {
                let line = line!();
                let (one, two) = (door.locker(), door.locker());
                let first = Acquire::new(a.clone(), Mode::Read).locker(Arc::clone(&one));
                let second = Acquire::new(b.clone(), Mode::Read).locker(one);
                let third = Acquire::new(b.clone(), Mode::Read).locker(Arc::clone(&two));
                let fourth = Acquire::new(a.clone(), Mode::Read).locker(two);
                let mut guards = Vec::new();
                for one in [first, second, third, fourth] {
                    guards.push(address.send(one).await.unwrap().unwrap());
                }
                [line + 2, line + 3, line + 4, line + 5]
            }
        };
        let warning = event(&mut events, contradicted).await;
        let (seen, before) = (&warning.seen, &warning.before[0]);
        let told = [
            before.held_site,
            before.asked_site,
            seen.held_site,
            seen.asked_site,
        ];
        assert_eq!(told.map(|site| site.line()), lines, "{warning}");
        for site in told {
            assert!(warning.to_string().contains(&site.to_string()), "{warning}");
        }
    }
}

#[actix::test]
async fn families_are_watched_as_one_and_what_was_released_teaches_nothing() {
    for door in Door::both(config(true)) {
        let mut events = door.locks().subscribe();
        let locker = door.locker();
        let held = door
            .hold(&locker, &Object::new("accounts", "one"), Mode::Read)
            .await;
        drop(held);
        drop(
            door.hold(&locker, &Object::new("orders", "one"), Mode::Read)
                .await,
        );
        path(&door, &["orders", "accounts"]).await;
        assert!(events.try_recv().is_err(), "nothing was held with anything");
        // A parent's lock is held while its child asks.
        let parent = door.locker();
        let child = door.child(&parent).await;
        let _held = door
            .hold(&parent, &Object::new("accounts", "one"), Mode::Read)
            .await;
        let _more = door
            .hold(&child, &Object::new("orders", "one"), Mode::Read)
            .await;
        event(&mut events, contradicted).await;
    }
}
