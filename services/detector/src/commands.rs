//! What operators ask of detectors: status, and to take nodes out for maintenance.

use std::sync::Arc;

use understudy_bus::{EventLog, Nats, Store, nats::Received};
use understudy_wire::{CloudEvent, ClusterId, GroupId, NodeId, v1};

/// Stores a maintenance setting and answers when it is durable; runs beside the loop.
pub fn set_maintenance(
    nats: &Nats,
    store: &Arc<Store>,
    events: &Arc<EventLog>,
    received: Received<v1::MaintenanceRequest>,
) {
    let (Ok(request), Some(reply)) = (received.message, received.reply) else { return };
    let (nats, store, events) = (nats.clone(), Arc::clone(store), Arc::clone(events));
    tokio::spawn(async move {
        let stored = store_and_tell(nats.cluster(), &store, &events, &request).await;
        let answer = match stored {
            Ok(()) => v1::MaintenanceReply { stored: true, reason: String::new() },
            Err(error) => v1::MaintenanceReply { stored: false, reason: format!("{error:#}") },
        };
        nats.respond(&reply, &answer);
    });
}

async fn store_and_tell(
    cluster: &ClusterId,
    store: &Store,
    events: &EventLog,
    request: &v1::MaintenanceRequest,
) -> anyhow::Result<()> {
    let (group, node) = (GroupId::new(&request.group)?, NodeId::new(&request.node)?);
    let changed = store.set_maintenance(&group, &node, request.on).await?;
    if changed {
        let body = v1::MaintenanceChanged {
            group: request.group.clone(),
            node: request.node.clone(),
            on: request.on,
            by: request.by.clone(),
        };
        // Twice the same change within the duplicate window is two changes: the time tells them apart.
        let key = format!("{node}/{}/{}", request.on, understudy_service::clock::now().0);
        events.publish(&CloudEvent::new(cluster, &group, events.source(), &key, &body)?);
    }
    Ok(())
}
