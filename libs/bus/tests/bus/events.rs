//! Events: stored once, whatever happened to NATS meanwhile, and heard live.

use std::time::{Duration, SystemTime};

use understudy_bus::{
    EventLog, Nats,
    events::{From, StoredEvent},
};
use understudy_wire::{CloudEvent, v1};

use crate::support::*;

fn vacant(epoch: u64, source: &str) -> CloudEvent {
    let body = v1::SlotVacant { group: "web".into(), highest_epoch: epoch, ..Default::default() };
    CloudEvent::new(&demo(), &web(), source, &format!("0/{epoch}"), &body).unwrap()
}

fn epoch(event: &StoredEvent) -> u64 {
    event.body::<v1::SlotVacant>().unwrap().highest_epoch
}

async fn stored(nats: &Nats, count: u64) {
    eventually("events stored", async || (nats.counters().events_stored.value() >= count).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_stored_once_heard_once_and_read_back() {
    let cluster = Cluster::start(1);
    let (one, two) = (client(cluster.urls()).await, client(cluster.urls()).await);
    let (first, second) = (EventLog::start(&one, "detector/1"), EventLog::start(&two, "detector/2"));
    let mut live = first.live(None).await.unwrap();
    subscribed(&one).await;
    let mut following = first.follow(From::Last(100), Some(&web()));
    let before = SystemTime::now() - Duration::from_secs(60);
    for epoch in 1..=5 {
        // Two seats see the same thing.
        first.publish(&vacant(epoch, first.source()));
        second.publish(&vacant(epoch, second.source()));
    }
    stored(&one, 5).await;
    stored(&two, 5).await;

    let read = first.read(From::Last(100), None).await.unwrap();
    let mut epochs: Vec<_> = read.iter().map(epoch).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2, 3, 4, 5]);
    assert_eq!(first.read(From::Last(2), None).await.unwrap(), read[3..]);
    assert_eq!(first.read(From::Last(2), Some(&web())).await.unwrap(), read[3..]);
    assert_eq!(first.read(From::After(read[1].sequence), None).await.unwrap(), read[2..]);
    assert_eq!(first.read(From::After(0), None).await.unwrap(), read);
    assert_eq!(first.read(From::Since(before), None).await.unwrap(), read);
    let later = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(first.read(From::Since(later), None).await.unwrap(), []);
    for event in &read {
        assert_eq!((event.kind(), event.attribute("type")), ("vacant", "understudy.v1.SlotVacant"));
        assert_eq!(event.attribute("subject"), "web");
        assert_eq!(soon("following", following.next()).await.as_ref(), Some(event));
    }
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(epoch(&soon("live", live.next()).await.unwrap()));
    }
    heard.sort_unstable();
    assert_eq!(heard, [1, 2, 3, 4, 5]);
    // New ones go on arriving behind the old ones.
    first.publish(&vacant(6, first.source()));
    assert_eq!(epoch(&soon("live", live.next()).await.unwrap()), 6);
    assert_eq!(epoch(&soon("following", following.next()).await.unwrap()), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_time_without_nats_arrive_later_and_once() {
    let mut cluster = Cluster::start(3);
    let nats = client(cluster.urls()).await;
    let log = EventLog::start(&nats, "executor/web-a");
    log.publish(&vacant(1, log.source()));
    stored(&nats, 1).await;
    for server in &mut cluster.servers {
        server.kill();
    }
    for epoch in 2..=20 {
        log.publish(&vacant(epoch, log.source()));
    }
    let mut following = log.follow(From::Last(100), None);
    for index in 0..3 {
        cluster.restart(index);
    }
    stored(&nats, 20).await;
    let read = eventually("readable", async || log.read(From::Last(100), None).await.ok()).await;
    let mut epochs: Vec<_> = read.iter().map(epoch).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=20).collect::<Vec<_>>());
    for event in &read {
        assert_eq!(soon("following", following.next()).await.as_ref(), Some(event));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_hears_events_while_jetstream_has_no_majority() {
    let mut cluster = Cluster::start(3);
    let nats = client(cluster.urls()).await;
    let log = EventLog::start(&nats, "executor/web-a");
    log.publish(&vacant(1, log.source()));
    stored(&nats, 1).await;
    cluster.servers[1].kill();
    cluster.servers[2].kill();
    let listening = client(vec![cluster.url(0)]).await;
    let mut live = EventLog::start(&listening, "test").live(None).await.unwrap();
    subscribed(&listening).await;
    eventually("on the last server", async || (nats.server().as_deref() == Some("n0")).then_some(())).await;
    for epoch_now in 2..=5 {
        log.publish(&vacant(epoch_now, log.source()));
        assert_eq!(epoch(&soon("live", live.next()).await.unwrap()), epoch_now);
    }
    assert_eq!(nats.counters().events_stored.value(), 1);
    cluster.restart(1);
    stored(&nats, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_three_copies_as_soon_as_three_servers_are_there() {
    let mut cluster = Cluster::start(3);
    // Servers that never met cannot elect the leader that creates streams.
    let context = async_nats::jetstream::new(raw(cluster.url(0)).await);
    eventually("JetStream", async || context.query_account().await.ok()).await;
    cluster.servers[2].kill();
    let nats = client(cluster.urls()).await;
    let log = EventLog::start(&nats, "detector/1");
    log.publish(&vacant(1, log.source()));
    stored(&nats, 1).await;
    cluster.restart(2);
    eventually("three copies", async || {
        let stream = context.get_stream("EVENTS_demo").await.ok()?;
        (stream.cached_info().config.num_replicas == 3).then_some(())
    })
    .await;
}
