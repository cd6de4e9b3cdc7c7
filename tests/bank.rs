//! What the bank example answers over HTTP.

mod bank_support;

// The service itself, for what cannot be brought about from outside.
#[path = "../examples/bank/api.rs"]
mod api;
#[path = "../examples/bank/model.rs"]
mod model;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bank_support::{Bank, Clients, audit, bank, data, run};
use serde_json::{Value, json};

#[test]
fn accounts_are_opened_once_and_transfers_move_money() {
    let folder = tempfile::tempdir().unwrap();
    let bank = Bank::serve(folder.path());
    let mut connection = bank.connect();

    let opened = connection.post("/accounts", &json!({ "id": 1, "balance": 500 }));
    assert_eq!(opened.status, 201, "{opened:?}");
    assert_eq!(opened.body, json!({ "id": 1, "balance": 500 }));
    connection.open_accounts([u64::MAX], 0);
    let again = connection.post("/accounts", &json!({ "id": 1, "balance": 9 }));
    assert_eq!(
        (again.status, again.error()),
        (409, Some("duplicate_account"))
    );

    let transfer = json!({ "from": 1, "to": u64::MAX, "amount": 200, "ref": 77 });
    let made = connection.post("/transfers", &transfer);
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(made.body["from_balance"], 300);
    assert_eq!(made.body["to_balance"], 200);
    assert_eq!(made.body["ref"], 77);

    let refused = connection.post(
        "/transfers",
        &json!({ "from": 1, "to": u64::MAX, "amount": 301 }),
    );
    assert_eq!(
        (refused.status, refused.error()),
        (409, Some("insufficient_funds"))
    );
    let message = refused.body["message"].as_str().unwrap();
    assert!(
        message.contains("300") && message.contains("301"),
        "{message}"
    );

    assert_eq!(
        connection.get("/accounts/1").body,
        json!({ "id": 1, "balance": 300 })
    );
    let other = connection.get(&format!("/accounts/{}", u64::MAX));
    assert_eq!(other.body, json!({ "id": u64::MAX, "balance": 200 }));
    assert_eq!(
        connection.get("/total").body,
        json!({ "accounts": 2, "total": 500 })
    );

    bank.interrupt();
    let audit = audit(folder.path());
    assert_eq!((audit.accounts, audit.total, audit.transfers), (2, 500, 1));
    assert_eq!(audit.refs, [77]);
}

/// The same requests, one after the other, to a bank of either style.
#[test]
fn interactive_transfers_are_answered_and_written_as_the_others_are() {
    let requests = [
        json!({ "from": 1, "to": 2, "amount": 200, "ref": 7 }),
        json!({ "from": 2, "to": 3, "amount": 700 }),
        json!({ "from": 1, "to": 2, "amount": 301 }),
        json!({ "from": 1, "to": 2, "amount": 300 }),
        json!({ "from": 9, "to": 2, "amount": 1 }),
        json!({ "from": 1, "to": 9, "amount": 1_000_000 }),
        json!({ "from": 8, "to": 9, "amount": 1 }),
        json!({ "from": 3, "to": u64::MAX, "amount": 1 }),
        json!({ "from": 3, "to": 3, "amount": 1 }),
        json!({ "from": 3, "to": 1, "amount": 1400, "ref": 8 }),
    ];
    let paths = [
        "/total",
        "/accounts/1",
        "/accounts/3",
        "/accounts/2/journal",
    ];
    let seen = [&[][..], &["--interactive"]].map(|style| {
        let folder = tempfile::tempdir().unwrap();
        let bank = Bank::start(&[&data(folder.path())[..], &["--no-load"], style].concat());
        let mut connection = bank.connect();
        connection.open_accounts([1, 2, 3], 500);
        connection.open_accounts([u64::MAX], u64::MAX - 1500);
        let answer = |answer: bank_support::Answer| (answer.status, answer.body);
        let mut seen: Vec<_> = requests
            .iter()
            .map(|request| answer(connection.post("/transfers", request)))
            .collect();
        seen.extend(paths.map(|path| answer(connection.get(path))));
        bank.interrupt();
        let audit = audit(folder.path());
        seen.push((
            u16::try_from(audit.transfers).unwrap(),
            json!([audit.total, audit.refs]),
        ));
        seen
    });
    let [by_update, interactive] = seen;
    assert_eq!(by_update, interactive);
    let made = by_update.iter().take(requests.len());
    let statuses: Vec<_> = made.map(|(status, _)| *status).collect();
    assert_eq!(
        statuses,
        [200, 200, 409, 200, 404, 404, 404, 200, 422, 409],
        "{by_update:?}"
    );
}

/// Among so few accounts they meet all the time, and those that would deadlock, or do, are run again.
#[test]
fn an_interactive_load_keeps_the_money_and_each_transfer() {
    let folder = tempfile::tempdir().unwrap();
    let load = [
        "--interactive",
        "--once",
        "--json",
        "--accounts",
        "4",
        "--transfers",
        "400",
        "--connections",
        "32",
        // Whoever waits for a lock waits for commits, too, and not for a slow disk.
        "--durability",
        "no-sync",
    ];
    let output = run(bank(&load).args(data(folder.path())));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |key: &str| summary[key].as_u64().unwrap();
    assert_eq!(number("committed") + number("refused"), 400, "{summary}");
    assert!(number("retries") > 0, "{summary}");
    assert_eq!(number("total_after"), 400_000, "{summary}");
    let audit = audit(folder.path());
    assert_eq!(audit.total, 400_000);
    assert_eq!(audit.transfers, number("committed"));
}

#[test]
fn i02_each_interactive_transfer_that_was_answered_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let references = Arc::new(AtomicU64::new(1));
    let mut answered = BTreeSet::new();
    for round in 0..3 {
        let bank =
            Bank::start(&[&data(folder.path())[..], &["--no-load", "--interactive"]].concat());
        if round == 0 {
            bank.connect().open_accounts(1..=10, 100_000);
        }
        let clients = Clients::start(&bank, 8, 10, &references);
        answered.extend(clients.next(100));
        bank.kill();
        answered.extend(clients.finish());

        let audit = audit(folder.path());
        assert_eq!(audit.total, 10 * 100_000, "round {round}");
        let found: BTreeSet<u64> = audit.refs.iter().copied().collect();
        let lost: Vec<_> = answered.difference(&found).collect();
        assert!(
            lost.is_empty(),
            "round {round}: answered, and lost: {lost:?}"
        );
        assert_eq!(
            found.len() as u64,
            audit.transfers,
            "round {round}: a transfer was made twice"
        );
    }
}

#[test]
fn what_is_not_there_is_404() {
    let bank = Bank::start(&["--no-load"]);
    let mut connection = bank.connect();
    connection.open_accounts([1], 10);
    for path in ["/accounts/2", "/accounts/2/journal"] {
        let answer = connection.get(path);
        assert_eq!(
            (answer.status, answer.error()),
            (404, Some("unknown_account")),
            "{path}"
        );
    }
    // An account that is unknown is told before the money that is missing.
    for (from, to) in [(1, 2), (2, 1), (2, 3)] {
        let answer = connection.post(
            "/transfers",
            &json!({ "from": from, "to": to, "amount": 11 }),
        );
        assert_eq!(
            (answer.status, answer.error()),
            (404, Some("unknown_account")),
            "{from} {to}"
        );
    }
    assert_eq!(connection.get("/nothing").status, 404);
    assert_eq!(connection.get("/transfers").status, 405);
    assert_eq!(connection.get("/accounts/1").body["balance"], 10);
}

#[test]
fn malformed_input_is_422_and_changes_nothing() {
    let bank = Bank::start(&["--no-load"]);
    let mut connection = bank.connect();
    connection.open_accounts([1, 2], 100);
    let accounts = [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"id":3}"#,
        r#"{"balance":3}"#,
        r#"{"id":"3","balance":1}"#,
        r#"{"id":3.5,"balance":1}"#,
        r#"{"id":-3,"balance":1}"#,
        r#"{"id":3,"balance":-1}"#,
        r#"{"id":3,"balance":18446744073709551616}"#,
        r#"{"id":3,"balance":null}"#,
        r#"{"id":3,"balance":1,"owner":"me"}"#,
        "{\"id\":3,\"balance\":1",
        "\u{0}",
    ];
    for body in accounts {
        let answer = connection.post_text("/accounts", body);
        assert_eq!(
            (answer.status, answer.error()),
            (422, Some("malformed")),
            "{body}"
        );
    }
    let transfers = [
        r#"{"from":1,"to":2}"#,
        r#"{"from":1,"to":2,"amount":0}"#,
        r#"{"from":1,"to":1,"amount":1}"#,
        r#"{"from":9,"to":9,"amount":1}"#,
        r#"{"from":1,"to":2,"amount":-1}"#,
        r#"{"from":1,"to":2,"amount":1.5}"#,
        r#"{"from":1,"to":2,"amount":"1"}"#,
        r#"{"from":"one","to":2,"amount":1}"#,
        r#"{"from":1,"to":2,"amount":1,"ref":"x"}"#,
        r#"{"from":1,"to":2,"amount":1,"from":2}"#,
        r#"{"from":1,"to":2,"amount":1} and more"#,
    ];
    for body in transfers {
        let answer = connection.post_text("/transfers", body);
        assert_eq!(
            (answer.status, answer.error()),
            (422, Some("malformed")),
            "{body}"
        );
    }
    let answer = connection
        .try_request("POST", "/transfers", b"\xff\xfe{}")
        .unwrap();
    assert_eq!(answer.status, 422);
    for path in [
        "/accounts/one",
        "/accounts/-1",
        "/accounts/1.0",
        "/accounts/18446744073709551616",
        "/accounts/one/journal",
        "/accounts/1/journal?after=x",
        "/accounts/1/journal?after=-1",
        "/accounts/1/journal?limit=0",
        "/accounts/1/journal?limit=1001",
    ] {
        let answer = connection.get(path);
        assert_eq!(
            (answer.status, answer.error()),
            (422, Some("malformed")),
            "{path}"
        );
    }
    // A body that is too long is refused unread, after which the connection cannot be kept.
    let long = format!(r#"{{"id":3,"balance":1{}}}"#, " ".repeat(5000));
    assert_eq!(bank.connect().post_text("/accounts", &long).status, 413);

    let mut connection = bank.connect();
    assert_eq!(
        connection.get("/total").body,
        json!({ "accounts": 2, "total": 200 })
    );
    let journal = connection.get("/accounts/1/journal");
    assert_eq!(journal.body["entries"], json!([]));
}

#[test]
fn sums_that_cannot_be_counted_are_refused() {
    let bank = Bank::start(&["--no-load"]);
    let mut connection = bank.connect();
    connection.open_accounts([1], u64::MAX);
    assert_eq!(connection.get("/total").body["total"], u64::MAX);
    connection.open_accounts([2], 5);
    let answer = connection.get("/total");
    assert_eq!(
        (answer.status, answer.error()),
        (409, Some("total_overflow"))
    );
    let answer = connection.post("/transfers", &json!({ "from": 2, "to": 1, "amount": 1 }));
    assert_eq!(
        (answer.status, answer.error()),
        (409, Some("balance_overflow"))
    );
    assert_eq!(connection.get("/accounts/2").body["balance"], 5);
    let answer = connection.post(
        "/transfers",
        &json!({ "from": 1, "to": 2, "amount": u64::MAX - 5 }),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(connection.get("/accounts/2").body["balance"], u64::MAX);
}

#[test]
fn the_journal_is_read_by_pages() {
    let bank = Bank::start(&["--no-load"]);
    let mut connection = bank.connect();
    connection.open_accounts([1, 2, 3], 1000);
    // Neighbours in the database, whose entries must not be seen.
    for amount in 1..=25 {
        let out = connection.post(
            "/transfers",
            &json!({ "from": 2, "to": 1, "amount": amount, "ref": amount }),
        );
        assert_eq!(out.status, 200, "{out:?}");
    }
    let back = connection.post("/transfers", &json!({ "from": 3, "to": 2, "amount": 7 }));
    assert_eq!(back.status, 200, "{back:?}");

    let mut entries = Vec::new();
    let mut sizes = Vec::new();
    let mut after = 0;
    loop {
        let page = connection.get(&format!("/accounts/2/journal?after={after}&limit=10"));
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.body["account"], 2);
        let lines = page.body["entries"].as_array().unwrap().clone();
        sizes.push(lines.len());
        entries.extend(lines);
        match page.body["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(sizes, [10, 10, 6]);
    let sequence: Vec<_> = entries
        .iter()
        .map(|entry| entry["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(sequence, (1..=26).collect::<Vec<_>>());
    assert_eq!(
        entries[1],
        json!({ "seq": 2, "direction": "out", "other": 1, "amount": 2, "balance": 997, "ref": 2 })
    );
    assert_eq!(
        entries[25],
        json!({ "seq": 26, "direction": "in", "other": 3, "amount": 7, "balance": 682, "ref": null })
    );

    let whole = connection.get("/accounts/2/journal");
    assert_eq!(whole.body["entries"].as_array().unwrap().len(), 26);
    assert_eq!(whole.body["next"], Value::Null);
    // A page that ends with the last entry says so.
    assert_eq!(
        connection.get("/accounts/2/journal?limit=26").body["next"],
        Value::Null
    );
    for after in [26, u64::MAX] {
        let beyond = connection.get(&format!("/accounts/2/journal?after={after}"));
        assert_eq!(beyond.body["entries"], json!([]), "{after}");
    }
}

#[test]
fn health_and_statistics_are_there() {
    let bank = Bank::start(&["--no-load"]);
    let mut connection = bank.connect();
    assert_eq!(connection.get("/healthz").status, 200);
    let before = connection.get("/stats");
    assert_eq!(before.status, 200);
    assert_eq!(before.body["environment"]["map_size"], 1 << 20);
    connection.open_accounts([1], 1);
    let after = connection.get("/stats");
    let bodies = |stats: &Value| stats["environment"]["bodies"].as_u64().unwrap();
    assert_eq!(bodies(&after.body), bodies(&before.body) + 1);
    for counter in [
        "/transactions/retries",
        "/locks/deadlocks",
        "/environment/batches",
    ] {
        assert!(
            after.body.pointer(counter).is_some_and(Value::is_u64),
            "{counter}"
        );
    }
}

/// In this process, since from outside a bank that stops is gone too soon to be asked.
#[actix_web::test]
async fn a_bank_that_stops_answers_503_with_retry_after() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = lockkeeper::Keeper::builder()
        .path(folder.path())
        .map_size(1 << 20)
        .max_map_size(1 << 30)
        .open()
        .unwrap();
    let bank = model::Bank::open(keeper.clone(), model::Style::Update)
        .await
        .unwrap();
    let stopping = api::Stopping::default();
    let app = actix_web::App::new().configure(api::routes(bank, stopping.clone()));
    let app = actix_web::test::init_service(app).await;
    let healthz = || {
        actix_web::test::TestRequest::get()
            .uri("/healthz")
            .to_request()
    };
    let open = || {
        actix_web::test::TestRequest::post()
            .uri("/accounts")
            .set_json(json!({ "id": 1, "balance": 1 }))
            .to_request()
    };

    let healthy = actix_web::test::call_service(&app, healthz()).await;
    assert_eq!(healthy.status(), 200);

    stopping.raise();
    let unhealthy = actix_web::test::call_service(&app, healthz()).await;
    assert_eq!(unhealthy.status(), 503);
    assert_eq!(unhealthy.headers().get("retry-after").unwrap(), "1");
    // What has begun is still done.
    let opened = actix_web::test::call_service(&app, open()).await;
    assert_eq!(opened.status(), 201);

    keeper.shutdown(Duration::from_secs(10)).await.unwrap();
    let late = actix_web::test::call_service(&app, open()).await;
    assert_eq!(late.status(), 503);
    assert_eq!(late.headers().get("retry-after").unwrap(), "1");
    let reason: Value = actix_web::test::read_body_json(late).await;
    assert_eq!(reason["error"], "shutting_down");
}

/// In this process, to give it a map that is soon full.
#[actix_web::test]
async fn a_full_environment_answers_507_and_goes_on_reading() {
    for style in [model::Style::Update, model::Style::Interactive] {
        let folder = tempfile::tempdir().unwrap();
        let keeper = lockkeeper::Keeper::builder()
            .path(folder.path())
            .map_size(256 << 10)
            .max_map_size(256 << 10)
            .open()
            .unwrap();
        let bank = model::Bank::open(keeper.clone(), style).await.unwrap();
        for id in [1, 2] {
            let account = model::Account {
                id,
                balance: 1_000_000,
            };
            bank.open_account(account).await.unwrap();
        }
        let app = actix_web::App::new().configure(api::routes(bank, api::Stopping::default()));
        let app = actix_web::test::init_service(app).await;
        let transfer = || {
            actix_web::test::TestRequest::post()
                .uri("/transfers")
                .set_json(json!({ "from": 1, "to": 2, "amount": 1 }))
                .to_request()
        };
        let get = async |path: &str| -> Value {
            let request = actix_web::test::TestRequest::get().uri(path).to_request();
            actix_web::test::call_and_read_body_json(&app, request).await
        };

        let mut made = 0;
        let refused = loop {
            let answer = actix_web::test::call_service(&app, transfer()).await;
            if answer.status() != 200 {
                break answer;
            }
            made += 1;
            assert!(made < 10_000, "256 KiB hold no more than this");
        };
        assert_eq!(refused.status(), 507);
        let reason: Value = actix_web::test::read_body_json(refused).await;
        assert_eq!(reason["error"], "full");

        assert_eq!(
            get("/total").await,
            json!({ "accounts": 2, "total": 2_000_000 })
        );
        assert_eq!(get("/accounts/2").await["balance"], 1_000_000 + made);
        assert_eq!(get("/healthz").await["status"], "ok");
        let last = get(&format!("/accounts/1/journal?after={}", made - 1)).await;
        assert_eq!(
            last["entries"].as_array().unwrap().len(),
            1,
            "the one that failed left a trace"
        );
        keeper.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}
