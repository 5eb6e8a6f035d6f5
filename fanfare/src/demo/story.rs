//! What happens in the demo's shop.

use std::time::Duration;

use rand::Rng as _;

use super::publisher::Publisher;
use crate::failure::Failure;

/// Orders of the story.
const ORDERS: u32 = 9;
/// Between two events.
const PACE: Duration = Duration::from_millis(150);

/// Publishes the story, a few seconds long; answers the ids.
pub(super) async fn tell(publisher: &Publisher) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    for number in 0..ORDERS {
        let order = order(number);
        ids.push(publisher.publish("order.created", &order).await?);
        tokio::time::sleep(PACE).await;
        ids.push(publisher.publish("order.paid", &order).await?);
        tokio::time::sleep(PACE).await;
        if number == 1 {
            // Together, so that more than one is under way when the endpoint says that it is gone.
            let customers = [1, 2, 3].map(|n| ("customer.updated", customer(n)));
            ids.extend(publisher.publish_together(&customers).await?);
        }
        if number % 2 == 0 {
            ids.push(publisher.publish("invoice.sent", &invoice(number)).await?);
            tokio::time::sleep(PACE).await;
        }
        if number % 3 == 0 {
            ids.push(
                publisher
                    .publish("order.shipment.created", &shipment(number))
                    .await?,
            );
            tokio::time::sleep(PACE).await;
        }
    }
    Ok(ids)
}

/// An order, as JSON.
pub(super) fn order(number: u32) -> String {
    let mut rng = rand::rng();
    let (quantity, price) = (rng.random_range(1..5), rng.random_range(300..20_000));
    serde_json::json!({
        "order": format!("o-{:05}", 10_000 + number),
        "currency": "EUR",
        "amount": quantity * price,
        "lines": [{ "sku": format!("sku-{:03}", rng.random_range(1..400)), "quantity": quantity, "price": price }],
        "customer": { "id": format!("c-{:04}", rng.random_range(1..5000)), "country": "NL" },
    })
    .to_string()
}

fn invoice(number: u32) -> String {
    let amount = rand::rng().random_range(1_000..90_000);
    serde_json::json!({ "invoice": format!("i-{number:05}"), "amount": amount, "currency": "EUR", "due": "30 days" })
        .to_string()
}

fn customer(number: u32) -> String {
    serde_json::json!({ "customer": format!("c-{number:04}"), "email": format!("{number}@example.org"), "name": "Zoë Ångström" })
        .to_string()
}

fn shipment(number: u32) -> String {
    serde_json::json!({ "order": format!("o-{:05}", 10_000 + number), "carrier": "parcel", "weight_grams": 840 })
        .to_string()
}
