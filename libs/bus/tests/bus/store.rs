//! Ceilings and maintenance in JetStream KV.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use understudy_bus::Store;
use understudy_wire::{Epoch, Slot};

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
