//! Ceilings and maintenance in JetStream KV.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use understudy_bus::Store;
use understudy_wire::{Epoch, GroupId, Slot, v1};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ceiling_only_rises_whoever_raises_it() {
    let cluster = Cluster::start(3);
    let nats = client(cluster.urls()).await;
    let store = Arc::new(Store::start(&nats));
    let none = eventually("bucket", async || store.ceiling(&web(), Slot(0)).await.ok()).await;
    assert_eq!(none, Epoch(0));
    assert_eq!(store.raise_ceiling(&web(), Slot(0), Epoch(100)).await.unwrap(), Epoch(100));
    assert_eq!(store.raise_ceiling(&web(), Slot(0), Epoch(40)).await.unwrap(), Epoch(100));
    assert_eq!(store.ceiling(&web(), Slot(0)).await.unwrap(), Epoch(100));
    assert_eq!(store.ceiling(&web(), Slot(1)).await.unwrap(), Epoch(0));

    let raisers = (1..=8).map(|raiser| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut last = Epoch(0);
            for step in 0..5 {
                let wanted = Epoch(1_000 + step * 100 + raiser);
                let now = store.raise_ceiling(&web(), Slot(0), wanted).await.unwrap();
                assert!(now >= wanted && now >= last);
                last = now;
            }
        })
    });
    for raiser in raisers.collect::<Vec<_>>() {
        soon("raiser", raiser).await.unwrap();
    }
    assert_eq!(store.ceiling(&web(), Slot(0)).await.unwrap(), Epoch(1_408));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ceiling_that_cannot_be_read_is_an_error_and_survives() {
    let mut cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let store = Store::start(&nats);
    eventually("bucket", async || store.raise_ceiling(&web(), Slot(0), Epoch(5)).await.ok()).await;
    cluster.servers[0].kill();
    assert!(store.ceiling(&web(), Slot(0)).await.is_err());
    assert!(store.raise_ceiling(&web(), Slot(0), Epoch(6)).await.is_err());
    cluster.restart(0);
    let after = eventually("back", async || store.ceiling(&web(), Slot(0)).await.ok()).await;
    assert!(after == Epoch(5) || after == Epoch(6), "{after}");

    let raw = async_nats::jetstream::new(raw(cluster.url(0)).await);
    raw.get_key_value("understudy_demo").await.unwrap().put("ceiling.web.0", "garbage".into()).await.unwrap();
    assert!(store.ceiling(&web(), Slot(0)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_is_seen_as_whole_sets_and_stays_known() {
    let mut cluster = Cluster::start(1);
    let (one, two) = (client(cluster.urls()).await, client(cluster.urls()).await);
    let (store, other) = (Store::start(&one), Store::start(&two));
    let mut watched = other.watch_maintenance();
    let mut seen = async |wanted: &[&str]| {
        let wanted: BTreeSet<_> = wanted.iter().map(|name| (web(), node(name))).collect();
        let found = soon("maintenance", watched.wait_for(|set| set.as_ref() == Some(&wanted))).await;
        drop(found.unwrap());
    };
    seen(&[]).await;
    assert!(store.set_maintenance(&web(), &node("web-a"), true).await.unwrap());
    seen(&["web-a"]).await;
    assert!(!store.set_maintenance(&web(), &node("web-a"), true).await.unwrap());
    assert!(store.set_maintenance(&web(), &node("web-b"), true).await.unwrap());
    // Who reads does not wait for the notice.
    let both = BTreeSet::from(["web-a", "web-b"].map(|name| (web(), node(name))));
    assert_eq!(other.maintenance().await.unwrap(), both);
    seen(&["web-a", "web-b"]).await;
    assert!(store.set_maintenance(&web(), &node("web-a"), false).await.unwrap());
    seen(&["web-b"]).await;

    cluster.servers[0].kill();
    assert!(
        tokio::time::timeout(Duration::from_secs(5), store.set_maintenance(&web(), &node("web-a"), true))
            .await
            .unwrap()
            .is_err()
    );
    seen(&["web-b"]).await;
    cluster.restart(0);
    eventually("back", async || store.set_maintenance(&web(), &node("web-c"), true).await.ok()).await;
    soon("after the restart", async {
        let mut watched = other.watch_maintenance();
        let set =
            watched.wait_for(|set| set.as_ref().is_some_and(|set| set.contains(&(web(), node("web-c")))));
        drop(set.await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_followed_and_a_leader_that_was_replaced_writes_nothing() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let store = Store::start(&nats);
    let initial = v1::ScalingState { open: 1, serving: 1, ..Default::default() };
    let mut sizes = store.watch_sizes(vec![web(), GroupId::new("db").unwrap()]);
    soon("read", sizes.wait_for(|sizes| sizes.as_ref().is_some_and(std::collections::BTreeMap::is_empty)))
        .await
        .unwrap();

    let grow = |state: &mut v1::ScalingState| (state.open, state.serving) = (3, 3);
    let stored = store.change_size(&web(), Epoch(7), &initial, grow).await.unwrap().unwrap();
    assert_eq!((stored.open, stored.serving, stored.epoch), (3, 3, 7));
    let shrink = |state: &mut v1::ScalingState| state.serving = 2;
    assert_eq!(store.change_size(&web(), Epoch(6), &initial, shrink).await.unwrap(), None);
    store.change_size(&web(), Epoch(8), &initial, shrink).await.unwrap().unwrap();
    let told = sizes.wait_for(|sizes| {
        let size = sizes.as_ref().and_then(|sizes| sizes.get(&web()));
        size.is_some_and(|size| (size.open, size.serving, size.epoch) == (3, 2, 8))
    });
    soon("told", told).await.unwrap();
    // A size that cannot be is refused before it is written.
    let none = |state: &mut v1::ScalingState| state.serving = 0;
    assert!(store.change_size(&web(), Epoch(8), &initial, none).await.is_err());
    let after = store.change_size(&web(), Epoch(8), &initial, |_| ()).await.unwrap().unwrap();
    assert_eq!((after.open, after.serving), (3, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_that_cannot_be_read_is_not_taken_for_what_is_configured() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let store = Store::start(&nats);
    let (db, initial) =
        (GroupId::new("db").unwrap(), v1::ScalingState { open: 1, serving: 1, ..Default::default() });
    let put = eventually("bucket", async || {
        store.change_size(&db, Epoch(1), &initial, |state| state.open = 2).await.ok()
    });
    assert!(put.await.is_some());
    let context = async_nats::jetstream::new(raw(cluster.url(0)).await);
    let bucket = context.get_key_value("understudy_demo").await.unwrap();
    bucket.put("scaling.web.state", "[]".into()).await.unwrap();

    let mut unknown = store.watch_sizes(vec![web(), db.clone()]);
    let mut known = store.watch_sizes(vec![db.clone()]);
    soon("the readable one", known.wait_for(Option::is_some)).await.unwrap();
    assert_eq!(*unknown.borrow(), None, "one of two was never read");
    let good = serde_json::json!({"open": 3, "serving": 2, "epoch": "7"}).to_string();
    bucket.put("scaling.web.state", good.into()).await.unwrap();
    let all = soon("both", unknown.wait_for(Option::is_some)).await.unwrap().clone().unwrap();
    assert_eq!((all[&web()].open, all[&db].open), (3, 2));

    // What was known stays, and the other one is followed.
    bucket.put("scaling.web.state", "[]".into()).await.unwrap();
    store.change_size(&db, Epoch(2), &initial, |state| state.open = 4).await.unwrap();
    let grown = unknown.wait_for(|sizes| sizes.as_ref().is_some_and(|sizes| sizes[&db].open == 4));
    let all = soon("the other one", grown).await.unwrap().clone().unwrap();
    assert_eq!(all[&web()].open, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_leader_leaves_is_taken_by_the_next_and_closed_to_the_first() {
    let cluster = Cluster::start(1);
    let nats = client(cluster.urls()).await;
    let store = Store::start(&nats);
    let none = eventually("bucket", async || store.take_memory(&web(), Epoch(5)).await.ok()).await;
    assert_eq!(none, None);
    let (first, late) = (serde_json::json!({"repairs": 3}), serde_json::json!({"repairs": 4}));
    assert!(
        !store.keep_memory(&web(), Epoch(4), &late).await.unwrap(),
        "its tenure is over, though it left nothing"
    );
    assert_eq!(store.take_memory(&web(), Epoch(5)).await.unwrap(), None);
    assert!(store.keep_memory(&web(), Epoch(5), &first).await.unwrap());
    assert_eq!(store.take_memory(&web(), Epoch(6)).await.unwrap(), Some(first.clone()));
    assert!(!store.keep_memory(&web(), Epoch(5), &late).await.unwrap(), "its tenure is over");
    assert_eq!(store.take_memory(&web(), Epoch(6)).await.unwrap(), Some(first));
}
