//! How a server is started decides where it is and what it may call.

use std::ops::ControlFlow;

use fanfare_tests::World;
use fanfare_tests::eventually;
use fanfare_tests::server::Options;
use fanfare_tests::sink::{Script, Sink};

#[tokio::test]
async fn both_addresses_are_logged() {
    let world = World::start().await;
    let addresses = world.server().addresses();
    let meant = [addresses.listen, addresses.admin_listen].map(|address| address.to_string());
    eventually("both addresses in the log", async || {
        let text = world.server().log().text();
        if meant.iter().all(|address| text.contains(address)) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(text)
        }
    })
    .await;
}

/// Each flag opens what the refusal before it names, and no more.
#[tokio::test]
async fn a_private_endpoint_is_delivered_to_once_the_named_flags_are_given() {
    let by_address: &[&[&str]] = &[&["--allow-egress", "127.0.0.1/32"], &["--allow-http"]];
    let by_name: &[&[&str]] = &[&["--allow-host", "localhost"], &["--allow-http"]];
    for (host, flags) in [("127.0.0.1", by_address), ("localhost", by_name)] {
        let mut world = World::with(without_dev).await;
        let sink = Sink::start(Script::ok()).await;
        let url = format!("http://{host}:{}/hook", sink.address().port());
        let create = ["endpoint", "create", &url, "--event-type", "**"];
        for flag in flags {
            let said = world.fanfare(&create).await;
            assert_eq!(said.code, 1, "{said:?}");
            assert!(said.err.contains(&flag.join(" ")), "{flag:?}: {said:?}");
            world.stop().await;
            let given = flag.iter().map(ToString::to_string);
            world.options().arguments.extend(given);
            world.restart().await;
        }
        world.fanfare(&create).await.ok();
        world.publish("order.paid", "{}").await;
        sink.receives(1).await;
    }
}

#[tokio::test]
async fn off_loopback_without_keys_if_that_is_said() {
    let world = World::with(|options| Options {
        listen: "0.0.0.0:0".parse().expect("an address"),
        ..options.with(&["--insecure-no-auth"])
    })
    .await;
    let url = format!(
        "http://127.0.0.1:{}",
        world.server().addresses().listen.port()
    );
    let publish = [
        "event",
        "publish",
        "order.paid",
        "--server",
        &url,
        "--data",
        "{}",
    ];
    world.fanfare(&publish).await.ok();
}

fn without_dev(options: Options) -> Options {
    Options {
        arguments: Vec::new(),
        ..options
    }
}
