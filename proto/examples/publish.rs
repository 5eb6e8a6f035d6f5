//! Publishes one event. `cargo run -p fanfare-proto --features client --example publish -- URL`

use fanfare_proto::client::{Client, event};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "http://127.0.0.1:7400".to_owned());
    let client = Client::builder(url).connect().await?;
    let mut order = event("order.paid", r#"{"amount":1250}"#);
    order.source = "/examples/rust".into();
    // Ok: it is durable. Err says whether it was refused or may have been published; it was
    // repeated safely as long as that could help, because the event has its id already.
    let id = client.publish(order).await?;
    println!("published {id}");
    Ok(())
}
